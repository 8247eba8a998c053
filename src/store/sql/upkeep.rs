//! What keeps the table of sessions honest and small: uses are written down in batches, and what is long over is deleted.
//!
//! Neither takes validity away, so neither is in the change log.

use std::fmt::Write as _;
use std::sync::Arc;

use sea_orm::{ColumnTrait as _, ConnectionTrait as _, DbBackend, EntityTrait as _, IdenStatic as _};
use sea_orm::{QueryFilter as _, QuerySelect as _, Statement, Value};
use uuid::Uuid;

use super::change_log::placeholders;
use super::entity::sessions::{Column, Entity};
use super::error::Failure;
use super::facts;
use super::row_locks::RowLocks;
use super::session_writes;
use super::step::{Transaction, Verdict};
use crate::domain::id::SessionId;
use crate::domain::time::UnixMillis;

/// The uses in the order of the ids, in which their rows are locked; one for each session.
pub(super) fn in_order(seen: &[(SessionId, UnixMillis)]) -> Vec<(SessionId, UnixMillis)> {
    let mut seen = seen.to_vec();
    seen.sort_unstable_by_key(|&(id, time)| (id, std::cmp::Reverse(time)));
    seen.dedup_by_key(|(id, _)| *id);
    seen
}

/// Moves the last use of at most [`session_writes::BATCH_MAX`] sessions forward, never back. Returns those that another
/// transaction has locked: one locked row must not keep the uses of all others from being written.
pub(super) async fn touch(
    transaction: &Transaction,
    seen: Arc<[(SessionId, UnixMillis)]>,
    locks: RowLocks,
) -> Result<Verdict<Vec<SessionId>>, Failure> {
    let engine = transaction.get_database_backend();
    let (mut seen, mut skipped) = (seen.to_vec(), Vec::new());
    if engine != DbBackend::Sqlite {
        let ids: Vec<_> = seen.iter().map(|(id, _)| id.as_uuid()).collect();
        let unlocked = session_writes::lock_unlocked(transaction, &ids, &locks).await?;
        let left: Vec<_> = ids.into_iter().filter(|id| !unlocked.contains(id)).collect();
        skipped = session_writes::existing(transaction, &left).await?;
        seen.retain(|(id, _)| unlocked.contains(&id.as_uuid()));
    }
    let skipped = skipped.into_iter().map(SessionId::from_uuid).collect();
    if seen.is_empty() {
        return Ok(Verdict::Nothing(skipped));
    }
    let values =
        seen.iter().flat_map(|(id, time)| -> [Value; 2] { [id.as_uuid().into(), time.as_millis().into()] });
    let sql = touch_sql(engine, seen.len());
    transaction.execute_raw(Statement::from_sql_and_values(engine, sql, values)).await?;
    Ok(Verdict::Commit(skipped))
}

/// The sum cannot overflow where it is taken: it lies before the absolute end.
const OVER: &str =
    "CASE WHEN used.seen >= expire_time - idle_limit_ms THEN expire_time ELSE used.seen + idle_limit_ms END";

fn touch_sql(engine: DbBackend, rows: usize) -> String {
    let values = placeholders(rows, 2, 1, engine);
    match engine {
        // The rows are locked in the order of their ids before any is changed.
        DbBackend::Postgres => format!(
            "WITH given (id, seen) AS (VALUES {values}), \
             used AS (SELECT given.id, given.seen FROM given JOIN sessions ON sessions.session_id = given.id \
             WHERE sessions.last_seen_time < given.seen ORDER BY given.id FOR UPDATE OF sessions) \
             UPDATE sessions SET over_time = {OVER}, last_seen_time = used.seen FROM used \
             WHERE sessions.session_id = used.id AND sessions.last_seen_time < used.seen"
        ),
        DbBackend::Sqlite => format!(
            "WITH used (id, seen) AS (VALUES {values}) \
             UPDATE sessions SET over_time = {OVER}, last_seen_time = used.seen FROM used \
             WHERE sessions.session_id = used.id AND sessions.last_seen_time < used.seen"
        ),
        _ => {
            let mut used = String::from("SELECT ? AS id, ? AS seen");
            for _ in 1..rows {
                used.write_str(" UNION ALL SELECT ?, ?").expect("a string takes any text");
            }
            format!(
                "UPDATE ({used}) AS used STRAIGHT_JOIN sessions FORCE INDEX (PRIMARY) ON sessions.session_id = used.id \
                 SET over_time = {OVER}, last_seen_time = used.seen WHERE sessions.last_seen_time < used.seen"
            )
        }
    }
}

/// Deletes at most `limit` sessions that were over before `before`, and answers how many.
pub(super) async fn purge(
    transaction: &Transaction,
    before: UnixMillis,
    limit: u32,
    locks: RowLocks,
) -> Result<Verdict<u64>, Failure> {
    let head = facts::head(transaction).await?;
    let mut over = vec![(Column::EndTime, before.as_millis()), (Column::OverTime, before.as_millis())];
    if head.everyone_time < before.as_millis() {
        over.push((Column::EveryoneEpoch, head.everyone_epoch));
    }
    let mut purged = 0;
    for (column, bound) in over {
        let left = u64::from(limit).saturating_sub(purged);
        purged += purge_below(transaction, column, bound, left, &locks).await?;
    }
    Ok(if purged == 0 { Verdict::Nothing(0) } else { Verdict::Commit(purged) })
}

/// Each column has its index. It is asked again when deleting: a use that was written down meanwhile saves a session.
async fn purge_below(
    transaction: &Transaction,
    column: Column,
    bound: i64,
    limit: u64,
    locks: &RowLocks,
) -> Result<u64, Failure> {
    if limit == 0 {
        return Ok(0);
    }
    let found = Entity::find().select_only().column(Column::SessionId).filter(column.lt(bound)).limit(limit);
    let mut ids: Vec<Uuid> = found.into_tuple().all(transaction).await?;
    ids.sort_unstable();
    // Locked rows are deleted another time.
    if transaction.get_database_backend() != DbBackend::Sqlite {
        let unlocked = session_writes::lock_unlocked(transaction, &ids, locks).await?;
        ids = unlocked.into_iter().collect();
    }
    session_writes::delete_below(transaction, &ids, column.as_str(), bound).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_are_ordered_by_id_and_only_the_latest_counts() {
        let id = |number| SessionId::from_uuid(Uuid::from_u128(number));
        let at = UnixMillis::from_millis;
        let seen = [(id(2), at(5)), (id(1), at(7)), (id(2), at(9)), (id(1), at(6))];
        assert_eq!(in_order(&seen), [(id(1), at(7)), (id(2), at(9))]);
    }
}
