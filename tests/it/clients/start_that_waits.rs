//! A start that waits says what for, and for how long, every few seconds.

use std::net::TcpListener;

use crate::support::node_process::{NodeProcess, program, run};

/// The seconds that the log lines with `words` say were waited.
fn waited(stderr: &str, words: &str) -> Vec<u64> {
    let lines = stderr.lines().filter(|line| line.contains(words));
    let seconds = |line: &str| {
        let (_, rest) = line.split_once("\"waited_s\":")?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    lines.filter_map(seconds).collect()
}

/// A database that takes connections and says nothing, as one that a backup has stopped.
fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("postgres://latchkey@{}/latchkey", listener.local_addr().expect("its address"));
    (listener, url)
}

#[test]
fn a_database_that_says_nothing_is_waited_for_aloud() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_listener, url) = silent();
    let key = {
        let mut command = program(folder.path());
        command.args(["key", "new", "token.key"]);
        run(command, "")
    };
    assert_eq!(key.code, Some(0), "{key:?}");
    let arguments =
        ["--database-url", &url, "--token-key-file", "token.key", "--database-connect-timeout-ms", "13000"];
    let ended = NodeProcess::start(folder.path(), &arguments).err().expect("it gives up in the end");
    assert_eq!(ended.code, Some(69), "{ended:?}");
    let told = waited(&ended.stderr, "the database does not answer; trying again");
    assert!(told.len() >= 2 && told.is_sorted() && told.iter().any(|seconds| *seconds >= 5), "{ended:?}");
}

#[test]
fn a_migration_that_waits_says_so_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_listener, url) = silent();
    let mut command = program(folder.path());
    command.args(["migrate", "up", "--database-url", &url, "--database-connect-timeout-ms", "5000"]);
    let ended = run(command, "");
    assert_eq!(ended.code, Some(69), "{ended:?}");
    assert!(!waited(&ended.stderr, "still waiting for the database to be migrated").is_empty(), "{ended:?}");
}

#[test]
fn a_start_that_waits_for_nothing_says_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = NodeProcess::start(folder.path(), &[]).unwrap_or_else(|ended| panic!("{ended:?}"));
    let ended = node.stop();
    assert!(ended.code == Some(0) && !ended.stderr.contains("still waiting"), "{ended:?}");
}
