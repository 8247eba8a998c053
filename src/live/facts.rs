//! What is known of a user: from when on sessions stand, why others do not, and what is told of the user. How it is held,
//! and how readers come by it, is the business of `user`.

use std::sync::Arc;

use super::encoded::Told;
use super::session::Verdict;
use crate::domain::id::Epoch;
use crate::domain::session::Death;
use crate::domain::user::User;

/// Endings of a user's sessions whose reason is remembered; an older one is told by the epochs alone.
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
    /// Sessions born before died of a change of the password.
    pub(super) password: Epoch,
}

/// What memory says of a user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing<T> {
    /// The user may have sessions.
    Active(T),
    /// The user is disabled or deleted.
    Barred,
    /// The user has changed since: it has to be read again.
    Stale,
}

impl Facts {
    /// A user of whom nothing is known yet.
    pub(super) fn unknown() -> Self {
        Self { epochs: Epochs::default(), endings: Vec::new(), standing: Standing::Stale }
    }

    /// That epoch only goes up, whatever a read is worth otherwise.
    pub(super) fn raise_password_epoch(&mut self, user: Option<&User>) {
        if let Some(user) = user {
            self.epochs.password = self.epochs.password.max(user.password_epoch);
        }
    }

    /// What a read says of which nothing newer is known; `told` where the user may have sessions.
    pub(super) fn read(&mut self, told: Option<Told>, user: Option<&User>) {
        let epoch = match (user, &self.standing) {
            (Some(user), _) => user.credential_epoch,
            (None, Standing::Barred) => self.epochs.read,
            // All sessions of a user end who is deleted, as if by another epoch.
            (None, Standing::Active(_) | Standing::Stale) => self.epochs.read.next(),
        };
        self.epochs.read = epoch;
        self.standing = if let Some(told) = told {
            Standing::Active(Arc::new(told))
        } else {
            // No session goes on, so that none is in doubt; what is told of it now must hold for good.
            self.epochs.ended = self.epochs.ended.max(epoch);
            Standing::Barred
        };
    }

    /// Sessions born before `epoch` are over, for the reason of `death`.
    pub(super) fn end_before(&mut self, epoch: Epoch, death: Death) {
        self.epochs.ended = self.epochs.ended.max(epoch);
        if death == Death::CredentialsChanged {
            self.epochs.password = self.epochs.password.max(epoch);
        }
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
    let next = epoch.next();
    let seen = endings.iter().find(|ending| ending.0 == next).map(|ending| ending.1);
    let told = if epoch < epochs.password { Death::CredentialsChanged } else { Death::Revoked };
    Verdict::Over(seen.unwrap_or(told))
}
