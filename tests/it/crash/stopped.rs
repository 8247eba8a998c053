//! Told to stop in the midst of calls: all that have come are answered. Told twice: the end comes at once.

use futures_util::future::join_all;
use latchkey::grpc::proto::admin;
use latchkey::grpc::proto::admin::user_service_client::UserServiceClient;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::{PASSWORD, PASSWORD_HASH, connect, own_turn, prepare, start};
use crate::history::client::{Client, Outcome};
use crate::history::operation::Wish;
use crate::support::databases::{TestDatabase, on_each_engine};
use crate::support::waiting::{eventually, in_time};

/// Sign-ins that wait for their hash when the signal comes.
const WAITING: usize = 40;

on_each_engine!(told_to_stop_it_answers_what_has_come);

async fn told_to_stop_it_answers_what_has_come(db: &TestDatabase) {
    let _turn = own_turn().await;
    let folder = tempfile::tempdir().expect("a folder");
    prepare(folder.path(), db);
    let mut node =
        start(folder.path(), db.url(), &["--password-hash-threads", "1", "--shutdown-drain-ms", "60000"]);
    let mut client = Client::new(connect(&node).await);
    client.import_user("ada".to_owned(), PASSWORD_HASH).await.expect("the user is added");
    let sign_ins = join_all((0..WAITING).map(|_| {
        let mut client = client.clone();
        async move { client.log_in("ada".to_owned(), PASSWORD, Wish::PLAIN).await }
    }));
    let stop = async {
        eventually("many wait", async || waiting_hashes(&node.http).await >= WAITING / 2).await;
        node.signal(Signal::TERM);
    };
    let (answers, ()) = futures_util::join!(sign_ins, stop);
    assert_eq!(node.ended().await.code, Some(0));
    let node = start(folder.path(), db.url(), &[]);
    let mut client = Client::new(connect(&node).await);
    for answer in answers {
        let Ok(Outcome::SignedIn { token, .. }) = answer else { panic!("not answered: {answer:?}") };
        client.validate(token, None).await.expect("what was answered is there after a restart");
    }
}

/// Passwords that wait to be hashed, as the metrics tell.
async fn waiting_hashes(http: &str) -> usize {
    let mut connection = TcpStream::connect(http).await.expect("metrics are served");
    connection.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.expect("it is read");
    let mut text = String::new();
    connection.read_to_string(&mut text).await.expect("it is a text");
    let value = text.lines().find_map(|line| line.strip_prefix("latchkey_hash_queue_length "));
    value.expect("the metric").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_twice_it_ends_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}/latchkey.db?mode=rwc", folder.path().display());
    let mut make = crate::support::node_process::program(folder.path());
    make.args(["key", "new", "token.key"]);
    assert_eq!(crate::support::node_process::run(make, "").code, Some(0));
    // Longer than any test waits: a node that does not end at once fails it.
    let mut node = start(folder.path(), &url, &["--shutdown-drain-ms", "600000"]);
    let channel = connect(&node).await;
    let mut health = HealthClient::new(connect(&node).await);
    let request = || HealthCheckRequest { service: "readiness".to_owned() };
    let mut watch = health.watch(request()).await.expect("health is told").into_inner();
    let first = in_time("health", watch.message()).await.expect("an answer").expect("a status");
    assert_eq!(first.status(), ServingStatus::Serving);
    // A call that never ends by itself: an import whose client has more rows, some day.
    let (rows, import) = tokio::sync::mpsc::channel::<admin::ImportUsersRequest>(1);
    let import = tokio_stream::wrappers::ReceiverStream::new(import);
    let mut users = UserServiceClient::new(channel.clone());
    let row = admin::CreateUserRequest { login: "ada".to_owned(), ..admin::CreateUserRequest::default() };
    rows.send(admin::ImportUsersRequest { user: Some(row) }).await.expect("there is room");
    let importing = users.import_users(import);
    let begun = async {
        let request =
            || admin::GetUserRequest { by: Some(admin::get_user_request::By::Login("ada".to_owned())) };
        let asking = UserServiceClient::new(channel.clone());
        eventually("the import is under way", async || asking.clone().get_user(request()).await.is_ok())
            .await;
    };
    tokio::pin!(importing);
    tokio::select! {
        ended = &mut importing => panic!("the import ended by itself: {ended:?}"),
        () = begun => {}
    }

    node.signal(Signal::TERM);
    let second = in_time("health", watch.message()).await.expect("an answer").expect("a status");
    assert_eq!(second.status(), ServingStatus::NotServing);
    assert!(node.is_running(), "a call is under way");
    node.signal(Signal::TERM);
    let ended = node.ended().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("at once"), "{ended:?}");
    drop(rows);
}
