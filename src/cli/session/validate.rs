//! `session validate`.

use clap::Args;

use crate::cli::connection::Connection;
use crate::cli::failure::Outcome;
use crate::cli::{output, secret};
use crate::grpc::proto::v1::ValidateSessionRequest;

/// Say whether a session token is good, and whose it is; asks for the token. Exit code 0 means good.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  latchkey session validate --token-stdin < token.txt")]
pub(in crate::cli) struct Validate {
    /// Read the session token from stdin.
    #[arg(long)]
    token_stdin: bool,
    /// Refuse a session whose person proved who they are longer ago than this.
    #[arg(long, value_name = "SECONDS")]
    max_auth_age_s: Option<u32>,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

impl Validate {
    pub(in crate::cli) fn run(self) -> Outcome {
        let token = secret::read("Session token", self.token_stdin)?;
        self.connection.run(async move |server| {
            let request = ValidateSessionRequest {
                session_token: token.as_str().to_owned(),
                max_auth_age: self
                    .max_auth_age_s
                    .map(|seconds| prost_types::Duration { seconds: seconds.into(), nanos: 0 }),
                client: None,
            };
            let good = server.auth().validate_session(request).await?.into_inner();
            if self.json {
                return output::print_json(&output::good_json(&good));
            }
            output::print(&output::good_card(&good))
        })
    }
}
