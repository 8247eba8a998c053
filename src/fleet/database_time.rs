//! What time it is in the database, without asking it each time.
//!
//! All nodes must agree on when a session ends, and the wall clocks of machines jump. So "now" is the database's time as
//! of the last poll plus the time since then on a clock that never jumps. Reading it takes no lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::domain::refusal::Refusal;
use crate::domain::time::{BootTime, UnixMillis};
use crate::host::Clock;
use crate::store::{self, Store, StoreError};

/// How long the database may take to tell its time. A slower answer says too little: by its wait, `now` would run ahead
/// of the database until the next poll, and jump back then.
const POLL_ROUND_TRIP_MAX: Duration = Duration::from_secs(1);
/// How often a node that starts asks at most for an answer that is quick enough: the first one opens connections.
const FIRST_POLLS_MAX: u32 = 5;

const NANOS_PER_MILLI: i64 = 1_000_000;
const UNKNOWN: i64 = i64::MIN;

/// The database's time, carried on by this machine's clock between polls.
pub struct DatabaseTime {
    clock: Arc<dyn Clock>,
    /// Nanoseconds from this machine's boot to the database's 1970, or [`UNKNOWN`]. 64 bits hold them until 2262.
    offset: AtomicI64,
}

impl DatabaseTime {
    /// Knows no time before the first answer.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, offset: AtomicI64::new(UNKNOWN) }
    }

    /// The time now. Refused before the first answer.
    pub fn now(&self) -> Result<UnixMillis, Refusal> {
        self.at(self.clock.boottime())
    }

    /// The time when this machine's clock shows `here`. Refused before the first answer.
    pub fn at(&self, here: BootTime) -> Result<UnixMillis, Refusal> {
        match self.offset.load(Ordering::Acquire) {
            UNKNOWN => Err(Refusal::StoreUnavailable),
            offset => {
                let nanos = offset.saturating_add(nanos(here));
                Ok(UnixMillis::from_millis(nanos.div_euclid(NANOS_PER_MILLI)))
            }
        }
    }

    /// Takes note that the database said `database` to a question asked at `asked_at` here and answered by `now`; false
    /// where it was too slow to be of use. The moment here is that of asking, so that `now` is ahead of the database by
    /// the time of the answer at most: sessions end early by that much, never late.
    pub fn learn(&self, database: UnixMillis, asked_at: BootTime, now: BootTime) -> bool {
        let quick = now.since(asked_at) <= POLL_ROUND_TRIP_MAX;
        if quick {
            let offset = database.as_millis().saturating_mul(NANOS_PER_MILLI).saturating_sub(nanos(asked_at));
            self.offset.store(offset, Ordering::Release);
        }
        quick
    }

    /// Asks the database for the first time: again while it answers too slowly, up to a limit.
    pub async fn ask_first(&self, store: &dyn Store) -> store::Result<()> {
        self.first_sample(|| store.database_time()).await
    }

    async fn first_sample<F>(&self, ask: impl Fn() -> F) -> store::Result<()>
    where
        F: Future<Output = store::Result<UnixMillis>>,
    {
        for _ in 0..FIRST_POLLS_MAX {
            let asked_at = self.clock.boottime();
            let database = ask().await?;
            if self.learn(database, asked_at, self.clock.boottime()) {
                return Ok(());
            }
        }
        Err(StoreError::Unavailable("it takes more than a second to tell its time".to_owned()))
    }
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

    fn with_clock() -> (Arc<ManualClock>, DatabaseTime) {
        let clock = Arc::<ManualClock>::default();
        (Arc::clone(&clock), DatabaseTime::new(clock))
    }

    #[test]
    fn there_is_no_time_before_the_first_answer() {
        assert_eq!(with_clock().1.now(), Err(Refusal::StoreUnavailable));
    }

    #[test]
    fn the_machine_carries_the_time_on_from_the_moment_of_asking() {
        let (clock, time) = with_clock();
        let asked = clock.boottime();
        clock.advance(Duration::from_millis(500));
        assert!(time.learn(UnixMillis::from_millis(10_000), asked, clock.boottime()));
        assert_eq!(time.now(), Ok(UnixMillis::from_millis(10_500)));
        clock.advance(Duration::from_millis(5));
        assert_eq!(time.now(), Ok(UnixMillis::from_millis(10_505)));
    }

    #[test]
    fn the_database_has_the_last_word_even_when_its_clock_goes_back() {
        let (clock, time) = with_clock();
        let now = clock.boottime();
        assert!(time.learn(UnixMillis::from_millis(10_000), now, now));
        assert!(time.learn(UnixMillis::from_millis(9_000), now, now));
        assert_eq!(time.now(), Ok(UnixMillis::from_millis(9_000)));
    }

    #[test]
    fn a_slow_answer_neither_moves_the_time_ahead_nor_back() {
        let (clock, time) = with_clock();
        assert!(time.learn(UnixMillis::from_millis(10_000), clock.boottime(), clock.boottime()));
        let asked = clock.boottime();
        clock.advance(Duration::from_secs(5));
        assert!(!time.learn(UnixMillis::from_millis(15_000), asked, clock.boottime()));
        assert_eq!(time.now(), Ok(UnixMillis::from_millis(15_000)), "not 20 s");
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
        let (clock, time) = with_clock();
        let asked = AtomicU64::new(0);
        let never = time.first_sample(|| after(&clock, 2 + asked.fetch_add(1, Relaxed), 10_000)).await;
        assert!(matches!(never, Err(StoreError::Unavailable(_))), "{never:?}");
        assert_eq!((asked.load(Relaxed), time.now()), (5, Err(Refusal::StoreUnavailable)));
        // The third one takes a second.
        let waits = AtomicU64::new(3);
        let begun = time.first_sample(|| after(&clock, waits.fetch_sub(1, Relaxed), 10_000)).await;
        begun.expect("quick enough");
        assert_eq!((waits.load(Relaxed), time.now()), (0, Ok(UnixMillis::from_millis(11_000))));
    }
}
