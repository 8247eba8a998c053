//! `session list`.

use clap::Args;
use serde_json::{Value, json};

use crate::cli::connection::Connection;
use crate::cli::failure::Outcome;
use crate::cli::{output, user};
use crate::grpc::proto::v1::{ListSessionsRequest, Session};

/// Small enough that a page of the largest sessions fits a message.
const PAGE_SIZE: i32 = 200;

/// List the standing sessions of a user, newest first.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  latchkey session list ada")]
pub(in crate::cli) struct List {
    /// Id or login name of the user.
    user: String,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

impl List {
    pub(in crate::cli) fn run(self) -> Outcome {
        self.connection.run(async move |server| {
            let user_id = user::find(&server, &self.user).await?.user_id;
            let mut sessions: Vec<Session> = Vec::new();
            let mut request =
                ListSessionsRequest { user_id, page_size: PAGE_SIZE, page_token: String::new() };
            loop {
                let page = server.auth().list_sessions(request.clone()).await?.into_inner();
                sessions.extend(page.sessions);
                if page.next_page_token.is_empty() {
                    break;
                }
                request.page_token = page.next_page_token;
            }
            if self.json {
                let sessions: Vec<Value> = sessions.iter().map(output::session_json).collect();
                return output::print_json(&json!({ "sessions": sessions }));
            }
            output::print(&output::session_table(&sessions))
        })
    }
}
