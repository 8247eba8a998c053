//! The database schema of Latchkey for SQLite, PostgreSQL and MariaDB.
//!
//! To change the schema: 1. a new file `mNNNN_what.rs` with the next number, whose statements may run twice (MariaDB
//! commits each of them on its own); 2. its line in [`Migrator`]; 3. what it makes, in `description`. A file that was
//! released is never edited.
//!
//! An older binary accepts migrations that it does not know, so that nodes can be replaced one by one. A migration
//! that older binaries cannot live with says so by the end of its name, [`BREAKING_SUFFIX`].

mod catalogue;
pub mod description;
mod m0001_tables;
mod m0002_nodes;
mod m0003_applied_nonce;
mod m0004_lease_change;
mod m0005_log_token_key;
mod types;
mod verify;

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::Statement;

pub use sea_orm_migration::MigratorTrait;

pub use self::verify::{Flaw, Unseen, undescribed, verify};

/// How the name of a migration ends with which older binaries must not run.
pub const BREAKING_SUFFIX: &str = "_breaking";

/// All migrations, in order.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m0001_tables::Migration),
            Box::new(m0002_nodes::Migration),
            Box::new(m0003_applied_nonce::Migration),
            Box::new(m0004_lease_change::Migration),
            Box::new(m0005_log_token_key::Migration),
        ]
    }
}

/// The names of all migrations that this binary knows, in order.
pub fn known() -> Vec<String> {
    Migrator::migrations().iter().map(|migration| migration.name().to_owned()).collect()
}

/// The names of all migrations that the database has seen, in order; none when it has never seen any. Only reads.
pub async fn applied<'c, C>(db: C) -> Result<Option<Vec<String>>, DbErr>
where
    C: IntoSchemaManagerConnection<'c>,
{
    let manager = SchemaManager::new(db);
    if !manager.has_table("seaql_migrations").await? {
        return Ok(None);
    }
    let connection = manager.get_connection();
    let names = Statement::from_string(
        connection.get_database_backend(),
        "SELECT version FROM seaql_migrations ORDER BY version",
    );
    let rows = connection.query_all_raw(names).await?;
    rows.iter().map(|row| row.try_get("", "version")).collect::<Result<_, _>>().map(Some)
}
