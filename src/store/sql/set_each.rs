//! One column of many rows, each with a value of its own, in one statement that is bound to the primary key.

use std::fmt::Write as _;

use sea_orm::{ConnectionTrait as _, DbBackend, Statement, Value};
use uuid::Uuid;

use super::change_log::{placeholder, placeholders};
use super::error::Failure;
use super::session_writes::BATCH_MAX;
use super::step::Transaction;

/// A column of a table whose rows are found by `key`, the primary key.
pub(super) struct Target {
    pub(super) table: &'static str,
    pub(super) key: &'static str,
    pub(super) column: &'static str,
}

/// Sets the column of locked rows.
pub(super) async fn set_each(
    transaction: &Transaction,
    Target { table, key, column }: Target,
    rows: &[(Uuid, i64)],
) -> Result<(), Failure> {
    let engine = transaction.get_database_backend();
    // For any other plan MariaDB may lock the rows of others.
    let hint = if engine == DbBackend::MySql { " FORCE INDEX (PRIMARY)" } else { "" };
    for rows in rows.chunks(BATCH_MAX) {
        let mut sql = format!("UPDATE {table}{hint} SET {column} = CASE {key}");
        let mut values: Vec<Value> = Vec::with_capacity(rows.len() * 3);
        for (id, value) in rows {
            let when = placeholder(values.len() + 1, engine);
            let then = placeholder(values.len() + 2, engine);
            write!(sql, " WHEN {when} THEN {then}").expect("a string takes any text");
            values.extend([Value::from(*id), Value::from(*value)]);
        }
        let these = placeholders(1, rows.len(), values.len() + 1, engine);
        write!(sql, " ELSE {column} END WHERE {key} IN {these}").expect("a string takes any text");
        values.extend(rows.iter().map(|(id, _)| Value::from(*id)));
        transaction.execute_raw(Statement::from_sql_and_values(engine, sql, values)).await?;
    }
    Ok(())
}
