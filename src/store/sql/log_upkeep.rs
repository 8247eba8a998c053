//! The log is kept short, and gets another name where it went back in time.

use sea_orm::{ColumnTrait as _, ConnectionTrait as _, DbBackend, EntityTrait as _, QueryFilter as _};
use sea_orm::{QueryOrder as _, QuerySelect as _, Statement};

use super::change_log;
use super::entity::change_log::{Column, Entity};
use super::entity::nodes;
use super::error::Failure;
use super::facts;
use super::step::{Transaction, Verdict};
use crate::domain::id::LogId;
use crate::domain::time::UnixMillis;
use crate::store::coordination::NodeState;
use crate::store::{Change, Stamp};

/// Deletes at most `limit` rows from before `before`, from the lowest on, and answers how many it were.
///
/// What every live node has applied goes, but for the row that the last of them applied: it asks for that row again, to
/// see that the log is still the same. So the newest row stays as well.
pub(super) async fn truncate(
    transaction: &Transaction,
    before: UnixMillis,
    limit: u32,
) -> Result<Verdict<u64>, Failure> {
    let head = facts::head(transaction).await?;
    let behind_most: Option<i64> = nodes::Entity::find()
        .select_only()
        .column_as(nodes::Column::AppliedPosition.min(), "applied")
        .filter(nodes::Column::State.eq(NodeState::Live as i16))
        .into_tuple()
        .one(transaction)
        .await?
        .flatten();
    let bound = behind_most.map_or(head.position, |applied| applied.min(head.position));
    // Positions are in the order of time, so the oldest rows come first.
    let lowest: Vec<(i64, i64)> = Entity::find()
        .select_only()
        .columns([Column::Position, Column::CreateTime])
        .filter(Column::Position.lt(bound))
        .order_by_asc(Column::Position)
        .limit(u64::from(limit))
        .into_tuple()
        .all(transaction)
        .await?;
    let old = lowest.iter().take_while(|(_, time)| *time < before.as_millis());
    let Some((last, _)) = old.last() else { return Ok(Verdict::Nothing(0)) };
    let deleted =
        Entity::delete_many().filter(Column::Position.lte(*last)).exec(transaction).await?.rows_affected;
    Ok(Verdict::Commit(deleted))
}

/// Gives the log another name and ends everyone's sessions, of which `standing` were counted.
pub(super) async fn start_new_log(
    transaction: &Transaction,
    standing: u64,
    stamp: Stamp,
) -> Result<Verdict<(LogId, Change)>, Failure> {
    let engine = transaction.get_database_backend();
    let random = match engine {
        DbBackend::Postgres => "gen_random_uuid()",
        DbBackend::Sqlite => "randomblob(16)",
        _ => "UNHEX(REPLACE(UUID(), '-', ''))",
    };
    let rename = format!("UPDATE log_head SET log_id = {random} WHERE id = 1");
    transaction.execute_raw(Statement::from_string(engine, rename)).await?;
    let row = change_log::append_everyone(transaction, stamp).await?;
    let log = LogId::from_uuid(facts::head(transaction).await?.log_id);
    Ok(Verdict::Commit((log, change_log::change(standing, vec![row]))))
}
