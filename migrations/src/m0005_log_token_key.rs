//! The change log tells of token keys as well: a node that begins to sign with a key is not refused by the others.

use sea_orm_migration::prelude::*;

use crate::types::Types;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if !manager.has_column("change_log", "key_id").await? {
            let Types { small, .. } = Types::of(manager.get_database_backend());
            let add = format!("ALTER TABLE change_log ADD COLUMN key_id {small} NULL");
            manager.get_connection().execute_unprepared(&add).await?;
        }
        Ok(())
    }
}
