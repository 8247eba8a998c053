//! `session`: the signed-in devices. Every command calls `latchkey.v1.AuthService`.

mod list;
mod revoke;
mod validate;

use clap::Subcommand;

use super::failure::Outcome;

/// List, end and check sessions.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    List(list::List),
    Revoke(revoke::Revoke),
    Validate(validate::Validate),
}

impl Command {
    pub(in crate::cli) fn run(self) -> Outcome {
        match self {
            Self::List(command) => command.run(),
            Self::Revoke(command) => command.run(),
            Self::Validate(command) => command.run(),
        }
    }
}
