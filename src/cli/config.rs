//! `config`: what can be set, what is set, and whether it holds.

use clap::{Args, Subcommand};

use super::failure::Outcome;
use super::output;
use super::settings::Settings;
use crate::config;

/// Show, try or start a configuration.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print what a server with this configuration runs with, and where each value comes from; without secrets.
    #[command(after_help = "Example:\n  latchkey config print --config latchkey.toml")]
    Print(Print),
    /// Say whether a configuration holds; exit code 78 if not.
    #[command(
        after_help = "Example:\n  LATCHKEY_LISTEN=0.0.0.0:50051 latchkey config check --config latchkey.toml"
    )]
    Check(Check),
    /// Print a configuration file with every setting, its description and its default.
    #[command(after_help = "Example:\n  latchkey config template > latchkey.toml")]
    Template,
}

/// Arguments of `config print`.
#[derive(Debug, Args)]
pub(super) struct Print {
    #[command(flatten)]
    settings: Settings,
}

/// Arguments of `config check`.
#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    settings: Settings,
}

impl Command {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::Print(arguments) => output::print(&config::print(&arguments.settings.load()?.settings)),
            Self::Check(arguments) => {
                arguments.settings.load()?;
                output::print("the configuration holds\n")
            }
            Self::Template => output::print(&config::template()),
        }
    }
}
