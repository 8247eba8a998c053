//! Connections: how each is set up, and how a dead one leaves the pool.
//!
//! A connection that dies silently (a cable, a firewall) answers nothing, and sqlx would wait for it when it is given back
//! and never return its place in the pool (its issue 4349). So every connection that is given back, or was idle, must
//! answer a ping in time; and it has neither a life time nor an idle time, whose closing waits in the same way. What is
//! left is a death between that ping and the one that sqlx then sends itself: `places` gives its place to another.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sea_orm::sqlx::pool::PoolOptions;
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sea_orm::sqlx::{self, Connection, Database, Pool};
use sea_orm::{
    ConnectionTrait as _, DatabaseConnection, DbBackend, SqlxMySqlConnector, SqlxPostgresConnector,
    SqlxSqliteConnector,
};

use super::error::{OpenError, describe_at_start};
use super::hosts::{Engine, Hosts};
use super::limits::SqlLimits;
use super::places::Places;
use super::session::Settings;
use super::source::Source;
use super::target::Target;
use crate::mutation::Mutation;

/// How long a connection may take to answer a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection that was used less long ago than this is taken to be alive.
const PING_AFTER_IDLE: Duration = Duration::from_secs(1);
/// How long closing all connections may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// Connections to a SQLite file; one writes at a time, so more would only wait.
const SQLITE_CONNECTIONS_MAX: u32 = 8;

/// How long a follower of the log waits for a connection, and for one statement: a lease is gone soon.
const FOLLOWING_TIMEOUT: Duration = Duration::from_millis(1_500);

/// The places of a node's connections.
pub(super) fn source(target: &Target, limits: &SqlLimits) -> Source {
    let (target, limits) = (target.clone(), *limits);
    match &target {
        // A database in memory goes away with its connection, and a file is always the same one.
        Target::Sqlite(..) => Source::lasting(places(&target, &limits)),
        _ => Source::renewed_by(move || places(&target, &limits)),
    }
}

/// Each connection has a place of its own; a database in memory is its connection, and cannot be replaced.
fn places(target: &Target, limits: &SqlLimits) -> Places {
    let (engine, count) = match target {
        Target::Sqlite(_, None) => return Places::Common(open(target, limits)),
        Target::Sqlite(_, Some(_)) => (DbBackend::Sqlite, limits.connections_max.min(SQLITE_CONNECTIONS_MAX)),
        Target::Postgres(_) => (DbBackend::Postgres, limits.connections_max),
        Target::MariaDb(_) => (DbBackend::MySql, limits.connections_max),
    };
    let (target, each) = (target.clone(), SqlLimits { connections_max: 1, ..*limits });
    let choice = target.has_choice().then(|| target.clone());
    Places::own(engine, count, limits.acquire_timeout, choice, move || open(&target, &each))
}

/// The place of the one connection by which a node follows the log, and how long that may take. None for a database in
/// memory, which is one connection itself. It connects in the runtime that uses it first.
pub(super) fn open_following(target: &Target, limits: &SqlLimits) -> Option<(Source, SqlLimits)> {
    let short = |limit: Duration| limit.min(FOLLOWING_TIMEOUT);
    let limits = SqlLimits {
        connections_max: 1,
        acquire_timeout: short(limits.acquire_timeout),
        statement_timeout: short(limits.statement_timeout),
        lock_timeout: short(limits.lock_timeout),
        ..*limits
    };
    let target = match target {
        Target::Sqlite(_, None) => return None,
        target => target.clone(),
    };
    Some((Source::renewed_at_failure_by(move || places(&target, &limits)), limits))
}

/// A pool that connects when it is first used, and again whenever it must.
pub(super) fn open(target: &Target, limits: &SqlLimits) -> DatabaseConnection {
    match target {
        Target::Sqlite(options, file) => {
            // A database in memory is the one connection that it lives in.
            let connections = if file.is_some() { SQLITE_CONNECTIONS_MAX } else { 1 };
            let connections_max = limits.connections_max.min(connections);
            let pool = pool_options(&SqlLimits { connections_max, ..*limits }, None);
            let pool = pool.connect_lazy_with(sqlite(options, limits));
            SqlxSqliteConnector::from_sqlx_sqlite_pool(pool)
        }
        Target::Postgres(hosts) => SqlxPostgresConnector::from_sqlx_postgres_pool(on_server(
            hosts,
            Settings::of_postgres(limits, hosts.current().get_options()),
            limits,
        )),
        Target::MariaDb(hosts) => {
            SqlxMySqlConnector::from_sqlx_mysql_pool(on_server(hosts, Settings::of_mariadb(limits), limits))
        }
    }
}

