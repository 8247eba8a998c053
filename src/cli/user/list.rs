//! `user list`.

use clap::Args;
use serde_json::{Value, json};

use crate::cli::connection::Connection;
use crate::cli::failure::Outcome;
use crate::cli::output;
use crate::grpc::proto::admin::ListUsersRequest;
use crate::grpc::proto::v1;

/// Small enough that a page of the largest users fits a message.
const PAGE_SIZE: i32 = 200;

/// List all users in the order of their ids.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  latchkey user list\n  latchkey user list --json | jq -r '.users[].login'"
)]
pub(in crate::cli) struct List {
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

impl List {
    pub(in crate::cli) fn run(self) -> Outcome {
        self.connection.run(async move |server| {
            let mut users: Vec<v1::User> = Vec::new();
            let mut request = ListUsersRequest { page_size: PAGE_SIZE, page_token: String::new() };
            loop {
                let page = server.users().list_users(request.clone()).await?.into_inner();
                users.extend(page.users);
                if page.next_page_token.is_empty() {
                    break;
                }
                request.page_token = page.next_page_token;
            }
            if self.json {
                let users: Vec<Value> = users.iter().map(output::user_json).collect();
                return output::print_json(&json!({ "users": users }));
            }
            output::print(&output::user_table(&users))
        })
    }
}
