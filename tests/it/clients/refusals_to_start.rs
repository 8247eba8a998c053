//! A node that cannot serve says why, and what to do, and ends with the code for it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::support::node_process::{Ended, NodeProcess, program, run};

#[track_caller]
fn refused(arguments: &[&str], code: i32, words: &[&str]) -> Ended {
    let folder = tempfile::tempdir().expect("a folder");
    let ended = NodeProcess::start(folder.path(), arguments).err().expect("it does not start");
    told(&ended, code, words);
    ended
}

#[track_caller]
fn told(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    for word in words {
        assert!(ended.stderr.contains(word), "`{word}` is missing in {ended:?}");
    }
}

#[test]
fn plaintext_is_for_loopback_unless_somebody_insists() {
    refused(&["--listen", "0.0.0.0:0"], 78, &["--listen", "without TLS", "insecure = true"]);
    let folder = tempfile::tempdir().expect("a folder");
    let node = NodeProcess::start(folder.path(), &["--listen", "0.0.0.0:0", "--insecure"]);
    assert!(node.is_ok(), "{:?}", node.err());
}

#[test]
fn a_setting_that_is_wrong_is_named_with_its_place() {
    refused(&["--session-idle-limit-s", "0"], 78, &["--session-idle-limit-s"]);
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(
        folder.path().join("l.toml"),
        "[session]\nidle_limit_s = 0\n\n[password]\ncode_point_min = 9\n",
    )
    .expect("a file");
    let mut command = program(folder.path());
    command.args(["config", "check", "--config", "l.toml"]);
    told(
        &run(command, ""),
        78,
        &["l.toml:2", "session.idle_limit_s", "l.toml:5", "code_point_min", "code_points_min"],
    );
    let mut command = program(folder.path());
    command.args(["config", "check"]).env("LATCHKEY_LISTTEN", "127.0.0.1:1");
    told(&run(command, ""), 78, &["LATCHKEY_LISTTEN"]);
}

#[test]
fn a_database_that_cannot_be_reached_or_served_is_69() {
    let nobody = "postgres://nobody:secret-marker@127.0.0.1:1/none";
    let key = tempfile::tempdir().expect("a folder");
    let file = key.path().join("token.key").display().to_string();
    let mut make = program(key.path());
    make.args(["key", "new", &file]);
    assert_eq!(run(make, "").code, Some(0));
    let arguments =
        ["--database-url", nobody, "--token-key-file", &file, "--database-connect-timeout-ms", "1000"];
    let ended = refused(&arguments, 69, &["127.0.0.1:1"]);
    assert!(!ended.stderr.contains("secret-marker"), "{ended:?}");
}

#[test]
fn a_sqlite_file_belongs_to_one_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = NodeProcess::start(folder.path(), &[]).unwrap_or_else(|ended| panic!("{ended:?}"));
    let second = NodeProcess::start(folder.path(), &[]).err().expect("it does not start");
    told(&second, 69, &["latchkey.db", "another process"]);
    assert_eq!(first.stop().code, Some(0));
    let third = NodeProcess::start(folder.path(), &[]).unwrap_or_else(|ended| panic!("{ended:?}"));
    assert_eq!(third.stop().code, Some(0), "the file is free again");
}

#[test]
fn a_key_file_that_others_can_read_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    NodeProcess::start(folder.path(), &[]).unwrap_or_else(|ended| panic!("{ended:?}")).stop();
    let key = folder.path().join("latchkey.key");
    let mode = |path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(key.clone()), mode(folder.path().join("latchkey.db"))), (0o600, 0o600));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("it is ours");
    let ended = NodeProcess::start(folder.path(), &[]).err().expect("it does not start");
    told(&ended, 78, &["latchkey.key", "chmod 600"]);
}

#[test]
fn another_key_of_the_same_number_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    NodeProcess::start(folder.path(), &[]).unwrap_or_else(|ended| panic!("{ended:?}")).stop();
    fs::remove_file(folder.path().join("latchkey.key")).expect("it is there");
    let mut make = program(folder.path());
    make.args(["key", "new", "latchkey.key"]);
    assert_eq!(run(make, "").code, Some(0));
    let ended = NodeProcess::start(folder.path(), &[]).err().expect("it does not start");
    told(&ended, 78, &["token key 1", "key file of the other nodes", "--number"]);

    fs::remove_file(folder.path().join("latchkey.key")).expect("it is there");
    let mut make = program(folder.path());
    make.args(["key", "new", "latchkey.key", "--number", "2"]);
    assert_eq!(run(make, "").code, Some(0));
    let node = NodeProcess::start(folder.path(), &[]).unwrap_or_else(|ended| panic!("{ended:?}"));
    assert_eq!(node.stop().code, Some(0), "a lost key is no end");
}
