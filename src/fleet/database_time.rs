//! What time it is in the database, without asking it each time.
//!
//! All nodes must agree on when a session ends, and the wall clocks of machines jump. So "now" is the database's time as
//! of the last poll plus the time since then on a clock that never jumps. Reading it takes no lock. What is believed of
//! the database's clock, which may jump as well, is decided in `carried_time`.

use std::sync::Arc;
use std::time::Duration;

use super::carried_time::{CarriedTime, Doubt, Learned, Sample};
use crate::domain::time::{BootTime, UnixMillis};
use crate::host::Clock;
use crate::store::{self, Store, StoreError};

/// How long the database may take to tell its time. A slower answer says too little: by its wait, `now` would run ahead
/// of the database until the next poll, and jump back then.
const POLL_ROUND_TRIP_MAX: Duration = Duration::from_secs(1);
/// How often a node that starts asks at most for an answer that is quick enough: the first one opens connections.
const FIRST_POLLS_MAX: u32 = 5;

/// Which clock the database goes by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DatabaseClock {
    /// One of its own: the wall clock of this machine is a witness.
    ItsOwn,
    /// The wall clock of this machine, as SQLite does.
    OfThisMachine,
}

/// The database's time, carried on by this machine's clock between polls. There is none without a first answer of the
/// database, so that nobody can take 1970 for the time.
pub struct DatabaseTime {
    clock: Arc<dyn Clock>,
    goes_by: DatabaseClock,
    carried: CarriedTime,
}

impl DatabaseTime {
    /// Asks the database for its time: again while it answers too slowly, up to a limit.
    pub async fn ask(
        clock: Arc<dyn Clock>,
        goes_by: DatabaseClock,
        store: &dyn Store,
    ) -> store::Result<Self> {
        Self::first_sample(clock, goes_by, || store.database_time()).await
    }

    async fn first_sample<F>(
        clock: Arc<dyn Clock>,
        goes_by: DatabaseClock,
        ask: impl Fn() -> F,
    ) -> store::Result<Self>
    where
        F: Future<Output = store::Result<UnixMillis>>,
    {
        for _ in 0..FIRST_POLLS_MAX {
            let asked_at = clock.boottime();
            let database = ask().await?;
            if is_quick(asked_at, clock.boottime()) {
                return Ok(Self::begin(clock, goes_by, database, asked_at));
            }
        }
        Err(StoreError::Unavailable(format!("time query took longer than 1 s ({FIRST_POLLS_MAX} attempts)")))
    }

    fn begin(
        clock: Arc<dyn Clock>,
        goes_by: DatabaseClock,
        database: UnixMillis,
        asked_at: BootTime,
    ) -> Self {
        let carried = CarriedTime::new(sample(&*clock, goes_by, database, asked_at));
        if !carried.is_settled() {
            let ahead = database.as_millis().saturating_sub(clock.wall().as_millis());
            tracing::warn!(
                database_ahead_ms = ahead,
                "database and this machine disagree on the time; this node purges nothing until they agree. \
                 Check the clocks of both (chronyc tracking)"
            );
        }
        Self { clock, goes_by, carried }
    }

    /// The time now.
    pub fn now(&self) -> UnixMillis {
        self.at(self.clock.boottime())
    }

    /// The time when this machine's clock shows `here`.
    pub fn at(&self, here: BootTime) -> UnixMillis {
        self.carried.at(here)
    }

    /// How far the database's clock has jumped. To be read before the time; see [`CarriedTime::doubt`].
    pub fn doubt(&self) -> Doubt {
        self.carried.doubt()
    }

    /// Whether the database's clock may be relied on for deleting what is old.
    pub fn is_settled(&self) -> bool {
        self.carried.is_settled()
    }

    /// Takes note that the database said `database` to a question asked at `asked_at` here and answered by `now`; false
    /// where it was too slow to be of use. The moment here is that of asking, so that `now` is ahead of the database by
    /// the time of the answer at most: sessions end early by that much, never late.
    pub fn learn(&self, database: UnixMillis, asked_at: BootTime, now: BootTime) -> bool {
        let quick = is_quick(asked_at, now);
        if quick {
            let sample = sample(&*self.clock, self.goes_by, database, asked_at);
            log(self.carried.learn(sample), self.goes_by);
        }
        quick
    }
}

