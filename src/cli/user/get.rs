//! `user get`.

use clap::Args;
use serde_json::json;

use super::find;
use crate::cli::connection::Connection;
use crate::cli::failure::Outcome;
use crate::cli::output;

/// Show a user.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  latchkey user get ada")]
pub(in crate::cli) struct Get {
    /// Id or login name of the user.
    user: String,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

impl Get {
    pub(in crate::cli) fn run(self) -> Outcome {
        self.connection.run(async move |server| {
            let user = find(&server, &self.user).await?;
            if self.json {
                output::print_json(&json!({ "user": output::user_json(&user) }))
            } else {
                output::print(&output::user_card(&user))
            }
        })
    }
}
