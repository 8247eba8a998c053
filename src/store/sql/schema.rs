//! The schema of a database: whether this binary can work with it, and how it is brought up to date.
//!
//! PostgreSQL and MariaDB are migrated only on demand, under a lock that the server gives to one at a time; a node that
//! starts only reads. SQLite belongs to one process, which migrates it when it starts.

use std::future::Future;
use std::time::Duration;

use migrations::{BREAKING_SUFFIX, Flaw, Migrator, MigratorTrait as _, Unseen};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, SqliteTransactionMode,
    Statement, TransactionOptions, TransactionTrait as _,
};

use super::error::{Failure, OpenError, describe_at_start, explain};
use super::file_lock::FileLock;
use super::limits::SqlLimits;
use super::places::Places;
use super::pool;
use super::server::{self, Concern};
use super::step::{Transaction, Verdict};
use super::target::Target;
use crate::database_url::DatabaseUrl;

/// How long a migration may take as a whole, the wait for another node's included.
const MIGRATE_TIMEOUT: Duration = Duration::from_mins(15);
/// How long one migration waits for another to end.
const MIGRATE_LOCK_TIMEOUT: Duration = Duration::from_mins(1);

/// One migration of a database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MigrationStatus {
    /// Its name.
    pub name: String,
    /// Whether the database has seen it.
    pub applied: bool,
}

/// What `migrate_up` did.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Migrated {
    /// The names of the migrations that were applied.
    pub applied: Vec<String>,
    /// What was missing or changed although it had been made, and was put back.
    pub put_back: Vec<String>,
}

/// How the schema of a database stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SchemaStatus {
    /// All migrations, those that this binary knows and those that only the database knows.
    pub migrations: Vec<MigrationStatus>,
    /// What is missing or changed of what applied migrations made. Looked for only when none is missing.
    pub flaws: Vec<String>,
}

/// Brings the schema up to date, and puts back what was lost of it. Only one at a time does so; others wait for it.
pub async fn migrate_up(url: &DatabaseUrl, limits: SqlLimits) -> Result<Migrated, OpenError> {
    let target = Target::new(url)?;
    let _held = match &target {
        Target::Sqlite(_, Some(file)) => Some(FileLock::take(file)?),
        _ => None,
    };
    migrate(&target, limits).await
}

/// How the schema stands. Changes nothing.
pub async fn schema_status(url: &DatabaseUrl, limits: SqlLimits) -> Result<SchemaStatus, OpenError> {
    let target = match Target::new(url)? {
        // Asking about a file must not create it.
        Target::Sqlite(_, Some(file)) if !file.path.exists() => {
            return Ok(SchemaStatus { migrations: status(&[]), flaws: Vec::new() });
        }
        Target::Sqlite(options, file) => Target::Sqlite(Box::new(options.create_if_missing(false)), file),
        target => target,
    };
    target.find_host_at_start(limits.connect_timeout).await?;
    let pool = pool::open(&target, &limits);
    let read = in_time(&target, limits, read_status(&target, &pool)).await;
    pool::close(&Places::Common(pool)).await;
    read
}

async fn read_status(target: &Target, pool: &DatabaseConnection) -> Result<SchemaStatus, OpenError> {
    let applied = read_applied(target, pool).await?.unwrap_or_default();
    let flaws = if compare(&applied).is_ok() { read_flaws(target, pool).await? } else { Vec::new() };
    Ok(SchemaStatus { migrations: status(&applied), flaws })
}

/// Checks, changing nothing, that this binary can work with the database, and answers the migrations it does not know.
pub(super) async fn check(
    target: &Target,
    pool: &DatabaseConnection,
    limits: SqlLimits,
) -> Result<Vec<String>, OpenError> {
    let unknown = match in_time(target, limits, read_applied(target, pool)).await? {
        None => return Err(OpenError::SchemaMissing),
        Some(applied) => compare(&applied)?,
    };
    let flaws = in_time(target, limits, read_flaws(target, pool)).await?;
    if flaws.is_empty() { Ok(unknown) } else { Err(OpenError::SchemaDamaged { flaws }) }
}

