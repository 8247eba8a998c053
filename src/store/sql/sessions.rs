//! Sessions: adding, reading, listing and replacing them.

use std::sync::Arc;

use sea_orm::{EntityTrait as _, QueryFilter as _, QuerySelect as _, Set};

use super::change_log;
use super::entity::{sessions, users};
use super::error::Failure;
use super::facts::{self, UserBy};
use super::session_row::{to_row, to_session};
use super::session_writes;
use super::standing::standing;
use super::step::{Pool, Transaction, Verdict};
use super::user_row::to_user;
use super::users::lock;
use crate::domain::id::{Epoch, Position, SessionId, UserId};
use crate::domain::session::{EndReason, Session};
use crate::domain::time::UnixMillis;
use crate::mutation::Mutation;
use crate::store::{Change, LoggedChange, NewSession, SessionKey, SessionRecord, Stamp};

/// Adds a session and ends the oldest ones above the cap. The lock on the user makes the cap exact.
pub(super) async fn create(
    transaction: &Transaction,
    new: Arc<NewSession>,
    per_user_max: u32,
    stamp: Stamp,
) -> Result<Verdict<Option<Change>>, Failure> {
    let user = lock(transaction, new.session.user_id.as_uuid()).await?;
    let mut row = to_row(&new);
    if let (true, Some(user)) = (Mutation::EpochReadAgain.is_on(), &user) {
        row.user_epoch = Set(user.credential_epoch);
    } else if let Some(reason) = dead_on_arrival(&new.session, user.as_ref()) {
        // Marked, so that whatever ends the others of the user later does not change the reason.
        row.end_time = Set(Some(stamp.time.as_millis()));
        row.end_reason = Set(Some(reason.as_i16()));
    }
    sessions::Entity::insert(row).exec_without_returning(transaction).await?;
    // Without an active user the session is dead on arrival, as are all others of the user.
    let Some(user) = user.filter(users::Model::is_active) else {
        return Ok(Verdict::Commit(None));
    };
    let head = facts::head(transaction).await?;
    let stand: Vec<(uuid::Uuid, i64)> = sessions::Entity::find()
        .select_only()
        .columns([sessions::Column::SessionId, sessions::Column::CreateTime])
        .filter(standing(&user, &head, stamp.time))
        .into_tuple()
        .all(transaction)
        .await?;
    let capped =
        session_writes::lock(transaction, oldest_above(stand, per_user_max, new.session.id.as_uuid()))
            .await?;
    if capped.is_empty() {
        return Ok(Verdict::Commit(None));
    }
    let rows = end(transaction, &capped, EndReason::Capped, stamp).await?;
    let ended = u64::try_from(capped.len()).unwrap_or(u64::MAX);
    Ok(Verdict::Commit(Some(change_log::change(ended, rows))))
}

/// Why a session is over before it begins, by what became of its locked user meanwhile; none where it is not.
fn dead_on_arrival(session: &Session, user: Option<&users::Model>) -> Option<EndReason> {
    let Some(user) = user.filter(|user| user.is_active()) else { return Some(EndReason::UserDisabled) };
    let epoch = session.user_epoch.as_i64();
    match () {
        () if epoch >= user.credential_epoch => None,
        () if epoch < user.password_epoch => Some(EndReason::CredentialsChanged),
        () => Some(EndReason::Revoked),
    }
}

/// Reads a session and what decides on it.
pub(super) async fn read(db: &Pool, key: SessionKey) -> Result<Option<SessionRecord>, Failure> {
    let before = facts::position_before(db).await?;
    let (head, found) = facts::head_session_and_user(db, key).await?;
    let Some((session, user)) = found else { return Ok(None) };
    Ok(Some(SessionRecord {
        session: to_session(&session)?,
        user: user.map(to_user).transpose()?,
        everyone_epoch: Epoch::from_i64(head.everyone_epoch),
        position: before.unwrap_or(Position::from_i64(head.position)),
    }))
}

