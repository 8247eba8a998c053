//! Users: adding, reading, changing and deleting them.
//!
//! Every step that changes a user, or the sessions of one, locks the row of the user first, then sessions, then the head
//! of the log. So two steps on one user follow each other, and no two steps wait for each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sea_orm::sea_query::Expr;
use sea_orm::sea_query::extension::mysql::{IndexHintScope, MySqlSelectStatementExt as _};
use sea_orm::{ActiveModelTrait as _, ColumnTrait as _, DbErr, EntityTrait as _};
use sea_orm::{
    IntoActiveModel as _, QueryFilter as _, QueryOrder as _, QuerySelect as _, QueryTrait, Set, SqlErr,
};
use uuid::Uuid;

use super::change_log;
use super::ending::{self, EndAll};
use super::entity::users;
use super::error::Failure;
use super::facts::{self, UserBy};
use super::row_locks::{OnLocked, lock_rows};
use super::session_writes::BATCH_MAX;
use super::step::{Pool, Transaction, Verdict};
use super::user_row::{attributes_text, roles_text, state_number, to_user};
use crate::domain::id::{Epoch, Position, UserId};
use crate::domain::password::PasswordHash;
use crate::domain::session::EndReason;
use crate::domain::time::UnixMillis;
use crate::domain::user::{User, UserState};
use crate::store::{Change, CreateUser, Credentials, LogEntry, NewUser, Stamp, UpdateUser, UserChange};

/// Adds a user; none when the id or the login is taken.
pub(super) async fn insert(
    transaction: &Transaction,
    new: Arc<NewUser>,
) -> Result<Verdict<Option<User>>, Failure> {
    let time = new.create_time;
    let mut user = User {
        id: new.id,
        login: new.login.clone(),
        display_name: new.display_name.clone(),
        state: UserState::Active,
        roles: new.roles.clone(),
        attributes: new.attributes.clone(),
        credential_epoch: Epoch::FIRST,
        password_epoch: Epoch::FIRST,
        create_time: time,
        update_time: time,
        password_time: new.password_hash.as_ref().map(|_| time),
    };
    let row = users::ActiveModel {
        user_id: Set(user.id.as_uuid()),
        login_key: Set(user.login.key().as_bytes().to_vec()),
        login_display: Set(user.login.display().to_owned()),
        display_name: Set(user.display_name.as_str().to_owned()),
        state: Set(state_number(user.state)),
        roles: Set(roles_text(&user.roles)),
        attributes: Set(attributes_text(&user.attributes)),
        password_hash: Set(new.password_hash.as_ref().map(|hash| hash.expose().to_owned())),
        credential_epoch: Set(user.credential_epoch.as_i64()),
        password_epoch: Set(user.password_epoch.as_i64()),
        create_time: Set(time.as_millis()),
        update_time: Set(time.as_millis()),
        password_time: Set(user.password_time.map(UnixMillis::as_millis)),
    };
    match users::Entity::insert(row).exec_without_returning(transaction).await {
        Ok(_) => {
            let first = first_epoch(transaction, user.id).await?;
            (user.credential_epoch, user.password_epoch) = (first, first);
            Ok(Verdict::Commit(Some(user)))
        }
        Err(error) if is_taken(&error) => Ok(Verdict::Refused(None)),
        Err(error) => Err(error.into()),
    }
}

/// Gives the epochs of a user who was just inserted their first value: above all that a deleted user of the same id had,
/// so that no sign-in and no change of a password which began with that one succeeds with this one.
///
/// Whatever raises an epoch writes a row of the log as well, so no epoch is above the position by more than one. (But where
/// a fail-over lost several raises, and who wrote them again had seen the last alone: then the first epoch may be one that a
/// sign-in with the deleted user began with, if it began before the fail-over and ends behind deletion and insertion.) And
/// the deleted user is gone for good, since the insertion succeeded; so the head that is read behind it counts the deletion.
async fn first_epoch(transaction: &Transaction, id: UserId) -> Result<Epoch, Failure> {
    let first = Epoch::from_i64(facts::head(transaction).await?.position).next();
    if first != Epoch::FIRST {
        users::Entity::update_many()
            .col_expr(users::Column::CredentialEpoch, Expr::val(first.as_i64()))
            .col_expr(users::Column::PasswordEpoch, Expr::val(first.as_i64()))
            .filter(users::Column::UserId.eq(id.as_uuid()))
            .exec(transaction)
            .await?;
    }
    Ok(first)
}

/// Which of the two is taken; none when neither is any more.
pub(super) async fn taken(db: &Pool, new: Arc<NewUser>) -> Result<Option<CreateUser>, Failure> {
    if facts::head_and_user(db, UserBy::Id(new.id.as_uuid())).await?.1.is_some() {
        return Ok(Some(CreateUser::IdTaken));
    }
    let key = new.login.key().as_bytes().to_vec();
    Ok(facts::head_and_user(db, UserBy::LoginKey(key)).await?.1.map(|_| CreateUser::LoginTaken))
}

/// Reads a user.
pub(super) async fn read(db: &Pool, by: UserBy) -> Result<Option<User>, Failure> {
    facts::head_and_user(db, by).await?.1.map(to_user).transpose()
}