/// Warns of settings of the server that weaken what is promised; fails where a node cannot work with them.
pub(super) async fn check_server_settings(
    target: &Target,
    pool: &DatabaseConnection,
    limits: SqlLimits,
) -> Result<(), OpenError> {
    let reading = async { server::concerns(pool).await.map_err(|error| unreachable(target, &error)) };
    for concern in in_time(target, limits, reading).await? {
        match concern {
            Concern::Warn(why) => tracing::warn!("the database server may lose what was acknowledged: {why}"),
            Concern::Refuse(why) => return Err(OpenError::Unsupported(why)),
        }
    }
    Ok(())
}

/// What is missing or changed, by an account that may not see triggers as well: for a fleet that runs.
pub(super) async fn flaws(transaction: &Transaction) -> Result<Verdict<Vec<String>>, Failure> {
    // Whatever was tried is rolled back.
    Ok(Verdict::Refused(told(&migrations::verify(transaction, Unseen::IsTried).await?)))
}

async fn read_flaws(target: &Target, pool: &DatabaseConnection) -> Result<Vec<String>, OpenError> {
    let reading = async {
        let transaction = pool.begin().await?;
        let flaws = migrations::verify(&transaction, Unseen::IsTried).await;
        transaction.rollback().await?;
        flaws
    };
    reading.await.map(|flaws| told(&flaws)).map_err(|error| unreachable(target, &error))
}

fn told(flaws: &[Flaw]) -> Vec<String> {
    flaws.iter().map(ToString::to_string).collect()
}

/// Migrates a database that nobody else uses, or whose server keeps others out meanwhile.
pub(super) async fn migrate(target: &Target, limits: SqlLimits) -> Result<Migrated, OpenError> {
    // Building an index takes as long as it takes, and all must happen on the connection that holds the lock.
    let patient = SqlLimits {
        connections_max: 1,
        statement_timeout: MIGRATE_TIMEOUT,
        lock_timeout: MIGRATE_LOCK_TIMEOUT,
        acquire_timeout: limits.connect_timeout,
        ..limits
    };
    target.find_host_at_start(limits.connect_timeout).await?;
    let pool = pool::open(target, &patient);
    let applied = match tokio::time::timeout(MIGRATE_TIMEOUT, up(target, &pool)).await {
        Ok(applied) => applied,
        Err(_) => Err(OpenError::Unreachable(format!("{}: the migration took too long", target.describe()))),
    };
    pool::close(&Places::Common(pool)).await;
    applied
}

/// Makes the schema of a database that lives and dies with its one connection.
pub(super) async fn migrate_in_memory(target: &Target, pool: &DatabaseConnection) -> Result<(), OpenError> {
    up(target, pool).await.map(|_| ())
}

/// MariaDB commits at each statement whatever is begun; there the transaction only keeps everything on one connection.
async fn up(target: &Target, pool: &DatabaseConnection) -> Result<Migrated, OpenError> {
    let unreachable = |error: DbErr| unreachable(target, &error);
    let options = TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    };
    let transaction = pool.begin_with_options(options).await.map_err(unreachable)?;
    check_server(target, &transaction).await?;
    if !lock(&transaction).await.map_err(unreachable)? {
        let busy = format!("{}: another migration runs on it and does not end", target.describe());
        return Err(OpenError::Unreachable(busy));
    }
    let before = migrations::applied(&transaction).await.map_err(unreachable)?.unwrap_or_default();
    let applied = match compare(&before) {
        Ok(_) => Vec::new(),
        Err(OpenError::SchemaBehind { pending }) => pending,
        Err(other) => return Err(other),
    };
    if !applied.is_empty() {
        Migrator::up(&transaction, None).await.map_err(unreachable)?;
    }
    let put_back = put_back(target, &transaction).await?;
    unlock(&transaction).await.map_err(unreachable)?;
    transaction.commit().await.map_err(unreachable)?;
    Ok(Migrated { applied, put_back })
}

