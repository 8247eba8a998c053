//! The database's time as one machine carries it on, and whether it may be believed. Without I/O.
//!
//! Each answer of the database is compared with what `CLOCK_BOOTTIME` has made of the answers before. A difference beyond
//! the bound is a jump. Then two clocks disagree, and nobody knows which one is right: the carried time goes on, and the
//! difference is kept beside it as a doubt, until the jump is explained.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::domain::time::{BootTime, UnixMillis};
use crate::mutation::Mutation;

/// How far an answer may lie from what was expected, beside [`SLEW`] of the time since the answer before.
pub const JUMP_MIN: Duration = Duration::from_secs(2);
/// The part of elapsed time by which two clocks may differ in rate: more than a tenth.
const SLEW: i64 = 8;
/// The part by which they differ while an alarm lasts. Quartz keeps to a few hundred-thousandths.
const DRIFT: i64 = 5_000;
/// For how long the wall clock of this machine must agree with the database against the carried time.
pub const WITNESS_SPAN: Duration = Duration::from_mins(5);

const NANOS_PER_MILLI: i64 = 1_000_000;

/// By how much the database's clock is ahead of the carried time; nothing while they agree.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Doubt(i64);

impl Doubt {
    /// What the database's clock shows when the carried time is `now`; none while they agree.
    pub fn other(self, now: UnixMillis) -> Option<UnixMillis> {
        (self.0 != 0).then(|| UnixMillis::from_millis(now.as_millis().saturating_add(self.as_millis())))
    }

    /// The difference in milliseconds, below zero where the database's clock is behind.
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(NANOS_PER_MILLI)
    }
}

/// An answer of the database to the question what time it is.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The database's time.
    pub database: UnixMillis,
    /// When it was asked, by `CLOCK_BOOTTIME`.
    pub asked_at: BootTime,
    /// What the wall clock of this machine shows; none where the database's clock is that very clock.
    pub wall: Option<UnixMillis>,
}

/// What an answer changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Learned {
    /// Nothing: the clocks agree, or disagree as before.
    AsBefore,
    /// The database's clock has jumped, or jumped again.
    Jumped(Doubt),
    /// It is back where the carried time expects it.
    Returned,
    /// The wall clock of this machine has agreed with it for long enough, so the carried time was wrong.
    Confirmed,
    /// Database and wall clock, which disagreed at the start, agree.
    WallAgrees,
}

/// The database's time, carried on. One writer; readers never wait.
#[derive(Debug)]
pub struct CarriedTime {
    /// Nanoseconds from this machine's boot to the database's 1970. 64 bits hold them until 2262.
    offset: AtomicI64,
    doubt: AtomicI64,
    /// Whether the wall clock has agreed with the database since the start.
    wall_agreed: AtomicBool,
    watch: Mutex<Watch>,
}

/// What the writer knows.
#[derive(Debug)]
struct Watch {
    /// The offset that is expected. It follows the answers no faster than clocks may differ in rate, so that no row of
    /// small steps can lead it away.
    expected: i64,
    /// When the answer before was asked for.
    asked_at: BootTime,
    alarm: Option<Alarm>,
}

#[derive(Clone, Copy, Debug)]
struct Alarm {
    since: BootTime,
    /// The doubt that was told last.
    told: i64,
    /// Since when the wall clock agrees with the database.
    confirmed_since: Option<BootTime>,
}

impl CarriedTime {
    /// Begins with the first answer, which is believed.
    pub fn new(first: Sample) -> Self {
        let offset = offset(first.database, first.asked_at);
        Self {
            offset: AtomicI64::new(offset),
            doubt: AtomicI64::new(0),
            wall_agreed: AtomicBool::new(first.wall_agrees()),
            watch: Mutex::new(Watch { expected: offset, asked_at: first.asked_at, alarm: None }),
        }
    }

    /// The time when this machine's clock shows `here`.
    pub fn at(&self, here: BootTime) -> UnixMillis {
        let nanos = self.offset.load(Ordering::Acquire).saturating_add(nanos(here));
        UnixMillis::from_millis(nanos.div_euclid(NANOS_PER_MILLI))
    }

    /// How far the database's clock is off. To be read before [`Self::at`]: where the doubt is gone, the time that is
    /// read afterwards is the one that was found right.
    pub fn doubt(&self) -> Doubt {
        Doubt(self.doubt.load(Ordering::Acquire))
    }

