//! `fleet`: the nodes and their change log. Every command calls `latchkey.admin.v1.FleetService`.

mod forget_key;
mod new_log;
mod set_lease;
mod status;

use clap::Subcommand;

use super::failure::Outcome;

/// Show how the nodes stand, change their lease, mend the change log after a restore, and forget a lost token key.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    Status(status::Status),
    NewLog(new_log::NewLog),
    SetLease(set_lease::SetLease),
    ForgetKey(forget_key::ForgetKey),
}

impl Command {
    pub(in crate::cli) fn run(self) -> Outcome {
        match self {
            Self::Status(command) => command.run(),
            Self::NewLog(command) => command.run(),
            Self::SetLease(command) => command.run(),
            Self::ForgetKey(command) => command.run(),
        }
    }
}
