//! The first tables: users, sessions, token keys, the change log and its head.
//!
//! The number of a change comes from `log_head`, whose row is locked until commit, never from a sequence: a sequence hands
//! numbers out before commit, and a reader that asks for what lies behind the last number it saw then misses rows.
//! Sessions have no foreign key: their rows outlive their user, so that the reason of their end can still be told.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

use crate::types::Types;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let engine = manager.get_database_backend();
        let types = Types::of(engine);
        let log = [log_head(&types), log_head_row(&types), change_log(&types)];
        let tables = [users(&types), sessions(&types), token_keys(&types)];
        for statement in log.into_iter().chain(tables).chain(session_indexes(&types)) {
            manager.get_connection().execute_unprepared(&statement).await?;
        }
        if engine == DbBackend::MySql {
            manager.get_connection().execute_unprepared(CHANGE_LOG_TRIGGER).await?;
        }
        Ok(())
    }
}

/// `lease_ms` lives here so that no node can hold a longer lease than the one who revokes waits for.
fn log_head(Types { uuid, small, big, table_end, .. }: &Types) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS log_head (
            id {small} NOT NULL PRIMARY KEY CHECK (id = 1),
            log_id {uuid} NOT NULL,
            position {big} NOT NULL,
            lease_ms {big} NOT NULL,
            everyone_epoch {big} NOT NULL,
            everyone_time {big} NOT NULL
        ) {table_end}"
    )
}

fn log_head_row(Types { random_uuid, insert_unless_there: (insert, unless_there), .. }: &Types) -> String {
    format!(
        "{insert} INTO log_head (id, log_id, position, lease_ms, everyone_epoch, everyone_time)
        VALUES (1, {random_uuid}, 0, 5000, 1, 0) {unless_there}"
    )
}

fn change_log(Types { uuid, bytes_8, small, big, table_end, .. }: &Types) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS change_log (
            position {big} NOT NULL PRIMARY KEY,
            nonce {bytes_8} NOT NULL,
            kind {small} NOT NULL,
            user_id {uuid} NULL,
            session_id {uuid} NULL,
            epoch {big} NULL,
            create_time {big} NOT NULL
        ) {table_end}"
    )
}

fn users(Types { uuid, login_key, text, small, big, table_end, .. }: &Types) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS users (
            user_id {uuid} NOT NULL PRIMARY KEY,
            login_key {login_key} NOT NULL UNIQUE,
            login_display {text} NOT NULL,
            display_name {text} NOT NULL,
            state {small} NOT NULL,
            roles {text} NOT NULL,
            attributes {text} NOT NULL,
            password_hash {text} NULL,
            credential_epoch {big} NOT NULL,
            password_epoch {big} NOT NULL,
            create_time {big} NOT NULL,
            update_time {big} NOT NULL,
            password_time {big} NULL
        ) {table_end}"
    )
}

fn sessions(Types { uuid, bytes_16, text, small, big, flag, table_end, .. }: &Types) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS sessions (
            session_id {uuid} NOT NULL PRIMARY KEY,
            digest {bytes_16} NOT NULL UNIQUE,
            user_id {uuid} NOT NULL,
            user_epoch {big} NOT NULL,
            everyone_epoch {big} NOT NULL,
            create_time {big} NOT NULL,
            authenticate_time {big} NOT NULL,
            expire_time {big} NOT NULL,
            last_seen_time {big} NOT NULL,
            idle_limit_ms {big} NOT NULL,
            over_time {big} NOT NULL,
            remembered {flag} NOT NULL,
            methods {text} NOT NULL,
            client_ip {text} NULL,
            client_user_agent {text} NOT NULL,
            client_device_name {text} NOT NULL,
            end_time {big} NULL,
            end_reason {small} NULL
        ) {table_end}"
    )
}

fn token_keys(Types { bytes_16, small, big, table_end, .. }: &Types) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS token_keys (
            key_id {small} NOT NULL PRIMARY KEY,
            fingerprint {bytes_16} NOT NULL,
            create_time {big} NOT NULL
        ) {table_end}"
    )
}

/// One for the sessions of a user that may stand, three for what is purged. The first leads past what has ended or run out:
/// a robot that signs in all the time has a few sessions that stand, and a day's worth of rows that wait to be purged. The
/// second leaves out, where the engine can, what has not ended, so that nobody takes it for a way to that.
fn session_indexes(Types { where_ended, .. }: &Types) -> [String; 4] {
    let index = |name, columns, of| format!("CREATE INDEX IF NOT EXISTS {name} ON sessions ({columns}) {of}");
    [
        index("sessions_of_user", "user_id, end_time, expire_time", ""),
        index("sessions_by_end", "end_time", where_ended),
        index("sessions_by_over", "over_time", ""),
        index("sessions_by_everyone", "everyone_epoch", ""),
    ]
}

/// MariaDB has no statement that updates one table and inserts into another, so its change log numbers itself: no round
/// trip happens while the head is locked. Kind 7 ends everyone and raises their epoch under the same lock.
///
/// The user variables show the writer what the head became, in the RETURNING of its INSERT. The statement cannot read
/// `log_head` itself, because the trigger updates it.
pub(crate) const CHANGE_LOG_TRIGGER: &str =
    "CREATE OR REPLACE TRIGGER change_log_number BEFORE INSERT ON change_log FOR EACH ROW
BEGIN
    UPDATE log_head SET
        position = (@latchkey_head := position + 1),
        everyone_epoch = (@latchkey_epoch := everyone_epoch + (NEW.kind = 7)),
        everyone_time = IF(NEW.kind = 7, NEW.create_time, everyone_time)
    WHERE id = 1;
    SET NEW.position = (SELECT position FROM log_head WHERE id = 1);
    IF NEW.kind = 7 THEN
        SET NEW.epoch = (SELECT everyone_epoch FROM log_head WHERE id = 1);
    END IF;
END";
