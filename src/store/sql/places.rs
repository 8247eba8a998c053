//! The connections of a node, each in a place of its own, so that a place whose connection never comes back is given to
//! another.
//!
//! sqlx tests a connection on its way back into a pool, and waits for the answer without a limit: one that falls silent just
//! then keeps its place until the kernel gives it up, after many minutes. A pool does not tell which of its connections that
//! is. So each connection here has a pool to itself, and a pool that stays empty-handed is thrown away as a whole.
//!
//! The same holds for a connection whose transaction did not end by a COMMIT or ROLLBACK that the engine answered. What state
//! it is in is unknown: SQLite may have ended the transaction by itself, and the driver would take the next COMMIT for the
//! end of a nested one and acknowledge a change that nobody committed. So it is closed and never used again.
//! Nothing here decides what a failed statement means.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use futures_util::future::join_all;
use sea_orm::{
    ConnAcquireErr, ConnectionTrait, DatabaseConnection, DbBackend, DbErr, ExecResult, QueryResult,
    RuntimeErr, Statement, StreamTrait as _,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::target::Target;
use crate::mutation::Mutation;

/// Where statements get their connections.
#[derive(Clone)]
pub(super) enum Places {
    /// One pool for all: a database in memory, which is the one connection that it lives in.
    Common(DatabaseConnection),
    /// A pool for each connection.
    Own(Arc<Own>),
}

/// A pool for each connection.
pub(super) struct Own {
    engine: DbBackend,
    /// One for each place, whoever has it.
    permits: Arc<Semaphore>,
    places: Mutex<Vec<Place>>,
    open: Box<dyn Fn() -> DatabaseConnection + Send + Sync>,
    acquire_timeout: Duration,
    /// Where the database may be, if that is more than one host.
    choice: Option<Target>,
}

struct Place {
    pool: DatabaseConnection,
    holder: Holder,
    /// Its connection was on its way back at the last look, and nobody got it since.
    is_suspect: bool,
    /// It was so at two looks.
    is_lost: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Holder {
    Nobody,
    /// Somebody who found the connection there, or makes one.
    User,
    /// Somebody who found it on its way back, and waits for it or uses it by now.
    Waiter,
}

/// Where the connection of a free place is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whereabouts {
    Here,
    NotMadeYet,
    OnItsWayBack,
}

/// What became of a place while somebody held it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// It was given up before its end.
    Cut,
    /// There was no connection in time.
    NoConnection,
    /// A transaction was begun, and no COMMIT or ROLLBACK of it was answered.
    Unfinished,
    /// A connection was used.
    Used,
}

impl Places {
    /// `count` places, for each of which `open` makes a pool of one connection; to one host of a `choice`.
    pub(super) fn own(
        engine: DbBackend,
        count: u32,
        acquire_timeout: Duration,
        choice: Option<Target>,
        open: impl Fn() -> DatabaseConnection + Send + Sync + 'static,
    ) -> Self {
        let count = usize::try_from(count.max(1)).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let places = (0..count).map(|_| Place::new(open())).collect();
        Self::Own(Arc::new(Own {
            engine,
            permits: Arc::new(Semaphore::new(count)),
            places: Mutex::new(places),
            open: Box::new(open),
            acquire_timeout,
            choice,
        }))
    }

    /// One of the pools, for whoever begins.
    pub(super) fn any(&self) -> DatabaseConnection {
        match self {
            Self::Common(pool) => pool.clone(),
            Self::Own(own) => own.places().first().map_or_else(&own.open, |place| place.pool.clone()),
        }
    }