/// Reads the standing sessions of a user, newest first.
///
/// Their ids are sorted here, not in the database: asked for the newest few, an engine may walk through all sessions of all
/// users in the order of the ids until it has met enough of this one's.
pub(super) async fn list(
    db: &Pool,
    user: UserId,
    after: Option<SessionId>,
    limit: u32,
    now: UnixMillis,
) -> Result<Vec<Session>, Failure> {
    let (head, user) = facts::head_and_user(db, UserBy::Id(user.as_uuid())).await?;
    let Some(user) = user.filter(users::Model::is_active) else {
        return Ok(Vec::new());
    };
    let stand = sessions::Entity::find()
        .select_only()
        .column(sessions::Column::SessionId)
        .filter(standing(&user, &head, now));
    let mut ids: Vec<uuid::Uuid> = stand.into_tuple().all(db).await?;
    ids.retain(|id| after.is_none_or(|after| *id < after.as_uuid()));
    ids.sort_unstable_by_key(|id| std::cmp::Reverse(*id));
    ids.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let mut rows = session_writes::read(db, &ids).await?;
    rows.sort_unstable_by_key(|row| std::cmp::Reverse(row.session_id));
    // What ended between the two statements is left out.
    rows.iter().filter(|row| row.end_time.is_none()).map(to_session).collect()
}

/// Ends a session and adds another in its place, unless either of them is over.
pub(super) async fn replace(
    transaction: &Transaction,
    old: SessionId,
    new: Arc<NewSession>,
    stamp: Stamp,
) -> Result<Verdict<Option<Change>>, Failure> {
    let user = lock(transaction, new.session.user_id.as_uuid()).await?;
    let Some(user) = user.filter(users::Model::is_active) else {
        return Ok(Verdict::Nothing(None));
    };
    let head = facts::head(transaction).await?;
    let epochs = (new.session.user_epoch.as_i64(), new.session.everyone_epoch.as_i64());
    if epochs != (user.credential_epoch, head.everyone_epoch) {
        return Ok(Verdict::Nothing(None));
    }
    let locked = session_writes::lock(transaction, vec![old.as_uuid()]).await?;
    let Some(old) = locked.iter().find(|old| old.is_unended(Some(&user), &head, stamp.time)) else {
        return Ok(Verdict::Nothing(None));
    };
    sessions::Entity::insert(to_row(&new)).exec_without_returning(transaction).await?;
    let rows = end(transaction, &locked, EndReason::Replaced, stamp).await?;
    let ended = u64::from(old.is_used_lately(stamp.time));
    Ok(Verdict::Commit(Some(change_log::change(ended, rows))))
}

/// Marks locked sessions as ended and says so in the log.
async fn end(
    transaction: &Transaction,
    sessions: &[sessions::Model],
    reason: EndReason,
    stamp: Stamp,
) -> Result<Vec<LoggedChange>, Failure> {
    let ids: Vec<_> = sessions.iter().map(|session| session.session_id).collect();
    session_writes::mark(transaction, &ids, reason, stamp).await?;
    let entries: Vec<_> = sessions.iter().map(|session| change_log::session_ended(session, reason)).collect();
    change_log::append(transaction, &entries, stamp).await
}

/// The ids of the oldest sessions, so many that `max` remain. `new` counts as the youngest, whatever the clock said when it
/// was made: a clock that was set back must not end the session that is being handed out.
fn oldest_above(mut sessions: Vec<(uuid::Uuid, i64)>, max: u32, new: uuid::Uuid) -> Vec<uuid::Uuid> {
    sessions.sort_unstable_by_key(|&(id, created)| (id == new, created, id));
    let surplus = sessions.len().saturating_sub(usize::try_from(max).unwrap_or(usize::MAX));
    sessions.truncate(surplus);
    sessions.into_iter().map(|(id, _)| id).collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_oldest_go_first_and_the_id_breaks_ties() {
        let id = Uuid::from_u128;
        let sessions = vec![(id(1), 30), (id(2), 10), (id(4), 20), (id(3), 20)];
        assert_eq!(oldest_above(sessions.clone(), 4, id(1)), [] as [Uuid; 0]);
        assert_eq!(oldest_above(sessions.clone(), 3, id(1)), [id(2)]);
        assert_eq!(oldest_above(sessions.clone(), 2, id(1)), [id(2), id(3)]);
        assert_eq!(
            oldest_above(sessions.clone(), 1, id(2)),
            [id(3), id(4), id(1)],
            "the new one is the youngest"
        );
        assert_eq!(oldest_above(sessions, 0, id(1)), [id(2), id(3), id(4), id(1)]);
    }
}