/// Reads a user and what a sign-in decides on.
pub(super) async fn credentials(db: &Pool, by: UserBy) -> Result<Option<Credentials>, Failure> {
    let before = facts::position_before(db).await?;
    let (head, user) = facts::head_and_user(db, by).await?;
    let Some(mut row) = user else { return Ok(None) };
    Ok(Some(Credentials {
        password_hash: row.password_hash.take().map(PasswordHash::from_phc),
        user: to_user(row)?,
        everyone_epoch: Epoch::from_i64(head.everyone_epoch),
        position: before.unwrap_or(Position::from_i64(head.position)),
    }))
}

/// Reads users in the order of their ids.
pub(super) async fn list(db: &Pool, after: Option<UserId>, limit: u32) -> Result<Vec<User>, Failure> {
    let mut query = users::Entity::find();
    if let Some(after) = after {
        query = query.filter(users::Column::UserId.gt(after.as_uuid()));
    }
    let rows = query.order_by_asc(users::Column::UserId).limit(u64::from(limit)).all(db).await?;
    rows.into_iter().map(to_user).collect()
}

/// Changes a user.
pub(super) async fn update(
    transaction: &Transaction,
    id: UserId,
    change: Arc<UserChange>,
    stamp: Stamp,
) -> Result<Verdict<UpdateUser>, Failure> {
    let Some(row) = lock(transaction, id.as_uuid()).await? else {
        return Ok(Verdict::Nothing(UpdateUser::NotFound));
    };
    let before = row.clone();
    let mut new = row.into_active_model();
    apply(&mut new, &change);
    let disabling = before.is_active() && change.state == Some(UserState::Disabled);
    if disabling {
        new.credential_epoch = Set(before.next_epoch());
    }
    new.update_time = Set(stamp.time.as_millis());
    let epoch = *new.credential_epoch.as_ref();
    let after = match new.update(transaction).await {
        Ok(after) => after,
        Err(error) if is_taken(&error) => return Ok(Verdict::Refused(UpdateUser::LoginTaken)),
        Err(error) => return Err(error.into()),
    };
    let user = to_user(after)?;
    let ended = if disabling {
        let all = EndAll { user: &before, epoch, except: None, reason: EndReason::UserDisabled };
        ending::end_all(transaction, all, stamp).await?
    } else {
        0
    };
    let epoch = Epoch::from_i64(epoch);
    let entry = if disabling {
        LogEntry::UserDisabled { user: id, epoch }
    } else {
        LogEntry::UserChanged { user: id, epoch }
    };
    let change = change_log::change(ended, change_log::append(transaction, &[entry], stamp).await?);
    Ok(Verdict::Commit(UpdateUser::Updated(Box::new(user), change)))
}

/// Removes a user; the rows of the sessions stay and say why they ended.
pub(super) async fn delete(
    transaction: &Transaction,
    id: UserId,
    stamp: Stamp,
) -> Result<Verdict<Option<Change>>, Failure> {
    let Some(user) = lock(transaction, id.as_uuid()).await? else {
        return Ok(Verdict::Nothing(None));
    };
    let epoch = user.next_epoch();
    let all = EndAll { user: &user, epoch, except: None, reason: EndReason::UserDisabled };
    let ended = ending::end_all(transaction, all, stamp).await?;
    users::Entity::delete_by_id(id.as_uuid()).exec(transaction).await?;
    let entry = LogEntry::UserDeleted { user: id, epoch: Epoch::from_i64(epoch) };
    let rows = change_log::append(transaction, &[entry], stamp).await?;
    Ok(Verdict::Commit(Some(change_log::change(ended, rows))))
}

/// Reads a user and locks the row until the transaction ends.
pub(super) async fn lock(transaction: &Transaction, id: Uuid) -> Result<Option<users::Model>, Failure> {
    Ok(users::Entity::find_by_id(id).lock_exclusive().one(transaction).await?)
}

/// Reads users and locks their rows, in the order of the ids, until the transaction ends.
pub(super) async fn lock_all(
    transaction: &Transaction,
    ids: &BTreeSet<Uuid>,
    on_locked: OnLocked,
) -> Result<BTreeMap<Uuid, users::Model>, Failure> {
    let ids: Vec<_> = ids.iter().copied().collect();
    let mut locked = BTreeMap::new();
    for ids in ids.chunks(BATCH_MAX) {
        let query = users::Entity::find()
            .filter(users::Column::UserId.is_in(ids.iter().copied()))
            .order_by_asc(users::Column::UserId);
        let mut query = lock_rows(query, on_locked);
        QueryTrait::query(&mut query).force_index("PRIMARY", IndexHintScope::All);
        locked.extend(query.all(transaction).await?.into_iter().map(|user| (user.user_id, user)));
    }
    Ok(locked)
}

/// Whether the database refused because another row has the value of a unique column.
pub(super) fn is_taken(error: &DbErr) -> bool {
    matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_)))
}

fn apply(row: &mut users::ActiveModel, change: &UserChange) {
    if let Some(login) = &change.login {
        row.login_key = Set(login.key().as_bytes().to_vec());
        row.login_display = Set(login.display().to_owned());
    }
    if let Some(name) = &change.display_name {
        row.display_name = Set(name.as_str().to_owned());
    }
    if let Some(roles) = &change.roles {
        row.roles = Set(roles_text(roles));
    }
    if let Some(attributes) = &change.attributes {
        row.attributes = Set(attributes_text(attributes));
    }
    if let Some(state) = change.state {
        row.state = Set(state_number(state));
    }
}
