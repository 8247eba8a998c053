//! Whether a connection leads to the server that takes the writes. What anybody decides on carries that in the same
//! statement: after a switch-over a connection may still lead to the old primary, which does not know what was ended since.

use sea_orm::{ConnectionTrait, DbBackend, QueryResult, Statement};

use super::error::Failure;

/// What the column is called.
pub(super) const COLUMN: &str = "is_primary";

/// The expression that is 1 where the database takes writes and is not a replica. MariaDB says 0 or OFF, by version.
pub(super) const fn expression(engine: DbBackend) -> &'static str {
    match engine {
        DbBackend::Sqlite => "1",
        DbBackend::Postgres => {
            "CASE WHEN pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' THEN 0 ELSE 1 END::bigint"
        }
        _ => "CAST(CONCAT(@@global.read_only) IN ('0', 'OFF') AS SIGNED)",
    }
}

/// The expression that names the running server. Standbys share the identity of their primary, so it is the start of the server
/// on PostgreSQL, and on MariaDB what each server of a replication has for itself.
pub(super) const fn server(engine: DbBackend) -> &'static str {
    match engine {
        DbBackend::Sqlite => "0",
        DbBackend::Postgres => "(EXTRACT(EPOCH FROM pg_postmaster_start_time()) * 1000000)::bigint",
        _ => "CAST(CRC32(CONCAT_WS(':', @@hostname, @@port, @@server_id)) AS SIGNED)",
    }
}

/// What the column says.
pub(super) fn is_primary(row: &QueryResult) -> Result<bool, Failure> {
    Ok(row.try_get::<i64>("", COLUMN)? == 1)
}

/// Refuses a row of another server.
pub(super) fn check(row: &QueryResult) -> Result<(), Failure> {
    if is_primary(row)? { Ok(()) } else { Err(Failure::NotPrimary) }
}

/// Asks, where nothing was written that only the primary would have taken.
pub(super) async fn ask<C: ConnectionTrait>(db: &C) -> Result<(), Failure> {
    let engine = db.get_database_backend();
    if engine == DbBackend::Sqlite {
        return Ok(());
    }
    let asking = Statement::from_string(engine, format!("SELECT {} AS {COLUMN}", expression(engine)));
    let row = db.query_one_raw(asking).await?;
    check(
        &row.ok_or_else(|| {
            Failure::Refused("the database did not say whether it is the primary".to_owned())
        })?,
    )
}