    /// Whether anything may be deleted because of its age.
    pub fn is_settled(&self) -> bool {
        self.doubt() == Doubt::default() && self.wall_agreed.load(Ordering::Relaxed)
    }

    /// Takes in an answer.
    pub fn learn(&self, sample: Sample) -> Learned {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let found = offset(sample.database, sample.asked_at);
        let was_alarmed = watch.alarm.is_some();
        if watch.expects(found, sample.asked_at) || Mutation::DatabaseClockBelieved.is_on() {
            self.believe(found);
            if sample.wall_agrees() && !self.wall_agreed.swap(true, Ordering::Relaxed) {
                return Learned::WallAgrees;
            }
            return if was_alarmed { Learned::Returned } else { Learned::AsBefore };
        }
        if watch.is_confirmed(sample) {
            watch.alarm = None;
            watch.expected = found;
            self.wall_agreed.store(true, Ordering::Relaxed);
            self.believe(found);
            return Learned::Confirmed;
        }
        let doubt = found.saturating_sub(self.offset.load(Ordering::Relaxed));
        self.doubt.store(doubt, Ordering::Release);
        let Some(alarm) = &mut watch.alarm else { return Learned::AsBefore };
        let is_news = !was_alarmed || doubt.abs_diff(alarm.told) > span(JUMP_MIN).unsigned_abs();
        if !is_news {
            return Learned::AsBefore;
        }
        alarm.told = doubt;
        Learned::Jumped(Doubt(doubt))
    }

    /// The offset first: who reads no doubt any more reads this one.
    fn believe(&self, offset: i64) {
        self.offset.store(offset, Ordering::Release);
        self.doubt.store(0, Ordering::Release);
    }
}

impl Watch {
    /// Whether an answer lies within the bound; the line of what is expected goes on by it.
    fn expects(&mut self, found: i64, asked_at: BootTime) -> bool {
        let slew = span(asked_at.since(self.asked_at)) / SLEW;
        let drift = self.alarm.map_or(0, |alarm| span(asked_at.since(alarm.since)) / DRIFT);
        self.asked_at = self.asked_at.max(asked_at);
        let difference = found.saturating_sub(self.expected);
        let bound = span(JUMP_MIN).saturating_add(slew).saturating_add(drift);
        let expected = difference.unsigned_abs() <= bound.unsigned_abs();
        if expected {
            let step = slew.saturating_add(drift);
            self.expected = self.expected.saturating_add(difference.clamp(-step, step));
            self.alarm = None;
        }
        expected
    }

    /// Whether the wall clock has agreed with an answer beyond the bound for long enough.
    fn is_confirmed(&mut self, sample: Sample) -> bool {
        let at = sample.asked_at;
        let alarm = self.alarm.get_or_insert(Alarm { since: at, told: 0, confirmed_since: None });
        if sample.wall.is_none() || !sample.wall_agrees() {
            alarm.confirmed_since = None;
            return false;
        }
        at.since(*alarm.confirmed_since.get_or_insert(at)) >= WITNESS_SPAN
    }
}

impl Sample {
    fn wall_agrees(self) -> bool {
        let bound = JUMP_MIN.as_millis();
        self.wall.is_none_or(|wall| u128::from(wall.as_millis().abs_diff(self.database.as_millis())) <= bound)
    }
}

/// What lies between the two clocks, where the database said `database` to a question asked at `asked_at`.
fn offset(database: UnixMillis, asked_at: BootTime) -> i64 {
    database.as_millis().saturating_mul(NANOS_PER_MILLI).saturating_sub(nanos(asked_at))
}

fn nanos(here: BootTime) -> i64 {
    i64::try_from(here.as_nanos()).unwrap_or(i64::MAX)
}

