//! Signals that mean nothing to a node do not kill it; the control is one that does.

use rustix::process::Signal;

use crate::support::node_process::NodeProcess;
use crate::support::plain_http::get;
use crate::support::waiting::eventually;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_terminal_or_a_rotated_log_kills_no_node() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = NodeProcess::start(folder.path(), &[]).unwrap_or_else(|ended| panic!("{ended:?}"));
    for signal in [Signal::HUP, Signal::USR1, Signal::USR2, Signal::PIPE] {
        node.signal(signal);
        // The signal is delivered by now: a process that dies of it answers no more.
        assert_eq!(get(&node.http, "/readyz").await.0, 200, "{signal:?}");
        assert!(node.is_running(), "{signal:?}");
    }
    node.signal(Signal::TERM);
    let ended = node.ended().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for name in ["SIGHUP", "SIGUSR1", "SIGUSR2"] {
        assert!(ended.stderr.contains(name), "{name} is not logged: {}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_that_kills_is_seen() {
    // Not SIGQUIT: a shell lets its background jobs ignore that one.
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = NodeProcess::start(folder.path(), &[]).unwrap_or_else(|ended| panic!("{ended:?}"));
    node.signal(Signal::ALARM);
    eventually("the end", async || !node.is_running()).await;
    assert_eq!(node.ended().await.code, None);
}
