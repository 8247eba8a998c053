//! What a database server's own settings mean for what is promised: a node warns, or refuses to start on it.

use sea_orm::{ConnectionTrait, DbBackend, DbErr, QueryResult, Statement};

/// Judges the settings of a server, whose values it asks for by name.
type Judge = fn(&dyn Fn(&str) -> String) -> Vec<Concern>;

/// A setting of the server that weakens a promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Concern {
    /// A node works, but a crash may undo what was acknowledged.
    Warn(String),
    /// A node cannot work.
    Refuse(String),
}

/// The shortest wait for a semi-synchronous replica that is not taken for a fall-back to none, in milliseconds.
const SEMI_SYNC_TIMEOUT_MIN_MS: u64 = 3_600_000;

/// What the operator should change.
pub(super) async fn concerns<C: ConnectionTrait>(db: &C) -> Result<Vec<Concern>, DbErr> {
    let engine = db.get_database_backend();
    let (sql, judge): (_, Judge) = match engine {
        DbBackend::Sqlite => return Ok(Vec::new()),
        DbBackend::Postgres => (POSTGRES, of_postgres),
        _ => (MARIADB, of_mariadb),
    };
    let Some(row) = db.query_one_raw(Statement::from_string(engine, sql)).await? else {
        return Ok(Vec::new());
    };
    Ok(judge(&|name| setting(&row, name)))
}

fn setting(row: &QueryResult, name: &str) -> String {
    row.try_get::<Option<String>>("", name).ok().flatten().unwrap_or_default()
}

const POSTGRES: &str = "SELECT current_setting('fsync') AS fsync, \
    current_setting('full_page_writes') AS full_page_writes, \
    (SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit') AS synchronous_commit";

const MARIADB: &str = "SELECT CAST(@@global.innodb_flush_log_at_trx_commit AS CHAR) AS flush_log, \
    CAST(@@global.log_bin AS CHAR) AS log_bin, CAST(@@global.sync_binlog AS CHAR) AS sync_binlog, \
    CAST(@@session.binlog_format AS CHAR) AS binlog_format, \
    CAST(@@global.rpl_semi_sync_master_enabled AS CHAR) AS semi_sync, \
    CAST(@@global.rpl_semi_sync_master_timeout AS CHAR) AS semi_sync_timeout";

fn of_postgres(setting: &dyn Fn(&str) -> String) -> Vec<Concern> {
    let warn = |text: &str| Concern::Warn(text.to_owned());
    let mut concerns = Vec::new();
    if setting("fsync") == "off" {
        concerns.push(warn(
            "fsync is off: a crash of the machine may undo what was acknowledged; set fsync = on",
        ));
    }
    if setting("full_page_writes") == "off" {
        let text = "full_page_writes is off: a crash of the machine may damage the database; set full_page_writes = on";
        concerns.push(warn(text));
    }
    if matches!(setting("synchronous_commit").as_str(), "off" | "local") {
        let text = "synchronous_commit is off or local: nodes raise it to on for their own sessions; set it to on for all";
        concerns.push(warn(text));
    }
    concerns
}

fn of_mariadb(setting: &dyn Fn(&str) -> String) -> Vec<Concern> {
    let is_on = |name: &str| matches!(setting(name).as_str(), "1" | "ON");
    let mut concerns = Vec::new();
    if setting("flush_log") != "1" {
        let text =
            "innodb_flush_log_at_trx_commit is not 1: a crash may undo what was acknowledged; set it to 1";
        concerns.push(Concern::Warn(text.to_owned()));
    }
    if is_on("log_bin") && setting("binlog_format") == "STATEMENT" {
        let text =
            "binlog_format is STATEMENT, which takes no writes at READ COMMITTED; set it to ROW or MIXED";
        concerns.push(Concern::Refuse(text.to_owned()));
    }
    if is_on("log_bin") && setting("sync_binlog") != "1" {
        let text =
            "sync_binlog is not 1: a crash may leave replicas without what was acknowledged; set it to 1";
        concerns.push(Concern::Warn(text.to_owned()));
    }
    let timeout = setting("semi_sync_timeout").parse().unwrap_or(0_u64);
    if is_on("semi_sync") && timeout < SEMI_SYNC_TIMEOUT_MIN_MS {
        concerns.push(Concern::Warn(format!(
            "semi-synchronous replication falls back to asynchronous after {timeout} ms, and a fail-over may then undo what \
             was acknowledged; raise rpl_semi_sync_master_timeout"
        )));
    }
    concerns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(judge: Judge, settings: &[(&str, &str)]) -> Vec<Concern> {
        let value = |name: &str| {
            let found = settings.iter().rev().find(|(other, _)| *other == name);
            found.map(|(_, value)| (*value).to_owned()).unwrap_or_default()
        };
        judge(&value)
    }

    fn count(judge: Judge, safe: &[(&str, &str)], other: (&str, &str)) -> usize {
        judged(judge, &[safe, &[other]].concat()).len()
    }

    #[test]
    fn each_weak_setting_of_postgresql_is_told() {
        let safe = [("fsync", "on"), ("full_page_writes", "on"), ("synchronous_commit", "on")];
        assert_eq!(judged(of_postgres, &safe), []);
        assert_eq!(count(of_postgres, &safe, ("synchronous_commit", "remote_apply")), 0);
        for weak in [("fsync", "off"), ("full_page_writes", "off"), ("synchronous_commit", "local")] {
            assert_eq!(count(of_postgres, &safe, weak), 1, "{weak:?}");
        }
    }

    #[test]
    fn each_weak_setting_of_mariadb_is_told() {
        let safe = [
            ("flush_log", "1"),
            ("log_bin", "1"),
            ("sync_binlog", "1"),
            ("binlog_format", "MIXED"),
            ("semi_sync", "ON"),
            ("semi_sync_timeout", "18446744073709551615"),
        ];
        assert_eq!(judged(of_mariadb, &safe), []);
        for weak in [("flush_log", "2"), ("sync_binlog", "0"), ("semi_sync_timeout", "10000")] {
            assert_eq!(count(of_mariadb, &safe, weak), 1, "{weak:?}");
        }
        let statement = judged(of_mariadb, &[&safe[..], &[("binlog_format", "STATEMENT")]].concat());
        assert!(matches!(statement[..], [Concern::Refuse(_)]), "{statement:?}");
        let without =
            [("log_bin", "0"), ("semi_sync", "OFF"), ("binlog_format", "STATEMENT"), ("sync_binlog", "0")];
        assert_eq!(judged(of_mariadb, &[&safe[..], &without].concat()), []);
    }
}
