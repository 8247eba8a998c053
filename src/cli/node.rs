//! A node of this process: its store, its keys and the server over them, for `serve` and `demo`.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::failure::{Exit, Failure};
use super::key::signing_key;
use super::token_keys;
use crate::config::Config;
use crate::database_url::DatabaseUrl;
use crate::domain::time::BootTime;
use crate::host::{Clock, SystemClock, SystemEntropy};
use crate::server::{self, Drained, HotPath, Parts, Server, StartError};
use crate::store::sql::{OpenError, SqlLimits, SqlStore};
use crate::telemetry::report_wait;

/// How long a node waits before it asks again for a database that did not answer.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long one such question may take.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(5);

/// How long the store may take to close; what it still does then is left to the database.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A node that is bound and does not answer yet.
pub(super) struct Node {
    pub(super) server: Server,
    store: SqlStore,
    signing_key: u8,
}

impl Node {
    /// Opens the store and wires the server. None when `stop` came first.
    pub(super) async fn start(config: &Config, stop: &CancellationToken) -> Result<Option<Self>, Failure> {
        let keys = token_keys::find(config, &SystemEntropy)?;
        let Some(store) = open(config, &SystemClock, stop).await? else { return Ok(None) };
        let signing_key = signing_key(&keys.ring);
        let parts = Parts {
            store: Arc::new(store.clone()),
            coordination: Arc::new(store.clone()),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            keys: keys.ring,
            hot_path: HotPath::Lean,
        };
        match server::assemble(config, parts).await {
            Ok(server) => Ok(Some(Self { server, store, signing_key })),
            Err(error) => {
                store.close().await;
                let mut failure = not_started(&error);
                if let (StartError::KeyMismatch(_), Some(made)) = (&error, keys.made) {
                    // It has signed nothing, and would be in the way of the right one.
                    _ = fs::remove_file(&made);
                    failure = failure
                        .hint(format!("there was no {}: put the one back that was there", made.display()));
                }
                Err(failure)
            }
        }
    }

    /// What a person wants to know of a node that starts.
    pub(super) fn describe(&self) -> String {
        let http =
            self.server.http_address().map_or_else(|| "off".to_owned(), |address| format!("on {address}"));
        format!(
            "latchkey {} serving gRPC on {} (PLAINTEXT), HTTP {http}, store {}, session tokens signed by key {}",
            env!("CARGO_PKG_VERSION"),
            self.server.grpc_address(),
            self.store.describe(),
            self.signing_key,
        )
    }

    /// Answers until `shutdown`, drains, and gives the store free; at once where `abort` says so.
    pub(super) async fn run(self, shutdown: CancellationToken, abort: CancellationToken) -> Drained {
        let drained = self.server.run(shutdown, abort.clone()).await;
        tokio::select! {
            closed = tokio::time::timeout(CLOSE_TIMEOUT, self.store.close()) => {
                if closed.is_err() {
                    tracing::warn!("the database did not end what it was asked for in time");
                }
                drained
            }
            () = abort.cancelled() => Drained::CutOff,
        }
    }
}

/// The bounds of the store.
pub(super) fn limits(config: &Config) -> SqlLimits {
    let database = &config.database;
    SqlLimits {
        connections_max: database.connections_max,
        connect_timeout: Duration::from_millis(database.connect_timeout_ms)
            .clamp(RETRY_AFTER, CONNECT_TIMEOUT_MAX),
        acquire_timeout: Duration::from_millis(database.acquire_timeout_ms),
        statement_timeout: Duration::from_millis(database.statement_timeout_ms),
        lock_timeout: Duration::from_millis(database.lock_timeout_ms),
    }
}

