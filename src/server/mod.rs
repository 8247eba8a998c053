//! The only composition root, and the life of a node: wire, bind, ready, drain, stop.
//!
//! Production, `demo` and the tests all start here; they differ only in the [`Parts`] they bring.

pub mod descriptors;
mod health;
mod http;
mod settings;
mod upkeep;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::config::{Config, HttpListen};
use crate::domain::invalid::Invalid;
use crate::domain::token::{KeyId, KeyRing};
use crate::fleet::database_time::{DatabaseClock, DatabaseTime};
use crate::fleet::{Fleet, FleetParts};
use crate::grpc::auth::Auth;
use crate::grpc::fleet::FleetAdmin;
use crate::grpc::front::Front;
pub use crate::grpc::lean::HotPath;
use crate::grpc::lean::Lean;
use crate::grpc::listener::{self, WireLimits};
use crate::grpc::observe::Observe;
use crate::grpc::proto::{admin, v1};
use crate::grpc::users::Users;
use crate::host::{Clock, Entropy, SystemTicks};
use crate::passwords::pool::HashingPool;
use crate::passwords::throttle::Throttle;
use crate::store::coordination::Coordination;
use crate::store::observed::{ObservedCoordination, ObservedStore};
use crate::store::{Store, StoreError};
use crate::supervise::Supervisor;
use crate::telemetry::{Metrics, report_wait};
use crate::usecases::record_last_seen::record_all;
use crate::usecases::token_keys::register_token_keys;
use crate::usecases::{App, Tasks};
use health::Health;
use upkeep::Upkeep;

/// What the writing of last uses has at the end at least, however long the drain took.
const LAST_USES_TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// What a node is made of, besides its configuration.
pub struct Parts {
    /// Durable state.
    pub store: Arc<dyn Store>,
    /// What nodes agree through.
    pub coordination: Arc<dyn Coordination>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The keys that sign and verify tokens.
    pub keys: KeyRing,
    /// Which way the hot questions take.
    pub hot_path: HotPath,
}

/// Why a node does not start. Each says what the operator can do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Passwords and tokens would cross the network in the clear.
    #[error(
        "refusing to listen on {0} without TLS: listen on a loopback address, or set `insecure = true` if something else protects the network"
    )]
    Plaintext(SocketAddr),
    /// A setting that only its module can judge.
    #[error("{setting}: {why}")]
    BadSetting {
        /// The setting, as the configuration names it.
        setting: &'static str,
        /// Which limit it breaks.
        why: Invalid,
    },
    /// An address is taken, or not ours.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// What the operating system says.
        error: io::Error,
    },
    /// The hashing threads could not be started.
    #[error("cannot start the password hashing threads: {0}")]
    Threads(io::Error),
    /// The follower's thread could not be started.
    #[error("cannot start the thread that follows the change log: {0}")]
    Follower(io::Error),
    /// The operating system allows too few open files.
    #[error(
        "the limit of open files is {limit}, and this node needs {needed} at least: raise it (ulimit -n, LimitNOFILE), or lower database.connections_max"
    )]
    TooFewDescriptors {
        /// How many it allows.
        limit: u64,
        /// How many are needed to serve at all.
        needed: u64,
    },
    /// Another node signs with another key of the same number.
    #[error(
        "token key {} is not the one that this database knows under that number: give this node the key file of the other nodes; where that key is lost, make one under a number that this database never saw, with `latchkey key new FILE --number N`", .0.0
    )]
    KeyMismatch(KeyId),
    /// The database does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A node that is wired and bound, but does not answer yet.
pub struct Server {
    app: Arc<App>,
    metrics: Arc<Metrics>,
    health: Health,
    front: Front,
    limits: WireLimits,
    upkeep: Upkeep,
    supervisor: Supervisor,
    stop_grpc: CancellationToken,
    grpc: TcpListener,
    http: Option<TcpListener>,
    grpc_address: SocketAddr,
    http_address: Option<SocketAddr>,
    lame_duck: Duration,
    drain: Duration,
}

/// How a node ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drained {
    /// Every call was answered.
    Clean,
    /// Calls were cut off, at the limit of the drain or because it was told to end at once.
    CutOff,
    /// It ended by itself: a task that it cannot do without panicked again and again.
    Failed(&'static str),
}

