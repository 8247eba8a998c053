//! The nodes of the fleet: who joined, how far each has followed the log, and who was silent for too long.
//!
//! Moments are written by the database, by its own clock.

use std::sync::Arc;

use sea_orm::{ColumnTrait as _, ConnectionTrait as _, DbBackend, EntityTrait as _, QueryFilter as _};
use sea_orm::{Statement, Value};

use super::change_log::placeholder;
use super::database_time::now;
use super::entity::{change_log, nodes};
use super::error::Failure;
use super::facts::{self, NODE, column_list, head_list, headless, read_head, read_joined};
use super::lease::read_lease;
use super::primary;
use super::step::{Pool, Transaction, Verdict};
use crate::domain::id::{LogId, NodeId, Nonce, Position};
use crate::domain::time::UnixMillis;
use crate::mutation::Mutation;
use crate::store::coordination::{AckCommit, Joined, NewNode, NodeRow, NodeState, Roster};

/// Adds a node. It knows nothing yet, so nothing that was committed before is missing from its memory.
///
/// Its row is committed durably: were it lost with the server, nobody would wait for the node while its lease still holds.
pub(super) async fn insert(transaction: &Transaction, node: Arc<NewNode>) -> Result<Verdict<()>, Failure> {
    let engine = transaction.get_database_backend();
    if engine == DbBackend::Postgres {
        transaction.execute_unprepared("SET LOCAL synchronous_commit TO on").await?;
    }
    let now = now(engine);
    let [id, name, state] = [1, 2, 3].map(|number| placeholder(number, engine));
    let sql = format!(
        "INSERT INTO nodes (node_id, name, state, applied_position, applied_nonce, join_time, heard_time) \
         SELECT {id}, {name}, {state}, log_head.position, change_log.nonce, {now}, {now} FROM log_head \
         LEFT JOIN change_log ON change_log.position = log_head.position WHERE log_head.id = 1"
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
    commit: AckCommit,
) -> Result<(), Failure> {
    let engine = db.get_database_backend();
    let now = now(engine);
    let mark = |number| placeholder(number, engine);
    let nonce: Value = nonce.map(|nonce| nonce.0.to_vec()).into();
    let applied: Value = applied.as_i64().into();
    // MariaDB assigns from left to right, so the nonce is decided on before the position changes.
    let mut sql = format!(
        "UPDATE nodes SET applied_nonce = CASE WHEN applied_position <= {} THEN {} ELSE applied_nonce END, \
         applied_position = CASE WHEN applied_position <= {} THEN {} ELSE applied_position END, \
         heard_time = CASE WHEN heard_time = {now} THEN heard_time + 1 ELSE {now} END WHERE node_id = {}",
        mark(1),
        mark(2),
        mark(3),
        mark(4),
        mark(5),
    );
    let mut values =
        vec![applied.clone(), nonce.clone(), applied.clone(), applied.clone(), node.as_uuid().into()];
    if nonce != Value::Bytes(None) {
        let holds = format!(
            " AND EXISTS (SELECT 1 FROM change_log WHERE position = {} AND nonce = {})",
            mark(6),
            mark(7)
        );
        sql.push_str(&holds);
        values.extend([applied, nonce]);
    }
    if engine == DbBackend::Postgres {
        sql.push_str(synchronous_commit(commit));
    }
    if let AckCommit::Durable(server) = commit
        && !Mutation::AckOfAnotherServer.is_on()
    {
        values.push(server.0.into());
        let same_server = format!(" AND {} = {}", primary::server(engine), placeholder(values.len(), engine));
        sql.push_str(&same_server);
    }
    let done = db.execute_raw(Statement::from_sql_and_values(engine, sql, values)).await?;
    match commit {
        AckCommit::Durable(_) if done.rows_affected() == 0 => Err(Failure::Refused(
            "the acknowledgement changed nothing: the server, the row of the node or the row of the log is another one"
                .to_owned(),
        )),
        _ => Ok(()),
    }
}

/// How PostgreSQL commits the one statement that bears this condition, which is always true. The setting is of the
/// transaction, so the statement needs no round trip more than others. The other engines know one kind of commit.
const fn synchronous_commit(commit: AckCommit) -> &'static str {
    match commit {
        AckCommit::Quick => " AND set_config('synchronous_commit', 'off', true) = 'off'",
        AckCommit::Durable(_) => {
            " AND set_config('synchronous_commit', CASE WHEN current_setting('synchronous_commit') IN \
             ('off', 'local') THEN 'on' ELSE current_setting('synchronous_commit') END, true) <> 'off'"
        }
    }
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
        "SELECT {} AS now, {head}, {node}, (SELECT change_log.position FROM change_log \
         WHERE change_log.position = nodes.applied_position AND change_log.nonce = nodes.applied_nonce) \
         AS logged_position FROM log_head LEFT JOIN nodes ON 1 = 1 WHERE log_head.id = 1 ORDER BY nodes.node_id",
        now(engine)
    );
    let rows = db.query_all_raw(Statement::from_string(engine, sql)).await?;
    let first = rows.first().ok_or_else(headless)?;
    let head = read_head(first)?;
    let mut nodes = Vec::new();
    for row in &rows {
        if let Some(node) = read_joined::<nodes::Entity, uuid::Uuid>(row, NODE, "node_id")? {
            let is_logged = row.try_get::<Option<i64>>("", "logged_position")?.is_some();
            nodes.push(NodeRow { is_logged: is_logged || node.applied_position == 0, ..read(node)? });
        }
    }
    Ok(Roster {
        time: UnixMillis::from_millis(first.try_get("", "now")?),
        head: Position::from_i64(head.position),
        lease: read_lease(&head)?,
        nodes,
    })
}

fn read_nonce(bytes: Vec<u8>) -> Result<Nonce, ()> {
    bytes.try_into().map(Nonce).map_err(drop)
}

/// Reads a row. Whether the log holds what it acknowledged is not said there.
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
        nonce: row.applied_nonce.map(read_nonce).transpose().map_err(|()| corrupt("applied_nonce"))?,
        is_logged: false,
        join_time: UnixMillis::from_millis(row.join_time),
        heard_time: UnixMillis::from_millis(row.heard_time),
        evict_time: row.evict_time.map(UnixMillis::from_millis),
        name: row.name,
    })
}
