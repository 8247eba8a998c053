//! A connection that falls silent while it goes back into its pool, between the two questions that it is tested with there:
//! its place is given to another one, and the node has as many connections as before.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use latchkey::store::sql::{SqlLimits, SqlStore};
use latchkey::store::{Store as _, UserKey};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::samples::{add_user, raw_login};
use crate::support::databases::{Engine, TestDatabase, on_each_server, url_of};
use crate::support::waiting::eventually;

on_each_server![
    a_place_outlives_a_connection_that_falls_silent_on_its_way_back,
    a_place_is_given_to_another_connection_though_nobody_waits_for_long,
];

const CONNECTIONS: usize = 4;
/// How long a caller waits: not for as long as a step of the store does.
const CALLER_TIMEOUT: Duration = Duration::from_millis(500);

/// The wire to a server, which knows when a connection is tested.
struct Wire {
    address: SocketAddr,
    shared: Arc<Shared>,
    holds_answers: watch::Sender<bool>,
}

struct Shared {
    server: String,
    /// What a test of a connection looks like.
    ping: &'static [u8],
    /// Connections that fall silent when they are tested for the second time since they did anything else.
    to_silence: AtomicUsize,
    /// Connections with a question that is not answered yet, but for silent ones.
    waiting: AtomicUsize,
}

impl Wire {
    async fn to(server: String, engine: Engine) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let ping: &[u8] = if engine == Engine::Postgres { b"S\0\0\0\x04" } else { &[1, 0, 0, 0, 0x0e] };
        let (to_silence, waiting) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let shared = Arc::new(Shared { server, ping, to_silence, waiting });
        let (holds_answers, held) = watch::channel(false);
        let for_all = Arc::clone(&shared);
        beside(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (shared, held) = (Arc::clone(&for_all), held.clone());
                beside(async move { carry(client, &shared, held).await });
            }
        });
        Self { address, shared, holds_answers }
    }

    fn silenced_all(&self) -> bool {
        self.shared.to_silence.load(Ordering::SeqCst) == 0
    }
}

#[expect(clippy::disallowed_methods, reason = "the wire of a test works beside the test")]
fn beside(work: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(work);
}

impl Shared {
    /// Takes one of those that are to fall silent.
    fn silences_this(&self) -> bool {
        let one_less = |left: usize| left.checked_sub(1);
        self.to_silence.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok()
    }
}

/// Carries bytes both ways until a side closes, or for ever nothing.
async fn carry(mut client: TcpStream, shared: &Shared, mut held: watch::Receiver<bool>) {
    let Ok(mut server) = TcpStream::connect(&shared.server).await else { return };
    let (mut asked, mut answered) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    // A new connection waits as well: for a greeting, which some servers give before anything is asked.
    shared.waiting.fetch_add(1, Ordering::SeqCst);
    let (mut tests, mut is_waiting) = (0, true);
    loop {
        let holds = *held.borrow_and_update();
        let open = tokio::select! {
            changed = held.changed() => changed.is_ok(),
            read = client.read(&mut asked) => {
                let count = read.unwrap_or(0);
                tests = if &asked[..count] == shared.ping { tests + 1 } else { 0 };
                if tests == 2 && shared.silences_this() {
                    break;
                }
                if !is_waiting {
                    shared.waiting.fetch_add(1, Ordering::SeqCst);
                    is_waiting = true;
                }
                count > 0 && server.write_all(&asked[..count]).await.is_ok()
            }
            read = server.read(&mut answered), if !holds => {
                if is_waiting {
                    shared.waiting.fetch_sub(1, Ordering::SeqCst);
                    is_waiting = false;
                }
                let count = read.unwrap_or(0);
                count > 0 && client.write_all(&answered[..count]).await.is_ok()
            }
        };
        if !open {
            if is_waiting {
                shared.waiting.fetch_sub(1, Ordering::SeqCst);
            }
            return;
        }
    }
    // Both sides stay open and nobody is told, as with a cable that was cut.
    while held.changed().await.is_ok() {}
}

/// Asks as callers do, who do not wait for ever.
async fn ask(store: &SqlStore) -> bool {
    let asked = tokio::time::timeout(CALLER_TIMEOUT, store.user(UserKey::Login(&raw_login("ada")))).await;
    asked.is_ok_and(|answer| answer.is_ok())
}

/// How many connections can be in use at once: as many questions are with the database while no answer comes.
async fn connections_usable(wire: &Wire, store: &SqlStore) -> usize {
    wire.holds_answers.send_replace(true);
    let seen = AtomicBool::new(false);
    let askers = join_all((0..3 * CONNECTIONS).map(async |_| {
        while !seen.load(Ordering::SeqCst) {
            ask(store).await;
        }
    }));
    let look = async {
        eventually("all connections are in use", async || {
            wire.shared.waiting.load(Ordering::SeqCst) >= CONNECTIONS
        })
        .await;
        let usable = wire.shared.waiting.load(Ordering::SeqCst);
        seen.store(true, Ordering::SeqCst);
        wire.holds_answers.send_replace(false);
        usable
    };
    futures_util::join!(askers, look).1
}

async fn a_place_outlives_a_connection_that_falls_silent_on_its_way_back(db: &TestDatabase) {
    lose_all_connections(db, SqlLimits::default()).await;
}

/// Here no wait for a connection ever ends by itself: callers go away first.
async fn a_place_is_given_to_another_connection_though_nobody_waits_for_long(db: &TestDatabase) {
    let patient = SqlLimits { acquire_timeout: Duration::from_hours(1), ..SqlLimits::default() };
    lose_all_connections(db, patient).await;
}

async fn lose_all_connections(db: &TestDatabase, limits: SqlLimits) {
    let (before, rest) = db.url().split_once('@').expect("an account");
    let (server, name) = rest.split_once('/').expect("a database");
    let wire = Wire::to(server.to_owned(), db.engine()).await;
    let limits = SqlLimits { connections_max: 4, ..limits };
    let store = SqlStore::open(&url_of(&format!("{before}@{}/{name}", wire.address)), limits)
        .await
        .expect("it opens");
    add_user(&store, "ada").await;
    let usable_before = connections_usable(&wire, &store).await;
    assert_eq!(usable_before, CONNECTIONS);

    wire.shared.to_silence.store(CONNECTIONS, Ordering::SeqCst);
    eventually("every connection fell silent on its way back", async || {
        // Several at a time, so that several connections are in use. Each of them was answered before its connection fell silent.
        join_all((0..CONNECTIONS).map(|_| ask(&store))).await;
        wire.silenced_all()
    })
    .await;

    assert_eq!(connections_usable(&wire, &store).await, usable_before);
    eventually("calls are answered", async || ask(&store).await).await;
    store.close().await;
}