fn span(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_000_000_000;

    /// An answer `at` so many milliseconds after the boot, by a clock that is `ahead`; the wall clock is ahead by `wall`.
    fn sample(at: i64, ahead: i64, wall: Option<i64>) -> Sample {
        let show = |ahead: i64| UnixMillis::from_millis(START + at + ahead);
        let asked_at = BootTime::from_span(Duration::from_millis(at.unsigned_abs()));
        Sample { database: show(ahead), asked_at, wall: wall.map(show) }
    }

    fn carried() -> CarriedTime {
        CarriedTime::new(sample(0, 0, Some(0)))
    }

    fn at(time: &CarriedTime, millis: u64) -> i64 {
        time.at(BootTime::from_span(Duration::from_millis(millis))).as_millis() - START
    }

    #[test]
    fn a_jump_leaves_the_time_as_it_is_and_is_told_once_until_it_is_gone() {
        for ahead in [172_800_000, 2_100, -2_100, -3_600_000] {
            let time = carried();
            let jumped = time.learn(sample(500, ahead, Some(0)));
            let Learned::Jumped(doubt) = jumped else { panic!("{jumped:?}") };
            assert_eq!((doubt.as_millis(), at(&time, 500), time.is_settled()), (ahead, 500, false));
            assert_eq!(doubt.other(UnixMillis::from_millis(7)), Some(UnixMillis::from_millis(7 + ahead)));
            assert_eq!(time.learn(sample(1_000, ahead, Some(0))), Learned::AsBefore);
            assert!(matches!(time.learn(sample(1_500, 9 * ahead, Some(0))), Learned::Jumped(_)), "again");
            assert_eq!(time.learn(sample(2_000, 10, Some(0))), Learned::Returned);
            assert_eq!((time.doubt(), at(&time, 2_000), time.is_settled()), (Doubt::default(), 2_010, true));
        }
    }

    #[test]
    fn clocks_may_differ_in_rate_and_answers_in_delay() {
        let time = carried();
        for second in 1..10_000 {
            let drifted = sample(second * 1_000, second * 100 - (second % 3) * 500, Some(second * 100));
            let learned = time.learn(drifted);
            assert!(!matches!(learned, Learned::Jumped(_)), "{second} s: {learned:?}");
        }
        // After an hour without an answer a tenth of it is no jump.
        assert_eq!(carried().learn(sample(3_600_000, 360_000, Some(0))), Learned::AsBefore);
    }

    #[test]
    fn a_row_of_small_steps_is_a_jump() {
        let time = carried();
        let found = (1..20)
            .find(|step| matches!(time.learn(sample(step * 500, step * 1_000, Some(0))), Learned::Jumped(_)));
        assert_eq!(found, Some(3), "twice the rate of a clock that is right");
    }

    #[test]
    fn the_wall_clock_confirms_a_jump_after_a_while() {
        let time = carried();
        let hour = 3_600_000;
        let wait = i64::try_from(WITNESS_SPAN.as_millis()).expect("small");
        assert!(matches!(time.learn(sample(1_000, hour, Some(hour))), Learned::Jumped(_)));
        assert_eq!(time.learn(sample(wait, hour, Some(0))), Learned::AsBefore, "it agrees no longer");
        assert_eq!(time.learn(sample(wait + 1_000, hour, Some(hour))), Learned::AsBefore);
        assert_eq!(time.learn(sample(2 * wait, hour, Some(hour))), Learned::AsBefore);
        assert_eq!(time.learn(sample(2 * wait + 1_000, hour, Some(hour))), Learned::Confirmed);
        assert_eq!((time.doubt(), time.is_settled()), (Doubt::default(), true));
        assert_eq!(at(&time, 0), hour);
    }

    #[test]
    fn a_database_on_the_same_clock_has_no_witness() {
        let time = CarriedTime::new(sample(0, 0, None));
        assert!(time.is_settled());
        for second in 1..2_000 {
            time.learn(sample(second * 1_000, 3_600_000, None));
            assert!(!time.is_settled());
        }
        assert_eq!(time.learn(sample(2_000_000, 0, None)), Learned::Returned);
    }

    #[test]
    fn nothing_is_deleted_before_database_and_wall_clock_agree() {
        let time = CarriedTime::new(sample(0, 0, Some(2_001)));
        assert_eq!((time.is_settled(), time.doubt()), (false, Doubt::default()), "all else goes on");
        assert_eq!(time.learn(sample(500, 0, Some(2_001))), Learned::AsBefore);
        assert_eq!(time.learn(sample(1_000, 0, Some(0))), Learned::WallAgrees);
        assert!(time.is_settled());
        time.learn(sample(1_500, 0, Some(9_000)));
        assert!(time.is_settled(), "a jump of the wall clock alone changes nothing");
    }
}
