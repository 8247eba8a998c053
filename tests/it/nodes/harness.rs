//! A fleet of processes of the real program on one database, each with a network to it that the test holds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use latchkey::domain::time::BootTime;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::Endpoint;

use super::checker::check;
use super::load::{LAST_LOOK, Load, World, look_at_all};
use super::log::{Entry, Log, Process, now};
use super::report::Report;
use crate::crash::{prepare, start};
use crate::history::checker::Violation;
use crate::history::client::{Client, Outcome};
use crate::support::databases::TestDatabase;
use crate::support::dice::{Dice, seeds};
use crate::support::node_process::{Ended, NodeProcess};
use crate::support::tcp_proxy::TcpProxy;
use crate::support::waiting::eventually;

/// A lease for tests where the usual one is not the point: shorter faults do.
pub const SHORT_LEASE: Duration = Duration::from_secs(2);
/// The lease that a new database holds.
pub const USUAL_LEASE: Duration = Duration::from_secs(5);
/// Connections of each node: few, so that a lost one is missed, and sixteen nodes fit on one server.
const CONNECTIONS: &str = "6";
/// People who sign in again and again.
const USERS: usize = 40;

/// Some nodes, and what is known of them.
pub struct Fleet {
    pub slots: Nodes,
    pub world: World,
    pub lease: Duration,
    pub dice: Dice,
    seed: u64,
    engine: String,
    load: Option<Load>,
    // Last, so that the nodes are gone before their folder is.
    _folder: TempDir,
}

/// The places of all nodes.
pub struct Nodes(Vec<Arc<Slot>>);

impl std::ops::Deref for Nodes {
    type Target = [Arc<Slot>];

    fn deref(&self) -> &[Arc<Slot>] {
        &self.0
    }
}

/// The place of one node: processes come and go.
pub struct Slot {
    pub number: usize,
    pub proxy: TcpProxy,
    url: String,
    folder: std::path::PathBuf,
    process: Mutex<Option<NodeProcess>>,
    door: Mutex<Option<Door>>,
}

/// How a process is called: over one connection by those who ask, over another by those who write.
#[derive(Clone)]
pub struct Door {
    pub process: Process,
    pub client: Client,
    pub writer: Client,
}

impl Fleet {
    /// Starts `count` nodes, and adds users.
    pub async fn start(db: &TestDatabase, count: usize, lease: Duration) -> Self {
        Self::start_at(db, count, lease, None).await
    }

    /// The same with the nodes given a URL of the test's own, past the proxies.
    pub async fn start_at(db: &TestDatabase, count: usize, lease: Duration, url: Option<&str>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        prepare(folder.path(), db);
        if lease != USUAL_LEASE {
            let raw = db.raw().await;
            raw.run(&format!("UPDATE log_head SET lease_ms = {}", lease.as_millis())).await;
            raw.close().await;
        }
        let slots = join_all((0..count).map(|number| Slot::new(number, db, url, folder.path()))).await;
        let slots: Vec<_> = slots.into_iter().map(Arc::new).collect();
        join_all(slots.iter().map(Slot::start)).await;
        let mut client = slots[0].door().client;
        let mut users = Vec::new();
        for number in 0..USERS {
            let made = client.create_user(format!("user-{number}"), String::new(), "").await;
            let Ok(Outcome::UserMade(user)) = made else { panic!("no user: {made:?}") };
            users.push(user.user_id);
        }
        let seed = *seeds(0).first().expect("a seed");
        Self {
            slots: Nodes(slots),
            world: World { log: Arc::default(), users: users.into() },
            lease,
            dice: Dice::new(seed),
            seed,
            engine: db.engine().to_string(),
            load: None,
            _folder: folder,
        }
    }

    /// Lets callers loose on all nodes, until the run ends, and waits until each node answers and ends sessions.
    pub async fn load(&mut self) {
        self.load = Some(Load::begin(&self.world, &self.slots, &mut self.dice));
        let since = now();
        for number in 0..self.slots.len() {
            self.answers(number, since).await;
            self.revokes(number, since, 2).await;
        }
    }

    /// What everybody wrote down.
    pub fn log(&self) -> &Log {
        &self.world.log
    }

    /// Waits until the node said of a session that it is good, in a call that began after `since`; says when.
    pub async fn answers(&self, slot: usize, since: BootTime) -> BootTime {
        let good = |entry: &Entry| entry.process.slot == slot && entry.is_good();
        let mut at = None;
        eventually("the node says of a session that it is good", async || {
            at = self.log().first(since, good);
            at.is_some()
        })
        .await;
        at.expect("it was waited for")
    }

    /// Waits until so many calls at the node ended sessions that began after `since`.
    pub async fn revokes(&self, slot: usize, since: BootTime, count: usize) {
        let ended = |entry: &Entry| entry.process.slot == slot && entry.is_revocation();
        eventually("sessions are ended", async || self.log().count(since, ended) >= count).await;
    }

    /// Waits until the node says that it cannot know, so often, in calls that began after `since`.
    pub async fn loses_its_lease(&self, slot: usize, since: BootTime, times: usize) {
        let lost = |entry: &Entry| entry.process.slot == slot && entry.is_refused_for("LEASE_LOST");
        eventually("the node says that it lost its lease", async || self.log().count(since, lost) >= times)
            .await;
    }

