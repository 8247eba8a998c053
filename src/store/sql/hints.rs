//! Hints that the log has grown: PostgreSQL's NOTIFY, heard on a connection that does nothing else. Nothing rests on them:
//! a node that misses one polls a little later.
//!
//! A connection on which nothing is sent cannot notice that it is dead: a firewall forgets an idle flow, or a pooler
//! moves the session to another server connection. So the listener notifies itself, when it connects and whenever it has
//! heard nothing for a while, and a connection on which that notification does not come back in time is replaced. (The
//! driver does not let TCP keep-alive be set, which would not notice a pooler either.)

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sea_orm::sqlx::pool::PoolOptions;
use sea_orm::sqlx::postgres::PgListener;
use sea_orm::sqlx::{self, AssertSqlSafe};
use sea_orm::{ConnectionTrait as _, DbBackend, SqlxError};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::error::Failure;
use super::primary;
use super::step::Pool;
use super::target::Target;
use crate::store::coordination::Hint;
use crate::store::{Result, StoreError};

const CHANNEL: &str = "latchkey_changes";

/// How long connecting, a proof, or the end of whoever listens, may take.
const TIMEOUT: Duration = Duration::from_secs(3);
/// After how long without a hint the connection has to prove that it still hears.
const PROOF_INTERVAL: Duration = Duration::from_secs(5);

/// Wakes all who listen. In a transaction with other statements it would take a lock that all writers of the server share.
pub(super) async fn give(db: &Pool) -> std::result::Result<(), Failure> {
    db.execute_unprepared(&format!("NOTIFY {CHANNEL}")).await?;
    Ok(())
}

/// How far listening is. A wait that is given up leaves it as it is, also half-way to a connection or to a proof.
enum Listening {
    /// A new connection is made and proved, or one that was silent is proved.
    Proving(BoxFuture<'static, Result<Listener>>),
    Connected(Listener),
    Lost,
}

/// A connection that listens.
struct Listener {
    inner: PgListener,
    /// The channel on which it notifies itself.
    proof_channel: String,
    /// Nobody was told of this connection yet.
    is_new: bool,
    /// A hint came while something else was waited for.
    hinted: bool,
}

/// Listens for hints, once somebody waits for one.
pub(super) struct Hints {
    /// None where the engine has no hints.
    target: Option<Target>,
    listening: Mutex<Option<Listening>>,
    closed: CancellationToken,
}

impl Hints {
    /// Does not connect yet.
    pub(super) fn new(target: &Target) -> Self {
        let target = match target {
            Target::Postgres(_) => Some(target.clone()),
            Target::Sqlite(..) | Target::MariaDb(_) => None,
        };
        Self { target, listening: Mutex::new(None), closed: CancellationToken::new() }
    }

    /// Whether the engine has any.
    pub(super) fn exist(&self) -> bool {
        self.target.is_some()
    }

    /// Waits for a hint, or for a new connection to listen; for ever where there are none. The connection outlives a wait
    /// that is given up, and hears meanwhile. One that breaks or falls silent is an error, and the next wait makes another.
    pub(super) async fn next(&self) -> Result<Hint> {
        let Some(target) = &self.target else { return std::future::pending().await };
        tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(StoreError::Unavailable("the store is closed".to_owned())),
            heard = self.hear(target) => heard,
        }
    }

    /// Ends the connection. Whoever waits is refused, and so is whoever waits later.
    pub(super) async fn close(&self) {
        self.closed.cancel();
        // The runtime of whoever waits may stand still.
        if let Ok(mut listening) = tokio::time::timeout(TIMEOUT, self.listening.lock()).await {
            listening.take();
        }
    }

    async fn hear(&self, target: &Target) -> Result<Hint> {
        let mut listening = self.listening.lock().await;
        let begin = || Listening::Proving(connect(target.clone()).boxed());
        let heard = listening.get_or_insert_with(begin).hear().await;
        if heard.is_err() {
            listening.take();
        }
        heard
    }
}

