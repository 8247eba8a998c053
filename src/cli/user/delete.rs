//! `user delete`.

use clap::Args;
use serde_json::json;

use super::find;
use crate::cli::connection::Connection;
use crate::cli::failure::Outcome;
use crate::cli::output;
use crate::grpc::proto::admin::DeleteUserRequest;

/// Remove a user for good, and end every session of that user on every node before this command returns.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  latchkey user delete ada\n\n`latchkey user disable` can be undone; this cannot."
)]
pub(in crate::cli) struct Delete {
    /// Id or login name of the user.
    user: String,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

impl Delete {
    pub(in crate::cli) fn run(self) -> Outcome {
        self.connection.run(async move |server| {
            let user = find(&server, &self.user).await?;
            let request = DeleteUserRequest { user_id: user.user_id.clone() };
            let change = server.users().delete_user(request).await?.into_inner();
            if self.json {
                return output::print_json(&json!({
                    "user_id": user.user_id, "revoked_count": change.revoked_count, "position": change.position,
                }));
            }
            let ended = output::count(change.revoked_count, "session");
            output::print(&format!("{} is deleted; {ended} ended\n", output::printable(&user.login)))
        })
    }
}
