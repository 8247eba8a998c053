//! The nodes of the fleet: who joined, how far each has followed the log, and who was silent for too long.
//!
//! Moments are written by the database, by its own clock.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::{ColumnTrait as _, ConnectionTrait as _, DbBackend, EntityTrait as _, QueryFilter as _};
use sea_orm::{Statement, Value};

use super::change_log::placeholder;
use super::database_time::now;
use super::entity::{change_log, log_head, nodes};
use super::error::Failure;
use super::facts::{self, NODE, column_list, head_list, headless, read_head, read_joined};
use super::step::{Pool, Transaction, Verdict};
use crate::domain::id::{LogId, NodeId, Nonce, Position};
use crate::domain::time::UnixMillis;
use crate::store::coordination::{Joined, NewNode, NodeRow, NodeState, Roster};

/// Adds a node. It knows nothing yet, so nothing that was committed before is missing from its memory.
///
/// Its row is on the disk before it is answered, unlike all else that goes over the connection of a follower: were it lost
/// with the server, nobody would wait for the node while its lease still holds.
pub(super) async fn insert(transaction: &Transaction, node: Arc<NewNode>) -> Result<Verdict<()>, Failure> {
    let engine = transaction.get_database_backend();
    if engine == DbBackend::Postgres {
        transaction.execute_unprepared("SET LOCAL synchronous_commit TO on").await?;
    }
    let now = now(engine);
    let [id, name, state] = [1, 2, 3].map(|number| placeholder(number, engine));
    let sql = format!(
        "INSERT INTO nodes (node_id, name, state, applied_position, join_time, heard_time) \
         VALUES ({id}, {name}, {state}, (SELECT position FROM log_head WHERE id = 1), {now}, {now})"
    );
    let values: [Value; 3] =
        [node.id.as_uuid().into(), node.name.clone().into(), (NodeState::Live as i16).into()];
    transaction.execute_raw(Statement::from_sql_and_values(engine, sql, values)).await?;
    Ok(Verdict::Commit(()))
}

/// The head of the log, and the nonce of the row there. The row cannot be missing: the newest one is never deleted, nor
/// is one that a live node has yet to see.
pub(super) async fn start(db: &Pool) -> Result<Joined, Failure> {
    let head = facts::head(db).await?;
    let position = Position::from_i64(head.position);
    let nonce = if position == Position::ZERO { None } else { Some(nonce_at(db, position).await?) };
    Ok(Joined { log: LogId::from_uuid(head.log_id), position, nonce })
}

async fn nonce_at(db: &Pool, position: Position) -> Result<Nonce, Failure> {
    let row = change_log::Entity::find_by_id(position.as_i64()).one(db).await?;
    let missing =
        || Failure::Corrupt(format!("table change_log has no row at its head, {}", position.as_i64()));
    Ok(super::change_log::read(&row.ok_or_else(missing)?)?.nonce)
}

/// Moves the position of a node forward, never back, and writes a heartbeat that differs from the one before, if the log holds the row that it
/// applied last.
pub(super) async fn acknowledge(
    db: &Pool,
    node: NodeId,
    applied: Position,
    nonce: Option<Nonce>,
) -> Result<(), Failure> {
    let engine = db.get_database_backend();
    let (greatest, now) = (if engine == DbBackend::Sqlite { "MAX" } else { "GREATEST" }, now(engine));
    let [applied_mark, id_mark, row, nonce_mark] = [1, 2, 3, 4].map(|number| placeholder(number, engine));
    let mut values: Vec<Value> = vec![applied.as_i64().into(), node.as_uuid().into()];
    let mut sql = format!(
        "UPDATE nodes SET applied_position = {greatest}(applied_position, {applied_mark}), \
         heard_time = CASE WHEN heard_time = {now} THEN heard_time + 1 ELSE {now} END \
         WHERE node_id = {id_mark}"
    );
    if let Some(nonce) = nonce {
        values.extend([applied.as_i64().into(), nonce.0.to_vec().into()]);
        let holds = format!("(SELECT 1 FROM change_log WHERE position = {row} AND nonce = {nonce_mark})");
        sql.push_str(" AND EXISTS ");
        sql.push_str(&holds);
    }
    db.execute_raw(Statement::from_sql_and_values(engine, sql, values)).await?;
    Ok(())
}

