//! `key`: the file with the keys that sign session tokens.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::failure::Outcome;
use super::output;
use crate::domain::token::{KeyId, KeyRing};
use crate::host::SystemEntropy;
use crate::key_file;

/// Make or change the file with the keys that sign session tokens.
#[derive(Debug, Subcommand)]
#[command(after_help = "To rotate, so that at no moment a node meets a token that it does not know:\n  \
    1. latchkey key add FILE             give the file to every node and restart them, one after the other\n  \
    2. latchkey key promote FILE NUMBER  give the file to every node and restart them again\n  \
    3. latchkey key remove FILE NUMBER   when every session of the old key is over")]
pub(super) enum Command {
    /// Make a key file with one new key; a file that exists is left alone.
    #[command(after_help = "Examples:\n  latchkey key new /etc/latchkey/token.key\n  \
        latchkey key new /etc/latchkey/token.key --number 2\n\n\
        Give the file to every node of one database, with token_key_file or LATCHKEY_TOKEN_KEY_FILE.\n\
        A database remembers which key had which number. Where a key is lost, make one under a number that was never\n\
        used with this database; the sessions of the lost one are over.")]
    New(NewKey),
    /// Add a key that verifies and does not sign yet: the first step of a rotation.
    #[command(after_help = "Example:\n  latchkey key add /etc/latchkey/token.key\n\n\
        Then give the file to every node and restart them, and only then let the new key sign: latchkey key promote.\n\
        A node without the key would refuse the tokens of those that sign with it.")]
    Add(NewKey),
    /// Let a key of the file sign; tokens of the others go on being good.
    #[command(after_help = "Example:\n  latchkey key promote /etc/latchkey/token.key 2\n\n\
        Every node must have the key already. Then give the file to every node and restart them.")]
    Promote(OneKey),
    /// Take a key out of the file; sessions whose tokens it signed are over.
    #[command(after_help = "Example:\n  latchkey key remove /etc/latchkey/token.key 1\n\n\
        Wait until every session of that key is over (session.lifetime_s and session.remembered_lifetime_s after the\n\
        last node stopped signing with it). The key that signs cannot be removed.")]
    Remove(OneKey),
    /// Show the numbers of the keys, the signing one first.
    #[command(after_help = "Example:\n  latchkey key list /etc/latchkey/token.key")]
    List(KeyFile),
}

/// Arguments of `key list`.
#[derive(Debug, Args)]
pub(super) struct KeyFile {
    /// The key file.
    file: PathBuf,
}

/// Arguments of `key new` and `key add`.
#[derive(Debug, Args)]
pub(super) struct NewKey {
    /// The key file.
    file: PathBuf,
    /// The number of the new key, 0 to 255; without it 1 in a new file, and one above the highest in one that exists.
    #[arg(long, value_name = "N")]
    number: Option<u8>,
}

/// Arguments of `key promote` and `key remove`.
#[derive(Debug, Args)]
pub(super) struct OneKey {
    /// The key file.
    file: PathBuf,
    /// The number of the key, as `key list` shows it.
    number: u8,
}

impl Command {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::New(NewKey { file, number }) => {
                let ring = key_file::create(&file, number.map(KeyId), &SystemEntropy)?;
                let key = signing_key(&ring);
                output::print(&format!(
                    "made {} with key {key}; only its owner can read it\n",
                    file.display()
                ))
            }
            Self::Add(NewKey { file, number }) => {
                let ring = key_file::add(&file, number.map(KeyId), &SystemEntropy)?;
                let new = ring.keys().last().map_or(0, |key| key.id().0);
                output::print(&format!(
                    "added key {new}, which verifies; key {} goes on signing\n\
                     when every node was restarted with the file: latchkey key promote {} {new}\n",
                    signing_key(&ring),
                    file.display(),
                ))
            }
            Self::Promote(OneKey { file, number }) => {
                let ring = key_file::promote(&file, KeyId(number))?;
                let line = format!(
                    "key {number} of {} signs from the next start on; {} older still verify\n",
                    file.display(),
                    ring.keys().len() - 1
                );
                output::print(&line)
            }
            Self::Remove(OneKey { file, number }) => {
                key_file::remove(&file, KeyId(number))?;
                output::print(&format!("removed key {number} from {}\n", file.display()))
            }
            Self::List(KeyFile { file }) => output::print(&list(&key_file::read(&file)?)),
        }
    }
}

fn list(ring: &KeyRing) -> String {
    let does = |at: usize| if at == 0 { "signs and verifies" } else { "verifies" };
    let lines = ring.keys().iter().enumerate().map(|(at, key)| format!("{} {}", key.id().0, does(at)));
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

/// The number of the key that signs.
pub(super) fn signing_key(ring: &KeyRing) -> u8 {
    ring.keys().first().map_or(0, |key| key.id().0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str]) -> Result<(), String> {
        #[derive(Debug, clap::Parser)]
        struct Cli {
            #[command(subcommand)]
            command: Command,
        }
        let arguments = std::iter::once("key").chain(arguments.iter().copied());
        let cli = <Cli as clap::Parser>::try_parse_from(arguments).map_err(|error| error.to_string())?;
        cli.command.run().map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn a_rotation_goes_by_the_commands() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token.key");
        let file = path.to_str().expect("UTF-8");
        let shown = || list(&key_file::read(&path).expect("a ring"));
        run(&["new", file, "--number", "4"]).expect("made");
        run(&["add", file]).expect("added");
        assert_eq!(shown(), "4 signs and verifies\n5 verifies\n");
        run(&["promote", file, "5"]).expect("promoted");
        assert_eq!(shown(), "5 signs and verifies\n4 verifies\n");
        let refused = run(&["remove", file, "5"]).expect_err("it signs");
        assert!(refused.contains("promote another one first"), "{refused}");
        run(&["remove", file, "4"]).expect("removed");
        run(&["list", file]).expect("listed");
        assert_eq!(shown(), "5 signs and verifies\n");
        assert!(run(&["add", file, "--number", "256"]).is_err());
        assert!(run(&["add", file, "--number", "5"]).is_err(), "taken");
    }
}