/// Wires and binds a node.
pub async fn assemble(config: &Config, parts: Parts) -> Result<Server, StartError> {
    if !config.listen.ip().is_loopback() && !config.insecure {
        return Err(StartError::Plaintext(config.listen));
    }
    let mut limits = settings::wire_limits(config);
    limits.connections_max =
        descriptors::connections(limits.connections_max, config.database.connections_max)?;
    let metrics = Arc::new(Metrics::default());
    let supervisor = Supervisor::new(Arc::clone(&parts.clock));
    let (clock, hot_path) = (Arc::clone(&parts.clock), parts.hot_path);
    let app = Arc::new(wire(config, parts, &metrics, &supervisor).await?);

    let (health, health_service) = Health::new(Arc::clone(&metrics), config.grpc.admin).await;
    let stop_grpc = CancellationToken::new();
    let message_bytes_max = usize::try_from(config.grpc.message_bytes_max).unwrap_or(usize::MAX);
    let auth =
        v1::auth_service_server::AuthServiceServer::new(Auth::new(Arc::clone(&app), stop_grpc.clone()));
    let mut routes = Routes::new(auth.max_decoding_message_size(message_bytes_max))
        .add_service(health_service.max_decoding_message_size(message_bytes_max));
    if config.grpc.admin {
        let users = admin::user_service_server::UserServiceServer::new(Users::new(Arc::clone(&app)));
        let nodes = admin::fleet_service_server::FleetServiceServer::new(FleetAdmin::new(Arc::clone(&app)));
        routes = routes
            .add_service(users.max_decoding_message_size(message_bytes_max))
            .add_service(nodes.max_decoding_message_size(message_bytes_max));
    }
    if config.grpc.reflection {
        let (current, alpha) = health::reflection(config.grpc.admin);
        routes = routes
            .add_service(current.max_decoding_message_size(message_bytes_max))
            .add_service(alpha.max_decoding_message_size(message_bytes_max));
    }
    let observe = Observe::new(Arc::clone(&metrics), clock);
    let lean = Lean::new(Arc::clone(&app), hot_path, &metrics, &observe, message_bytes_max);
    let front = Front::new(observe, settings::callers(config), lean, routes, stop_grpc.clone());

    let (grpc, grpc_address) = bind(config.listen).await?;
    let (http, http_address) = match config.http_listen {
        HttpListen::Off => (None, None),
        HttpListen::At(address) => bind(address).await.map(|(http, address)| (Some(http), Some(address)))?,
    };
    let upkeep = Upkeep::new(
        Arc::clone(&app),
        health.clone(),
        Arc::clone(&metrics),
        supervisor.clone(),
        &config.maintenance,
    );
    Ok(Server {
        app,
        metrics,
        health,
        front,
        limits,
        upkeep,
        supervisor,
        stop_grpc,
        grpc,
        http,
        grpc_address,
        http_address,
        lame_duck: Duration::from_millis(config.shutdown.lame_duck_ms),
        drain: Duration::from_millis(config.shutdown.drain_ms),
    })
}

/// Makes the use cases, with the database's time known and the keys checked.
async fn wire(
    config: &Config,
    parts: Parts,
    metrics: &Arc<Metrics>,
    supervisor: &Supervisor,
) -> Result<App, StartError> {
    let Parts { store, coordination, clock, entropy, keys, hot_path: _ } = parts;
    let store: Arc<dyn Store> = Arc::new(ObservedStore::new(store, Arc::clone(metrics), Arc::clone(&clock)));
    let coordination: Arc<dyn Coordination> =
        Arc::new(ObservedCoordination::new(coordination, Arc::clone(metrics), Arc::clone(&clock)));
    let goes_by =
        if coordination.is_exclusive() { DatabaseClock::OfThisMachine } else { DatabaseClock::ItsOwn };
    let time = DatabaseTime::ask(Arc::clone(&clock), goes_by, &*store);
    let time = report_wait("the database to tell its time", time).await?;
    let (params, limits) = (settings::argon2_params(config)?, settings::pool_limits(config));
    let hashing = HashingPool::start(params, limits, Arc::clone(&entropy), supervisor);
    let hashing = hashing.map_err(StartError::Threads)?;
    let throttle = settings::throttle_policy(config)?;
    let password_policy = settings::password_policy(config)?;
    let fleet = join(
        config,
        FleetParts {
            store: Arc::clone(&store),
            coordination,
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            time,
            encode_user: crate::grpc::wire::encode_user,
            supervisor: supervisor.clone(),
        },
    )
    .await?;
    let app = App {
        throttle: throttle.map(|policy| Throttle::new(policy, clock, &*entropy)),
        store,
        fleet,
        entropy,
        keys,
        hashing,
        session_policy: settings::session_policy(config),
        password_policy,
        tasks: Tasks::default(),
    };
    let what = "the token keys to be recorded, which a backup or another transaction may hold up";
    let error = match report_wait(what, register_token_keys(&app)).await {
        Ok(None) => return Ok(app),
        Ok(Some(key)) => StartError::KeyMismatch(key),
        Err(error) => error.into(),
    };
    app.fleet.stop().await;
    Err(error)
}

