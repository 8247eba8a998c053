//! How a step treats rows that another transaction has locked: it waits for them, skips them, or fails at once.
//!
//! PostgreSQL and MariaDB 10.6 can skip locked rows. MariaDB 10.5 refuses the syntax and can only fail at once; what the
//! server can do is found out by its first refusal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sea_orm::sea_query::{LockBehavior, LockType};
use sea_orm::{EntityTrait, QuerySelect as _, Select};

use super::error::Failure;
use super::step::Verdict;

/// What happens at a row that another transaction has locked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum OnLocked {
    /// The statement waits, within the lock timeout.
    Wait,
    /// The row is left out of the result.
    Skip,
    /// The statement fails at once, as [`Failure::Locked`].
    Fail,
}

/// Adds the lock to a query. SQLite has no row locks: its one writer has them all.
pub(super) fn lock_rows<E: EntityTrait>(query: Select<E>, on_locked: OnLocked) -> Select<E> {
    match on_locked {
        OnLocked::Wait => query.lock_exclusive(),
        OnLocked::Skip => query.lock_with_behavior(LockType::Update, LockBehavior::SkipLocked),
        OnLocked::Fail => query.lock_with_behavior(LockType::Update, LockBehavior::Nowait),
    }
}

/// What the server can do with locked rows, as far as it is known. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct RowLocks {
    can_skip: Arc<AtomicBool>,
}

impl RowLocks {
    /// A server that can skip locked rows until it refuses to.
    pub(super) fn new() -> Self {
        Self { can_skip: Arc::new(AtomicBool::new(true)) }
    }

    /// How to avoid waiting.
    pub(super) fn without_waiting(&self) -> OnLocked {
        if self.can_skip.load(Ordering::Relaxed) { OnLocked::Skip } else { OnLocked::Fail }
    }

    /// The server does not know how to skip.
    pub(super) fn cannot_skip(&self) {
        self.can_skip.store(false, Ordering::Relaxed);
    }
}

/// How an attempt that does not wait for locks ended.
pub(super) enum Unwaited<T> {
    /// It succeeded.
    Done(T),
    /// [`OnLocked::Fail`] met a locked row. Nothing was changed.
    Locked,
    /// The server does not know [`OnLocked::Skip`]. Nothing was changed.
    CannotSkip,
}

/// Runs `step`, and turns the two failures that are answers here into such.
pub(super) async fn unwaited<T>(
    step: impl Future<Output = Result<Verdict<T>, Failure>>,
) -> Result<Verdict<Unwaited<T>>, Failure> {
    Ok(match step.await {
        Ok(Verdict::Commit(answer)) => Verdict::Commit(Unwaited::Done(answer)),
        Ok(Verdict::Nothing(answer)) => Verdict::Nothing(Unwaited::Done(answer)),
        Ok(Verdict::Refused(answer)) => Verdict::Refused(Unwaited::Done(answer)),
        Err(Failure::Locked(_)) => Verdict::Refused(Unwaited::Locked),
        Err(Failure::BadSyntax(_)) => Verdict::Refused(Unwaited::CannotSkip),
        Err(failure) => return Err(failure),
    })
}
