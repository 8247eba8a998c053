//! `fleet forget-key`.

use clap::Args;
use serde_json::json;

use crate::cli::connection::Connection;
use crate::cli::failure::Outcome;
use crate::cli::output;
use crate::grpc::proto::admin::ForgetTokenKeyRequest;

/// Forget a token key that no node has any more; people with its tokens are asked to sign in.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  latchkey fleet forget-key 1\n\n\
    A token of a key that the database knows and a node does not have is refused with LEASE_LOST, since another node may \
    have the key. Once the key is forgotten it is refused with SESSION_TOKEN_INVALID. Use it for a key that was stolen or \
    lost, when no node has it any more (latchkey key remove, and a restart of every node). Repeating is safe.")]
pub(in crate::cli) struct ForgetKey {
    /// The number of the key.
    #[arg(value_name = "NUMBER")]
    number: u8,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

impl ForgetKey {
    pub(in crate::cli) fn run(self) -> Outcome {
        self.connection.run(async move |server| {
            let request = ForgetTokenKeyRequest { key_id: self.number.into() };
            let position = server.fleet().forget_token_key(request).await?.into_inner().position;
            if self.json {
                return output::print_json(&json!({ "position": position }));
            }
            output::print(&match position {
                0 => format!("the database does not know key {}\n", self.number),
                position => format!("key {} is forgotten on every node (position {position})\n", self.number),
            })
        })
    }
}
