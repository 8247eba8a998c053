//! Asks memory: lease, clock, state, in this order.

use std::cell::Cell;
use std::marker::PhantomData;

use super::Fleet;
use super::carried_time::Doubt;
use crate::domain::time::UnixMillis;
use crate::domain::token::TokenDigest;
use crate::live::lease::Leased;
use crate::live::table::{GoodSession, LookUp};

/// A moment at which memory may answer, for the questions that had come by then. It borrows them, so that none can be added
/// while it counts.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'q> {
    leased: Leased,
    time: UnixMillis,
    doubt: Doubt,
    questions: PhantomData<&'q [u8]>,
}

impl Moment<'_> {
    /// How far the database's clock was off.
    pub fn doubt(&self) -> Doubt {
        self.doubt
    }
}

impl Fleet {
    /// Looks up whose session a token is, from memory. None while this node cannot know the latest state.
    pub fn look_up<T>(
        &self,
        digest: &TokenDigest,
        answer: impl FnOnce(&GoodSession<'_>, UnixMillis) -> T,
    ) -> Option<LookUp<T>> {
        let shared = &self.shared;
        let time = Cell::new(UnixMillis::default());
        let now = |here| {
            time.set(shared.time.at(here));
            time.get()
        };
        let clock = || shared.clock.boottime();
        shared.table.look_up(&shared.lease, clock, digest, now, |good| answer(good, time.get()))
    }

    /// Asks the lease and the clock for all questions among the bytes that have come. None while this node cannot know the
    /// latest state.
    ///
    /// A revocation that returned before a question came was either applied here, or has outlasted every lease of that
    /// time; and the clock, which is read after all of them came, says so.
    pub fn moment<'q>(&self, _questions: &'q [u8]) -> Option<Moment<'q>> {
        let shared = &self.shared;
        let doubt = shared.time.doubt();
        let leased = shared.lease.ask(|| shared.clock.boottime())?;
        let time = shared.time.at(leased.now());
        Some(Moment { leased, time, doubt, questions: PhantomData })
    }

    /// Looks up whose session a token is, at a moment by which the question had come.
    pub fn look_up_at<T>(
        &self,
        Moment { leased, time, .. }: Moment<'_>,
        digest: &TokenDigest,
        answer: impl FnOnce(&GoodSession<'_>, UnixMillis) -> T,
    ) -> LookUp<T> {
        self.shared.table.look_up_leased(leased, digest, time, |good| answer(good, time))
    }

    /// Whether a session of which memory told that it is over by its deadlines is past them as well if the time is `time`.
    pub fn is_expired_at(&self, digest: &TokenDigest, time: UnixMillis) -> bool {
        self.shared.table.is_past_deadlines(digest, time)
    }

    /// Whether memory may answer now.
    pub fn is_leased(&self) -> bool {
        self.shared.is_leased()
    }
}