    /// Takes a place, if one gets free in time.
    pub(super) async fn take(&self) -> Result<Held, DbErr> {
        let own = match self {
            Self::Common(pool) => return Ok(Held { pool: pool.clone(), home: None, used: Use::Cut }),
            Self::Own(own) => own,
        };
        let waiting = Arc::clone(&own.permits).acquire_owned();
        let permit = tokio::time::timeout(own.acquire_timeout, waiting).await;
        let permit = permit.map_err(|_| DbErr::ConnectionAcquire(ConnAcquireErr::Timeout))?;
        let permit = permit.map_err(|_| DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed))?;
        let closed = || DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed);
        let (number, pool) = own.take_best().ok_or_else(closed)?;
        let mut held = Held { pool, home: Some((Arc::clone(own), number, permit)), used: Use::Cut };
        if let Some(choice) = &own.choice
            && whereabouts(own.engine, held.pool()) == Whereabouts::NotMadeYet
        {
            if let Err(why) = choice.find_host(own.acquire_timeout).await {
                held.not_begun();
                return Err(DbErr::Conn(RuntimeErr::Internal(why)));
            }
            choice.lead(held.pool());
        }
        Ok(held)
    }

    /// Gives the places to other connections whose own one was on its way back at two looks. Where somebody waits for it, or
    /// uses it by now, that is done when they have given the place back.
    pub(super) fn look(&self) {
        let Self::Own(own) = self else { return };
        for place in own.places().iter_mut().filter(|place| place.holder != Holder::User) {
            let is_away = place.whereabouts(own.engine) == Whereabouts::OnItsWayBack;
            place.is_lost |= is_away && place.is_suspect;
            place.is_suspect = is_away;
            if place.is_lost && place.holder == Holder::Nobody {
                own.renew(place);
            }
        }
    }

    /// What `read` makes of each row, as it comes: the server finds the next ones meanwhile.
    pub(super) async fn read_rows<T>(
        &self,
        statement: Statement,
        read: impl FnMut(&QueryResult) -> T + Send,
    ) -> Result<Vec<T>, DbErr>
    where
        T: Send,
    {
        let mut held = self.take().await?;
        let answer = rows_as_they_come(held.pool(), statement, read).await;
        held.noticed(answer)
    }

    /// Closes all connections; who comes later is refused.
    pub(super) async fn close(&self) {
        let own = match self {
            // Closing by itself says nothing that anybody could act on.
            Self::Common(pool) => return drop(pool.close_by_ref().await),
            Self::Own(own) => own,
        };
        own.permits.close();
        let places = std::mem::take(&mut *own.places());
        join_all(places.iter().map(|place| place.pool.close_by_ref())).await;
    }
}

impl Own {
    fn places(&self) -> MutexGuard<'_, Vec<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place whose connection is there, or else without one, or else whose connection is on its way back. None when all
    /// were closed meanwhile: whoever has a permit finds a place.
    fn take_best(&self) -> Option<(usize, DatabaseConnection)> {
        let mut places = self.places();
        let mut best = None;
        for (number, place) in places.iter().enumerate().filter(|(_, place)| place.holder == Holder::Nobody) {
            let rank = match place.whereabouts(self.engine) {
                Whereabouts::Here => 0,
                Whereabouts::NotMadeYet => 1,
                Whereabouts::OnItsWayBack if !place.is_suspect => 2,
                Whereabouts::OnItsWayBack => 3,
            };
            if best.is_none_or(|(least, _)| rank < least) {
                best = Some((rank, number));
            }
            if rank == 0 {
                break;
            }
        }
        let (rank, number) = best?;
        let place = &mut places[number];
        place.holder = if rank < 2 { Holder::User } else { Holder::Waiter };
        Some((number, place.pool.clone()))
    }

    fn give_back(&self, number: usize, used: Use) {
        let mut places = self.places();
        let Some(place) = places.get_mut(number) else { return };
        match used {
            Use::Unfinished if !Mutation::ReusesUnfinishedConnection.is_on() => {
                // Its connection is on its way back, and is closed as soon as it gets there.
                close_soon(self.engine, &place.pool);
                place.is_lost = true;
            }
            Use::Used | Use::Unfinished => (place.is_suspect, place.is_lost) = (false, false),
            // A file whose disk is slow is not reached any better by one more connection.
            Use::NoConnection => place.is_lost |= self.engine != DbBackend::Sqlite,
            Use::Cut => {}
        }
        if place.is_lost {
            self.renew(place);
        }
        place.holder = Holder::Nobody;
    }

    /// Whoever still waits in the old pool goes away with it.
    fn renew(&self, place: &mut Place) {
        if !is_closed(self.engine, &place.pool) && place.whereabouts(self.engine) == Whereabouts::OnItsWayBack
        {
            tracing::warn!("a database connection fell silent, and another one takes its place");
        }
        *place = Place::new((self.open)());
    }
}

impl Place {
    fn new(pool: DatabaseConnection) -> Self {
        Self { pool, holder: Holder::Nobody, is_suspect: false, is_lost: false }
    }

