//! Hints that the log has grown: PostgreSQL's NOTIFY, heard on a connection that does nothing else. Nothing rests on them:
//! who misses one asks a little later.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sea_orm::sqlx::pool::PoolOptions;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgListener};
use sea_orm::{ConnectionTrait as _, SqlxError};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::error::Failure;
use super::pool;
use super::step::Pool;
use super::target::Target;
use crate::store::{Result, StoreError};

const CHANNEL: &str = "latchkey_changes";

/// How long connecting, or the end of whoever listens, may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Wakes all who listen. In a transaction with other statements it would take a lock that all writers of the server share.
pub(super) async fn give(db: &Pool) -> std::result::Result<(), Failure> {
    db.execute_unprepared(&format!("NOTIFY {CHANNEL}")).await?;
    Ok(())
}

/// How far listening is. A wait that is given up leaves it as it is, also half-way to a connection.
enum Listening {
    Connecting(BoxFuture<'static, Result<PgListener>>),
    Connected(PgListener),
}

/// Listens for hints, once somebody waits for one.
pub(super) struct Hints {
    /// None where the engine has no hints.
    options: Option<PgConnectOptions>,
    listening: Mutex<Option<Listening>>,
    closed: CancellationToken,
}

impl Hints {
    /// Does not connect yet.
    pub(super) fn new(target: &Target) -> Self {
        let options = match target {
            Target::Postgres(options) => Some(pool::named(options)),
            Target::Sqlite(..) | Target::MariaDb(_) => None,
        };
        Self { options, listening: Mutex::new(None), closed: CancellationToken::new() }
    }

    /// Whether the engine has any.
    pub(super) fn exist(&self) -> bool {
        self.options.is_some()
    }

    /// Waits for a hint; for ever where there are none. The connection outlives a wait that is given up, and hears meanwhile; one that breaks is an error,
    /// and the next wait makes another.
    pub(super) async fn next(&self) -> Result<()> {
        let Some(options) = &self.options else { return std::future::pending().await };
        tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(StoreError::Unavailable("the store is closed".to_owned())),
            heard = self.hear(options) => heard,
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

    async fn hear(&self, options: &PgConnectOptions) -> Result<()> {
        let mut listening = self.listening.lock().await;
        let begin = || Listening::Connecting(connect(options.clone()).boxed());
        let heard = listening.get_or_insert_with(begin).hear().await;
        if heard.is_err() {
            listening.take();
        }
        heard
    }
}

impl Listening {
    async fn hear(&mut self) -> Result<()> {
        loop {
            match self {
                Self::Connecting(connecting) => {
                    let listener = connecting.await?;
                    *self = Self::Connected(listener);
                }
                Self::Connected(listener) => {
                    return match listener.try_recv().await {
                        Ok(Some(_)) => Ok(()),
                        Ok(None) => Err(unavailable("it was lost")),
                        Err(error) => Err(unavailable(&error.to_string())),
                    };
                }
            }
        }
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
async fn connect(options: PgConnectOptions) -> Result<PgListener> {
    let pool = PoolOptions::new().max_connections(1).max_lifetime(None).idle_timeout(None);
    let connecting = async {
        let mut listener = PgListener::connect_with(&pool.connect_lazy_with(options)).await?;
        listener.ignore_pool_close_event(true);
        listener.eager_reconnect(false);
        listener.listen(CHANNEL).await?;
        Ok::<_, SqlxError>(listener)
    };
    match tokio::time::timeout(TIMEOUT, connecting).await {
        Ok(connected) => connected.map_err(|error| unavailable(&error.to_string())),
        Err(_) => Err(unavailable("no answer in time")),
    }
}

fn unavailable(why: &str) -> StoreError {
    StoreError::Unavailable(format!("the connection for hints: {why}"))
}
