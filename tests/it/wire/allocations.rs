//! How many allocations one call costs the whole server, warm, over real HTTP/2. All of the server runs in one thread
//! here, in which they are counted; the client has a thread of its own.

use latchkey::grpc::proto::v1;
use latchkey::grpc::proto::v1::load_user_request::By;
use latchkey::server::HotPath;
use prost::Message as _;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tracing::subscriber::{DefaultGuard, NoSubscriber};

use super::bare_client::BareClient;
use crate::support::databases::{Engine, TestDatabase};
use crate::support::raw_call::{VALIDATE, framed};
use crate::support::server::TestServer;
use crate::support::verdicts::question;

const LOAD_USER: &str = "/latchkey.v1.AuthService/LoadUser";
/// Calls before it is counted: buffers have grown to their size then.
const WARM: usize = 300;
/// Calls of one round. The least of the rounds counts: what the server does by itself meanwhile is no part of a call.
const CALLS: usize = 300;
const ROUNDS: usize = 10;

/// A server in the thread of the test, and a session.
struct Node {
    runtime: Runtime,
    server: TestServer,
    token: String,
    _database: TestDatabase,
    _silence: DefaultGuard,
}

impl Node {
    fn start(hot_path: HotPath) -> Self {
        // Another test of this process may listen to the log, and lines that are written would be counted.
        let silence = tracing::subscriber::set_default(NoSubscriber::new());
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (database, server, token) = runtime.block_on(async {
            let database = TestDatabase::create(Engine::Sqlite).await;
            // Nothing but the calls is to be done meanwhile.
            let server = TestServer::start_with(&database, |config| {
                config.maintenance.last_seen_flush_ms = 3_600_000;
            });
            let server = server.await.restart_on(&database, hot_path).await;
            let ada = server.add_bare_user("ada").await;
            let token = server.open_session(&ada).await.session_token;
            server.assert_good(&token).await;
            (database, server, token)
        });
        Self { runtime, server, token, _database: database, _silence: silence }
    }

    /// Allocations of one call, and how many bytes its answer is.
    fn count(&self, path: &'static str, message: &[u8]) -> (f64, usize) {
        let (address, body) = (self.server.address, framed(message));
        let (go, may_go) = std::sync::mpsc::channel::<usize>();
        let (done, mut is_done) = mpsc::unbounded_channel();
        let client = std::thread::spawn(move || {
            let mut client = BareClient::connect(address, path, body);
            for calls in may_go {
                done.send(client.call(calls) / calls).expect("the test waits");
            }
        });
        let mut round = |calls| {
            go.send(calls).expect("the client waits");
            self.runtime.block_on(is_done.recv()).expect("the calls are answered")
        };
        let (mut bytes, mut least) = (round(WARM), u64::MAX);
        for _ in 0..ROUNDS {
            let counted = allocation_counter::measure(|| bytes = round(CALLS));
            least = least.min(counted.count_total);
        }
        drop(go);
        client.join().expect("the client does not panic");
        #[expect(clippy::cast_precision_loss, reason = "a count of some thousands")]
        let each = least as f64 / CALLS as f64;
        println!("{path}: {each:.2} allocations, {bytes} bytes");
        (each, bytes)
    }
}

#[test]
fn a_validation_takes_at_most_twelve_allocations() {
    let node = Node::start(HotPath::Lean);
    let good = question(&node.token).encode_to_vec();
    let (each, bytes) = node.count(VALIDATE, &good);
    assert!(bytes > 100, "an answer has a message, not {bytes} bytes");
    assert!(each <= 12.0, "{each} allocations");

    let mut forged = node.token.clone();
    forged.replace_range(20..21, if forged.as_bytes()[20] == b'A' { "B" } else { "A" });
    let (forged, bytes) = node.count(VALIDATE, &question(&forged).encode_to_vec());
    assert_eq!(bytes, 0, "a refusal has no message");
    assert!(forged <= each, "{forged} allocations of a refusal, {each} of an answer");

    let by_token = v1::LoadUserRequest { by: Some(By::SessionToken(node.token.clone())) };
    let (each, bytes) = node.count(LOAD_USER, &by_token.encode_to_vec());
    assert!(bytes > 100, "an answer has a message, not {bytes} bytes");
    assert!(each <= 12.0, "{each} allocations of LoadUser");
}

#[test]
fn the_ordinary_way_takes_more_and_that_is_noticed() {
    let node = Node::start(HotPath::Routes);
    let (each, bytes) = node.count(VALIDATE, &question(&node.token).encode_to_vec());
    assert!(bytes > 100, "an answer has a message, not {bytes} bytes");
    assert!(each > 24.0, "only {each} allocations: the count is wrong");
}
