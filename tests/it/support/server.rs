//! A server of the test: the composition root of production on port 0, with a manual clock and seeded entropy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use latchkey::config::{Config, HttpListen};
use latchkey::domain::id::UserId;
use latchkey::domain::time::{BootTime, UnixMillis};
use latchkey::domain::token::{KEY_LEN, KeyId, KeyRing, TokenKey};
use latchkey::fleet::Fleet;
use latchkey::grpc::proto::admin::user_service_client::UserServiceClient;
use latchkey::grpc::proto::v1::auth_service_client::AuthServiceClient;
use latchkey::grpc::proto::{admin, v1};
use latchkey::host::{Clock, Entropy, ManualClock};
use latchkey::server::{Drained, HotPath, Parts, StartError, assemble};
use latchkey::store::Store;
use latchkey::store::coordination::Coordination;
use latchkey::store::sql::SqlStore;
use prost_types::Timestamp;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use super::databases::TestDatabase;
use super::held_hashing::HeldHashing;
use super::interposed_coordination::InterposedCoordination;
use super::interposed_store::{Faults, InterposedStore, START};
use super::waiting::{eventually, in_time};

/// A password that meets the rules.
pub const PASSWORD: &str = "correct horse battery staple";
/// Another one.
pub const OTHER_PASSWORD: &str = "a completely different phrase";

/// How long a lease is.
pub const LEASE: Duration = Duration::from_secs(5);

/// A server that runs until it is stopped or the test ends.
pub struct TestServer {
    /// Stands still until the test moves it; the database's time moves with it.
    pub clock: Arc<ManualClock>,
    /// What happens to steps of the store.
    pub faults: Faults,
    /// By what hashing is held.
    pub hashing: Arc<HeldHashing>,
    /// Where gRPC is served.
    pub address: SocketAddr,
    /// Where health and metrics are served.
    pub http_address: SocketAddr,
    /// What the first signal does.
    pub shutdown: CancellationToken,
    /// What the second signal does.
    pub abort: CancellationToken,
    /// The node's part in the fleet.
    pub fleet: Fleet,
    /// The database itself, past everything that is interposed.
    pub store: Arc<SqlStore>,
    config: Config,
    channel: OnceCell<Channel>,
    running: JoinHandle<Drained>,
}

/// The key ring of every test server that does not bring its own.
pub fn key_ring() -> KeyRing {
    KeyRing::new(vec![TokenKey::new(KeyId(1), [7; KEY_LEN])]).expect("a ring")
}

/// The configuration of production, but for free ports, no delay at the end, and a generous throttle.
pub fn config() -> Config {
    let mut config = Config::default();
    config.listen.set_port(0);
    config.http_listen = HttpListen::At(SocketAddr::from(([127, 0, 0, 1], 0)));
    config.shutdown.lame_duck_ms = 0;
    // The manual clock stands still, so no lease runs out between polls.
    config.maintenance.poll_ms = 2_000;
    config.maintenance.last_seen_flush_ms = 20;
    config.throttle.login_burst = 100_000;
    config.throttle.address_burst = 100_000;
    config.throttle.global_burst = 100_000;
    config
}

/// The same, with room for next to nothing in memory, so that nearly every question is read from the database.
pub fn forgetful(mut config: Config) -> Config {
    config.fleet.sessions_in_memory_max = 2;
    config.fleet.dead_in_memory_max = 1;
    config
}

/// The moment `after` the start of the manual clock.
#[expect(clippy::unnecessary_wraps, reason = "it is compared with fields, and those may be missing")]
pub fn moment(after: Duration) -> Option<Timestamp> {
    let millis = START.plus(after).as_millis();
    let nanos = i32::try_from(millis.rem_euclid(1_000) * 1_000_000).expect("below a second");
    Some(Timestamp { seconds: millis.div_euclid(1_000), nanos })
}

impl TestServer {
    /// Starts on the database with the usual configuration.
    pub async fn start(database: &TestDatabase) -> Self {
        Self::start_with(database, |_| ()).await
    }

    /// Starts on the database with a changed configuration.
    pub async fn start_with(database: &TestDatabase, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config();
        change(&mut config);
        Self::started(database, &config, Arc::default()).await
    }

    /// Starts with everything given, and tells why not.
    pub async fn try_start(
        database: &TestDatabase,
        config: &Config,
        clock: Arc<ManualClock>,
        keys: KeyRing,
    ) -> Result<Self, StartError> {
        Self::try_start_over(database, config, clock, keys, |store| store).await
    }

    /// The same over what `over` makes of the store.
    pub async fn try_start_over(
        database: &TestDatabase,
        config: &Config,
        clock: Arc<ManualClock>,
        keys: KeyRing,
        over: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
    ) -> Result<Self, StartError> {
        Self::try_start_on(database.open().await, config, clock, keys, over).await
    }

    /// The same on a store that is open already.
    pub async fn try_start_on(
        store: SqlStore,
        config: &Config,
        clock: Arc<ManualClock>,
        keys: KeyRing,
        over: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
    ) -> Result<Self, StartError> {
        Self::assembled(store, config, clock, keys, over, HotPath::Lean).await
    }

