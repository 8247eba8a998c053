//! `demo`: the whole story in one command. A node of this process on a temporary database, and a real gRPC client that
//! expects of each call exactly what is promised; any surprise ends it.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use clap::Args;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};
use tonic_types::StatusExt as _;

use super::failure::{Exit, Failure, Outcome, unreachable};
use super::node::Node;
use super::output;
use crate::config::{Config, HttpListen};
use crate::database_url::DatabaseUrl;
use crate::grpc::proto::admin::CreateUserRequest;
use crate::grpc::proto::admin::user_service_client::UserServiceClient;
use crate::grpc::proto::v1::auth_service_client::AuthServiceClient;
use crate::grpc::proto::v1::change_password_request::Who;
use crate::grpc::proto::v1::load_user_request::By;
use crate::grpc::proto::v1::revoke_sessions_request::Target;
use crate::grpc::proto::v1::{
    ChangePasswordRequest, Client, LoadUserRequest, LoginRequest, RevokeSessionsRequest,
    ValidateSessionRequest,
};
use crate::host::{Clock as _, SystemClock, SystemEntropy, random};
use crate::server::Drained;

const LOGIN: &str = "ada";
const PASSWORD: &str = "correct horse battery staple";
const NEW_PASSWORD: &str = "a password that nobody has seen";

const NEXT: &str = "
Everything came out as promised. Next, with a server of your own:
  latchkey serve
and in another terminal
  latchkey user create ada
  grpcurl -plaintext -d '{\"login\":\"ada\",\"password\":\"...\"}' 127.0.0.1:50051 latchkey.v1.AuthService/Login
";

/// Show what the service does: sign in twice, change the password, see the other session die, survive a restart.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  latchkey demo\n\nNothing is left behind. The exit code is 0 only if every call came \
    out as promised."
)]
pub(super) struct Demo {}

impl Demo {
    #[expect(clippy::unused_self, reason = "every command runs with its arguments; this one has none")]
    pub(super) fn run(self) -> Outcome {
        let folder = TemporaryFolder::new()?;
        let config = Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            http_listen: HttpListen::Off,
            database_url: DatabaseUrl::of_sqlite_file(&folder.0.join("demo.db")),
            ..quick()
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        // Interrupted, it still clears up after itself.
        runtime.block_on(async {
            tokio::select! {
                outcome = tell(&config) => outcome,
                _ = tokio::signal::ctrl_c() => Err(Failure::new(Exit::Refused, "interrupted")),
            }
        })
    }
}

async fn tell(config: &Config) -> Outcome {
    output::print(&format!("latchkey {}: a node on a temporary database\n\n", env!("CARGO_PKG_VERSION")))?;
    let tokens = with_node(config, first_life).await?;
    output::print("\nthe node stops, and starts again on the same database\n\n")?;
    with_node(config, async |story| second_life(story, &tokens).await).await?;
    output::print(NEXT)
}

/// Nobody balances load to this node, so its end need not be announced.
fn quick() -> Config {
    let mut config = Config::default();
    config.shutdown.lame_duck_ms = 0;
    config
}

/// The tokens that the story goes on with after the restart.
struct Tokens {
    laptop: String,
    tablet: String,
}

async fn first_life(mut story: Story) -> Result<Tokens, Failure> {
    story.create_user().await?;
    let old_laptop = story.log_in("laptop").await?;
    let phone = story.log_in("phone").await?;
    story.is_good("the laptop asks for a page", &old_laptop).await?;
    story.is_good("the phone asks for a page", &phone).await?;
    story.load_user(&old_laptop).await?;
    let laptop = story.change_password(&old_laptop).await?;
    story.is_dead("the phone asks for a page", &phone, "CREDENTIALS_CHANGED").await?;
    story.is_good("the laptop goes on with its new token", &laptop).await?;
    let tablet = story.log_in_again("tablet").await?;
    story.log_out(&tablet).await?;
    story.is_dead("the tablet asks for a page", &tablet, "SESSION_REVOKED").await?;
    Ok(Tokens { laptop, tablet })
}

