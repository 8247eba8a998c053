//! Sessions are locked and written by their ids alone, in the order of the ids.
//!
//! MariaDB locks whatever row it looks at, and for any other condition it may look at the rows of other users; two such
//! statements wait for each other. So rows are found without a lock first, and every writing statement here is bound to
//! the primary key.

use std::collections::BTreeSet;

use sea_orm::sea_query::Expr;
use sea_orm::sea_query::extension::mysql::{IndexHintScope, MySqlSelectStatementExt as _};
use sea_orm::{ColumnTrait as _, ConnectionTrait, DbBackend, EntityTrait as _, QueryFilter as _};
use sea_orm::{QueryOrder as _, QuerySelect as _, QueryTrait, Statement, Value};
use uuid::Uuid;

use super::change_log::placeholders;
use super::entity::sessions::{Column, Entity, Model};
use super::error::Failure;
use super::row_locks::{OnLocked, RowLocks, lock_rows};
use super::set_each::{Target, set_each};
use super::step::Transaction;
use crate::domain::session::EndReason;
use crate::store::Stamp;

/// Sessions of one statement.
pub(super) const BATCH_MAX: usize = 500;

/// Locks those of the sessions that are not ended, until the transaction ends, and reads them.
pub(super) async fn lock(transaction: &Transaction, ids: Vec<Uuid>) -> Result<Vec<Model>, Failure> {
    let mut locked = lock_any(transaction, ids, OnLocked::Wait).await?;
    locked.retain(|session| session.end_time.is_none());
    Ok(locked)
}

/// Locks the sessions, also those that are ended, until the transaction ends, and reads them.
pub(super) async fn lock_any(
    transaction: &Transaction,
    mut ids: Vec<Uuid>,
    on_locked: OnLocked,
) -> Result<Vec<Model>, Failure> {
    ids.sort_unstable();
    let mut locked = Vec::with_capacity(ids.len());
    for ids in ids.chunks(BATCH_MAX) {
        let query = Entity::find()
            .filter(Column::SessionId.is_in(ids.iter().copied()))
            .order_by_asc(Column::SessionId);
        let mut query = lock_rows(query, on_locked);
        QueryTrait::query(&mut query).force_index("PRIMARY", IndexHintScope::All);
        locked.extend(query.all(transaction).await?);
    }
    Ok(locked)
}

/// Locks those of the sessions that no other transaction has locked, and returns their ids. MariaDB 10.5 cannot skip; there
/// it waits.
pub(super) async fn lock_unlocked(
    transaction: &Transaction,
    ids: &[Uuid],
    locks: &RowLocks,
) -> Result<BTreeSet<Uuid>, Failure> {
    if locks.without_waiting() == OnLocked::Skip {
        match lock_ids(transaction, ids, OnLocked::Skip).await {
            // The statement was refused before it did anything; the transaction goes on.
            Err(Failure::BadSyntax(_)) => locks.cannot_skip(),
            answer => return answer,
        }
    }
    lock_ids(transaction, ids, OnLocked::Wait).await
}

async fn lock_ids(
    transaction: &Transaction,
    ids: &[Uuid],
    on_locked: OnLocked,
) -> Result<BTreeSet<Uuid>, Failure> {
    let mut locked = BTreeSet::new();
    for ids in ids.chunks(BATCH_MAX) {
        let query = Entity::find()
            .select_only()
            .column(Column::SessionId)
            .filter(Column::SessionId.is_in(ids.iter().copied()))
            .order_by_asc(Column::SessionId);
        let mut query = lock_rows(query, on_locked);
        QueryTrait::query(&mut query).force_index("PRIMARY", IndexHintScope::All);
        locked.extend(query.into_tuple::<Uuid>().all(transaction).await?);
    }
    Ok(locked)
}

