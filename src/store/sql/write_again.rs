//! Changes that were committed, and that the database has lost, are written again: one batch of them a transaction.
//!
//! Users are locked first, then sessions, then the head of the log, as everywhere. What is in force already is passed over,
//! so that all nodes that know of the same changes may write them. What to write is decided in memory and written by
//! statements for many rows, so that the number of round trips does not grow with the batch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QuerySelect as _};
use uuid::Uuid;

use super::change_log;
use super::ending::{divide, open_of};
use super::entity::{log_head, sessions, users};
use super::error::Failure;
use super::facts::{self, headless};
use super::row_locks::OnLocked;
use super::session_writes;
use super::set_each::{Target, set_each};
use super::step::{Transaction, Verdict};
use super::user_row::state_number;
use super::users::lock_all;
use crate::domain::id::{Epoch, Position, SessionId, UserId};
use crate::domain::session::EndReason;
use crate::domain::user::UserState;
use crate::store::coordination::WrittenAgain;
use crate::store::{ChangeKind, LogEntry, LoggedChange, Stamp};

/// Writes what of `lost` is not in force.
pub(super) async fn write_again(
    transaction: &Transaction,
    lost: Arc<[LoggedChange]>,
    stamp: Stamp,
) -> Result<Verdict<WrittenAgain>, Failure> {
    let mut repair = Repair::lock(transaction, &lost, stamp).await?;
    for change in lost.iter() {
        repair.take_in(&change.entry);
    }
    repair.write(transaction).await?;
    let mut rows = Vec::new();
    if !repair.entries.is_empty() {
        rows = change_log::append(transaction, &repair.entries, stamp).await?;
    }
    let everyone = lost.iter().filter(|change| change.kind() == ChangeKind::EveryoneEnded);
    if let Some(epoch) = everyone.filter_map(LoggedChange::epoch).max() {
        rows.extend(raise_everyone(transaction, epoch, stamp).await?);
    }
    if let Some(row) = rows.last() {
        let at_head = Some((row.position, row.nonce));
        return Ok(Verdict::Commit(WrittenAgain {
            change: change_log::change(repair.ended, rows),
            last: at_head,
        }));
    }
    let head = Position::from_i64(facts::head(transaction).await?.position);
    let at_head = change_log::nonce_at(transaction, head).await?.map(|nonce| (head, nonce));
    Ok(Verdict::Nothing(WrittenAgain { change: change_log::no_change(head), last: at_head }))
}

/// What is locked, and what is to be written.
struct Repair {
    stamp: Stamp,
    users: BTreeMap<Uuid, users::Model>,
    /// Sessions that have not ended.
    open: BTreeMap<Uuid, sessions::Model>,
    head: log_head::Model,
    marks: Vec<(EndReason, Uuid)>,
    /// Sessions that go on, with their new epochs.
    kept: BTreeMap<Uuid, i64>,
    raised: BTreeMap<Uuid, Raised>,
    entries: Vec<LogEntry>,
    ended: u64,
}

/// What changes about a user.
#[derive(Default)]
struct Raised {
    credential_epoch: i64,
    password_epoch: Option<i64>,
    is_disabled: bool,
}

