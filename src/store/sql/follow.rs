//! What a follower of the log asks again and again, in one statement, so that it belongs together.
//!
//! That the server is not the primary is told, not refused: the node has to know. Nothing is left out or mended here: whoever follows has to notice a hole, and can, since it knows what it saw last.

use sea_orm::{ConnectionTrait as _, DbBackend, Statement, Value};
use uuid::Uuid;

use super::change_log::{self, placeholder};
use super::database_time::now;
use super::entity::{change_log as log, nodes};
use super::error::Failure;
use super::facts::{NODE, column_list, head_list, headless, read_any_head, read_joined};
use super::lease::read_lease;
use super::nodes::read;
use super::primary;
use super::step::Pool;
use crate::domain::id::{LogId, NodeId, Position};
use crate::domain::time::UnixMillis;
use crate::store::coordination::{Polled, ServerId};

/// What the names of the columns of a row of the log begin with.
const CHANGE: &str = "change_";

/// Reads the head, the node's row, and the rows of the log at `from` and the `limit - 1` numbers behind it.
pub(super) async fn poll(db: &Pool, node: NodeId, from: Position, limit: u32) -> Result<Polled, Failure> {
    let engine = db.get_database_backend();
    let to = from.as_i64().saturating_add(i64::from(limit));
    let values: [Value; 3] = [node.as_uuid().into(), from.as_i64().into(), to.into()];
    let rows = db.query_all_raw(Statement::from_sql_and_values(engine, sql(engine), values)).await?;
    let first = rows.first().ok_or_else(headless)?;
    let head = read_any_head(first)?;
    let node = read_joined::<nodes::Entity, Uuid>(first, NODE, "node_id")?;
    let mut changes = Vec::with_capacity(rows.len());
    for row in &rows {
        if let Some(change) = read_joined::<log::Entity, i64>(row, CHANGE, "position")? {
            changes.push(change_log::read(&change)?);
        }
    }
    Ok(Polled {
        log: LogId::from_uuid(head.log_id),
        head: Position::from_i64(head.position),
        lease: read_lease(&head)?,
        node: node.map(read).transpose()?.map(|node| node.state),
        is_primary: primary::is_primary(first)?,
        server: ServerId(first.try_get("", "server")?),
        time: UnixMillis::from_millis(first.try_get("", "now")?),
        rows: changes,
    })
}

fn sql(engine: DbBackend) -> String {
    let (head, node) = (head_list(engine), column_list::<nodes::Entity>(NODE));
    let change = column_list::<log::Entity>(CHANGE);
    let [id, from, to] = [1, 2, 3].map(|number| placeholder(number, engine));
    format!(
        "SELECT {} AS now, {} AS server, {head}, {node}, {change} FROM log_head \
         LEFT JOIN nodes ON nodes.node_id = {id} \
         LEFT JOIN change_log ON change_log.position >= {from} AND change_log.position < {to} \
         WHERE log_head.id = 1 ORDER BY change_log.position",
        now(engine),
        primary::server(engine),
    )
}
