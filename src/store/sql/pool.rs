//! Connections: how each is set up, and how a dead one leaves the pool.
//!
//! A connection that dies silently (a cable, a firewall) answers nothing, and sqlx would wait for it when it is given back
//! and never return its place in the pool (its issue 4349). So every connection that is given back, or was idle, must
//! answer a ping in time; and it has neither a life time nor an idle time, whose closing waits in the same way. What is
//! left is a death between that ping and the one that sqlx then sends itself: `places` gives its place to another.

use std::time::Duration;

use sea_orm::sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sea_orm::sqlx::pool::PoolOptions;
use sea_orm::sqlx::postgres::PgConnectOptions;
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sea_orm::sqlx::{self, AssertSqlSafe, Connection, Database, Executor as _};
use sea_orm::{
    ConnectionTrait as _, DatabaseConnection, DbBackend, SqlxMySqlConnector, SqlxPostgresConnector,
    SqlxSqliteConnector,
};

use super::error::{OpenError, describe_at_start};
use super::limits::SqlLimits;
use super::places::Places;
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
    Places::own(engine, count, limits.acquire_timeout, move || open(&target, &each))
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
        // What is acknowledged may be lost with the server: a node that is behind waits, or is waited for. That a node is
        // there may not, and `nodes::insert` sees to it.
        Target::Postgres(options) => {
            Target::Postgres(options.clone().options([("synchronous_commit", "off")]))
        }
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
            let pool = pool_options(&SqlLimits {
                connections_max: limits.connections_max.min(connections),
                ..*limits
            });
            let pool = pool.connect_lazy_with(sqlite(options, limits));
            SqlxSqliteConnector::from_sqlx_sqlite_pool(pool)
        }
        Target::Postgres(options) => {
            let pool = pool_options(limits).connect_lazy_with(postgres(options, limits));
            SqlxPostgresConnector::from_sqlx_postgres_pool(pool)
        }
        Target::MariaDb(options) => {
            let settings = mariadb_settings(limits);
            let pool = pool_options(limits).after_connect(move |connection: &mut MySqlConnection, _| {
                let settings = settings.clone();
                Box::pin(async move {
                    connection.execute(AssertSqlSafe(ISOLATION.to_owned())).await?;
                    connection.execute(AssertSqlSafe(settings)).await.map(|_| ())
                })
            });
            SqlxMySqlConnector::from_sqlx_mysql_pool(pool.connect_lazy_with(mariadb(options)))
        }
    }
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

fn pool_options<D: Database>(limits: &SqlLimits) -> PoolOptions<D> {
    PoolOptions::new()
        .max_connections(limits.connections_max.max(1))
        .acquire_timeout(limits.acquire_timeout)
        .max_lifetime(None)
        .idle_timeout(None)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for >= PING_AFTER_IDLE {
                    ping(connection).await?;
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

/// The last setting ends a transaction whose node hangs, so that nobody holds the head of the log for ever.
fn postgres(options: &PgConnectOptions, limits: &SqlLimits) -> PgConnectOptions {
    let millis = |span: Duration| span.as_millis().to_string();
    named(options).options([
        ("default_transaction_isolation", "read committed".to_owned()),
        ("statement_timeout", millis(limits.statement_timeout)),
        ("lock_timeout", millis(limits.lock_timeout)),
        ("idle_in_transaction_session_timeout", millis(limits.idle_timeout())),
    ])
}

/// As the server's list of connections shows it.
pub(super) fn named(options: &PgConnectOptions) -> PgConnectOptions {
    options.clone().application_name("latchkey")
}

fn mariadb(options: &MySqlConnectOptions) -> MySqlConnectOptions {
    options.clone().charset("utf8mb4").timezone(Some("+00:00".to_owned()))
}

const ISOLATION: &str = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";

fn mariadb_settings(limits: &SqlLimits) -> String {
    let statement = limits.statement_timeout.as_secs_f64();
    let seconds = |span: Duration| span.as_millis().div_ceil(1_000).max(1);
    format!(
        "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,ERROR_FOR_DIVISION_BY_ZERO', \
         innodb_lock_wait_timeout = {}, max_statement_time = {statement:.3}, \
         idle_transaction_timeout = {idle}, idle_write_transaction_timeout = {idle}",
        seconds(limits.lock_timeout),
        idle = seconds(limits.idle_timeout()),
    )
}