impl Repair {
    async fn lock(transaction: &Transaction, lost: &[LoggedChange], stamp: Stamp) -> Result<Self, Failure> {
        let ids: BTreeSet<_> = lost.iter().filter_map(LoggedChange::user).map(UserId::as_uuid).collect();
        let users = lock_all(transaction, &ids, OnLocked::Wait).await?;
        let (of_one, of_user): (Vec<_>, Vec<_>) =
            lost.iter().partition(|change| change.kind().is_of_one_session());
        let named = of_one.into_iter().filter_map(LoggedChange::session);
        let mut ids: BTreeSet<_> = named.map(SessionId::as_uuid).collect();
        // Whose epoch is there already has nothing to end.
        let is_behind = |change: &&LoggedChange| {
            let user = change.user().and_then(|id| users.get(&id.as_uuid()));
            let epoch = change.epoch().map(Epoch::as_i64);
            user.is_some_and(|user| Some(user.credential_epoch) < epoch)
        };
        let behind = of_user.into_iter().filter(is_behind).filter_map(LoggedChange::user);
        let behind: BTreeSet<_> = behind.map(UserId::as_uuid).collect();
        let behind: Vec<_> = behind.into_iter().collect();
        ids.extend(open_of(transaction, &behind, stamp.time).await?);
        let open = session_writes::lock(transaction, ids.into_iter().collect()).await?;
        let open = open.into_iter().map(|session| (session.session_id, session)).collect();
        let head = facts::head(transaction).await?;
        let (marks, kept, raised, entries) = Default::default();
        Ok(Self { stamp, users, open, head, marks, kept, raised, entries, ended: 0 })
    }

    fn take_in(&mut self, entry: &LogEntry) {
        match *entry {
            LogEntry::SessionEnded { session, .. } => self.end_session(session, EndReason::Revoked),
            LogEntry::SessionMisused { session, .. } => self.end_session(session, EndReason::BindingMismatch),
            LogEntry::UserSessionsEnded { user, epoch, kept } => {
                if let Some(kept) = self.raise(user, epoch, kept, EndReason::Revoked) {
                    self.entries.push(LogEntry::UserSessionsEnded { user, epoch, kept: kept.id });
                }
            }
            LogEntry::PasswordChanged { user, epoch, kept } => {
                if let Some(kept) = self.raise(user, epoch, kept, EndReason::CredentialsChanged) {
                    self.raised_mut(user).password_epoch = Some(epoch.as_i64());
                    self.entries.push(LogEntry::PasswordChanged { user, epoch, kept: kept.id });
                }
            }
            // A deleted user who is there again is disabled: nobody else knows what became of the row.
            LogEntry::UserDisabled { user, epoch } | LogEntry::UserDeleted { user, epoch } => {
                if self.raise(user, epoch, None, EndReason::UserDisabled).is_some() {
                    self.raised_mut(user).is_disabled = true;
                    if let Some(user) = self.users.get_mut(&user.as_uuid()) {
                        user.state = state_number(UserState::Disabled);
                    }
                    self.entries.push(LogEntry::UserDisabled { user, epoch });
                }
            }
            LogEntry::UserChanged { user, .. } => self.record_user_changed(user),
            // Everyone's end is written behind the others. Nodes record their own token keys when they join.
            LogEntry::EveryoneEnded { .. }
            | LogEntry::TokenKeyAdded { .. }
            | LogEntry::TokenKeyForgotten { .. } => {}
        }
    }

    fn end_session(&mut self, session: SessionId, reason: EndReason) {
        let Some(session) = self.take(session.as_uuid(), reason) else { return };
        let user = self.users.get(&session.user_id);
        let now = self.stamp.time;
        let stood = session.is_unended(user, &self.head, now) && session.is_used_lately(now);
        self.ended += u64::from(stood);
        self.entries.push(change_log::session_ended(&session, reason));
    }

    /// Takes a session out of the open ones, to be marked as ended.
    fn take(&mut self, id: Uuid, reason: EndReason) -> Option<sessions::Model> {
        let session = self.open.remove(&id)?;
        self.kept.remove(&id);
        self.marks.push((reason, id));
        Some(session)
    }

