//! What can go wrong in the database, sorted by what it means: for the operator who starts a node ([`OpenError`]), and
//! for one step of the store (`Failure`).
//!
//! No text here holds a password, a hash or what somebody typed. MariaDB repeats values in its messages ("Duplicate entry
//! 'bob'"), so of its errors only the numbers are told; the others name tables and columns.

use std::path::PathBuf;

use sea_orm::sqlx::error::DatabaseError;
use sea_orm::sqlx::mysql::MySqlDatabaseError;
use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr, SqlxError};

use crate::store::StoreError;

/// Why a database cannot be used. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL does not name a database.
    #[error("database_url cannot be used: {0}")]
    BadUrl(String),
    /// Nobody answers, or the server refuses.
    #[error(
        "the database cannot be reached: {0}; check that it runs, and the host, user and password of the URL"
    )]
    Unreachable(String),
    /// The server is of a kind or version that does not keep what is promised.
    #[error("the database server cannot be used: {0}")]
    Unsupported(String),
    /// No schema at all.
    #[error("the database holds no Latchkey schema: run `latchkey migrate up`")]
    SchemaMissing,
    /// The schema is older than this binary.
    #[error("the database schema lacks {}: run `latchkey migrate up`", .pending.join(", "))]
    SchemaBehind {
        /// The migrations to apply.
        pending: Vec<String>,
    },
    /// All migrations were applied, but parts of what they made are missing or changed.
    #[error("the database schema is damaged: {}: run `latchkey migrate up`, which puts back what it can", .flaws.join("; "))]
    SchemaDamaged {
        /// What is missing, and what is not as it must be.
        flaws: Vec<String>,
    },
    /// Parts of the schema cannot be put back.
    #[error("the database schema is damaged, and this cannot be put back: {}: restore it from a backup", .flaws.join("; "))]
    SchemaLost {
        /// What is missing, and what is not as it must be.
        flaws: Vec<String>,
    },
    /// The schema is newer, and says that this binary cannot work with it.
    #[error("the database schema was changed by a newer Latchkey ({}): run that version", .unknown.join(", "))]
    SchemaAhead {
        /// The migrations that this binary does not know.
        unknown: Vec<String>,
    },
    /// Another process has the SQLite file.
    #[error("another process uses {}: stop it, or use PostgreSQL or MariaDB to run several nodes", .0.display())]
    Taken(PathBuf),
    /// The database is on another machine, and the connection to it would not be verified.
    #[error("the connection to {host} would not be protected: write `{setting}` into database_url")]
    InsecureTransport {
        /// The host of the URL.
        host: String,
        /// What the URL lacks.
        setting: &'static str,
    },
}

/// Why one attempt at a step failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection broke, or no answer came in time. Nothing was committed.
    Lost(String),
    /// The database gave way to another transaction. Nothing was committed; again is worth a try.
    GaveWay(String),
    /// A row is locked by another transaction: the server waited as long as it may, or was told not to wait. Nothing was
    /// committed.
    Locked(String),
    /// The server does not know the syntax of the statement. Nothing was committed.
    BadSyntax(String),
    /// The server is a replica, or takes no writes for another reason. Nothing was committed, and what it says is not to be
    /// decided on.
    NotPrimary,
    /// The database refused. Nothing was committed.
    Refused(String),
    /// The caller was told already that nothing changed, so nothing was committed.
    Abandoned,
    /// COMMIT was sent, and its answer was lost.
    Commit(String),
    /// A row holds what no version of this program wrote.
    Corrupt(String),
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Lost(why)
            | Failure::GaveWay(why)
            | Failure::Locked(why)
            | Failure::BadSyntax(why)
            | Failure::Refused(why) => Self::Unavailable(why),
            Failure::NotPrimary => {
                Self::Unavailable("the database server takes no writes: it is not the primary".to_owned())
            }
            Failure::Abandoned => Self::Unavailable("no answer in time".to_owned()),
            Failure::Commit(why) => Self::OutcomeUnknown(why),
            Failure::Corrupt(what) => Self::Corrupt(what),
        }
    }
}

impl From<DbErr> for Failure {
    fn from(error: DbErr) -> Self {
        let text = describe(&error);
        match &error {
            DbErr::ConnectionAcquire(_) => Self::Lost(text),
            DbErr::Type(_) | DbErr::Json(_) | DbErr::TryIntoErr { .. } => Self::Corrupt(text),
            DbErr::Conn(why) | DbErr::Exec(why) | DbErr::Query(why) => match why {
                RuntimeErr::SqlxError(error) => of_sqlx(error, text),
                RuntimeErr::Internal(_) => Self::Lost(text),
            },
            _ => Self::Refused(text),
        }
    }
}

fn of_sqlx(error: &SqlxError, text: String) -> Failure {
    match error {
        SqlxError::Database(refusal) => match refusal.code().as_deref() {
            // PostgreSQL and MariaDB: serialization failure, deadlock. SQLite: busy, and busy with an old snapshot.
            Some("40001" | "40P01" | "5" | "517") => Failure::GaveWay(text),
            // PostgreSQL: the server shuts down, crashed, or starts.
            Some("57P01" | "57P02" | "57P03") => Failure::Lost(text),
            // The transaction is read-only, on both; and MariaDB's server, which says no more than that an option forbids it.
            Some("25006") => Failure::NotPrimary,
            _ if is_numbered(refusal.as_ref(), READ_ONLY_SERVER) => Failure::NotPrimary,
            Some("55P03") => Failure::Locked(text),
            _ if is_numbered(refusal.as_ref(), LOCK_WAIT_TIMEOUT) => Failure::Locked(text),
            _ if is_numbered(refusal.as_ref(), PARSE_ERROR) => Failure::BadSyntax(text),
            _ => Failure::Refused(text),
        },
        SqlxError::ColumnDecode { .. }
        | SqlxError::ColumnNotFound(_)
        | SqlxError::Decode(_)
        | SqlxError::TypeNotFound { .. } => Failure::Corrupt(text),
        _ => Failure::Lost(text),
    }
}

