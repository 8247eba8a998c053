//! `completions`: what shells complete.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::failure::Outcome;
use super::{Cli, output};

/// Print completions for a shell.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  latchkey completions bash > /etc/bash_completion.d/latchkey")]
pub(super) struct Completions {
    /// Which shell.
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> Outcome {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "latchkey", &mut script);
        output::print(&String::from_utf8_lossy(&script))
    }
}
