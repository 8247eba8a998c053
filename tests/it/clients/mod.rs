//! Real clients against the real program: grpcurl, and the command line itself.

mod command_line;
mod damaged_schema;
mod demo;
mod file_descriptors;
mod grpcurl;
mod log_readers;
mod mounted_keys;
mod places;
mod refusals_to_start;
mod signals;
mod start_that_waits;

use std::process::Command;

use latchkey::grpc::proto::v1::auth_service_client::AuthServiceClient;
use tempfile::TempDir;
use tonic::transport::Endpoint;

use crate::support::node_process::{Ended, NodeProcess, program, run};
use crate::support::server::log_in_request;

const PASSWORD: &str = "correct horse battery staple";

/// A node of the program, and the folder that it lives in.
struct Place {
    folder: TempDir,
    node: NodeProcess,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let node = NodeProcess::start(folder.path(), &[]).unwrap_or_else(|ended| panic!("{ended:?}"));
        Self { folder, node }
    }

    /// A command that talks to the node.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(self.folder.path());
        command.args(arguments).env("LATCHKEY_SERVER", format!("http://{}", self.node.grpc));
        command
    }

    /// Runs a command that talks to the node.
    fn run(&self, arguments: &[&str], input: &str) -> Ended {
        run(self.command(arguments), input)
    }

    /// The same, of which nothing but success is expected; its JSON.
    #[track_caller]
    fn json(&self, arguments: &[&str], input: &str) -> serde_json::Value {
        let ended = self.run(arguments, input);
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}", ended.stdout))
    }

    /// Adds a user with [`PASSWORD`].
    fn add_user(&self, login: &str) -> serde_json::Value {
        self.json(&["user", "create", login, "--password-stdin", "--json"], PASSWORD)
    }

    /// Signs in, and gives the token.
    async fn log_in(&self, login: &str) -> String {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.node.grpc)).expect("an address");
        let mut auth = AuthServiceClient::new(endpoint.connect().await.expect("it serves"));
        let request = log_in_request(login, PASSWORD);
        auth.login(request).await.expect("the sign-in succeeds").into_inner().session_token
    }
}