/// MariaDB's `ER_OPTION_PREVENTS_STATEMENT` and `ER_READ_ONLY_MODE`.
const READ_ONLY_SERVER: &[u16] = &[1290, 1836];
/// MariaDB's `ER_LOCK_WAIT_TIMEOUT`, also of a statement that does not wait.
const LOCK_WAIT_TIMEOUT: &[u16] = &[1205];
/// MariaDB's `ER_PARSE_ERROR`.
const PARSE_ERROR: &[u16] = &[1064];

fn is_numbered(refusal: &dyn DatabaseError, numbers: &[u16]) -> bool {
    let error = refusal.try_downcast_ref::<MySqlDatabaseError>();
    error.is_some_and(|error| numbers.contains(&error.number()))
}

/// Whether a connection turned out to be dead, which another one need not be. Not that there was none.
pub(super) fn is_of_dead_connection(error: &DbErr) -> bool {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(why))
        | DbErr::Exec(RuntimeErr::SqlxError(why))
        | DbErr::Query(RuntimeErr::SqlxError(why)) => matches!(of_sqlx(why, String::new()), Failure::Lost(_)),
        _ => false,
    }
}

/// The error in words that may go into a log.
pub(super) fn describe(error: &DbErr) -> String {
    match error {
        DbErr::ConnectionAcquire(ConnAcquireErr::Timeout) => "no free connection in time".to_owned(),
        DbErr::Conn(RuntimeErr::SqlxError(why))
        | DbErr::Exec(RuntimeErr::SqlxError(why))
        | DbErr::Query(RuntimeErr::SqlxError(why)) => describe_sqlx(why),
        other => other.to_string(),
    }
}

/// The error in words for the operator who starts a node: no statement with values was sent yet, so a server's own words
/// may be shown ("Access denied for user").
pub(super) fn describe_at_start(error: &DbErr) -> String {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(why))
        | DbErr::Exec(RuntimeErr::SqlxError(why))
        | DbErr::Query(RuntimeErr::SqlxError(why)) => why.to_string(),
        other => describe(other),
    }
}

/// What the operator has to change where the server answers, and refuses for a known reason.
pub(super) fn explain(error: &DbErr) -> Option<String> {
    let (DbErr::Conn(RuntimeErr::SqlxError(error))
    | DbErr::Exec(RuntimeErr::SqlxError(error))
    | DbErr::Query(RuntimeErr::SqlxError(error))) = error
    else {
        return None;
    };
    match error.as_ref() {
        SqlxError::Database(refusal) => {
            explain_number(refusal.try_downcast_ref::<MySqlDatabaseError>()?.number())
        }
        SqlxError::Protocol(why) => explain_protocol(why),
        SqlxError::Configuration(why) => Some(why.to_string()),
        _ => None,
    }
}

fn explain_number(number: u16) -> Option<String> {
    let why = match number {
        1419 => {
            "with the binary log on, the server lets only a trusted account make the trigger (error 1419): set \
             log_bin_trust_function_creators = 1 while `latchkey migrate up` runs, or run it as an account with SUPER"
        }
        1665 => {
            "binlog_format is STATEMENT, which takes no writes at READ COMMITTED (error 1665): set it to ROW or MIXED"
        }
        _ => return None,
    };
    Some(why.to_owned())
}

fn explain_protocol(why: &str) -> Option<String> {
    let (_, plugin) = why.split_once("unknown authentication plugin: ")?;
    Some(format!(
        "the account signs in by the plug-in {plugin}, which this program does not have: give the account \
         mysql_native_password, by ALTER USER ... IDENTIFIED VIA mysql_native_password USING PASSWORD(...)"
    ))
}

fn describe_sqlx(error: &SqlxError) -> String {
    match error {
        SqlxError::Database(refusal) => match refusal.try_downcast_ref::<MySqlDatabaseError>() {
            Some(error) => format!("error {} ({})", error.number(), error.code().unwrap_or("HY000")),
            None => format!("{} ({})", refusal.message(), refusal.code().unwrap_or_default()),
        },
        SqlxError::ColumnDecode { index, .. } => format!("column {index} holds a value of another type"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::{explain_number, explain_protocol};

    #[test]
    fn what_the_operator_can_change_is_told() {
        assert!(explain_number(1419).is_some_and(|why| why.contains("log_bin_trust_function_creators")));
        assert!(explain_number(1665).is_some_and(|why| why.contains("ROW or MIXED")));
        assert_eq!(explain_number(1146), None);
        let told = explain_protocol("unknown authentication plugin: client_ed25519").unwrap_or_default();
        assert!(told.contains("client_ed25519") && told.contains("mysql_native_password"), "{told}");
        assert_eq!(explain_protocol("expected a greeting"), None);
    }
}
