//! Places where programs run: a terminal without colours, a root that cannot be written, a pod beside a service of our name.

use std::path::Path;
use std::process::Command;

use crate::support::failing_disk::say_cannot_mount;
use crate::support::node_process::{NodeProcess, program, run};

/// What the program writes on a terminal of that kind when it looks for a database that is not there.
fn on_terminal(folder: &Path, kind: &str) -> String {
    let built = program(folder).get_program().to_string_lossy().into_owned();
    let mut command = Command::new("script");
    command
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("TERM", kind)
        .env("SHELL", "/bin/sh");
    let migrate =
        "migrate status --database-url postgres://nobody@127.0.0.1:1/none --database-connect-timeout-ms 100";
    command.args([
        "--quiet",
        "--return",
        "--command",
        &format!("'{built}' {migrate} ; '{built}' --help"),
        "/dev/null",
    ]);
    run(command, "").stdout
}

#[test]
fn a_dumb_terminal_gets_no_colours() {
    let folder = tempfile::tempdir().expect("a folder");
    let dumb = on_terminal(folder.path(), "dumb");
    assert!(dumb.contains("database") && dumb.contains("Usage"), "{dumb}");
    assert!(!dumb.contains('\u{1b}'), "{dumb}");
    // The control: another one does.
    assert!(on_terminal(folder.path(), "xterm-256color").contains('\u{1b}'));
}

#[test]
fn a_node_needs_no_home_and_no_root_that_can_be_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().display();
    let is_read_only =
        format!("mount --bind {place} {place} && mount -o remount,bind,ro / && ! touch /latchkey-test");
    let mut tried = Command::new("unshare");
    tried.args(["--mount", "sh", "-c", &is_read_only]);
    if run(tried, "").code != Some(0) {
        return say_cannot_mount("a_node_needs_no_home_and_no_root_that_can_be_written");
    }
    let built = program(folder.path()).get_program().to_string_lossy().into_owned();
    let mut command = Command::new("unshare");
    // The folder is entered anew, since the one from before is still that of the read-only root.
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let serve = format!("{is_read_only} 2>&- && cd {place} && exec '{built}' \"$@\"");
    command.args(["--mount", "sh", "-c", &serve, "sh"]);
    let node = NodeProcess::start_as(command, &[], std::process::Stdio::piped());
    let ended = node.unwrap_or_else(|ended| panic!("it does not start: {ended:?}")).stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(folder.path().join("latchkey.db").exists() && folder.path().join("latchkey.key").exists());
}

#[test]
fn variables_of_a_service_are_passed_over_aloud_and_others_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let service = [
        ("LATCHKEY_PORT", "tcp://10.0.0.1:50051".into()),
        ("LATCHKEY_PORT_50051_TCP_ADDR", "10.0.0.1".into()),
        ("LATCHKEY_SERVICE_HOST", "10.0.0.1".into()),
    ];
    let node = NodeProcess::start_with(folder.path(), &[], &service);
    let ended = node.unwrap_or_else(|ended| panic!("it does not start: {ended:?}")).stop();
    let line = ended.stderr.lines().find(|line| line.contains("enableServiceLinks")).unwrap_or_default();
    assert!(service.iter().all(|(name, _)| line.contains(name)), "{ended:?}");
    // The control: without them there is nothing to say, and a setting that does not exist is refused by its name.
    let ended = NodeProcess::start(folder.path(), &[]).unwrap_or_else(|ended| panic!("{ended:?}")).stop();
    assert!(!ended.stderr.contains("enableServiceLinks"), "{ended:?}");
    let refused = NodeProcess::start_with(folder.path(), &[], &[("LATCHKEY_VERSION", "1".into())]);
    let refused = refused.err().expect("it does not start");
    assert!(
        refused.code == Some(78) && refused.stderr.contains("LATCHKEY_VERSION: there is no such setting"),
        "{refused:?}"
    );
}
