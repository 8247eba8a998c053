//! Whoever reads the log dies, stops to read, or has no room: the node answers all the same, and stops when it is told to.

use std::fs::OpenOptions;
use std::io::{self, PipeWriter, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use latchkey::grpc::proto::v1::revoke_sessions_request::Target;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::Signal;

use crate::crash::{PASSWORD, PASSWORD_HASH, connect, prepare};
use crate::history::client::{Client, Outcome};
use crate::history::operation::Wish;
use crate::support::databases::{TestDatabase, on_each_server};
use crate::support::node_process::{NodeProcess, program};
use crate::support::own_server::OwnServer;
use crate::support::plain_http::{get, metric};
use crate::support::waiting::eventually;

/// Far below the limit of a drain: what is measured is whether the end comes at all.
const STOPS_IN: Duration = Duration::from_secs(20);

fn start(folder: &Path, arguments: &[&str], stderr: impl Into<Stdio>) -> NodeProcess {
    let started = NodeProcess::start_as(program(folder), arguments, stderr.into());
    started.unwrap_or_else(|ended| panic!("the node does not start: {ended:?}"))
}

/// Makes a pipe full, so that the next ordinary write to it blocks.
fn fill(pipe: &PipeWriter) {
    let flags = fcntl_getfl(pipe).expect("its flags");
    fcntl_setfl(pipe, flags | OFlags::NONBLOCK).expect("it can be made so");
    for piece in [512, 1] {
        while (&*pipe).write(&[b'x'; 512][..piece]).is_ok() {}
    }
    fcntl_setfl(pipe, flags).expect("it can be made so");
}

/// What a person does: every answer is as it should be. Wrong passwords and unknown users are logged at the finest level.
async fn is_served(node: &NodeProcess, login: &str) {
    let mut client = Client::new(connect(node).await);
    client.import_user(login.to_owned(), PASSWORD_HASH).await.expect("a user is made");
    let signed_in = client.log_in(login.to_owned(), PASSWORD, Wish::PLAIN).await;
    let Ok(Outcome::SignedIn { token, .. }) = signed_in else { panic!("no session: {signed_in:?}") };
    client.validate(token.clone(), None).await.expect("it is good");
    client.revoke(Target::SessionToken(token.clone())).await.expect("it is ended");
    client.validate(token, None).await.expect_err("it is over");
    assert_eq!(readiness(node).await, 200);
}

async fn stops_cleanly(mut node: NodeProcess) {
    node.signal(Signal::TERM);
    let ended = tokio::time::timeout(STOPS_IN, node.ended()).await.expect("the signal ends it");
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

/// Log lines that the node dropped, by its metrics.
async fn dropped(node: &NodeProcess) -> u64 {
    metric(&node.http, "latchkey_log_lines_dropped_total").await.expect("the metric")
}

async fn readiness(node: &NodeProcess) -> u16 {
    get(&node.http, "/readyz").await.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_dies_is_not_missed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (reader, writer) = io::pipe().expect("a pipe");
    let node = start(folder.path(), &["--log-filter", "debug"], writer);
    drop(reader);
    is_served(&node, "ada").await;
    eventually("lines are dropped", async || dropped(&node).await > 0).await;
    is_served(&node, "bob").await;
    stops_cleanly(node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_that_nobody_reads_blocks_neither_node_nor_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let (reader, writer) = io::pipe().expect("a pipe");
    let node = start(folder.path(), &["--log-filter", "debug"], writer.try_clone().expect("a writer"));
    fill(&writer);
    is_served(&node, "ada").await;
    is_served(&node, "bob").await;
    stops_cleanly(node).await;
    drop((reader, writer));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_dropped_is_told_when_the_log_is_read_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut reader, writer) = io::pipe().expect("a pipe");
    let node = start(folder.path(), &["--log-filter", "trace"], writer.try_clone().expect("a writer"));
    fill(&writer);
    drop(writer);
    // Four megabytes wait at most; each wrong question has its lines.
    eventually("lines are dropped", async || {
        let mut client = Client::new(connect(&node).await);
        for _ in 0..200 {
            let _ = client.find_user("nobody".to_owned()).await;
        }
        dropped(&node).await > 0
    })
    .await;
    let reading = std::thread::spawn(move || {
        let mut text = Vec::new();
        reader.read_to_end(&mut text).expect("it is read");
        String::from_utf8_lossy(&text).into_owned()
    });
    stops_cleanly(node).await;
    let text = reading.join().expect("no panic");
    let told = text.lines().filter(|line| line.contains("log lines were dropped")).count();
    assert!(told > 0, "nobody said that lines are missing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_without_room_is_not_missed() {
    let folder = tempfile::tempdir().expect("a folder");
    let full = || OpenOptions::new().write(true).open("/dev/full").expect("the device");
    let node = start(folder.path(), &[], full());
    is_served(&node, "ada").await;
    assert!(dropped(&node).await > 0, "the control: the device takes nothing");
    stops_cleanly(node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_stderr_serves() {
    let folder = tempfile::tempdir().expect("a folder");
    let inner = program(folder.path());
    let mut command = Command::new("/bin/sh");
    command.current_dir(folder.path()).env_clear().env("PATH", "/usr/bin:/bin");
    command.args(["-c", "exec \"$0\" \"$@\" <&- 2>&-"]).arg(inner.get_program());
    let started = NodeProcess::start_as(command, &[], Stdio::null());
    let node = started.unwrap_or_else(|ended| panic!("{ended:?}"));
    is_served(&node, "ada").await;
    stops_cleanly(node).await;
}

#[test]
fn a_stdout_that_nobody_reads_is_no_failure_and_one_without_room_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let ended = |stdout: Stdio| {
        let mut command = program(folder.path());
        command.args(["config", "template"]).stdout(stdout).stderr(Stdio::piped());
        let output = command.output().expect("it ends");
        (output.status.code(), String::from_utf8(output.stderr).expect("a text"))
    };
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    assert_eq!(ended(writer.into()), (Some(0), String::new()));
    let full = OpenOptions::new().write(true).open("/dev/full").expect("the device");
    let (code, told) = ended(full.into());
    assert!(code == Some(1) && told.contains("No space left"), "{code:?}: {told}");
}

on_each_server!(readiness_follows_the_database_without_a_reader);

async fn readiness_follows_the_database_without_a_reader(db: &TestDatabase) {
    let mut server = OwnServer::start(db.engine()).await;
    let own = server.database().await;
    let folder = tempfile::tempdir().expect("a folder");
    prepare(folder.path(), &own);
    let (reader, writer) = io::pipe().expect("a pipe");
    let arguments = ["--database-url", own.url(), "--token-key-file", "token.key"];
    let node = start(folder.path(), &arguments, writer);
    drop(reader);
    is_served(&node, "ada").await;
    for _ in 0..2 {
        server.stop().await;
        eventually("the node is not ready", async || readiness(&node).await == 503).await;
        server.restart().await;
        eventually("the node is ready again", async || readiness(&node).await == 200).await;
    }
    stops_cleanly(node).await;
}
