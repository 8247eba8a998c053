//! Which of the hosts of a URL connections lead to: the one that takes writes, found again whenever one is made.
//!
//! The first choice is the host that was right the last time. The others are tried in order, each when the one before it
//! failed or did not answer for a moment, so that a machine that is gone does not use up the time of a caller. A URL with
//! one host leaves all of this to the driver.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sea_orm::sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sea_orm::sqlx::postgres::{PgConnectOptions, PgConnection};
use sea_orm::sqlx::{self, AssertSqlSafe, ConnectOptions, Connection as _};
use sea_orm::{DatabaseConnection, DbBackend, DbErr, RuntimeErr};

use super::error::{OpenError, describe_at_start, explain};
use super::primary;
use super::session::Settings;
use super::target::Target;
use crate::database_url::SessionTarget;

/// How long a host may leave open whether it is the right one before the next one is tried as well.
const NEXT_AFTER: Duration = Duration::from_millis(250);
/// How long a connection that has served its purpose may take to say good-bye.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(250);

/// How to connect to each host. Clones share which one was right the last time.
#[derive(Clone)]
pub(super) struct Hosts<O> {
    all: Arc<[(O, String)]>,
    current: Arc<AtomicUsize>,
    target: SessionTarget,
    /// Why the latest connection could not be set up.
    set_up_refusal: Arc<Mutex<Option<String>>>,
}

/// What connecting to a host needs to know of its engine.
pub(super) trait Engine: ConnectOptions<Connection: Sized + Send> {
    /// Sets up a connection, or refuses it.
    fn set_up(
        connection: &mut Self::Connection,
        settings: &Settings,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// The statement that answers 1 where a connection is one of that kind.
    fn question(target: SessionTarget) -> String;

    /// Asks it.
    fn ask(
        connection: &mut Self::Connection,
        question: String,
    ) -> impl Future<Output = Result<i64, sqlx::Error>> + Send;
}

impl Engine for PgConnectOptions {
    async fn set_up(connection: &mut PgConnection, settings: &Settings) -> Result<(), sqlx::Error> {
        settings.apply_to_postgres(connection).await
    }

    fn question(target: SessionTarget) -> String {
        match target {
            SessionTarget::Any => "SELECT 1::bigint".to_owned(),
            SessionTarget::ReadWrite => format!("SELECT {}", primary::expression(DbBackend::Postgres)),
            SessionTarget::Primary => "SELECT (NOT pg_is_in_recovery())::int::bigint".to_owned(),
        }
    }

    async fn ask(connection: &mut PgConnection, question: String) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar(AssertSqlSafe(question)).fetch_one(connection).await
    }
}

impl Engine for MySqlConnectOptions {
    async fn set_up(connection: &mut MySqlConnection, settings: &Settings) -> Result<(), sqlx::Error> {
        settings.apply_to_mariadb(connection).await
    }

    fn question(target: SessionTarget) -> String {
        match target {
            SessionTarget::Any => "SELECT 1".to_owned(),
            SessionTarget::ReadWrite | SessionTarget::Primary => {
                format!("SELECT {}", primary::expression(DbBackend::MySql))
            }
        }
    }

    async fn ask(connection: &mut MySqlConnection, question: String) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar(AssertSqlSafe(question)).fetch_one(connection).await
    }
}

impl<O> Hosts<O> {
    /// Of each host how to connect, and its name for people; at least one.
    pub(super) fn new(all: Vec<(O, String)>, target: SessionTarget) -> Self {
        Self { all: all.into(), current: Arc::default(), target, set_up_refusal: Arc::default() }
    }

    /// The host that was right the last time, or the first.
    pub(super) fn current(&self) -> &O {
        &self.all[self.current.load(Ordering::Relaxed)].0
    }

    /// All hosts, for people.
    pub(super) fn describe(&self) -> String {
        self.all.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>().join(",")
    }

    /// Remembers whether the server took what a connection sets for itself.
    pub(super) fn note_set_up(&self, done: &Result<(), sqlx::Error>) {
        let refusal = match done {
            Err(sqlx::Error::Configuration(why)) => Some(why.to_string()),
            Err(sqlx::Error::Database(why)) => Some(format!("it refuses what a session sets: {why}")),
            _ => None,
        };
        *self.set_up_refusal.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
    }

