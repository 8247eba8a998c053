//! `user disable` and `user enable`.

use clap::Args;
use prost_types::FieldMask;
use serde_json::json;

use super::find;
use crate::cli::connection::Connection;
use crate::cli::failure::Outcome;
use crate::cli::output;
use crate::grpc::proto::admin::UpdateUserRequest;
use crate::grpc::proto::v1::{User, UserState};

/// Disable a user, and end every session of that user on every node before this command returns.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  latchkey user disable ada")]
pub(in crate::cli) struct Disable {
    #[command(flatten)]
    change: Change,
}

/// Let a disabled user sign in again; sessions that ended stay ended.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  latchkey user enable ada")]
pub(in crate::cli) struct Enable {
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, Args)]
struct Change {
    /// Id or login name of the user.
    user: String,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

impl Disable {
    pub(in crate::cli) fn run(self) -> Outcome {
        self.change.run(UserState::Disabled)
    }
}

impl Enable {
    pub(in crate::cli) fn run(self) -> Outcome {
        self.change.run(UserState::Active)
    }
}

impl Change {
    fn run(self, state: UserState) -> Outcome {
        self.connection.run(async move |server| {
            let user_id = find(&server, &self.user).await?.user_id;
            let request = UpdateUserRequest {
                user: Some(User { user_id, state: state.into(), ..User::default() }),
                update_mask: Some(FieldMask { paths: vec!["state".to_owned()] }),
            };
            let change = server.users().update_user(request).await?.into_inner();
            let user = change.user.unwrap_or_default();
            if self.json {
                return output::print_json(&json!({
                    "user": output::user_json(&user),
                    "revoked_count": change.revoked_count,
                    "position": change.position,
                }));
            }
            let said = match state {
                UserState::Disabled => {
                    format!("disabled; {} ended", output::count(change.revoked_count, "session"))
                }
                UserState::Active | UserState::Unspecified => "enabled".to_owned(),
            };
            output::print(&format!("{} is {said}\n", output::printable(&user.login)))
        })
    }
}