fn on_server<D, O>(hosts: &Hosts<O>, settings: Settings, limits: &SqlLimits) -> Pool<D>
where
    D: Database,
    D::Connection: Connection<Options = O>,
    O: Engine<Connection = D::Connection> + Clone,
{
    let settings = Arc::new(settings);
    let replacing = hosts.are_many().then(|| {
        let (hosts, settings, limit) = (hosts.clone(), Arc::clone(&settings), limits.acquire_timeout);
        let replace = move || -> BoxFuture<'static, _> {
            let (hosts, settings) = (hosts.clone(), Arc::clone(&settings));
            Box::pin(async move {
                let mut connection = hosts.connect(limit).await.map_err(|refusals| no_host(&refusals))?;
                O::set_up(&mut connection, &settings).await?;
                Ok(connection)
            })
        };
        Arc::new(replace) as Replacing<D::Connection>
    });
    let noting = hosts.clone();
    pool_options::<D>(limits, replacing)
        .after_connect(move |connection: &mut D::Connection, _| {
            let (settings, hosts) = (Arc::clone(&settings), noting.clone());
            Box::pin(async move {
                let done = O::set_up(connection, &settings).await;
                hosts.note_set_up(&done);
                done
            })
        })
        .connect_lazy_with(hosts.current().clone())
}

/// Makes a connection, set up, in the place of one that turned out to be dead.
type Replacing<C> = Arc<dyn Fn() -> BoxFuture<'static, Result<C, sqlx::Error>> + Send + Sync>;

fn no_host(refusals: &[String]) -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::other(refusals.join("; ")))
}

/// A connection to a file that does nothing but stay open, so that the files beside it stay the same ones.
pub(super) async fn keep_open(target: &Target, limits: &SqlLimits) -> Result<DatabaseConnection, OpenError> {
    let kept = open(target, &SqlLimits { connections_max: 1, ..*limits });
    // Reading opens them.
    let read = kept.execute_unprepared("SELECT count(*) FROM sqlite_master").await;
    read.map_err(|error| {
        OpenError::Unreachable(format!("{}: {}", target.describe(), describe_at_start(&error)))
    })?;
    Ok(kept)
}

/// Closes all connections; one that does not answer is not waited for.
pub(super) async fn close(places: &Places) {
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, places.close()).await;
}

/// Where there are several hosts, a connection that died while it was idle may have been to one that is gone: the pool would
/// try that one until the time is up, so `replacing` puts one to the right host in its place.
fn pool_options<D: Database>(
    limits: &SqlLimits,
    replacing: Option<Replacing<D::Connection>>,
) -> PoolOptions<D> {
    PoolOptions::new()
        .max_connections(limits.connections_max.max(1))
        .acquire_timeout(limits.acquire_timeout)
        .max_lifetime(None)
        .idle_timeout(None)
        .test_before_acquire(false)
        .before_acquire(move |connection, meta| {
            let replacing = replacing.clone();
            Box::pin(async move {
                if meta.idle_for >= PING_AFTER_IDLE {
                    match (ping(connection).await, replacing) {
                        (Ok(()), _) => {}
                        (Err(_), Some(replace)) => *connection = replace().await?,
                        (Err(error), None) => return Err(error),
                    }
                }
                Ok(true)
            })
        })
        .after_release(|connection: &mut D::Connection, _| {
            Box::pin(async move {
                // The ping comes after the ROLLBACK of a transaction that was dropped.
                ping(connection).await?;
                Ok(!connection.is_in_transaction() || Mutation::ReusesUnfinishedConnection.is_on())
            })
        })
}

async fn ping<C: Connection>(connection: &mut C) -> Result<(), sqlx::Error> {
    let too_late = |_| sqlx::Error::Io(std::io::Error::from(std::io::ErrorKind::TimedOut));
    tokio::time::timeout(PING_TIMEOUT, connection.ping()).await.map_err(too_late)?
}

/// A commit is on the disk before it is answered; readers do not wait for the writer.
fn sqlite(options: &SqliteConnectOptions, limits: &SqlLimits) -> SqliteConnectOptions {
    options
        .clone()
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(limits.lock_timeout)
}
