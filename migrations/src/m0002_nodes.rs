//! The nodes of the fleet, and the way to the sessions that were used last, from which a node fills an empty memory.
//!
//! Moments in `nodes` are of the database's own clock, so that nodes need no common one.

use sea_orm_migration::prelude::*;

use crate::types::Types;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let types = Types::of(manager.get_database_backend());
        for statement in [nodes(&types), sessions_by_use(&types)] {
            manager.get_connection().execute_unprepared(&statement).await?;
        }
        Ok(())
    }
}

fn nodes(Types { uuid, text, small, big, table_end, .. }: &Types) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS nodes (
            node_id {uuid} NOT NULL PRIMARY KEY,
            name {text} NOT NULL,
            state {small} NOT NULL,
            applied_position {big} NOT NULL,
            join_time {big} NOT NULL,
            heard_time {big} NOT NULL,
            evict_time {big} NULL
        ) {table_end}"
    )
}

/// What has ended is left out, or, where an index holds all rows, lies apart.
fn sessions_by_use(Types { unended_first: (first, unended), .. }: &Types) -> String {
    format!(
        "CREATE INDEX IF NOT EXISTS sessions_by_use ON sessions ({first} last_seen_time, session_id) {unended}"
    )
}