/// Starts to follow the log, and fills memory: a node answers nothing before that.
async fn join(config: &Config, parts: FleetParts) -> Result<Fleet, StartError> {
    let policy = settings::fleet_policy(config);
    let until = parts.clock.boottime().plus(Duration::from_millis(config.database.connect_timeout_ms));
    let fleet = Fleet::start(&policy, parts).map_err(StartError::Follower)?;
    let what = "this node's lease, for which it must join the fleet and read the change log";
    let warmed = if report_wait(what, fleet.leased(until)).await {
        report_wait("sessions to be read into memory", fleet.warm(policy.memory.sessions_max)).await
    } else {
        Err(StoreError::Unavailable("this node could not join the fleet in time".to_owned()))
    };
    match warmed {
        Ok(sessions) => {
            tracing::info!(sessions, "sessions are in memory");
            Ok(fleet)
        }
        Err(error) => {
            fleet.stop().await;
            Err(error.into())
        }
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |error| StartError::Bind { address, error };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

impl Server {
    /// Where gRPC is served, with the port that was found for port 0.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    /// This node's part in the fleet.
    pub fn fleet(&self) -> Fleet {
        self.app.fleet.clone()
    }

    /// Where health and metrics are served, if they are.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// Answers until `shutdown`, then drains: not ready, a lame-duck delay in which balancers notice, no new
    /// connections, streams ended, open calls to their end, at most for the drain limit; then the last uses of sessions
    /// are written, in what is left of it. `abort` ends all of that at once.
    pub async fn run(self, shutdown: CancellationToken, abort: CancellationToken) -> Drained {
        let Self {
            app,
            metrics,
            health,
            front,
            limits,
            upkeep,
            supervisor,
            stop_grpc,
            grpc,
            http,
            lame_duck,
            drain,
            ..
        } = self;
        let (stop_rest, cut) = (CancellationToken::new(), abort.child_token());
        let side = Tasks::default();
        if let Some(http) = http {
            side.detach(http::serve(
                http,
                health.clone(),
                Arc::clone(&app),
                Arc::clone(&metrics),
                supervisor.clone(),
                stop_rest.clone(),
            ));
        }
        upkeep.start(&side, &stop_rest);
        let ticks = Arc::new(SystemTicks::new());
        let serving = listener::serve(
            grpc,
            front,
            limits,
            metrics,
            ticks,
            supervisor.clone(),
            stop_grpc.clone(),
            cut.clone(),
        );
        let mut serving = std::pin::pin!(serving);
        health.begin().await;

        tokio::select! {
            () = serving.as_mut() => {}
            () = shutdown.cancelled() => {}
            () = supervisor.failed() => {}
            () = abort.cancelled() => {}
        }
        if let Some(task) = supervisor.failed_task() {
            health.set_defect(Some(format!("{task} panics again and again"))).await;
        }
        health.end().await;
        tokio::select! {
            () = serving.as_mut() => {}
            () = abort.cancelled() => {}
            () = health::pause(lame_duck) => {}
        }
        stop_grpc.cancel();
        health.let_watchers_go().await;
        let drain_over = health::pause(drain).shared();
        let finish = async {
            serving.as_mut().await;
            app.tasks.drained().await;
            // After a restart nobody else knows of them.
            app.fleet.unsettled_ended().await;
        };
        let drained = tokio::select! {
            () = finish => Drained::Clean,
            () = abort.cancelled() => Drained::CutOff,
            () = drain_over.clone() => Drained::CutOff,
        };
        cut.cancel();
        // The database may hang, which must not keep the process.
        let too_late = async { tokio::join!(drain_over, health::pause(LAST_USES_TIMEOUT_MIN)) };
        tokio::select! {
            biased;
            () = abort.cancelled() => {}
            written = record_all(&app) => if let Err(refusal) = written {
                tracing::warn!(?refusal, "the last uses of sessions were not written");
            },
            _ = too_late => tracing::warn!("the last uses of sessions were not written in time"),
        }
        match app.fleet.stats().unsettled {
            0 => {}
            sessions => tracing::error!(
                sessions,
                "sessions were ended here whose end the database does not know: those of them that it never took are good \
                 again; end them once more"
            ),
        }
        stop_rest.cancel();
        app.fleet.stop().await;
        app.hashing.close();
        supervisor.failed_task().map_or(drained, Drained::Failed)
    }
}