async fn second_life(mut story: Story, tokens: &Tokens) -> Outcome {
    story.is_good("the laptop is still signed in", &tokens.laptop).await?;
    story.is_dead("the tablet is still signed out", &tokens.tablet, "SESSION_REVOKED").await
}

/// Runs a node for as long as its part of the story takes.
async fn with_node<T>(
    config: &Config,
    part: impl AsyncFnOnce(Story) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let (shutdown, abort) = (CancellationToken::new(), CancellationToken::new());
    let node =
        Node::start(config, &shutdown).await?.ok_or_else(|| surprise("the node", "it did not start"))?;
    let address = node.server.grpc_address();
    let told = async {
        let told = match Story::begin(address).await {
            Ok(story) => part(story).await,
            Err(failure) => Err(failure),
        };
        shutdown.cancel();
        told
    };
    let (drained, told) = tokio::join!(node.run(shutdown.clone(), abort), told);
    match (told, drained) {
        (Ok(_), Drained::CutOff | Drained::Failed(_)) => {
            Err(surprise("the node", "calls were cut off when it stopped"))
        }
        (told, _) => told,
    }
}

fn surprise(what: &str, came: &str) -> Failure {
    Failure::new(Exit::Refused, format!("{what}: {came}"))
        .hint("this is a defect of latchkey: please report it")
}

/// A client that tells each call in one line.
struct Story {
    auth: AuthServiceClient<Channel>,
    users: UserServiceClient<Channel>,
}

impl Story {
    async fn begin(address: SocketAddr) -> Result<Self, Failure> {
        let url = format!("http://{address}");
        let endpoint = Endpoint::from_shared(url.clone()).map_err(|error| unreachable(&url, &error))?;
        let channel = endpoint.connect().await.map_err(|error| unreachable(&url, &error))?;
        Ok(Self { auth: AuthServiceClient::new(channel.clone()), users: UserServiceClient::new(channel) })
    }

    async fn create_user(&mut self) -> Outcome {
        let request = CreateUserRequest {
            login: LOGIN.to_owned(),
            password: PASSWORD.to_owned(),
            display_name: "Ada Lovelace".to_owned(),
            roles: vec!["admin".to_owned()],
            ..CreateUserRequest::default()
        };
        let call = Call::new("Ada gets an account", "CreateUser");
        call.tell(self.users.create_user(request).await, |_| "created".to_owned()).map(|_| ())
    }

    async fn log_in(&mut self, device: &str) -> Result<String, Failure> {
        self.log_in_with(device, PASSWORD).await
    }

    async fn log_in_again(&mut self, device: &str) -> Result<String, Failure> {
        self.log_in_with(device, NEW_PASSWORD).await
    }

    async fn log_in_with(&mut self, device: &str, password: &str) -> Result<String, Failure> {
        let client = Client { device_name: device.to_owned(), ..Client::default() };
        let request = LoginRequest {
            login: LOGIN.to_owned(),
            password: password.to_owned(),
            client: Some(client),
            ..LoginRequest::default()
        };
        let call = Call::new(&format!("she signs in on her {device}"), "Login");
        let answer = call.tell(self.auth.login(request).await, |_| "a session token".to_owned())?;
        Ok(answer.session_token)
    }

    async fn load_user(&mut self, token: &str) -> Outcome {
        let request = LoadUserRequest { by: Some(By::SessionToken(token.to_owned())) };
        let call = Call::new("whose session is it?", "LoadUser");
        let name = |answer: &crate::grpc::proto::v1::LoadUserResponse| {
            answer.user.as_ref().map_or_else(String::new, |user| user.display_name.clone())
        };
        let answer = call.tell(self.auth.load_user(request).await, name)?;
        if name(&answer) == "Ada Lovelace" { Ok(()) } else { Err(surprise("LoadUser", "another user came")) }
    }

