//! How the client commands reach a server: address, API key, time-out, and the clients over one connection.

use std::fs;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::{StringValueParser, TypedValueParser as _};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_health::pb::health_client::HealthClient;
use zeroize::Zeroizing;

use super::failure::{Exit, Failure, Outcome, unreachable};
use crate::grpc::proto::admin::fleet_service_client::FleetServiceClient;
use crate::grpc::proto::admin::user_service_client::UserServiceClient;
use crate::grpc::proto::v1::auth_service_client::AuthServiceClient;

/// The variable that holds the key itself, where there is no file.
const API_KEY: &str = "LATCHKEY_API_KEY";

/// Which server, and as whom.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct Connection {
    /// Where the server is.
    #[arg(long, value_name = "URL", env = "LATCHKEY_SERVER", default_value = "http://127.0.0.1:50051")]
    server: String,
    /// File with the API key of this caller, where the server asks for one; or the variable `LATCHKEY_API_KEY`.
    #[arg(long, value_name = "FILE", env = "LATCHKEY_API_KEY_FILE", 
          value_parser = StringValueParser::new().map(|file| PathBuf::from(file.trim())))]
    api_key_file: Option<PathBuf>,
    /// Seconds that each call may take.
    #[arg(long, alias = "timeout", value_name = "SECONDS", env = "LATCHKEY_TIMEOUT_S", default_value_t = 10,
          value_parser = seconds)]
    timeout_s: u64,
}

impl Connection {
    /// Connects, and runs `work` to its end.
    pub(super) fn run<F: Future<Output = Outcome>>(self, work: impl FnOnce(Server) -> F) -> Outcome {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { work(self.connect().await?).await })
    }

    async fn connect(&self) -> Result<Server, Failure> {
        let timeout = Duration::from_secs(self.timeout_s);
        let channel = endpoint(&self.server)?
            .connect_timeout(timeout)
            .connect()
            .await
            .map_err(|error| unreachable(&self.server, &error))?;
        let key = self.api_key()?.map(|key| bearer(&key)).transpose()?;
        Ok(Server { wire: InterceptedService::new(channel, Introduction { key, timeout }) })
    }

    fn api_key(&self) -> Result<Option<Zeroizing<String>>, Failure> {
        let key = match &self.api_key_file {
            Some(file) => fs::read_to_string(file).map_err(|error| {
                Failure::new(Exit::Refused, format!("cannot read {}: {error}", file.display()))
            })?,
            None => match std::env::var(API_KEY) {
                Ok(key) => key,
                Err(_) => return Ok(None),
            },
        };
        let key = Zeroizing::new(key);
        let trimmed = key.trim();
        Ok((!trimmed.is_empty()).then(|| Zeroizing::new(trimmed.to_owned())))
    }
}

/// Reads a number of seconds. A variable may end in a line end.
fn seconds(text: &str) -> Result<u64, String> {
    let seconds = text.trim().parse().ok().filter(|seconds| (1..=3_600).contains(seconds));
    seconds.ok_or_else(|| "must be a whole number from 1 to 3600".to_owned())
}

/// Reads an address: a URL, or host and port alone.
fn endpoint(server: &str) -> Result<Endpoint, Failure> {
    let refuse = || {
        Failure::new(Exit::Refused, "the server must be given as http://HOST:PORT")
            .hint("TLS ends in front of the server; this command talks plaintext")
    };
    // A variable may end in a line end.
    let server = server.trim();
    let url = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
    if !url.starts_with("http://") {
        return Err(refuse());
    }
    Endpoint::from_shared(url).map_err(|_| refuse())
}

fn bearer(key: &str) -> Result<MetadataValue<Ascii>, Failure> {
    let mut value: MetadataValue<Ascii> = format!("Bearer {key}")
        .parse()
        .map_err(|_| Failure::new(Exit::Refused, "the API key is not one line of printable ASCII"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Says in every call who is calling, and how long there is for it.
#[derive(Clone)]
pub(super) struct Introduction {
    key: Option<MetadataValue<Ascii>>,
    timeout: Duration,
}

impl Interceptor for Introduction {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(key) = &self.key {
            request.metadata_mut().insert("authorization", key.clone());
        }
        request.set_timeout(self.timeout);
        Ok(request)
    }
}

/// What the clients talk over.
pub(super) type Wire = InterceptedService<Channel, Introduction>;

/// A server that answered.
pub(super) struct Server {
    wire: Wire,
}

impl Server {
    /// What applications call.
    pub(super) fn auth(&self) -> AuthServiceClient<Wire> {
        AuthServiceClient::new(self.wire.clone())
    }

    /// The management of users.
    pub(super) fn users(&self) -> UserServiceClient<Wire> {
        UserServiceClient::new(self.wire.clone())
    }

    /// The nodes and their change log.
    pub(super) fn fleet(&self) -> FleetServiceClient<Wire> {
        FleetServiceClient::new(self.wire.clone())
    }

    /// The health of the server.
    pub(super) fn health(&self) -> HealthClient<Wire> {
        HealthClient::new(self.wire.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_plaintext_url_or_host_and_port() {
        let uri = |server| endpoint(server).map(|endpoint| endpoint.uri().to_string()).ok();
        assert_eq!(uri("http://127.0.0.1:50051").as_deref(), Some("http://127.0.0.1:50051/"));
        assert_eq!(uri("localhost:1").as_deref(), Some("http://localhost:1/"));
        assert_eq!(uri("http://localhost:1\r\n").as_deref(), Some("http://localhost:1/"));
        assert_eq!((seconds("10\n"), seconds("0").is_err(), seconds("3601").is_err()), (Ok(10), true, true));
        for bad in ["https://localhost:1", "unix:///x", "http://", "http://a b"] {
            assert_eq!(uri(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_key_travels_as_a_bearer_token_and_is_not_logged() {
        let mut introduction =
            Introduction { key: Some(bearer("marker").expect("a key")), timeout: Duration::from_secs(3) };
        let request = introduction.call(Request::new(())).expect("passed on");
        assert_eq!(request.metadata().get("authorization").expect("a key").as_bytes(), b"Bearer marker");
        assert!(request.metadata().contains_key("grpc-timeout"));
        assert!(!format!("{request:?}").contains("marker"));
        assert!(bearer("a\nb").is_err());
    }
}
