//! Passwords: setting, changing and upgrading their hashes.

use std::sync::Arc;

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _};

use super::change_log;
use super::ending::{self, EndAll};
use super::entity::{sessions, users};
use super::error::Failure;
use super::session_row::to_row;
use super::step::{Transaction, Verdict};
use super::users::lock;
use crate::domain::id::{Epoch, SessionId, UserId};
use crate::domain::password::PasswordHash;
use crate::domain::session::EndReason;
use crate::store::{Change, LogEntry, PasswordChange, Stamp};

/// Sets the password whatever it was.
pub(super) async fn set(
    transaction: &Transaction,
    id: UserId,
    hash: Arc<PasswordHash>,
    stamp: Stamp,
) -> Result<Verdict<Option<Change>>, Failure> {
    let Some(user) = lock(transaction, id.as_uuid()).await? else {
        return Ok(Verdict::Nothing(None));
    };
    let ended = replace(transaction, &user, &hash, stamp).await?;
    let change = log(transaction, &user, None, ended, stamp).await?;
    Ok(Verdict::Commit(Some(change)))
}

/// Sets the password if nobody else did since it was verified, and adds the session that goes on.
pub(super) async fn change(
    transaction: &Transaction,
    change: Arc<PasswordChange>,
    stamp: Stamp,
) -> Result<Verdict<Option<Change>>, Failure> {
    let found = lock(transaction, change.session.session.user_id.as_uuid()).await?;
    let unchanged =
        |user: &users::Model| user.is_active() && user.credential_epoch == change.verified_epoch.as_i64();
    let Some(user) = found.filter(unchanged) else {
        return Ok(Verdict::Nothing(None));
    };
    let ended = replace(transaction, &user, &change.hash, stamp).await?;
    sessions::Entity::insert(to_row(&change.session)).exec_without_returning(transaction).await?;
    let change = log(transaction, &user, Some(change.session.session.id.as_uuid()), ended, stamp).await?;
    Ok(Verdict::Commit(Some(change)))
}

/// Puts the second hash in the place of the first.
pub(super) async fn upgrade(
    transaction: &Transaction,
    id: UserId,
    hashes: Arc<(PasswordHash, PasswordHash)>,
) -> Result<Verdict<bool>, Failure> {
    let (old, new) = &*hashes;
    let updated = users::Entity::update_many()
        .col_expr(users::Column::PasswordHash, Expr::val(new.expose()))
        .filter(users::Column::UserId.eq(id.as_uuid()))
        .filter(users::Column::PasswordHash.eq(old.expose()))
        .exec(transaction)
        .await?;
    Ok(if updated.rows_affected == 1 { Verdict::Commit(true) } else { Verdict::Nothing(false) })
}

/// Sets hash and epochs of a locked user, ends the sessions, and answers how many of them stood.
async fn replace(
    transaction: &Transaction,
    user: &users::Model,
    hash: &PasswordHash,
    stamp: Stamp,
) -> Result<u64, Failure> {
    let epoch = user.next_epoch();
    users::Entity::update_many()
        .col_expr(users::Column::PasswordHash, Expr::val(hash.expose()))
        .col_expr(users::Column::CredentialEpoch, Expr::val(epoch))
        .col_expr(users::Column::PasswordEpoch, Expr::val(epoch))
        .col_expr(users::Column::PasswordTime, Expr::val(stamp.time.as_millis()))
        .col_expr(users::Column::UpdateTime, Expr::val(stamp.time.as_millis()))
        .filter(users::Column::UserId.eq(user.user_id))
        .exec(transaction)
        .await?;
    let all = EndAll { user, epoch, except: None, reason: EndReason::CredentialsChanged };
    ending::end_all(transaction, all, stamp).await
}

async fn log(
    transaction: &Transaction,
    user: &users::Model,
    session: Option<uuid::Uuid>,
    ended: u64,
    stamp: Stamp,
) -> Result<Change, Failure> {
    let entry = LogEntry::PasswordChanged {
        user: UserId::from_uuid(user.user_id),
        epoch: Epoch::from_i64(user.next_epoch()),
        kept: session.map(SessionId::from_uuid),
    };
    Ok(change_log::change(ended, change_log::append(transaction, &[entry], stamp).await?))
}