    fn set_up_refusal(&self) -> Option<String> {
        self.set_up_refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether there is something to choose from.
    pub(super) fn are_many(&self) -> bool {
        self.all.len() > 1
    }
}

impl<O: Engine> Hosts<O> {
    /// Connects to the first host that is the right one; what the others said where there is none.
    pub(super) async fn connect(&self, limit: Duration) -> Result<O::Connection, Vec<String>> {
        let mut refusals = Vec::new();
        let found = tokio::time::timeout(limit, self.race(&mut refusals)).await;
        match found {
            Ok(Some(connection)) => Ok(connection),
            Ok(None) => Err(refusals),
            Err(_) => {
                refusals.push(format!("no other answer within {} ms", limit.as_millis()));
                Err(refusals)
            }
        }
    }

    async fn race(&self, refusals: &mut Vec<String>) -> Option<O::Connection> {
        let first = self.current.load(Ordering::Relaxed);
        let mut next =
            std::iter::once(first).chain((0..self.all.len()).filter(|&host| host != first)).peekable();
        let mut running = FuturesUnordered::new();
        loop {
            match next.next() {
                Some(host) => running.push(async move { (host, self.try_host(host).await) }),
                None if running.is_empty() => return None,
                None => {}
            }
            let answer = if next.peek().is_some() {
                tokio::time::timeout(NEXT_AFTER, running.next()).await.ok()
            } else {
                Some(running.next().await)
            };
            match answer.flatten() {
                Some((host, Ok(connection))) => {
                    self.is_right(host);
                    return Some(connection);
                }
                Some((_, Err(refusal))) => refusals.push(refusal),
                None => {}
            }
        }
    }

    async fn try_host(&self, host: usize) -> Result<O::Connection, String> {
        let (options, name) = &self.all[host];
        let why = |error: sqlx::Error| {
            let error = DbErr::Conn(RuntimeErr::SqlxError(Arc::new(error)));
            format!("{name}: {}", explain(&error).unwrap_or_else(|| describe_at_start(&error)))
        };
        let mut connection = options.connect().await.map_err(why)?;
        if O::ask(&mut connection, O::question(self.target)).await.map_err(why)? == 1 {
            return Ok(connection);
        }
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.close()).await;
        Err(format!("{name} takes no writes"))
    }

    fn is_right(&self, host: usize) {
        let before = self.current.swap(host, Ordering::Relaxed);
        if before != host {
            let (from, to) = (&self.all[before].1, &self.all[host].1);
            tracing::warn!(%from, %to, "the database that takes writes is on another host");
        }
    }

    /// Finds the right host, for a connection that somebody else makes.
    async fn find(&self, limit: Duration) -> Result<(), Vec<String>> {
        let connection = self.connect(limit).await?;
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.close()).await;
        Ok(())
    }
}

impl Target {
    /// Whether there are several hosts.
    pub(super) fn has_choice(&self) -> bool {
        match self {
            Self::Sqlite(..) => false,
            Self::Postgres(hosts) => hosts.are_many(),
            Self::MariaDb(hosts) => hosts.are_many(),
        }
    }

    /// Why the latest connection could not be set up, where it could not.
    pub(super) fn set_up_refusal(&self) -> Option<String> {
        match self {
            Self::Sqlite(..) => None,
            Self::Postgres(hosts) => hosts.set_up_refusal(),
            Self::MariaDb(hosts) => hosts.set_up_refusal(),
        }
    }

    /// Finds the host that takes writes, where there are several, so that the next connection leads there.
    pub(super) async fn find_host(&self, limit: Duration) -> Result<(), String> {
        let found = match self {
            Self::Postgres(hosts) if hosts.are_many() => hosts.find(limit).await,
            Self::MariaDb(hosts) if hosts.are_many() => hosts.find(limit).await,
            _ => Ok(()),
        };
        found.map_err(|refusals| format!("no host of the database takes writes: {}", refusals.join("; ")))
    }

    /// The same for a node that starts.
    pub(super) async fn find_host_at_start(&self, limit: Duration) -> Result<(), OpenError> {
        self.find_host(limit).await.map_err(OpenError::Unreachable)
    }

    /// Leads the next connection of a pool to the host that was found last.
    pub(super) fn lead(&self, pool: &DatabaseConnection) {
        match self {
            Self::Sqlite(..) => {}
            Self::Postgres(hosts) => {
                pool.get_postgres_connection_pool().set_connect_options(hosts.current().clone());
            }
            Self::MariaDb(hosts) => {
                pool.get_mysql_connection_pool().set_connect_options(hosts.current().clone());
            }
        }
    }
}
