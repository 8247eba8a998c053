//! What is known of a user: from when on sessions stand, why others do not, and what is told of the user. How it is held,
//! and how readers come by it, is the business of `user`.

use std::sync::Arc;

use super::encoded::Told;
use super::session::Verdict;
use crate::domain::id::Epoch;
use crate::domain::session::Death;
use crate::domain::user::User;
use crate::mutation::Mutation;

/// Endings of a user's sessions whose reason is remembered; of an older one the database is asked.
const ENDINGS_MAX: usize = 8;

/// What is known of a user.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) epochs: Epochs,
    /// The epochs that ended sessions, and why, as far as memory saw it happen.
    pub(super) endings: Vec<(Epoch, Death)>,
    /// Whether the user may have sessions, and what is told of the user.
    pub(super) standing: Standing<Arc<Told>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Epochs {
    /// Sessions born before are over, by the log. Only goes up.
    pub(super) ended: Epoch,
    /// The credential epoch as of `as_of`. A read may know of an end whose row is still to come, and with it which session
    /// goes on; until then a session born before is in doubt.
    pub(super) read: Epoch,
}

/// What memory says of a user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing<T> {
    /// The user may have sessions.
    Active(T),
    /// The user is disabled.
    Barred,
    /// The user has changed since, or is gone: it has to be read again. Somebody may have made a user of the same id, which no
    /// row of the log says.
    Stale,
}

impl Facts {
    /// A user of whom nothing is known yet.
    pub(super) fn unknown() -> Self {
        Self { epochs: Epochs::default(), endings: Vec::new(), standing: Standing::Stale }
    }

    /// What a read says of which nothing newer is known; `told` where the user may have sessions.
    ///
    /// One that found no user bars nobody: the making of a user has no position, so it may be from before that and come in
    /// after a read that found the user. The next read decides.
    pub(super) fn read(&mut self, told: Option<Told>, user: Option<&User>) {
        let is_barred = user.is_some() || Mutation::AbsenceBars.is_on();
        self.epochs.read = user.map_or(self.epochs.read, |user| user.credential_epoch);
        self.standing = match told {
            Some(told) => Standing::Active(Arc::new(told)),
            None if is_barred => Standing::Barred,
            None => Standing::Stale,
        };
    }

    /// Sessions born before `epoch` are over, for the reason of `death`.
    pub(super) fn end_before(&mut self, epoch: Epoch, death: Death) {
        self.epochs.ended = self.epochs.ended.max(epoch);
        if let Err(at) = self.endings.binary_search_by_key(&epoch, |ending| ending.0) {
            self.endings.insert(at, (epoch, death));
            let surplus = self.endings.len().saturating_sub(ENDINGS_MAX);
            self.endings.drain(..surplus);
        }
    }
}

/// Whether a session stamped with `epoch` stands by these epochs, and the `endings` that memory saw. One that was stamped
/// with an epoch of which memory has not heard yet is ahead of memory, not over.
pub(super) fn verdict_on(epoch: Epoch, epochs: Epochs, endings: &[(Epoch, Death)]) -> Verdict {
    if epoch >= epochs.ended {
        return if epoch < epochs.read { Verdict::Ask } else { Verdict::Good };
    }
    // The first end after its birth is the one that counts. Where memory did not see that one, the row of the session says.
    let next = epoch.next();
    endings.iter().find(|ending| ending.0 == next).map_or(Verdict::Ask, |ending| Verdict::Over(ending.1))
}