/// Puts back what is missing or changed. Fails where something cannot be put back, with nothing changed; on MariaDB, which
/// commits each statement, what comes before a statement that fails remains.
async fn put_back(target: &Target, transaction: &DatabaseTransaction) -> Result<Vec<String>, OpenError> {
    let verify = async || {
        let flaws = migrations::verify(transaction, Unseen::IsMissing).await;
        flaws.map_err(|error| unreachable(target, &error))
    };
    let flaws = verify().await?;
    let lasting: Vec<_> = flaws.iter().filter(|flaw| flaw.repair().is_empty()).cloned().collect();
    if !lasting.is_empty() {
        return Err(OpenError::SchemaLost { flaws: told(&lasting) });
    }
    for flaw in &flaws {
        for statement in flaw.repair() {
            if let Err(error) = transaction.execute_unprepared(statement).await {
                let why = format!("{flaw} ({})", describe_at_start(&error));
                return Err(OpenError::SchemaLost { flaws: vec![why] });
            }
        }
    }
    let left = if flaws.is_empty() { Vec::new() } else { verify().await? };
    if left.is_empty() { Ok(told(&flaws)) } else { Err(OpenError::SchemaLost { flaws: told(&left) }) }
}

/// Waits until nobody else migrates this database. SQLite's transaction itself is that lock.
async fn lock(transaction: &DatabaseTransaction) -> Result<bool, DbErr> {
    let engine = transaction.get_database_backend();
    match engine {
        DbBackend::Sqlite => Ok(true),
        DbBackend::Postgres => {
            // The number is "latchkey" in ASCII. The lock ends with the transaction.
            transaction.execute_unprepared("SELECT pg_advisory_xact_lock(7809651199139603833)").await?;
            Ok(true)
        }
        _ => {
            let sql = "SELECT COALESCE(GET_LOCK(CONCAT('latchkey.', MD5(DATABASE())), 60), 0) = 1 AS taken";
            let row = transaction.query_one_raw(Statement::from_string(engine, sql)).await?;
            row.map_or(Ok(false), |row| Ok(row.try_get::<i32>("", "taken")? == 1))
        }
    }
}

async fn unlock(transaction: &DatabaseTransaction) -> Result<(), DbErr> {
    if transaction.get_database_backend() == DbBackend::MySql {
        transaction.execute_unprepared("DO RELEASE_LOCK(CONCAT('latchkey.', MD5(DATABASE())))").await?;
    }
    Ok(())
}

async fn read_applied(target: &Target, pool: &DatabaseConnection) -> Result<Option<Vec<String>>, OpenError> {
    check_server(target, pool).await?;
    migrations::applied(pool).await.map_err(|error| unreachable(target, &error))
}

async fn check_server<C: ConnectionTrait>(target: &Target, db: &C) -> Result<(), OpenError> {
    let engine = db.get_database_backend();
    let sql = match engine {
        DbBackend::Sqlite => return Ok(()),
        DbBackend::Postgres => "SELECT current_setting('server_version') AS version",
        _ => "SELECT VERSION() AS version",
    };
    let version = async {
        let row = db.query_one_raw(Statement::from_string(engine, sql)).await?;
        row.map_or_else(|| Ok(String::new()), |row| row.try_get("", "version"))
    };
    let version = version.await.map_err(|error| unreachable(target, &error))?;
    check_version(engine, &version)
}

/// PostgreSQL makes random UUIDs itself since 13. MariaDB answers what it inserted since 10.5; MySQL never does.
fn check_version(engine: DbBackend, version: &str) -> Result<(), OpenError> {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    let version_number: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let (fits, needed) = match engine {
        DbBackend::Sqlite => (true, ""),
        DbBackend::Postgres => (version_number >= (13, 0), "PostgreSQL 13 or later is needed"),
        _ => {
            let fits = version.contains("MariaDB") && version_number >= (10, 5);
            (fits, "MariaDB 10.5 or later is needed, and MySQL is not enough")
        }
    };
    if fits { Ok(()) } else { Err(OpenError::Unsupported(format!("it is version {version}; {needed}"))) }
}

