//! Changes that were committed, and that the database has lost, are written again.
//!
//! Users are locked first, then sessions, then the head of the log, as everywhere. What is in force already is passed over,
//! so that all nodes that know of the same changes may write them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QuerySelect as _};
use uuid::Uuid;

use super::change_log;
use super::ending::{self, EndAll, open_of};
use super::entity::{log_head, sessions, users};
use super::error::Failure;
use super::facts::{self, headless};
use super::session_writes;
use super::step::{Transaction, Verdict};
use super::user_row::state_number;
use super::users::lock_all;
use crate::domain::id::{Epoch, Position, SessionId, UserId};
use crate::domain::session::EndReason;
use crate::domain::user::UserState;
use crate::store::{Change, ChangeKind, LogEntry, LoggedChange, Stamp};

/// Writes what of `lost` is not in force.
pub(super) async fn write_again(
    transaction: &Transaction,
    lost: Arc<[LoggedChange]>,
    stamp: Stamp,
) -> Result<Verdict<Change>, Failure> {
    let mut repair = Repair::lock(transaction, &lost, stamp).await?;
    for change in lost.iter() {
        repair.take_in(transaction, change, stamp).await?;
    }
    let mut rows = Vec::new();
    if !repair.entries.is_empty() {
        rows = change_log::append(transaction, &repair.entries, stamp).await?;
    }
    let everyone = lost.iter().filter(|change| change.kind() == ChangeKind::EveryoneEnded);
    if let Some(epoch) = everyone.filter_map(LoggedChange::epoch).max() {
        rows.extend(raise_everyone(transaction, epoch, stamp).await?);
    }
    if rows.is_empty() {
        let head = Position::from_i64(facts::head(transaction).await?.position);
        return Ok(Verdict::Nothing(change_log::no_change(head)));
    }
    Ok(Verdict::Commit(change_log::change(repair.ended, rows)))
}

/// What is locked, and what was written so far.
struct Repair {
    users: BTreeMap<Uuid, users::Model>,
    /// Sessions that have not ended.
    open: BTreeMap<Uuid, sessions::Model>,
    head: log_head::Model,
    entries: Vec<LogEntry>,
    ended: u64,
}

impl Repair {
    async fn lock(transaction: &Transaction, lost: &[LoggedChange], stamp: Stamp) -> Result<Self, Failure> {
        let ids: BTreeSet<_> = lost.iter().filter_map(LoggedChange::user).map(UserId::as_uuid).collect();
        let users = lock_all(transaction, &ids).await?;
        let named = lost.iter().filter(|change| change.kind().is_of_one_session());
        let mut ids: BTreeSet<_> = named.filter_map(LoggedChange::session).map(SessionId::as_uuid).collect();
        let of_users: Vec<_> = users.keys().copied().collect();
        ids.extend(open_of(transaction, &of_users, stamp.time).await?);
        let open = session_writes::lock(transaction, ids.into_iter().collect()).await?;
        let open = open.into_iter().map(|session| (session.session_id, session)).collect();
        let head = facts::head(transaction).await?;
        Ok(Self { users, open, head, entries: Vec::new(), ended: 0 })
    }

    async fn take_in(
        &mut self,
        transaction: &Transaction,
        change: &LoggedChange,
        stamp: Stamp,
    ) -> Result<(), Failure> {
        match change.kind() {
            ChangeKind::SessionEnded | ChangeKind::SessionMisused => {
                self.end_session(transaction, change, stamp).await
            }
            ChangeKind::UserSessionsEnded
            | ChangeKind::PasswordChanged
            | ChangeKind::UserDisabled
            | ChangeKind::UserDeleted => self.raise_user(transaction, change, stamp).await,
            ChangeKind::UserChanged => {
                self.tell_of_user(change);
                Ok(())
            }
            ChangeKind::EveryoneEnded => Ok(()),
        }
    }

    async fn end_session(
        &mut self,
        transaction: &Transaction,
        change: &LoggedChange,
        stamp: Stamp,
    ) -> Result<(), Failure> {
        let ended = change.session().and_then(|id| self.open.remove(&id.as_uuid()));
        let Some(session) = ended else { return Ok(()) };
        let misused = change.kind() == ChangeKind::SessionMisused;
        let reason = if misused { EndReason::BindingMismatch } else { EndReason::Revoked };
        session_writes::mark(transaction, &[session.session_id], reason, stamp).await?;
        let user = self.users.get(&session.user_id);
        let stood = session.is_unended(user, &self.head, stamp.time) && session.is_used_lately(stamp.time);
        self.ended += u64::from(stood);
        self.entries.push(change_log::session_ended(&session, reason));
        Ok(())
    }

    /// A deleted user who is there again is disabled: nobody else knows what became of the row.
    async fn raise_user(
        &mut self,
        transaction: &Transaction,
        change: &LoggedChange,
        stamp: Stamp,
    ) -> Result<(), Failure> {
        let user = change.user().and_then(|id| self.users.get_mut(&id.as_uuid()));
        let (Some(user), Some(epoch)) = (user, change.epoch().map(Epoch::as_i64)) else { return Ok(()) };
        if user.credential_epoch >= epoch {
            return Ok(());
        }
        let (kind, reason) = match change.kind() {
            ChangeKind::PasswordChanged => (change.kind(), EndReason::CredentialsChanged),
            ChangeKind::UserDisabled | ChangeKind::UserDeleted => {
                (ChangeKind::UserDisabled, EndReason::UserDisabled)
            }
            _ => (change.kind(), EndReason::Revoked),
        };
        let all = EndAll { user, epoch, except: change.session().map(SessionId::as_uuid), reason };
        let done = ending::end_all(transaction, all, stamp).await?;
        let mut update = users::Entity::update_many()
            .col_expr(users::Column::CredentialEpoch, Expr::val(epoch))
            .col_expr(users::Column::UpdateTime, Expr::val(stamp.time.as_millis()))
            .filter(users::Column::UserId.eq(user.user_id));
        if kind == ChangeKind::PasswordChanged {
            update = update.col_expr(users::Column::PasswordEpoch, Expr::val(epoch));
        }
        if kind == ChangeKind::UserDisabled {
            user.state = state_number(UserState::Disabled);
            update = update.col_expr(users::Column::State, Expr::val(user.state));
        }
        update.exec(transaction).await?;
        user.credential_epoch = epoch;
        let id = user.user_id;
        self.open.retain(|_, session| session.user_id != id || Some(session.session_id) == done.kept);
        if let Some(kept) = done.kept.and_then(|kept| self.open.get_mut(&kept)) {
            kept.user_epoch = epoch;
        }
        self.ended += done.ended;
        let (user, epoch) = (UserId::from_uuid(id), Epoch::from_i64(epoch));
        let kept = done.kept.map(SessionId::from_uuid);
        self.entries.push(match kind {
            ChangeKind::PasswordChanged => LogEntry::PasswordChanged { user, epoch, kept },
            ChangeKind::UserDisabled => LogEntry::UserDisabled { user, epoch },
            _ => LogEntry::UserSessionsEnded { user, epoch, kept },
        });
        Ok(())
    }

    /// What the user was changed to is lost; that the others read the user again is all that can be done.
    fn tell_of_user(&mut self, change: &LoggedChange) {
        let Some(user) = change.user().and_then(|id| self.users.get(&id.as_uuid())) else { return };
        let epoch = Epoch::from_i64(user.credential_epoch);
        let entry = LogEntry::UserChanged { user: UserId::from_uuid(user.user_id), epoch };
        if !self.entries.contains(&entry) {
            self.entries.push(entry);
        }
    }
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
