//! The database goes away in each way there is, and comes back: nobody is let in meanwhile, nobody is logged out, and
//! nobody has to restart the node.

use std::cell::Cell;
use std::time::Duration;

use futures_util::future::join_all;
use latchkey::grpc::proto::v1::revoke_sessions_request::Target;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::{Code, Status};

use super::{PASSWORD_HASH, connect, own_turn, prepare, start};
use crate::history::client::{Client, Outcome};
use crate::history::operation::Wish;
use crate::support::databases::{TestDatabase, on_each_server};
use crate::support::node_process::NodeProcess;
use crate::support::refusals::reason_of;
use crate::support::tcp_proxy::{Network, TcpProxy};
use crate::support::waiting::eventually;

/// Connections of the node to its database: few, so that a lost one is missed.
const CONNECTIONS: usize = 4;
/// No call may take longer than this without a database, by the limits that the node is started with.
const ANSWER_IN_TIME: Duration = Duration::from_secs(30);

on_each_server!(
    a_database_that_refuses_is_an_outage_and_no_logout,
    a_database_that_falls_silent_is_an_outage_and_no_logout,
    broken_connections_are_replaced,
);

/// A node behind a network that the test holds, and a session on it.
struct Scene {
    proxy: TcpProxy,
    node: NodeProcess,
    client: Client,
    user: String,
    token: String,
}

impl Scene {
    async fn open(db: &TestDatabase, folder: &std::path::Path) -> Self {
        prepare(folder, db);
        let (before, rest) = db.url().split_once('@').expect("an account");
        let (server, name) = rest.split_once('/').expect("a database");
        let proxy = TcpProxy::start(server.to_owned()).await;
        let url = format!("{before}@{}/{name}", proxy.address);
        let limits = [
            ["--database-connections-max", "4"],
            ["--database-acquire-timeout-ms", "3000"],
            ["--database-statement-timeout-ms", "4000"],
            ["--database-lock-timeout-ms", "1000"],
            ["--maintenance-poll-ms", "100"],
        ];
        let node = start(folder, &url, limits.as_flattened());
        let mut client = Client::new(connect(&node).await);
        let made = client.import_user("ada".to_owned(), PASSWORD_HASH).await.expect("a user");
        let Outcome::UserMade(user) = made else { panic!("no user: {made:?}") };
        let signed_in = client.create_session(user.user_id.clone(), Wish::PLAIN).await.expect("a session");
        let Outcome::SignedIn { token, .. } = signed_in else { panic!("no session: {signed_in:?}") };
        let scene = Self { proxy, node, client, user: user.user_id, token };
        scene.goes_on().await;
        scene
    }

    async fn validate(&self) -> Result<Outcome, Status> {
        let mut client = self.client.clone();
        let asked = client.validate(self.token.clone(), None);
        tokio::time::timeout(ANSWER_IN_TIME, asked).await.expect("an answer in time, whatever it is")
    }

    /// Asserts an outage: many calls at a time are all refused as such, and balancers are told.
    async fn is_out(&self) {
        eventually("the node says that it is not ready", async || readiness(&self.node.http).await == 503)
            .await;
        let answers = join_all((0..3 * CONNECTIONS).map(|_| self.validate())).await;
        for answer in answers {
            let refused = answer.expect_err("nobody is let in");
            assert_eq!(reason_of(&refused), (Code::Unavailable, "LEASE_LOST".to_owned()));
        }
        let target = Target::SessionToken(self.token.clone());
        let refused = self.client.clone().revoke(target).await.expect_err("nothing can be ended");
        assert_eq!(reason_of(&refused), (Code::Unavailable, "STORE_UNAVAILABLE".to_owned()));
    }

    /// Asserts that everything is as before: the same session is good, and writes are taken.
    async fn goes_on(&self) {
        eventually("the session is good again", async || self.validate().await.is_ok()).await;
        eventually("the node says that it is ready", async || readiness(&self.node.http).await == 200).await;
        // A connection of the pool that broke unnoticed costs one call its answer.
        eventually("writes are taken again", async || {
            self.client.clone().create_session(self.user.clone(), Wish::PLAIN).await.is_ok()
        })
        .await;
    }

    /// Asserts that the node still has all its connections: while answers are slow, as many questions as there are
    /// connections are with the database at the same time.
    async fn has_all_connections(&self) {
        self.proxy.set(Network::SlowAnswers);
        let seen = Cell::new(false);
        let askers = join_all((0..2 * CONNECTIONS).map(async |_| {
            while !seen.get() {
                // On a busy machine a question may wait too long for its turn; then it is asked again.
                let _ = self.client.clone().find_user("ada".to_owned()).await;
            }
        }));
        let look = async {
            // One more is the follower's own.
            let all = CONNECTIONS + 1;
            eventually("all connections are in use", async || self.proxy.waiting() >= all).await;
            seen.set(true);
            self.proxy.set(Network::Up);
        };
        futures_util::join!(askers, look);
        self.goes_on().await;
    }
}

async fn a_database_that_refuses_is_an_outage_and_no_logout(db: &TestDatabase) {
    let _turn = own_turn().await;
    let folder = tempfile::tempdir().expect("a folder");
    let scene = Scene::open(db, folder.path()).await;
    scene.has_all_connections().await;
    scene.proxy.set(Network::Refusing);
    scene.is_out().await;
    scene.proxy.set(Network::Up);
    scene.goes_on().await;
    scene.has_all_connections().await;
}

async fn a_database_that_falls_silent_is_an_outage_and_no_logout(db: &TestDatabase) {
    let _turn = own_turn().await;
    let folder = tempfile::tempdir().expect("a folder");
    let scene = Scene::open(db, folder.path()).await;
    scene.has_all_connections().await;
    scene.proxy.set(Network::Silent);
    scene.is_out().await;
    scene.proxy.set(Network::Up);
    scene.goes_on().await;
    scene.has_all_connections().await;
}

async fn broken_connections_are_replaced(db: &TestDatabase) {
    let _turn = own_turn().await;
    let folder = tempfile::tempdir().expect("a folder");
    let scene = Scene::open(db, folder.path()).await;
    scene.has_all_connections().await;
    for _ in 0..3 {
        scene.proxy.cut();
        scene.goes_on().await;
    }
    scene.has_all_connections().await;
}

/// The status that a balancer gets.
pub(super) async fn readiness(http: &str) -> u16 {
    let mut connection = TcpStream::connect(http).await.expect("health is served");
    connection.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").await.expect("it is read");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("it is a text");
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("an HTTP answer")
}
