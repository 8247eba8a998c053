//! What time it is in the database, without asking it each time.
//!
//! All nodes must agree on when a session ends, and the wall clocks of machines jump. So "now" is the database's time as
//! of the last poll plus the time since then on a clock that never jumps. Reading it takes no lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::domain::time::{BootTime, UnixMillis};
use crate::host::Clock;
use crate::store::{self, Store, StoreError};

/// How long the database may take to tell its time. A slower answer says too little: by its wait, `now` would run ahead
/// of the database until the next poll, and jump back then.
const POLL_ROUND_TRIP_MAX: Duration = Duration::from_secs(1);
/// How often a node that starts asks at most for an answer that is quick enough: the first one opens connections.
const FIRST_POLLS_MAX: u32 = 5;

const NANOS_PER_MILLI: i64 = 1_000_000;

/// The database's time, carried on by this machine's clock between polls. There is none without a first answer of the
/// database, so that nobody can take 1970 for the time.
pub struct DatabaseTime {
    clock: Arc<dyn Clock>,
    /// Nanoseconds from this machine's boot to the database's 1970. 64 bits hold them until 2262.
    offset: AtomicI64,
}

impl DatabaseTime {
    /// Asks the database for its time: again while it answers too slowly, up to a limit.
    pub async fn ask(clock: Arc<dyn Clock>, store: &dyn Store) -> store::Result<Self> {
        Self::first_sample(clock, || store.database_time()).await
    }

    async fn first_sample<F>(clock: Arc<dyn Clock>, ask: impl Fn() -> F) -> store::Result<Self>
    where
        F: Future<Output = store::Result<UnixMillis>>,
    {
        for _ in 0..FIRST_POLLS_MAX {
            let asked_at = clock.boottime();
            let database = ask().await?;
            if is_quick(asked_at, clock.boottime()) {
                return Ok(Self { clock, offset: AtomicI64::new(offset(database, asked_at)) });
            }
        }
        Err(StoreError::Unavailable(format!("time query took longer than 1 s ({FIRST_POLLS_MAX} attempts)")))
    }

    /// The time now.
    pub fn now(&self) -> UnixMillis {
        self.at(self.clock.boottime())
    }

    /// The time when this machine's clock shows `here`.
    pub fn at(&self, here: BootTime) -> UnixMillis {
        let nanos = self.offset.load(Ordering::Acquire).saturating_add(nanos(here));
        UnixMillis::from_millis(nanos.div_euclid(NANOS_PER_MILLI))
    }

    /// Takes note that the database said `database` to a question asked at `asked_at` here and answered by `now`; false
    /// where it was too slow to be of use. The moment here is that of asking, so that `now` is ahead of the database by
    /// the time of the answer at most: sessions end early by that much, never late.
    pub fn learn(&self, database: UnixMillis, asked_at: BootTime, now: BootTime) -> bool {
        let quick = is_quick(asked_at, now);
        if quick {
            self.offset.store(offset(database, asked_at), Ordering::Release);
        }
        quick
    }
}

fn is_quick(asked_at: BootTime, now: BootTime) -> bool {
    now.since(asked_at) <= POLL_ROUND_TRIP_MAX
}

/// What lies between the two clocks, where the database said `database` to a question asked at `asked_at`.
fn offset(database: UnixMillis, asked_at: BootTime) -> i64 {
    database.as_millis().saturating_mul(NANOS_PER_MILLI).saturating_sub(nanos(asked_at))
}

fn nanos(here: BootTime) -> i64 {
    i64::try_from(here.as_nanos()).unwrap_or(i64::MAX)
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
        let offset = AtomicI64::new(offset(UnixMillis::from_millis(10_000), clock.boottime()));
        (Arc::clone(&clock), DatabaseTime { clock, offset })
    }

    #[test]
    fn the_machine_carries_the_time_on_from_the_moment_of_asking() {
        let (clock, time) = with_clock();
        let asked = clock.boottime();
        clock.advance(Duration::from_millis(500));
        assert!(time.learn(UnixMillis::from_millis(20_000), asked, clock.boottime()));
        assert_eq!(time.now(), UnixMillis::from_millis(20_500));
        clock.advance(Duration::from_millis(5));
        assert_eq!(time.now(), UnixMillis::from_millis(20_505));
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
        let never = DatabaseTime::first_sample(shared(), slow).await;
        assert!(matches!(never, Err(StoreError::Unavailable(_))), "no time without a quick answer");
        assert_eq!(asked.load(Relaxed), 5);
        // The third one takes a second.
        let waits = AtomicU64::new(3);
        let quicker = || after(&clock, waits.fetch_sub(1, Relaxed), 10_000);
        let time = DatabaseTime::first_sample(shared(), quicker).await.expect("quick enough");
        assert_eq!((waits.load(Relaxed), time.now()), (0, UnixMillis::from_millis(11_000)));
    }
}