/// Removes a node.
pub(super) async fn delete(db: &Pool, node: NodeId) -> Result<(), Failure> {
    nodes::Entity::delete_by_id(node.as_uuid()).exec(db).await?;
    Ok(())
}

/// Marks a live node as evicting whose last heartbeat is still `heartbeat`.
pub(super) async fn mark_evicting(
    transaction: &Transaction,
    node: NodeId,
    heartbeat: UnixMillis,
) -> Result<Verdict<bool>, Failure> {
    let engine = transaction.get_database_backend();
    let [evicting, id, live, heard] = [1, 2, 3, 4].map(|number| placeholder(number, engine));
    let sql = format!(
        "UPDATE nodes SET state = {evicting}, evict_time = {} \
         WHERE node_id = {id} AND state = {live} AND heard_time = {heard}",
        now(engine)
    );
    let values: [Value; 4] = [
        (NodeState::Evicting as i16).into(),
        node.as_uuid().into(),
        (NodeState::Live as i16).into(),
        heartbeat.as_millis().into(),
    ];
    let done = transaction.execute_raw(Statement::from_sql_and_values(engine, sql, values)).await?;
    Ok(if done.rows_affected() == 1 { Verdict::Commit(true) } else { Verdict::Nothing(false) })
}

/// Removes a node that is evicting.
pub(super) async fn remove_evicted(transaction: &Transaction, node: NodeId) -> Result<Verdict<()>, Failure> {
    nodes::Entity::delete_by_id(node.as_uuid())
        .filter(nodes::Column::State.eq(NodeState::Evicting as i16))
        .exec(transaction)
        .await?;
    Ok(Verdict::Commit(()))
}

/// All nodes, in the order of their ids, the head of the log and the time.
pub(super) async fn roster(db: &Pool) -> Result<Roster, Failure> {
    let engine = db.get_database_backend();
    let (head, node) = (head_list(engine), column_list::<nodes::Entity>(NODE));
    let sql = format!(
        "SELECT {} AS now, {head}, {node} FROM log_head LEFT JOIN nodes ON 1 = 1 WHERE log_head.id = 1 \
         ORDER BY nodes.node_id",
        now(engine)
    );
    let rows = db.query_all_raw(Statement::from_string(engine, sql)).await?;
    let first = rows.first().ok_or_else(headless)?;
    let head = read_head(first)?;
    let mut nodes = Vec::new();
    for row in &rows {
        if let Some(node) = read_joined::<nodes::Entity, uuid::Uuid>(row, NODE, "node_id")? {
            nodes.push(read(node)?);
        }
    }
    Ok(Roster {
        time: UnixMillis::from_millis(first.try_get("", "now")?),
        head: Position::from_i64(head.position),
        lease: lease(&head)?,
        nodes,
    })
}

/// How long a lease is.
pub(super) fn lease(head: &log_head::Model) -> Result<Duration, Failure> {
    let millis = u64::try_from(head.lease_ms);
    millis.map(Duration::from_millis).map_err(|_| Failure::Corrupt("table log_head: lease_ms".to_owned()))
}

/// Reads a row.
pub(super) fn read(row: nodes::Model) -> Result<NodeRow, Failure> {
    let corrupt = |column| Failure::Corrupt(format!("table nodes, node_id {}: {column}", row.node_id));
    Ok(NodeRow {
        id: NodeId::from_uuid(row.node_id),
        state: match row.state {
            state if state == NodeState::Live as i16 => NodeState::Live,
            state if state == NodeState::Evicting as i16 => NodeState::Evicting,
            _ => return Err(corrupt("state")),
        },
        applied: Position::from_i64(row.applied_position),
        join_time: UnixMillis::from_millis(row.join_time),
        heard_time: UnixMillis::from_millis(row.heard_time),
        evict_time: row.evict_time.map(UnixMillis::from_millis),
        name: row.name,
    })
}
