//! The server under test: the program as it ships, on its embedded default, with one user who is signed in.

use std::time::Duration;

use prost::Message;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::Failure;
use crate::contract::{self, MadeSession, MadeUser, NewSession, NewUser, Question, Whole};
use crate::process::Server;

/// The server, and what to ask it.
pub struct Latchkey {
    /// Its process.
    pub server: Server,
    /// Where it serves gRPC.
    pub grpc: String,
    http: String,
    /// A good token.
    pub token: String,
    /// How long its answer to a question about it is, encoded.
    pub answer_len: usize,
    _home: TempDir,
}

/// Starts it on a fresh database and signs somebody in. Attempts to sign in are not limited.
pub async fn start(program: &str) -> Result<Latchkey, Failure> {
    let home = tempfile::tempdir()?;
    let path = |name: &str| home.path().join(name).display().to_string();
    crate::process::run_client(program, &["key", "new", &path("token.key")])?;
    let database = format!("sqlite://{}?mode=rwc", path("latchkey.db"));
    let server = Server::start(
        program,
        &["serve"],
        &[
            ("LATCHKEY_LISTEN", "127.0.0.1:0"),
            ("LATCHKEY_HTTP_LISTEN", "127.0.0.1:0"),
            ("LATCHKEY_DATABASE_URL", &database),
            ("LATCHKEY_TOKEN_KEY_FILE", &path("token.key")),
            ("LATCHKEY_THROTTLE_ENABLED", "false"),
            ("RUST_LOG", "warn"),
        ],
    )?;
    let (grpc, http) = (place(&server, "grpc")?, place(&server, "http")?);
    let channel = channel(&grpc).await?;
    let request = NewUser {
        login: "ada@example.com".to_owned(),
        display_name: "Ada".to_owned(),
        roles: vec!["admin".to_owned(), "billing:read".to_owned()],
    };
    let made: MadeUser = contract::call(&channel, contract::CREATE_USER, request).await?;
    let user_id = made.user.ok_or("a user")?.user_id;
    let request = NewSession { user_id, methods: vec!["sso".to_owned()] };
    let made: MadeSession = contract::call(&channel, contract::CREATE_SESSION, request).await?;
    let token = made.session_token;
    let answer: Whole = contract::call(&channel, contract::VALIDATE_SESSION, question(&token)).await?;
    Ok(Latchkey { server, grpc, http, token, answer_len: answer.encoded_len(), _home: home })
}

/// Where it serves what, by its first line.
pub fn place(server: &Server, name: &str) -> Result<String, Failure> {
    let mut words = server.first_line.split_whitespace();
    let found = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    Ok(found.ok_or_else(|| format!("it does not say where {name} is served"))?.to_owned())
}

/// A connection to `address`.
pub async fn channel(address: &str) -> Result<Channel, Failure> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint.connect_timeout(Duration::from_secs(5)).connect().await?)
}

/// What is asked about a token.
pub fn question(token: &str) -> Question {
    Question { session_token: token.to_owned() }
}

impl Latchkey {
    /// All metrics, as of now.
    pub fn metrics(&self) -> Result<Metrics, Failure> {
        let url = format!("http://{}/metrics", self.http);
        Ok(Metrics(crate::process::run_client("curl", &["-sf", &url])?))
    }
}

/// The metrics of one moment.
pub struct Metrics(String);

impl Metrics {
    /// The sum of the samples whose name and labels begin with `name` and hold `label`.
    pub fn sum(&self, name: &str, label: &str) -> f64 {
        let samples = self.0.lines().filter(|line| line.starts_with(name) && line.contains(label));
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}