    fn whereabouts(&self, engine: DbBackend) -> Whereabouts {
        whereabouts(engine, &self.pool)
    }
}

async fn rows_as_they_come<T: Send>(
    pool: &DatabaseConnection,
    statement: Statement,
    mut read: impl FnMut(&QueryResult) -> T + Send,
) -> Result<Vec<T>, DbErr> {
    let (mut rows, mut all) = (pool.stream_raw(statement).await?, Vec::new());
    // To the last one, whatever is read of them: a connection with rows on their way is of no use to the next.
    while let Some(row) = rows.try_next().await? {
        all.push(read(&row));
    }
    Ok(all)
}

/// A pool counts a connection as soon as it is being made.
fn whereabouts(engine: DbBackend, pool: &DatabaseConnection) -> Whereabouts {
    let (size, idle) = match engine {
        DbBackend::Postgres => {
            let pool = pool.get_postgres_connection_pool();
            (pool.size(), pool.num_idle())
        }
        DbBackend::MySql => {
            let pool = pool.get_mysql_connection_pool();
            (pool.size(), pool.num_idle())
        }
        _ => {
            let pool = pool.get_sqlite_connection_pool();
            (pool.size(), pool.num_idle())
        }
    };
    match (size, idle) {
        (0, _) => Whereabouts::NotMadeYet,
        (_, 0) => Whereabouts::OnItsWayBack,
        _ => Whereabouts::Here,
    }
}

/// From now on the pool hands out no connection, and closes the one that comes back. Closing is marked at once; waiting for
/// its end would mean to wait for that connection.
fn close_soon(engine: DbBackend, pool: &DatabaseConnection) {
    match engine {
        DbBackend::Postgres => drop(pool.get_postgres_connection_pool().close()),
        DbBackend::MySql => drop(pool.get_mysql_connection_pool().close()),
        _ => drop(pool.get_sqlite_connection_pool().close()),
    }
}

fn is_closed(engine: DbBackend, pool: &DatabaseConnection) -> bool {
    match engine {
        DbBackend::Postgres => pool.get_postgres_connection_pool().is_closed(),
        DbBackend::MySql => pool.get_mysql_connection_pool().is_closed(),
        _ => pool.get_sqlite_connection_pool().is_closed(),
    }
}

/// A place that somebody has.
pub(super) struct Held {
    pool: DatabaseConnection,
    home: Option<(Arc<Own>, usize, OwnedSemaphorePermit)>,
    used: Use,
}

impl Held {
    /// Its pool.
    pub(super) fn pool(&self) -> &DatabaseConnection {
        &self.pool
    }

    /// A transaction is about to begin. From here on the connection is not used again, unless `finished` says so.
    pub(super) fn begins(&mut self) {
        self.used = Use::Unfinished;
    }

    /// There was no connection to begin on.
    pub(super) fn not_begun(&mut self) {
        self.used = Use::NoConnection;
    }

    /// The engine answered COMMIT or ROLLBACK.
    pub(super) fn finished(&mut self) {
        self.used = Use::Used;
    }

    /// Takes notice of how its pool answered.
    pub(super) fn noticed<T>(&mut self, answer: Result<T, DbErr>) -> Result<T, DbErr> {
        let none = matches!(answer, Err(DbErr::ConnectionAcquire(_)));
        self.used = if none { Use::NoConnection } else { Use::Used };
        answer
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some((own, number, permit)) = self.home.take() {
            own.give_back(number, self.used);
            drop(permit);
        }
    }
}

#[async_trait]
impl ConnectionTrait for Places {
    fn get_database_backend(&self) -> DbBackend {
        match self {
            Self::Common(pool) => pool.get_database_backend(),
            Self::Own(own) => own.engine,
        }
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        let mut held = self.take().await?;
        let answer = held.pool().execute_raw(statement).await;
        held.noticed(answer)
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let mut held = self.take().await?;
        let answer = held.pool().execute_unprepared(sql).await;
        held.noticed(answer)
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let mut held = self.take().await?;
        let answer = held.pool().query_one_raw(statement).await;
        held.noticed(answer)
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let mut held = self.take().await?;
        let answer = held.pool().query_all_raw(statement).await;
        held.noticed(answer)
    }
}