/// Those of the sessions that exist, without a lock.
pub(super) async fn existing(transaction: &Transaction, ids: &[Uuid]) -> Result<Vec<Uuid>, Failure> {
    let mut found = Vec::new();
    for ids in ids.chunks(BATCH_MAX) {
        let query = Entity::find().select_only().column(Column::SessionId);
        let query = query.filter(Column::SessionId.is_in(ids.iter().copied()));
        found.extend(query.into_tuple::<Uuid>().all(transaction).await?);
    }
    Ok(found)
}

/// Reads sessions without a lock, in no order.
pub(super) async fn read<C: ConnectionTrait>(db: &C, ids: &[Uuid]) -> Result<Vec<Model>, Failure> {
    let mut rows = Vec::with_capacity(ids.len());
    for ids in ids.chunks(BATCH_MAX) {
        rows.extend(Entity::find().filter(Column::SessionId.is_in(ids.iter().copied())).all(db).await?);
    }
    Ok(rows)
}

/// Marks locked sessions as ended.
pub(super) async fn mark(
    transaction: &Transaction,
    ids: &[Uuid],
    reason: EndReason,
    stamp: Stamp,
) -> Result<(), Failure> {
    let engine = transaction.get_database_backend();
    let table = if engine == DbBackend::MySql { BY_ID } else { "sessions" };
    for ids in ids.chunks(BATCH_MAX) {
        let (time, why, these) = match engine {
            DbBackend::Postgres => ("$1", "$2", placeholders(1, ids.len(), 3, engine)),
            _ => ("?", "?", placeholders(1, ids.len(), 1, engine)),
        };
        let sql =
            format!("UPDATE {table} SET end_time = {time}, end_reason = {why} WHERE session_id IN {these}");
        let values: Vec<Value> = vec![stamp.time.as_millis().into(), reason.as_i16().into()];
        let values = values.into_iter().chain(ids.iter().map(|id| (*id).into()));
        transaction.execute_raw(Statement::from_sql_and_values(engine, sql, values)).await?;
    }
    Ok(())
}

/// Stamps a locked session with the credential epoch from now on, so that it goes on.
pub(super) async fn stamp(transaction: &Transaction, id: Uuid, epoch: i64) -> Result<(), Failure> {
    Entity::update_many()
        .col_expr(Column::UserEpoch, Expr::val(epoch))
        .filter(Column::SessionId.eq(id))
        .exec(transaction)
        .await?;
    Ok(())
}

/// The same for many sessions, each with its own epoch.
pub(super) async fn stamp_all(transaction: &Transaction, epochs: &[(Uuid, i64)]) -> Result<(), Failure> {
    let column = Target { table: "sessions", key: "session_id", column: "user_epoch" };
    set_each(transaction, column, epochs).await
}

/// Deletes those of the sessions whose `column` is still below `bound`, and answers how many.
pub(super) async fn delete_below(
    transaction: &Transaction,
    ids: &[Uuid],
    column: &str,
    bound: i64,
) -> Result<u64, Failure> {
    let engine = transaction.get_database_backend();
    let mut deleted = 0;
    for ids in ids.chunks(BATCH_MAX) {
        let (delete, below, these) = match engine {
            DbBackend::Postgres => ("DELETE FROM sessions", "$1", placeholders(1, ids.len(), 2, engine)),
            DbBackend::Sqlite => ("DELETE FROM sessions", "?", placeholders(1, ids.len(), 1, engine)),
            _ => (DELETE_BY_ID, "?", placeholders(1, ids.len(), 1, engine)),
        };
        let sql = format!("{delete} WHERE {column} < {below} AND session_id IN {these}");
        let values = std::iter::once(bound.into()).chain(ids.iter().map(|id| Value::from(*id)));
        let done = transaction.execute_raw(Statement::from_sql_and_values(engine, sql, values)).await?;
        deleted += done.rows_affected();
    }
    Ok(deleted)
}

const BY_ID: &str = "sessions FORCE INDEX (PRIMARY)";
const DELETE_BY_ID: &str = "DELETE sessions FROM sessions FORCE INDEX (PRIMARY)";
