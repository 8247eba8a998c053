//! Asks memory: lease, clock, state, in this order.

use std::cell::Cell;

use super::Fleet;
use crate::domain::time::UnixMillis;
use crate::domain::token::TokenDigest;
use crate::live::lease::Leased;
use crate::live::table::{GoodSession, LookUp};

/// A moment at which memory may answer, for the questions that had come by then.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    leased: Leased,
    time: UnixMillis,
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
            // Whoever holds a lease has polled, and so knows the time.
            time.set(shared.time.at(here).unwrap_or_default());
            time.get()
        };
        let clock = || shared.clock.boottime();
        shared.table.look_up(&shared.lease, clock, digest, now, |good| answer(good, time.get()))
    }

    /// Asks the lease and the clock for many look-ups at once. None while this node cannot know the latest state.
    ///
    /// A question counts as begun when it has come, so a revocation that returned before it had waited for all leases of
    /// that time, this one included, if it was run out by then.
    pub fn moment(&self) -> Option<Moment> {
        let shared = &self.shared;
        let leased = shared.lease.ask(|| shared.clock.boottime())?;
        Some(Moment { leased, time: shared.time.at(leased.now()).unwrap_or_default() })
    }

    /// The same as [`Fleet::look_up`] at a moment by which the question had come.
    pub fn look_up_at<T>(
        &self,
        Moment { leased, time }: Moment,
        digest: &TokenDigest,
        answer: impl FnOnce(&GoodSession<'_>, UnixMillis) -> T,
    ) -> LookUp<T> {
        self.shared.table.look_up_leased(leased, digest, time, |good| answer(good, time))
    }

    /// Whether memory may answer now.
    pub fn is_leased(&self) -> bool {
        self.shared.lease.ask(|| self.shared.clock.boottime()).is_some()
    }
}
