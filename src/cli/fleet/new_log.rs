//! `fleet new-log`.

use clap::Args;
use serde_json::json;

use crate::cli::connection::Connection;
use crate::cli::failure::Outcome;
use crate::cli::output;
use crate::grpc::proto::admin::StartNewLogRequest;

/// Begin the change log anew after the database was restored from a backup; ends everyone's sessions.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  latchkey fleet new-log --yes\n\n\
    What was ended since the backup would be good again after a restore: this ends everything. Everyone signs in again. \
    When the command returns, no node accepts a session from before. Repeating is safe.")]
pub(in crate::cli) struct NewLog {
    /// Yes, end everyone's sessions.
    #[arg(long, required = true)]
    yes: bool,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

impl NewLog {
    pub(in crate::cli) fn run(self) -> Outcome {
        self.connection.run(async move |server| {
            let begun = server.fleet().start_new_log(StartNewLogRequest {}).await?.into_inner();
            if self.json {
                return output::print_json(&json!({ "log_id": begun.log_id, "position": begun.position }));
            }
            output::print(&format!(
                "the change log is {} now, and everyone's sessions ended (position {})\n",
                begun.log_id, begun.position
            ))
        })
    }
}
