//! What each connection sets for itself, whatever the server, the role or the database say, and that it took: a pooler may
//! drop what a client asks for when it connects.

use std::time::Duration;

use sea_orm::sqlx::mysql::MySqlConnection;
use sea_orm::sqlx::postgres::PgConnection;
use sea_orm::sqlx::{self, AssertSqlSafe, Executor as _, Row as _};

use super::limits::SqlLimits;

/// The statements of one connection.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    set: Vec<String>,
    /// Answers the names of what did not take, separated by commas.
    verify: String,
}

impl Settings {
    /// Those of PostgreSQL. The last timeout ends a transaction whose node hangs, so that nobody holds the head of the log
    /// for ever.
    /// `options` are those of the URL: a pooler may pass over them, so they are set again.
    pub(super) fn of_postgres(limits: &SqlLimits, options: Option<&str>) -> Self {
        let spans = [
            ("statement_timeout", limits.statement_timeout),
            ("lock_timeout", limits.lock_timeout),
            ("idle_in_transaction_session_timeout", limits.idle_timeout()),
        ];
        let words = [("default_transaction_isolation", "read committed"), ("TimeZone", "UTC")];
        let mut set = words.map(|(name, value)| format!("set_config('{name}', '{value}', false)")).to_vec();
        set.extend(spans.map(|(name, span)| format!("set_config('{name}', '{}', false)", span.as_millis())));
        let mut checks = words
            .map(|(name, value)| check(name, &format!("current_setting('{name}') = '{value}'")))
            .to_vec();
        let span_is = |name: &str, span: Duration| {
            format!("current_setting('{name}')::interval = interval '{} ms'", span.as_millis())
        };
        checks.extend(spans.map(|(name, span)| check(name, &span_is(name, span))));
        let weak = "current_setting('synchronous_commit') IN ('off', 'local')";
        set.push(format!(
            "set_config('synchronous_commit', CASE WHEN {weak} THEN 'on' \
             ELSE current_setting('synchronous_commit') END, false)"
        ));
        checks.push(check("synchronous_commit", &format!("NOT ({weak})")));
        let asked = options.map(in_options).unwrap_or_default();
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let asked = asked
            .iter()
            .map(|(name, value)| format!("SELECT set_config({}, {}, false)", quoted(name), quoted(value)));
        Self {
            set: asked.chain([format!("SELECT {}", set.join(", "))]).collect(),
            verify: format!("SELECT concat_ws(', ', {})", checks.join(", ")),
        }
    }

    /// Those of MariaDB. Whether COMMIT is needed, what it begins, and whether a unique index is looked at are settings too.
    pub(super) fn of_mariadb(limits: &SqlLimits) -> Self {
        let seconds = |span: Duration| span.as_millis().div_ceil(1_000).max(1);
        let set = format!(
            "SET SESSION autocommit = 1, completion_type = 'NO_CHAIN', unique_checks = 1, sql_safe_updates = 0, \
             sql_auto_is_null = 0, sql_select_limit = DEFAULT, time_zone = '+00:00', \
             sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,ERROR_FOR_DIVISION_BY_ZERO', \
             innodb_lock_wait_timeout = {}, max_statement_time = {statement:.3}, \
             idle_transaction_timeout = {idle}, idle_write_transaction_timeout = {idle}",
            seconds(limits.lock_timeout),
            statement = limits.statement_timeout.as_secs_f64(),
            idle = seconds(limits.idle_timeout()),
        );
        let checks = [
            ("autocommit", "@@session.autocommit = 1"),
            ("completion_type", "@@session.completion_type = 'NO_CHAIN'"),
            ("unique_checks", "@@session.unique_checks = 1"),
            ("sql_mode", "FIND_IN_SET('STRICT_ALL_TABLES', @@session.sql_mode) > 0"),
            ("time_zone", "@@session.time_zone = '+00:00'"),
            ("transaction isolation", "@@session.tx_isolation = 'READ-COMMITTED'"),
            ("character_set_client", "@@session.character_set_client = 'utf8mb4'"),
            ("character_set_connection", "@@session.character_set_connection = 'utf8mb4'"),
        ];
        let checks = checks.map(|(name, holds)| check(name, holds)).join(", ");
        Self {
            set: vec![set, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED".to_owned()],
            verify: format!("SELECT CAST(CONCAT_WS(', ', {checks}) AS CHAR)"),
        }
    }

    /// Sets up a connection of PostgreSQL, or refuses it.
    pub(super) async fn apply_to_postgres(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        for statement in &self.set {
            connection.execute(AssertSqlSafe(statement.clone())).await?;
        }
        let row = connection.fetch_one(AssertSqlSafe(self.verify.clone())).await?;
        took(&row.try_get::<String, _>(0)?)
    }

    /// Sets up a connection of MariaDB, or refuses it.
    pub(super) async fn apply_to_mariadb(&self, connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
        for statement in &self.set {
            connection.execute(AssertSqlSafe(statement.clone())).await?;
        }
        let row = connection.fetch_one(AssertSqlSafe(self.verify.clone())).await?;
        took(&row.try_get::<String, _>(0)?)
    }
}

/// The settings in the parameter `options`, as the server reads them: `-c NAME=VALUE` or `--NAME=VALUE`, with a backslash
/// before a space that does not end them.
fn in_options(options: &str) -> Vec<(String, String)> {
    let (mut words, mut word, mut characters) = (Vec::new(), String::new(), options.chars());
    while let Some(character) = characters.next() {
        match character {
            '\\' => word.extend(characters.next()),
            space if space.is_ascii_whitespace() => words.push(std::mem::take(&mut word)),
            other => word.push(other),
        }
    }
    words.push(word);
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let setting = match (word.strip_prefix("-c"), word.strip_prefix("--")) {
            (Some(""), _) => words.next(),
            (Some(setting), _) | (_, Some(setting)) => Some(setting.to_owned()),
            _ => None,
        };
        let pair = setting.as_deref().and_then(|setting| setting.split_once('='));
        settings.extend(pair.map(|(name, value)| (name.replace('-', "_"), value.to_owned())));
    }
    settings
}

/// The name of a setting where it does not hold.
fn check(name: &str, holds: &str) -> String {
    format!("CASE WHEN {holds} THEN NULL ELSE '{name}' END")
}

fn took(lacking: &str) -> Result<(), sqlx::Error> {
    if lacking.is_empty() {
        return Ok(());
    }
    let why = format!(
        "a session does not keep its settings ({lacking}): connect to the server itself, or through a pooler in session mode"
    );
    Err(sqlx::Error::Configuration(why.into()))
}

#[cfg(test)]
mod tests {
    use super::{in_options, took};

    #[test]
    fn the_options_of_a_url_are_read_as_the_server_reads_them() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(in_options("-c a=1 -cb=2  --c-d=3"), [pair("a", "1"), pair("b", "2"), pair("c_d", "3")]);
        assert_eq!(in_options("-c a=x\\ y\\\\z=1"), [pair("a", "x y\\z=1")]);
        assert_eq!(in_options("-c search_path=a,b -e -c"), [pair("search_path", "a,b")]);
    }

    #[test]
    fn a_session_that_lost_a_setting_is_refused_by_its_name() {
        assert!(took("").is_ok());
        assert!(took("autocommit").is_err_and(|error| error.to_string().contains("(autocommit)")));
    }
}
