//! The length of leases changes while the fleet runs. Until a change is in force, the head of the log holds the lease that the
//! fleet is to have, the longest one that a node may still hold or soon take, and a random number for the change. They are 0
//! while nothing changes.

use sea_orm_migration::prelude::*;

use crate::types::Types;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let Types { big, .. } = Types::of(manager.get_database_backend());
        for column in ["lease_target_ms", "lease_longest_ms", "lease_change"] {
            if !manager.has_column("log_head", column).await? {
                let add = format!("ALTER TABLE log_head ADD COLUMN {column} {big} NOT NULL DEFAULT 0");
                manager.get_connection().execute_unprepared(&add).await?;
            }
        }
        Ok(())
    }
}
