//! The command line: one file a command. All but `serve`, `demo`, `migrate`, `key`, `config` and `completions` talk to a
//! running server over gRPC, as any other client would.
//!
//! To add a command: 1. a file here with a struct of its arguments and a `run`; 2. a line in [`Command`] and one in
//! [`Command::run`]. Passwords and tokens are never arguments: see `secret.rs`.

mod completions;
mod config;
mod connection;
mod demo;
mod failure;
mod fleet;
mod healthcheck;
mod key;
mod migrate;
mod node;
mod output;
mod secret;
mod serve;
mod session;
mod settings;
mod token_keys;
mod user;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{ColorChoice, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use self::failure::Outcome;
use crate::telemetry::{self, log_writer};

const EXIT_CODES: &str = "\
Exit codes:
  0   done
  1   refused, or failed
  2   the command line is wrong
  69  the server or the database cannot be reached, or does not answer
  70  a defect of this program
  77  the server does not let this caller do that
  78  the configuration is wrong

Start with `latchkey demo`, or `latchkey serve` and, in another terminal, `latchkey user create ada`.";

/// A gRPC authentication service: signs people in, and tells for every request whether a session is still good.
#[derive(Debug, Parser)]
#[command(name = "latchkey", version, after_help = EXIT_CODES, max_term_width = 100, subcommand_required = true)]
struct Cli {
    /// Do not colour anything; the variable `NO_COLOR` says the same.
    #[arg(long, global = true)]
    no_color: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Demo(demo::Demo),
    #[command(subcommand)]
    Migrate(migrate::Command),
    #[command(subcommand)]
    User(user::Command),
    #[command(subcommand)]
    Session(session::Command),
    #[command(subcommand)]
    Fleet(fleet::Command),
    #[command(subcommand)]
    Key(key::Command),
    #[command(subcommand)]
    Config(config::Command),
    Healthcheck(healthcheck::Healthcheck),
    Completions(completions::Completions),
}

impl Command {
    fn run(self) -> Outcome {
        match self {
            Self::Serve(command) => command.run(),
            Self::Demo(command) => command.run(),
            Self::Migrate(command) => command.run(),
            Self::User(command) => command.run(),
            Self::Session(command) => command.run(),
            Self::Fleet(command) => command.run(),
            Self::Key(command) => command.run(),
            Self::Config(command) => command.run(),
            Self::Healthcheck(command) => command.run(),
            Self::Completions(command) => command.run(),
        }
    }
}

/// Asked before and beside parsing, so that mistakes in the arguments and log lines are without colour as well.
fn says_no_color() -> bool {
    std::env::args_os().any(|argument| argument == "--no-color")
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    telemetry::install_panic_hook();
    let _flush = log_writer::FlushOnDrop;
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let plain = says_no_color();
    let color = if plain { ColorChoice::Never } else { ColorChoice::Auto };
    let parsed = Cli::command().color(color).try_get_matches_from(arguments);
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            let code = error.exit_code();
            // Where stdout and stderr are closed there is nobody to tell.
            _ = error.print();
            return ExitCode::from(u8::try_from(code).unwrap_or(2));
        }
    };
    match cli.command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(plain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each command with its path.
    fn commands(command: &clap::Command, path: &str) -> Vec<(String, clap::Command)> {
        let below =
            command.get_subcommands().flat_map(|sub| commands(sub, &format!("{path} {}", sub.get_name())));
        let itself = std::iter::once((path.to_owned(), command.clone()));
        itself.chain(below.collect::<Vec<_>>()).collect()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does_and_shows_an_example() {
        for (path, command) in commands(&Cli::command(), "latchkey") {
            assert!(command.get_about().is_some(), "{path} has no description");
            let example = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let is_leaf = command.get_subcommands().next().is_none();
            assert!(!is_leaf || example.contains(&path), "{path} has no example: {example}");
        }
    }

    #[test]
    fn no_argument_takes_a_secret() {
        for (path, command) in commands(&Cli::command(), "latchkey") {
            for argument in command.get_arguments().filter(|argument| argument.get_action().takes_values()) {
                let name = argument.get_id().as_str();
                // The sections of the server's settings begin with their name.
                let secret = ["token", "api_key", "password"].contains(&name);
                assert!(!secret, "{path} takes {name} as an argument");
            }
        }
    }
}
