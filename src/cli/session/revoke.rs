//! `session revoke`.

use clap::Args;
use serde_json::json;

use crate::cli::connection::{Connection, Server};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::{output, secret, user};
use crate::grpc::proto::v1::revoke_sessions_request::Target;
use crate::grpc::proto::v1::{Everyone, RevokeSessionsRequest, UserSessions};

/// End sessions; when this command returns, no node accepts them any more.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  latchkey session revoke --session 01937b7e-9c1a-7c3e-8f00-2b6f3a1d9e55\n  \
    latchkey session revoke --user ada\n  latchkey session revoke --everyone --yes\n\n\
    What is over already, or never was, counts 0 and is no failure. Repeating is safe."
)]
pub(in crate::cli) struct Revoke {
    #[command(flatten)]
    which: Which,
    /// With --user: a session of that user that goes on.
    #[arg(long, value_name = "ID", conflicts_with_all = ["ask_token", "token_stdin", "session", "everyone"])]
    except: Option<String>,
    /// With --everyone: yes, everyone.
    #[arg(long, conflicts_with_all = ["ask_token", "token_stdin", "session", "user"])]
    yes: bool,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The session of a token, which is asked for.
    #[arg(long)]
    ask_token: bool,
    /// The session of a token, which is read from stdin.
    #[arg(long)]
    token_stdin: bool,
    /// The session of this id.
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Every session of this user, given by id or login name.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Every session of every user.
    #[arg(long, requires = "yes")]
    everyone: bool,
}

impl Revoke {
    pub(in crate::cli) fn run(self) -> Outcome {
        let token = match &self.which {
            which if which.ask_token || which.token_stdin => {
                Some(secret::read("Session token", which.token_stdin)?)
            }
            _ => None,
        };
        self.connection.run(async move |server| {
            let target = match (token, self.which.session) {
                (Some(token), _) => Target::SessionToken(token.as_str().to_owned()),
                (None, Some(session_id)) => Target::SessionId(session_id),
                (None, None) => of_user(&server, self.which.user, self.except).await?,
            };
            let request = RevokeSessionsRequest { target: Some(target) };
            let change = server.auth().revoke_sessions(request).await?.into_inner();
            if self.json {
                return output::print_json(&json!({
                    "revoked_count": change.revoked_count, "position": change.position,
                }));
            }
            let ended = output::count(change.revoked_count, "session");
            output::print(&format!("{ended} ended (position {} of the change log)\n", change.position))
        })
    }
}

async fn of_user(server: &Server, user: Option<String>, except: Option<String>) -> Result<Target, Failure> {
    let Some(user) = user else { return Ok(Target::Everyone(Everyone {})) };
    let user_id = user::find(server, &user).await?.user_id;
    Ok(Target::User(UserSessions { user_id, except_session_id: except.unwrap_or_default() }))
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Revoke, clap::Error> {
        let command = Revoke::augment_args(clap::Command::new("revoke"));
        let arguments = std::iter::once("revoke").chain(arguments.iter().copied());
        Revoke::from_arg_matches(&command.try_get_matches_from(arguments)?)
    }

    #[test]
    fn exactly_one_target_is_named() {
        for good in [
            ["--session", "x"].as_slice(),
            &["--token-stdin"],
            &["--user", "ada", "--except", "x"],
            &["--everyone", "--yes"],
        ] {
            assert!(parse(good).is_ok(), "{good:?}");
        }
        for bad in [
            [].as_slice(),
            &["--everyone"],
            &["--yes"],
            &["--except", "x"],
            &["--yes", "--user", "ada"],
            &["--session", "x", "--user", "ada"],
            &["--session", "x", "--except", "x"],
            &["--token", "x"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