    async fn change_password(&mut self, token: &str) -> Result<String, Failure> {
        let request = ChangePasswordRequest {
            who: Some(Who::SessionToken(token.to_owned())),
            current_password: PASSWORD.to_owned(),
            new_password: NEW_PASSWORD.to_owned(),
            client: None,
        };
        let call = Call::new("she changes the password", "ChangePassword");
        let ended = |answer: &crate::grpc::proto::v1::ChangePasswordResponse| {
            format!("a new token; {} ended", output::count(answer.revoked_count, "session"))
        };
        let answer = call.tell(self.auth.change_password(request).await, ended)?;
        Ok(answer.session_token)
    }

    async fn log_out(&mut self, token: &str) -> Outcome {
        let request = RevokeSessionsRequest { target: Some(Target::SessionToken(token.to_owned())) };
        let call = Call::new("she signs out of the tablet", "RevokeSessions");
        let answer = call.tell(self.auth.revoke_sessions(request).await, |answer| {
            format!("{} ended", output::count(answer.revoked_count, "session"))
        })?;
        if answer.revoked_count == 1 {
            Ok(())
        } else {
            Err(surprise("RevokeSessions", "not one session ended"))
        }
    }

    async fn is_good(&mut self, what: &str, token: &str) -> Outcome {
        let call = Call::new(what, "ValidateSession");
        let good = call.tell(self.auth.validate_session(question(token)).await, |good| {
            format!("good: {}", good.login)
        })?;
        if good.login == LOGIN {
            Ok(())
        } else {
            Err(surprise("ValidateSession", "it is good for somebody else"))
        }
    }

    async fn is_dead(&mut self, what: &str, token: &str, reason: &str) -> Outcome {
        let call = Call::new(what, "ValidateSession");
        match self.auth.validate_session(question(token)).await {
            Ok(_) => Err(surprise("ValidateSession", "a session that was ended is good")),
            Err(status) => {
                let told = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
                call.print(&format!("refused: {told}"))?;
                if told == reason {
                    Ok(())
                } else {
                    Err(surprise("ValidateSession", &format!("expected {reason}")))
                }
            }
        }
    }
}

fn question(token: &str) -> ValidateSessionRequest {
    ValidateSessionRequest { session_token: token.to_owned(), client: None, max_auth_age: None }
}

/// One call, from the moment it is made.
struct Call {
    what: String,
    rpc: &'static str,
    begin: crate::domain::time::BootTime,
}

impl Call {
    fn new(what: &str, rpc: &'static str) -> Self {
        Self { what: what.to_owned(), rpc, begin: SystemClock.boottime() }
    }

    /// Tells how it went; a refusal is a surprise.
    fn tell<T>(self, answer: Result<Response<T>, Status>, said: impl Fn(&T) -> String) -> Result<T, Failure> {
        match answer {
            Ok(answer) => {
                let answer = answer.into_inner();
                self.print(&said(&answer))?;
                Ok(answer)
            }
            Err(status) => Err(Failure::from(status).while_doing(self.rpc)),
        }
    }

    fn print(&self, came: &str) -> Outcome {
        let micros = SystemClock.boottime().since(self.begin).as_micros();
        let (millis, rest) = (micros / 1_000, micros % 1_000 / 100);
        let time = if millis > 0 { format!("{millis}.{rest} ms") } else { format!("{micros} µs") };
        output::print(&format!("  {:<40}{:<18}{came:<34}{time:>10}\n", self.what, self.rpc))
    }
}

/// A folder of this demo alone, which goes away with it.
struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    fn new() -> Result<Self, Failure> {
        let number = u64::from_be_bytes(random(&SystemEntropy));
        let path = std::env::temp_dir().join(format!("latchkey-demo-{number:016x}"));
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(|error| {
            Failure::new(Exit::Refused, format!("cannot make {}: {error}", path.display()))
        })?;
        Ok(Self(path))
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // What cannot be removed is left to the system, which clears this place.
        _ = fs::remove_dir_all(&self.0);
    }
}
