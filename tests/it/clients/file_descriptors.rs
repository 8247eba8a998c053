//! Many idle connections and few file descriptors: the database, health checks and the clients that are there already are
//! reached all the same.

use std::path::Path;
use std::process::{Command, Stdio};

use tokio::net::TcpStream;

use crate::crash::{PASSWORD, PASSWORD_HASH, connect};
use crate::history::client::Client;
use crate::history::operation::Wish;
use crate::support::node_process::{NodeProcess, program};
use crate::support::plain_http::{get, metric};
use crate::support::waiting::eventually;

const CONNECTIONS: usize = 300;
const OPEN_FILES: usize = 256;

/// A node whose shell has set a limit of open files.
fn start(folder: &Path, limit: &str) -> Result<NodeProcess, crate::support::node_process::Ended> {
    let inner = program(folder);
    let mut command = Command::new("/bin/sh");
    command.current_dir(folder).env_clear().env("PATH", "/usr/bin:/bin");
    command.args(["-c", &format!("ulimit {limit} && exec \"$0\" \"$@\"")]).arg(inner.get_program());
    // The connections of the test say nothing, and are not to be closed for that.
    let patient = ["--grpc-first-byte-timeout-ms", "600000", "--throttle-enabled=false"];
    NodeProcess::start_as(command, &patient, Stdio::piped())
}

async fn idle_connections(node: &NodeProcess) -> Vec<TcpStream> {
    let mut all = Vec::new();
    for _ in 0..CONNECTIONS {
        all.push(TcpStream::connect(&node.grpc).await.expect("the kernel takes it"));
    }
    all
}

async fn open(node: &NodeProcess) -> u64 {
    metric(&node.http, "latchkey_connections").await.expect("the metric")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_do_not_take_the_last_descriptor() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node =
        start(folder.path(), &format!("-n {OPEN_FILES}")).unwrap_or_else(|ended| panic!("{ended:?}"));
    let mut client = Client::new(connect(&node).await);
    client.import_user("ada".to_owned(), PASSWORD_HASH).await.expect("a user is made");
    let idle = idle_connections(&node).await;
    eventually("connections are refused", async || {
        metric(&node.http, "latchkey_connections_refused_total").await > Some(0)
    })
    .await;
    assert!(open(&node).await > 50, "the control: it is as full as it may be");
    for _ in 0..3 {
        assert_eq!(get(&node.http, "/readyz").await.0, 200);
        assert_eq!(get(&node.http, "/livez").await.0, 200);
        client.log_in("ada".to_owned(), PASSWORD, Wish::PLAIN).await.expect("a person signs in");
    }
    drop(idle);
    eventually("there is room again", async || open(&node).await <= 1).await;
    let mut other = Client::new(connect(&node).await);
    other.log_in("ada".to_owned(), PASSWORD, Wish::PLAIN).await.expect("a person signs in");
    node.signal(rustix::process::Signal::TERM);
    let ended = node.ended().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("grpc.connections_max"), "the setting is named: {}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_soft_limit_is_raised_to_the_hard_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = start(folder.path(), "-S -n 128").unwrap_or_else(|ended| panic!("{ended:?}"));
    let _idle = idle_connections(&node).await;
    let all = u64::try_from(CONNECTIONS).expect("few");
    eventually("all are open", async || open(&node).await == all).await;
    assert_eq!(get(&node.http, "/readyz").await.0, 200);
}

#[test]
fn a_limit_that_leaves_no_room_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let ended = start(folder.path(), "-n 100").err().expect("it does not start");
    assert!(ended.code == Some(78) && ended.stderr.contains("ulimit -n"), "{ended:?}");
}
