//! The clock of the database, by which all nodes go.

use sea_orm::{ConnectionTrait as _, DbBackend, Statement};

use super::error::Failure;
use super::step::Pool;
use crate::domain::time::UnixMillis;

/// The expression that gives the time in milliseconds since 1970.
pub(super) const fn now(engine: DbBackend) -> &'static str {
    match engine {
        DbBackend::Sqlite => "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)",
        DbBackend::Postgres => "FLOOR(EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::bigint",
        _ => "CAST(FLOOR(UNIX_TIMESTAMP(NOW(3)) * 1000) AS SIGNED)",
    }
}

/// Asks for the time.
pub(super) async fn read(db: &Pool) -> Result<UnixMillis, Failure> {
    let engine = db.get_database_backend();
    let asking = Statement::from_string(engine, format!("SELECT {} AS now", now(engine)));
    let row = db.query_one_raw(asking).await?;
    let row = row.ok_or_else(|| Failure::Refused("the database did not tell its time".to_owned()))?;
    Ok(UnixMillis::from_millis(row.try_get("", "now")?))
}