fn sample(clock: &dyn Clock, goes_by: DatabaseClock, database: UnixMillis, asked_at: BootTime) -> Sample {
    let wall = (goes_by == DatabaseClock::ItsOwn).then(|| clock.wall());
    Sample { database, asked_at, wall }
}

fn log(learned: Learned, goes_by: DatabaseClock) {
    match learned {
        Learned::AsBefore => {}
        Learned::Jumped(doubt) => tracing::error!(
            jump_ms = doubt.as_millis(),
            clock = ?goes_by,
            "the database's clock jumped; this node goes on by the time before, purges nothing, and answers \
             UNAVAILABLE where the verdict depends on the clock. Set that clock right, or restart this node if the \
             new time is right"
        ),
        Learned::Returned => tracing::warn!("the database's clock is back where it was expected"),
        Learned::Confirmed => {
            tracing::warn!("the wall clock of this machine confirms the database's new time; it counts now");
        }
        Learned::WallAgrees => tracing::info!("database and this machine agree on the time"),
    }
}

fn is_quick(asked_at: BootTime, now: BootTime) -> bool {
    now.since(asked_at) <= POLL_ROUND_TRIP_MAX
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::host::ManualClock;

    /// A clock, and the time of a database that said 10 s at its start.
    fn with_clock() -> (Arc<ManualClock>, DatabaseTime) {
        let clock = Arc::<ManualClock>::default();
        let (shared, asked_at) = (Arc::<ManualClock>::clone(&clock), clock.boottime());
        let time =
            DatabaseTime::begin(shared, DatabaseClock::ItsOwn, UnixMillis::from_millis(10_000), asked_at);
        (clock, time)
    }

    #[test]
    fn the_machine_carries_the_time_on_from_the_moment_of_asking() {
        let (clock, time) = with_clock();
        let asked = clock.boottime();
        clock.advance(Duration::from_millis(500));
        assert!(time.learn(UnixMillis::from_millis(11_000), asked, clock.boottime()));
        assert_eq!(time.now(), UnixMillis::from_millis(11_500));
        clock.advance(Duration::from_millis(5));
        assert_eq!(time.now(), UnixMillis::from_millis(11_505));
    }

    #[test]
    fn the_database_has_the_last_word_even_when_its_clock_goes_back() {
        let (clock, time) = with_clock();
        let now = clock.boottime();
        assert!(time.learn(UnixMillis::from_millis(9_000), now, now));
        assert_eq!(time.now(), UnixMillis::from_millis(9_000));
    }

    #[test]
    fn a_slow_answer_neither_moves_the_time_ahead_nor_back() {
        let (clock, time) = with_clock();
        let asked = clock.boottime();
        clock.advance(Duration::from_secs(5));
        assert!(!time.learn(UnixMillis::from_millis(15_000), asked, clock.boottime()));
        assert_eq!(time.now(), UnixMillis::from_millis(15_000), "not 20 s");
    }

    /// The answer of a database that takes `seconds` by the manual clock for it.
    fn after(
        clock: &ManualClock,
        seconds: u64,
        millis: i64,
    ) -> impl Future<Output = store::Result<UnixMillis>> {
        std::future::poll_fn(move |_| {
            clock.advance(Duration::from_secs(seconds));
            std::task::Poll::Ready(Ok(UnixMillis::from_millis(millis)))
        })
    }

    #[tokio::test]
    async fn the_first_answer_that_is_quick_enough_counts_and_none_is_an_outage() {
        let clock = Arc::<ManualClock>::default();
        let (asked, shared) = (AtomicU64::new(0), || Arc::<ManualClock>::clone(&clock));
        let slow = || after(&clock, 2 + asked.fetch_add(1, Relaxed), 10_000);
        let never = DatabaseTime::first_sample(shared(), DatabaseClock::ItsOwn, slow).await;
        assert!(matches!(never, Err(StoreError::Unavailable(_))), "no time without a quick answer");
        assert_eq!(asked.load(Relaxed), 5);
        // The third one takes a second.
        let waits = AtomicU64::new(3);
        let quicker = || after(&clock, waits.fetch_sub(1, Relaxed), 10_000);
        let time =
            DatabaseTime::first_sample(shared(), DatabaseClock::ItsOwn, quicker).await.expect("quick enough");
        assert_eq!((waits.load(Relaxed), time.now()), (0, UnixMillis::from_millis(11_000)));
    }
}
