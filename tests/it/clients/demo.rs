//! The whole story in one command.

use std::fs;

use crate::support::node_process::{program, run};

#[test]
fn the_demo_tells_the_story_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = program(folder.path());
    command.arg("demo").env("TMPDIR", folder.path());
    let told = run(command, "");
    assert_eq!(told.code, Some(0), "{told:?}");
    for part in [
        "CreateUser",
        "Login",
        "good: ada",
        "LoadUser",
        "ChangePassword",
        "refused: CREDENTIALS_CHANGED",
        "refused: SESSION_REVOKED",
        "starts again on the same database",
        "latchkey serve",
        "grpcurl",
    ] {
        assert!(told.stdout.contains(part), "`{part}` is missing in:\n{}", told.stdout);
    }
    let left: Vec<_> = fs::read_dir(folder.path()).expect("the folder is there").collect();
    assert!(left.is_empty(), "{left:?}");
}