    /// Leads new connections of all nodes to another server.
    pub fn switch_to(&self, server: &str) {
        for slot in self.slots.iter() {
            slot.proxy.switch_to(server);
        }
    }

    /// Lets the callers finish, asks all nodes for so many of the latest sessions, and returns what must not be.
    pub async fn violations(mut self, look_back: usize) -> Vec<(Process, Violation)> {
        self.stop_load().await;
        look_at_all(&self.world, &self.slots, look_back).await;
        check(&self.log().entries())
    }

    async fn stop_load(&mut self) {
        if let Some(load) = self.load.take() {
            load.end().await;
        }
    }

    /// Lets the callers finish, asks all nodes for the sessions of late, and judges all of it.
    pub async fn end(self, title: &str) -> Report {
        self.end_looking_back(title, LAST_LOOK).await
    }

    /// The same with so many of the latest sessions.
    pub async fn end_looking_back(mut self, title: &str, look_back: usize) -> Report {
        self.stop_load().await;
        look_at_all(&self.world, &self.slots, look_back).await;
        let (nodes, lease) = (self.slots.len(), self.lease.as_millis());
        let title = format!("{title}, {}, {nodes} nodes, lease {lease} ms", self.engine);
        let entries = self.log().entries();
        Report::judge(&title, self.seed, entries, self.slots)
    }
}

impl Slot {
    async fn new(number: usize, db: &TestDatabase, url: Option<&str>, folder: &std::path::Path) -> Self {
        let (before, rest) = db.url().split_once('@').expect("an account");
        let (server, name) = rest.split_once('/').expect("a database");
        let proxy = TcpProxy::start(server.to_owned()).await;
        let url = url.map_or_else(|| format!("{before}@{}/{name}", proxy.address), str::to_owned);
        let (process, door) = (Mutex::new(None), Mutex::new(None));
        Self { number, proxy, url, folder: folder.to_owned(), process, door }
    }

    /// Starts a process in this place, behind those that were there before.
    pub async fn start(self: &Arc<Self>) {
        let this = Arc::clone(self);
        let starting = tokio::task::spawn_blocking(move || {
            start(
                &this.folder,
                &this.url,
                &["--database-connections-max", CONNECTIONS, "--log-filter", "warn,latchkey=debug"],
            )
        });
        let node = starting.await.expect("it starts");
        let connect = || {
            let endpoint = Endpoint::from_shared(format!("http://{}", node.grpc)).expect("an address");
            Client::new(endpoint.connect_lazy())
        };
        let mut door = lock(&self.door);
        let incarnation = door.as_ref().map_or(0, |door| door.process.incarnation + 1);
        let process = Process { slot: self.number, incarnation };
        *door = Some(Door { process, client: connect(), writer: connect() });
        *lock(&self.process) = Some(node);
    }

    /// How the process is called that is there, or was there last.
    pub fn door(&self) -> Door {
        lock(&self.door).clone().expect("a process was started")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        lock(&self.process).as_ref().expect("a process").signal(signal);
    }

    /// Waits until the process has ended, by itself or by a signal.
    pub async fn ended(&self) -> Ended {
        let mut process = lock(&self.process).take().expect("a process");
        process.ended().await
    }

    /// Where the process serves gRPC.
    pub fn grpc(&self) -> String {
        lock(&self.process).as_ref().expect("a process").grpc.clone()
    }

    /// What the node tells to whoever scrapes it.
    pub async fn metrics(&self) -> Metrics {
        let http = lock(&self.process).as_ref().expect("a process").http.clone();
        let mut connection = TcpStream::connect(http).await.expect("metrics are served");
        connection.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.expect("it is read");
        let mut text = String::new();
        connection.read_to_string(&mut text).await.expect("it is a text");
        Metrics(text)
    }
}

impl Drop for Nodes {
    /// Where a test fails, what its nodes logged is part of why.
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        for slot in &self.0 {
            if let Some(mut process) = lock(&slot.process).take()
                && failed
            {
                process.signal(Signal::KILL);
                println!("node {} logged: {}", slot.number, process.wait().stderr);
            }
        }
    }
}

/// The metrics of a node at one moment.
pub struct Metrics(String);

impl Metrics {
    /// How often each step of the store was called, whatever came of it.
    pub fn all_store_calls(&self) -> BTreeMap<String, f64> {
        let mut calls = BTreeMap::new();
        for line in self.0.lines() {
            let Some(rest) = line.strip_prefix("latchkey_store_calls_total{step=\"") else { continue };
            let (step, rest) = rest.split_once('"').expect("a label ends");
            let (_, value) = rest.rsplit_once(' ').expect("a sample has a value");
            *calls.entry(step.to_owned()).or_default() += value.parse::<f64>().expect("a number");
        }
        calls
    }

    /// How often one step was called.
    pub fn store_calls(&self, step: &str) -> f64 {
        self.all_store_calls().get(step).copied().unwrap_or_default()
    }
}

/// Lets time pass: where a fault has to last longer than a lease, nothing else tells that it did.
pub async fn while_time_passes(span: Duration) {
    let until = now().plus(span);
    eventually("time passes", async || now() >= until).await;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