impl Listening {
    async fn hear(&mut self) -> Result<Hint> {
        loop {
            match self {
                Self::Proving(proving) => *self = Self::Connected(proving.await?),
                Self::Connected(listener) => {
                    if let Some(heard) = listener.hear().await {
                        return heard;
                    }
                    if let Self::Connected(listener) = std::mem::replace(self, Self::Lost) {
                        *self = Self::Proving(in_time(listener.prove()).boxed());
                    }
                }
                Self::Lost => return Err(unavailable("it was lost")),
            }
        }
    }
}

impl Listener {
    /// The next hint; none where it is time for a proof.
    async fn hear(&mut self) -> Option<Result<Hint>> {
        if std::mem::take(&mut self.is_new) {
            return Some(Ok(Hint::Listening));
        }
        while !std::mem::take(&mut self.hinted) {
            let notified = tokio::time::timeout(PROOF_INTERVAL, self.notified()).await.ok()?;
            if let Err(error) = notified {
                return Some(Err(error));
            }
        }
        Some(Ok(Hint::Grown))
    }

    /// Waits for a notification, and tells whether it was the connection's own.
    async fn notified(&mut self) -> Result<bool> {
        match self.inner.try_recv().await {
            Ok(Some(one)) if one.channel() == CHANNEL => {
                self.hinted = true;
                Ok(false)
            }
            Ok(Some(one)) => Ok(one.channel() == self.proof_channel),
            Ok(None) => Err(unavailable("it was lost")),
            Err(error) => Err(unavailable(&error.to_string())),
        }
    }

    /// Notifies itself, and waits until it hears that. A primary that was replaced, and takes no writes any more, would still
    /// deliver that notification, and no other.
    async fn prove(mut self) -> Result<Self> {
        let notify = format!("SELECT {} FROM pg_notify($1, '')", primary::expression(DbBackend::Postgres));
        let notify = sqlx::query_scalar::<_, i64>(AssertSqlSafe(notify)).bind(self.proof_channel.clone());
        let notified = notify.fetch_one(&mut self.inner).await;
        if notified.map_err(|error| unavailable(&error.to_string()))? != 1 {
            return Err(unavailable("the server takes no writes: it is not the primary"));
        }
        while !self.notified().await? {}
        Ok(self)
    }
}

impl Drop for Hints {
    /// A listener says good-bye in a task. Without a runtime that would panic, and the connection is left to the server.
    fn drop(&mut self) {
        if Handle::try_current().is_err() {
            std::mem::forget(self.listening.get_mut().take());
        }
    }
}

/// A listener of its own, with nobody to wait for: the pool holds one connection and goes away with it.
async fn connect(target: Target) -> Result<Listener> {
    let pool = PoolOptions::new().max_connections(1).max_lifetime(None).idle_timeout(None);
    let Target::Postgres(hosts) = &target else { return Err(unavailable("the database has no hints")) };
    let connecting = async {
        let mut inner = PgListener::connect_with(&pool.connect_lazy_with(hosts.current().clone())).await?;
        inner.ignore_pool_close_event(true);
        inner.eager_reconnect(false);
        // No other connection of the server has this number at the same time.
        let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut inner).await?;
        let proof_channel = format!("latchkey_proof_{pid}");
        inner.listen_all([CHANNEL, &proof_channel]).await?;
        Ok::<_, SqlxError>(Listener { inner, proof_channel, is_new: true, hinted: false })
    };
    let proven = async {
        target.find_host(TIMEOUT).await.map_err(|why| unavailable(&why))?;
        let listener = connecting.await.map_err(|error| unavailable(&error.to_string()))?;
        listener.prove().await
    };
    Box::pin(in_time(proven)).await
}

async fn in_time(work: impl Future<Output = Result<Listener>>) -> Result<Listener> {
    let silent = |_| unavailable("no notification comes back in time");
    tokio::time::timeout(TIMEOUT, work).await.map_err(silent)?
}

fn unavailable(why: &str) -> StoreError {
    StoreError::Unavailable(format!("the connection for hints: {why}"))
}
