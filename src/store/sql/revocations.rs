//! Which transactions a revocation takes: the end of everyone's sessions is one of its own, and a group is split around what
//! other transactions have locked.

use std::sync::Arc;
use std::time::Duration;

use super::row_locks::{OnLocked, Unwaited};
use super::{SqlStore, end_together, ending, row_locks};
use crate::store::{Change, Ending, Result, Stamp, StoreError};

/// How long an end of everyone's sessions waits for their number, which may take long and changes nothing.
const COUNT_TIMEOUT: Duration = Duration::from_secs(1);

impl SqlStore {
    pub(super) async fn end_everyone(&self, stamp: Stamp) -> Result<Change> {
        let standing = self.count_standing(stamp).await;
        self.steps.write(move |db| Box::pin(ending::end_everyone(db, standing, stamp))).await
    }

    /// The number of sessions is for the operator only: where it cannot be counted in time, it is 0, and they end all the
    /// same.
    pub(super) async fn count_standing(&self, stamp: Stamp) -> u64 {
        let counting = self.steps.read(move |db| Box::pin(ending::count_standing(db, stamp)));
        let too_late = |_| Err(StoreError::Unavailable("counting took too long".to_owned()));
        let counted = tokio::time::timeout(COUNT_TIMEOUT, counting).await.unwrap_or_else(too_late);
        counted.unwrap_or_else(|why| {
            tracing::warn!(%why, "the sessions that end could not be counted");
            0
        })
    }

    /// Ends a part of a group, which is everyone alone, or anything but everyone.
    pub(super) async fn end_part(&self, part: &[Ending], mut stamp: Stamp) -> Result<Vec<Option<Change>>> {
        if part.iter().any(Ending::is_of_everyone) {
            return Ok(vec![Some(self.end_everyone(stamp).await?)]);
        }
        let mut changes = vec![None; part.len()];
        let whole = 0..part.len();
        let (mut left, mut committed) = (vec![whole], false);
        while let Some(range) = left.pop() {
            let endings: Arc<[_]> = part[range.clone()].into();
            let on_locked = self.row_locks.without_waiting();
            match self.end_unlocked(endings, stamp, on_locked).await {
                Ok(Unwaited::Done(some)) => {
                    committed = true;
                    // Of one number there may never be two rows with the same nonce, whatever the database loses.
                    stamp.nonce = stamp.nonce.next();
                    changes[range].clone_from_slice(&some);
                }
                // Which one is locked is not said, so that halves are tried.
                Ok(Unwaited::Locked) if range.len() > 1 => {
                    let middle = range.start + range.len() / 2;
                    left.extend([range.start..middle, middle..range.end]);
                }
                Ok(Unwaited::Locked) => {}
                Ok(Unwaited::CannotSkip) => {
                    self.row_locks.cannot_skip();
                    left.push(range);
                }
                Err(StoreError::Unavailable(why)) if committed => {
                    return Err(StoreError::OutcomeUnknown(why));
                }
                Err(why) => return Err(why),
            }
        }
        Ok(changes)
    }

    /// Ends what no other transaction has locked.
    async fn end_unlocked(
        &self,
        endings: Arc<[Ending]>,
        stamp: Stamp,
        on_locked: OnLocked,
    ) -> Result<Unwaited<Vec<Option<Change>>>> {
        self.steps
            .write(move |db| {
                let end = end_together::end(db, Arc::clone(&endings), stamp, on_locked);
                Box::pin(row_locks::unwaited(end))
            })
            .await
    }

    /// Ends what one target names, and waits for locks.
    pub(super) async fn end_one(&self, ending: Ending, stamp: Stamp) -> Result<Option<Change>> {
        if ending.is_of_everyone() {
            return self.end_everyone(stamp).await.map(Some);
        }
        let part: Arc<[_]> = [ending].into();
        let wait = OnLocked::Wait;
        let mut changes = self
            .steps
            .write(move |db| Box::pin(end_together::end(db, Arc::clone(&part), stamp, wait)))
            .await?;
        Ok(changes.pop().flatten())
    }
}