pub(super) async fn in_time<T>(
    target: &Target,
    limits: SqlLimits,
    answer: impl Future<Output = Result<T, OpenError>>,
) -> Result<T, OpenError> {
    match tokio::time::timeout(limits.connect_timeout, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(not_set_up(target)
            .unwrap_or_else(|| OpenError::Unreachable(format!("{} does not answer", target.describe())))),
    }
}

/// What a database that has seen `applied` lacks, or has on top.
fn compare(applied: &[String]) -> Result<Vec<String>, OpenError> {
    let known = migrations::known();
    let unknown: Vec<_> = applied.iter().filter(|name| !known.contains(name)).cloned().collect();
    let pending: Vec<_> = known.into_iter().filter(|name| !applied.contains(name)).collect();
    // Where the database both lacks something and has something newer, this binary cannot mend it either.
    if unknown.iter().any(|name| name.ends_with(BREAKING_SUFFIX))
        || (!unknown.is_empty() && !pending.is_empty())
    {
        return Err(OpenError::SchemaAhead { unknown });
    }
    if pending.is_empty() { Ok(unknown) } else { Err(OpenError::SchemaBehind { pending }) }
}

fn status(applied: &[String]) -> Vec<MigrationStatus> {
    let known = migrations::known();
    let unknown = applied.iter().filter(|name| !known.contains(name)).cloned().collect::<Vec<_>>();
    let all = known.into_iter().chain(unknown);
    all.map(|name| MigrationStatus { applied: applied.contains(&name), name }).collect()
}

/// Connections are made again and again where what a node sets is refused, until there is no time left. That says nothing.
fn not_set_up(target: &Target) -> Option<OpenError> {
    let why = target.set_up_refusal()?;
    Some(OpenError::Unsupported(format!("{}: {why}", target.describe())))
}

pub(super) fn unreachable(target: &Target, error: &DbErr) -> OpenError {
    let place = target.describe();
    if let Some(why) = explain(error) {
        return OpenError::Unsupported(format!("{place}: {why}"));
    }
    if let Some(refused) = not_set_up(target) {
        return refused;
    }
    OpenError::Unreachable(match error {
        DbErr::ConnectionAcquire(_) => format!("{place} does not answer"),
        error => format!("{place}: {}", describe_at_start(error)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_newer_schema_is_taken_unless_it_says_otherwise() {
        let known = migrations::known();
        let with = |more: &[&str]| [known.clone(), names(more)].concat();
        assert!(compare(&known).is_ok_and(|unknown| unknown.is_empty()));
        assert!(compare(&with(&["m9999_more"])).is_ok_and(|unknown| unknown == ["m9999_more"]));
        assert!(matches!(compare(&with(&["m9999_breaking"])), Err(OpenError::SchemaAhead { .. })));
        assert!(matches!(compare(&[]), Err(OpenError::SchemaBehind { pending }) if pending == known));
        assert!(matches!(compare(&names(&["m9999_more"])), Err(OpenError::SchemaAhead { .. })));
    }

    #[test]
    fn a_server_that_keeps_less_is_refused() {
        let fits = |engine, version| check_version(engine, version).is_ok();
        assert!(fits(DbBackend::Postgres, "15.18 (Debian 15.18-0+deb12u1)"));
        assert!(fits(DbBackend::Postgres, "18beta1"));
        assert!(!fits(DbBackend::Postgres, "12.22"));
        assert!(fits(DbBackend::MySql, "10.11.19-MariaDB-0+deb12u1"));
        assert!(fits(DbBackend::MySql, "11.4.2-MariaDB"));
        assert!(!fits(DbBackend::MySql, "10.4.34-MariaDB"));
        assert!(!fits(DbBackend::MySql, "8.4.3"));
        assert!(!fits(DbBackend::MySql, ""));
    }

    #[test]
    fn the_status_lists_what_either_side_knows() {
        let mut applied = migrations::known();
        applied.push("m9999_more".to_owned());
        assert!(status(&applied).iter().all(|migration| migration.applied));
        assert_eq!(status(&applied).len(), applied.len());
        assert!(status(&[]).iter().all(|migration| !migration.applied));
    }
}
