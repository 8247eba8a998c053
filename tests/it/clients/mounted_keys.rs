//! Key files as Kubernetes mounts them, read by a user who is not root, has no entry in passwd and no home.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::node_process::{Ended, program, run};

const USER: u32 = 1_234_567;
/// A supplementary group of that user, as `fsGroup` makes it.
const GROUP: u32 = 2_000;

/// Starts a node that ends with 69 where it took the key, since nobody answers at its database, and with 78 where not.
fn start(folder: &Path, key: &Path) -> Ended {
    let mut command = Command::new("setpriv");
    let (user, group) = (USER.to_string(), GROUP.to_string());
    command.args(["--reuid", &user, "--regid", &user, "--groups", &group]);
    command.arg(program(folder).get_program()).arg("serve").arg("--token-key-file").arg(key);
    command.args(["--database-url", "postgres://nobody@127.0.0.1:1/none"]);
    command.args(["--database-connect-timeout-ms", "1000"]);
    command.current_dir(folder).env_clear().env("PATH", "/usr/bin:/bin");
    run(command, "")
}

#[test]
fn a_secret_is_taken_where_only_a_group_of_the_pod_can_read_it() {
    if !rustix::process::geteuid().is_root() {
        let line = "NOT RUN: key files of other users need root to make them\n";
        // A closed standard error is no reason to fail.
        let _ = std::io::stderr().write_all(line.as_bytes());
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("..2026_11_29");
    fs::create_dir(&secret).expect("a folder");
    for open in [folder.path(), &secret] {
        fs::set_permissions(open, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    let file = secret.join("token.key");
    let mut make = program(folder.path());
    make.arg("key").arg("new").arg(&file);
    assert_eq!(run(make, "").code, Some(0));
    symlink("..2026_11_29", folder.path().join("..data")).expect("a link");
    let key = folder.path().join("token.key");
    symlink("..data/token.key", &key).expect("a link");
    for (owner, group, mode, code, word) in [
        (0, GROUP, 0o440, 69, "127.0.0.1:1"),
        (0, GROUP, 0o640, 69, "127.0.0.1:1"),
        (USER, USER, 0o600, 69, "127.0.0.1:1"),
        (USER, GROUP, 0o640, 69, "127.0.0.1:1"),
        (0, 0, 0o400, 78, "fsGroup"),
        (0, 0, 0o644, 78, "defaultMode: 0400"),
        (0, GROUP, 0o660, 78, "chmod 600"),
        (USER, 9, 0o640, 78, "group 9"),
        (7, GROUP, 0o440, 78, "belongs to user 7"),
    ] {
        chown(&file, Some(owner), Some(group)).expect("root may");
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("root may");
        let ended = start(folder.path(), &key);
        assert_eq!(ended.code, Some(code), "{owner}:{group} {mode:o}: {ended:?}");
        assert!(ended.stderr.contains(word), "{owner}:{group} {mode:o}: {ended:?}");
    }
}