    /// Raises the epoch of a user, unless it is there already, and ends the sessions but `except`.
    fn raise(
        &mut self,
        user: UserId,
        epoch: Epoch,
        except: Option<SessionId>,
        reason: EndReason,
    ) -> Option<Kept> {
        let (id, epoch, now) = (user.as_uuid(), epoch.as_i64(), self.stamp.time);
        let user = self.users.get_mut(&id).filter(|user| user.credential_epoch < epoch)?;
        let own = self.open.values();
        let own = own.filter(|session| session.user_id == id && session.expire_time > now.as_millis());
        let division = divide(user, own, except.map(SessionId::as_uuid), &self.head, now);
        user.credential_epoch = epoch;
        self.raised.entry(id).or_default().credential_epoch = epoch;
        for ending in division.ending {
            self.take(ending, reason);
        }
        if let Some(kept) = division.kept.and_then(|kept| self.open.get_mut(&kept)) {
            kept.user_epoch = epoch;
            self.kept.insert(kept.session_id, epoch);
        }
        self.ended += division.stood;
        Some(Kept { id: division.kept.map(SessionId::from_uuid) })
    }

    fn raised_mut(&mut self, user: UserId) -> &mut Raised {
        self.raised.entry(user.as_uuid()).or_default()
    }

    /// What the user was changed to is lost; that the others read the user again is all that can be done.
    fn record_user_changed(&mut self, user: UserId) {
        let Some(row) = self.users.get(&user.as_uuid()) else { return };
        let entry = LogEntry::UserChanged { user, epoch: Epoch::from_i64(row.credential_epoch) };
        if !self.entries.contains(&entry) {
            self.entries.push(entry);
        }
    }

    /// Writes all but the log.
    async fn write(&mut self, transaction: &Transaction) -> Result<(), Failure> {
        self.marks.sort_unstable_by_key(|(reason, id)| (reason.as_i16(), *id));
        for marks in self.marks.chunk_by(|(one, _), (other, _)| one == other) {
            let ids: Vec<_> = marks.iter().map(|(_, id)| *id).collect();
            session_writes::mark(transaction, &ids, marks[0].0, self.stamp).await?;
        }
        let kept: Vec<_> = self.kept.iter().map(|(id, epoch)| (*id, *epoch)).collect();
        session_writes::stamp_all(transaction, &kept).await?;
        let epochs = self.raised.iter().map(|(user, raised)| (*user, raised.credential_epoch));
        set_each(transaction, of_users("credential_epoch"), &epochs.collect::<Vec<_>>()).await?;
        let times = self.raised.keys().map(|user| (*user, self.stamp.time.as_millis()));
        set_each(transaction, of_users("update_time"), &times.collect::<Vec<_>>()).await?;
        let passwords = self.raised.iter().filter_map(|(user, raised)| Some((*user, raised.password_epoch?)));
        set_each(transaction, of_users("password_epoch"), &passwords.collect::<Vec<_>>()).await?;
        let disabled = self.raised.iter().filter(|(_, raised)| raised.is_disabled);
        let disabled = disabled.map(|(user, _)| (*user, i64::from(state_number(UserState::Disabled))));
        set_each(transaction, of_users("state"), &disabled.collect::<Vec<_>>()).await
    }
}

/// A column of the table of users.
const fn of_users(column: &'static str) -> Target {
    Target { table: "users", key: "user_id", column }
}

/// The session that goes on, if one does.
struct Kept {
    id: Option<SessionId>,
}

/// Raises the epoch of everyone to `epoch`, unless it is there. The head is locked first, so that of several nodes one
/// does it.
async fn raise_everyone(
    transaction: &Transaction,
    epoch: Epoch,
    stamp: Stamp,
) -> Result<Option<LoggedChange>, Failure> {
    let head = log_head::Entity::find_by_id(1_i16).lock_exclusive().one(transaction).await?;
    let known = head.ok_or_else(headless)?.everyone_epoch;
    if known >= epoch.as_i64() {
        return Ok(None);
    }
    // The row itself raises it by one.
    log_head::Entity::update_many()
        .col_expr(log_head::Column::EveryoneEpoch, Expr::val(epoch.as_i64() - 1))
        .filter(log_head::Column::Id.eq(1_i16))
        .exec(transaction)
        .await?;
    change_log::append_everyone(transaction, stamp).await.map(Some)
}
