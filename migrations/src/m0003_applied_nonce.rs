//! Nodes acknowledge a row of the log by its nonce as well: after a fail-over that lost commits, the same number may be
//! another row.

use sea_orm_migration::prelude::*;

use crate::types::Types;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if !manager.has_column("nodes", "applied_nonce").await? {
            let Types { bytes_8, .. } = Types::of(manager.get_database_backend());
            let add = format!("ALTER TABLE nodes ADD COLUMN applied_nonce {bytes_8} NULL");
            manager.get_connection().execute_unprepared(&add).await?;
        }
        Ok(())
    }
}