    async fn assembled(
        store: SqlStore,
        config: &Config,
        clock: Arc<ManualClock>,
        keys: KeyRing,
        over: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
        hot_path: HotPath,
    ) -> Result<Self, StartError> {
        // The seed differs from server to server, so that a restart does not mint the ids of its forerunner again.
        static SEED: AtomicU64 = AtomicU64::new(1);
        let seed = SEED.fetch_add(1, Ordering::Relaxed);
        let store = Arc::new(store);
        let faults = Faults::default();
        let interposed = InterposedStore {
            inner: Arc::clone(&store) as Arc<dyn Store>,
            clock: Arc::clone(&clock),
            faults: faults.clone(),
        };
        let coordination = InterposedCoordination {
            inner: Arc::clone(&store) as Arc<dyn Coordination>,
            clock: Arc::clone(&clock),
            faults: faults.clone(),
        };
        let hashing = Arc::new(HeldHashing::new(seed));
        let parts = Parts {
            store: over(Arc::new(interposed)),
            coordination: Arc::new(coordination),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            entropy: Arc::clone(&hashing) as Arc<dyn Entropy>,
            keys,
            hot_path,
        };
        let server = match assemble(config, parts).await {
            Ok(server) => server,
            Err(error) => {
                store.close().await;
                return Err(error);
            }
        };
        let (address, http_address) = (server.grpc_address(), server.http_address().expect("HTTP is on"));
        let (shutdown, abort) = (CancellationToken::new(), CancellationToken::new());
        let fleet = server.fleet();
        #[expect(clippy::disallowed_methods, reason = "the server of a test runs beside the test")]
        let running = tokio::spawn(server.run(shutdown.clone(), abort.clone()));
        let (config, channel) = (config.clone(), OnceCell::new());
        Ok(Self {
            clock,
            faults,
            hashing,
            address,
            http_address,
            shutdown,
            abort,
            fleet,
            store,
            config,
            channel,
            running,
        })
    }

    /// Waits for the end, which something must have brought on, and gives the database free.
    pub async fn ended(self) -> Drained {
        let drained = in_time("the end of the server", self.running).await;
        self.store.close().await;
        drained.expect("the server does not panic")
    }

    /// Stops gracefully and gives the database free.
    pub async fn stop(self) -> Drained {
        self.shutdown.cancel();
        self.ended().await
    }

    /// Stops gracefully and starts again on the same database, with the same configuration, at the same time.
    pub async fn restart(self, database: &TestDatabase) -> Self {
        let (clock, config) = (Arc::clone(&self.clock), self.config.clone());
        self.stop().await;
        Self::started(database, &config, clock).await
    }

    /// The same, but for the way that the hot questions take from then on.
    pub async fn restart_on(self, database: &TestDatabase, hot_path: HotPath) -> Self {
        let (clock, config) = (Arc::clone(&self.clock), self.config.clone());
        self.stop().await;
        let store = database.open().await;
        let started = Self::assembled(store, &config, clock, key_ring(), |store| store, hot_path).await;
        started.unwrap_or_else(|why| panic!("the server does not start: {why}"))
    }

    /// Ends at once, without writing anything more, and starts again on the same database.
    pub async fn crash(self, database: &TestDatabase) -> Self {
        let (clock, config) = (Arc::clone(&self.clock), self.config.clone());
        self.abort.cancel();
        self.ended().await;
        Self::started(database, &config, clock).await
    }

    async fn started(database: &TestDatabase, config: &Config, clock: Arc<ManualClock>) -> Self {
        let started = Self::try_start(database, config, clock, key_ring()).await;
        started.unwrap_or_else(|why| panic!("the server does not start: {why}"))
    }

    /// Moves the clock of the machine and of the database, and waits until the node knows of it and holds its lease again;
    /// unless the test keeps it from that.
    pub async fn advance(&self, span: Duration) {
        // A poll that is under way would take the time from after the move for that of before.
        let polls = self.fleet.stats().polls;
        self.clock.advance(span);
        if self.faults.touch("poll") {
            return;
        }
        // The first one may have been under way.
        eventually("the node polls twice", async || {
            self.fleet.nudge();
            self.fleet.stats().polls >= polls + 2 && self.fleet.is_leased()
        })
        .await;
    }

    /// What the database itself knows of the last use of the newest session of a user.
    pub async fn stored_last_use(&self, user: &v1::User) -> Option<UnixMillis> {
        let id = UserId::parse(&user.user_id).expect("an id");
        let now = START.plus(self.clock.boottime().since(BootTime::default()));
        let sessions = self.store.sessions_of_user(id, None, 1, now).await.expect("the database answers");
        sessions.first().map(|session| session.last_seen_time)
    }

    /// A connection that all calls of the test share.
    pub async fn channel(&self) -> Channel {
        self.channel.get_or_init(|| self.new_channel()).await.clone()
    }

    /// A connection of its own.
    pub async fn new_channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).expect("an address");
        endpoint.connect().await.expect("the server listens")
    }

    /// A client of `AuthService`.
    pub async fn auth(&self) -> AuthServiceClient<Channel> {
        AuthServiceClient::new(self.channel().await)
    }

    /// A client of `UserService`.
    pub async fn users(&self) -> UserServiceClient<Channel> {
        UserServiceClient::new(self.channel().await)
    }
}

/// A plain request to add a user; an empty password is none.
pub fn new_user(login: &str, password: &str) -> admin::CreateUserRequest {
    admin::CreateUserRequest { login: login.to_owned(), password: password.to_owned(), ..Default::default() }
}

/// A plain request to sign in.
pub fn log_in_request(login: &str, password: &str) -> v1::LoginRequest {
    v1::LoginRequest { login: login.to_owned(), password: password.to_owned(), ..Default::default() }
}

/// A plain request to sign a user in without a password.
pub fn open_request(user: &v1::User) -> v1::CreateSessionRequest {
    v1::CreateSessionRequest {
        user_id: user.user_id.clone(),
        methods: vec!["otp".to_owned()],
        ..Default::default()
    }
}

/// A device.
pub fn device(ip: &str, user_agent: &str, device_name: &str) -> v1::Client {
    v1::Client { ip: ip.to_owned(), user_agent: user_agent.to_owned(), device_name: device_name.to_owned() }
}

/// A span as a message.
pub fn span(seconds: i64, nanos: i32) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos }
}
