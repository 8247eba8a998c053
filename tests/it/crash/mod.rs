//! The real program in the worst of circumstances: killed, told to stop, and without its database. What many nodes do
//! then is in `fleet`.

mod callers;
mod database_lost;
mod disk_errors;
mod killed;
mod ledger;
mod sqlite_file;
mod stopped;

use std::path::{Path, PathBuf};

use tokio::sync::{Mutex, MutexGuard};
use tonic::transport::{Channel, Endpoint};

use crate::support::databases::TestDatabase;
use crate::support::node_process::{NodeProcess, program, run};

/// A password that meets the rules.
pub const PASSWORD: &str = "correct horse battery staple";
/// A hash of it at the usual cost, so that many users are there at once.
pub const PASSWORD_HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$WtbkTrRUInQzs5dVcUdZfQ$YUPYjugIPqCiDGfG4bLyFn0Ns9j5Aso3Ze5qf2EFZ9k";

/// A turn of its own for a test that loads the machine: on two processors, two of them at a time would measure each other.
pub async fn own_turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// Prepares a database and a key file as an operator does, with the program itself.
pub fn prepare(folder: &Path, db: &TestDatabase) {
    for arguments in [vec!["key", "new", "token.key"], vec!["migrate", "up", "--database-url", db.url()]] {
        let mut command = program(folder);
        command.args(&arguments);
        let ended = run(command, "");
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
    }
}

/// Starts a node on what was prepared.
pub fn start(folder: &Path, url: &str, more: &[&str]) -> NodeProcess {
    start_with(folder, url, more, &[])
}

/// The same with more in the environment.
pub fn start_with(folder: &Path, url: &str, more: &[&str], environment: &[(&str, PathBuf)]) -> NodeProcess {
    let mut arguments = vec!["--database-url", url, "--token-key-file", "token.key"];
    arguments.extend(["--throttle-enabled=false", "--session-per-user-max", "10000"]);
    arguments.extend(more);
    NodeProcess::start_with(folder, &arguments, environment)
        .unwrap_or_else(|ended| panic!("it does not start: {ended:?}"))
}

/// A connection of its own to a node.
pub async fn connect(node: &NodeProcess) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", node.grpc)).expect("an address");
    endpoint.connect().await.expect("the node listens")
}
