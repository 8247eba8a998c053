//! `user set-password`.

use clap::Args;
use serde_json::json;

use super::find;
use crate::cli::connection::Connection;
use crate::cli::failure::Outcome;
use crate::cli::{output, secret};
use crate::grpc::proto::admin::SetPasswordRequest;

/// Set the password of a user, whatever it was, and end every session of that user; asks for the password.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  latchkey user set-password ada\n  \
    pass show ada | latchkey user set-password ada --password-stdin")]
pub(in crate::cli) struct SetPassword {
    /// Id or login name of the user.
    user: String,
    /// Read the password from stdin.
    #[arg(long)]
    password_stdin: bool,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

impl SetPassword {
    pub(in crate::cli) fn run(self) -> Outcome {
        let password = secret::read_new("Password", self.password_stdin)?;
        self.connection.run(async move |server| {
            let user_id = find(&server, &self.user).await?.user_id;
            let request =
                SetPasswordRequest { user_id: user_id.clone(), password: password.as_str().to_owned() };
            let change = server.users().set_password(request).await?.into_inner();
            if self.json {
                return output::print_json(&json!({
                    "user_id": user_id, "revoked_count": change.revoked_count, "position": change.position,
                }));
            }
            let ended = output::count(change.revoked_count, "session");
            output::print(&format!("the password is set; {ended} ended\n"))
        })
    }
}