/// Opens the store; one on a server that does not answer is asked again until the time is up.
async fn open(
    config: &Config,
    clock: &dyn Clock,
    stop: &CancellationToken,
) -> Result<Option<SqlStore>, Failure> {
    let begun = clock.boottime();
    let give_up = begun.plus(Duration::from_millis(config.database.connect_timeout_ms));
    loop {
        let left = give_up.since(clock.boottime()).clamp(RETRY_AFTER, CONNECT_TIMEOUT_MAX);
        let limits = SqlLimits { connect_timeout: left, ..limits(config) };
        let opened = tokio::select! {
            opened = report_wait("the database", SqlStore::open(&config.database_url, limits)) => opened,
            () = stop.cancelled() => return Ok(None),
        };
        match opened {
            Ok(store) => return Ok(Some(store)),
            Err(error) if is_worth_waiting(&error, &config.database_url, clock.boottime(), give_up) => {
                let waited_s = clock.boottime().since(begun).as_secs();
                tracing::warn!(%error, waited_s, "the database does not answer; trying again");
            }
            Err(error) => return Err(not_opened(&error)),
        }
        if tokio::time::timeout(RETRY_AFTER, stop.cancelled()).await.is_ok() {
            return Ok(None);
        }
    }
}

/// Whether the database may answer later: a server may still be starting, a file is there or not.
fn is_worth_waiting(error: &OpenError, url: &DatabaseUrl, now: BootTime, give_up: BootTime) -> bool {
    matches!(error, OpenError::Unreachable(_)) && url.is_shared() && now < give_up
}

/// Why a database cannot be used, with the exit code that goes with it.
pub(super) fn not_opened(error: &OpenError) -> Failure {
    let exit = match error {
        OpenError::BadUrl(_) | OpenError::InsecureTransport { .. } => Exit::Configuration,
        OpenError::Unreachable(_)
        | OpenError::Unsupported(_)
        | OpenError::SchemaMissing
        | OpenError::SchemaBehind { .. }
        | OpenError::SchemaDamaged { .. }
        | OpenError::SchemaLost { .. }
        | OpenError::SchemaAhead { .. }
        | OpenError::Taken(_) => Exit::Unavailable,
    };
    Failure::new(exit, error.to_string())
}

fn not_started(error: &StartError) -> Failure {
    let exit = match error {
        StartError::Plaintext(_) | StartError::BadSetting { .. } | StartError::KeyMismatch(_) => {
            Exit::Configuration
        }
        StartError::Bind { .. } | StartError::Threads(_) | StartError::Follower(_) => Exit::Refused,
        StartError::TooFewDescriptors { .. } => Exit::Configuration,
        StartError::Store(_) => Exit::Unavailable,
    };
    Failure::new(exit, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_that_does_not_answer_is_waited_for_and_only_so_long() {
        let lost = OpenError::Unreachable("refused".to_owned());
        let shared = Config::default().database_url;
        assert!(!shared.is_shared());
        let environment = vec![("LATCHKEY_DATABASE_URL".into(), "postgres://db/latchkey".into())];
        let sources = crate::config::Sources { environment, ..crate::config::Sources::default() };
        let server = crate::config::load(&sources).expect("it holds").config.database_url;
        let at = |seconds| BootTime::from_span(Duration::from_secs(seconds));
        assert!(is_worth_waiting(&lost, &server, at(1), at(2)));
        assert!(!is_worth_waiting(&lost, &server, at(2), at(2)));
        assert!(!is_worth_waiting(&lost, &shared, at(1), at(2)));
        assert!(!is_worth_waiting(&OpenError::SchemaMissing, &server, at(1), at(2)));
    }

    #[test]
    fn a_bad_url_is_the_operators_mistake_and_a_lost_database_is_not() {
        assert_eq!(not_opened(&OpenError::BadUrl("x".to_owned())).exit, Exit::Configuration);
        assert_eq!(not_opened(&OpenError::Taken("x".into())).exit, Exit::Unavailable);
        assert_eq!(not_opened(&OpenError::SchemaMissing).exit, Exit::Unavailable);
    }

    #[test]
    fn the_store_is_bounded_as_configured() {
        let limits = limits(&Config::default());
        assert_eq!(limits.connections_max, 10);
        assert_eq!(limits.connect_timeout, CONNECT_TIMEOUT_MAX);
        assert_eq!(limits.statement_timeout, Duration::from_secs(5));
    }
}
