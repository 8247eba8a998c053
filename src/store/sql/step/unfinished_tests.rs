//! Which connection is used again: one whose transaction ended by a COMMIT or ROLLBACK that was answered, and no other.

use std::path::Path;
use std::time::Duration;

use sea_orm::{ConnectionTrait as _, DbBackend, Statement};

use super::super::error::Failure;
use super::super::limits::SqlLimits;
use super::super::pool;
use super::super::target::Target;
use super::{Pool, Steps, Transaction, Verdict};
use crate::database_url::DatabaseUrl;
use crate::store::StoreError;

type Then = fn() -> Result<Verdict<()>, Failure>;

const INSERT: &str = "INSERT INTO notes VALUES (1)";
const INSERT_INTO_NOTHING: &str = "INSERT INTO nothing VALUES (1)";
const LONG: &str = "INSERT INTO notes WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000000) \
                       SELECT max(i) FROM n";

/// Steps on a file, over one connection that is marked.
async fn marked_steps(folder: &Path) -> Steps {
    let target = Target::new(&DatabaseUrl::of_sqlite_file(&folder.join("a.db"))).expect("a URL");
    let brief = Duration::from_millis(500);
    let limits = SqlLimits { connections_max: 1, statement_timeout: brief, ..SqlLimits::default() };
    let steps = Steps::new(pool::source(&target, &limits), limits, true);
    steps.write(|db| Box::pin(mark(db))).await.expect("a mark");
    steps
}

async fn mark(db: &Transaction) -> Result<Verdict<()>, Failure> {
    db.execute_unprepared("CREATE TABLE notes (note INTEGER)").await?;
    // It is there for this connection only.
    db.execute_unprepared("CREATE TEMPORARY TABLE mark (note INTEGER)").await?;
    Ok(Verdict::Commit(()))
}

async fn is_marked(db: &Pool) -> Result<bool, Failure> {
    let marks = "SELECT name FROM sqlite_temp_master WHERE name = 'mark'";
    Ok(db.query_all_raw(Statement::from_string(DbBackend::Sqlite, marks)).await?.len() == 1)
}

async fn notes(db: &Pool) -> Result<usize, Failure> {
    let notes = Statement::from_string(DbBackend::Sqlite, "SELECT note FROM notes");
    Ok(db.query_all_raw(notes).await?.len())
}

async fn run_then(db: &Transaction, first: &str, then: Then) -> Result<Verdict<()>, Failure> {
    db.execute_unprepared(first).await?;
    then()
}

/// Goes on although a statement failed.
async fn careless(db: &Transaction) -> Result<Verdict<()>, Failure> {
    db.execute_unprepared(INSERT).await?;
    assert!(db.execute_unprepared(INSERT_INTO_NOTHING).await.is_err());
    Ok(Verdict::Commit(()))
}

#[tokio::test]
async fn a_connection_is_kept_only_after_a_commit_or_rollback_that_was_answered() {
    let refuse: Then = || Err(Failure::Refused("a rule".to_owned()));
    let cases: [(&str, &str, Then, bool); 8] = [
        ("a commit", INSERT, || Ok(Verdict::Commit(())), true),
        ("a rollback", INSERT, || Ok(Verdict::Refused(())), true),
        ("a rollback after a refusal", INSERT, refuse, true),
        ("a rollback after a statement that failed", INSERT_INTO_NOTHING, refuse, true),
        ("a commit that failed", "COMMIT", || Ok(Verdict::Commit(())), false),
        ("a rollback that failed", "ROLLBACK", refuse, false),
        ("a panic", INSERT, || panic!("a defect"), false),
        ("a statement that was given up", LONG, refuse, false),
    ];
    for (case, first, then, kept) in cases {
        let folder = tempfile::tempdir().expect("a folder");
        let steps = marked_steps(folder.path()).await;
        let answer = steps.write(move |db| Box::pin(run_then(db, first, then))).await;
        if case == "a statement that was given up" {
            assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{case}: {answer:?}");
        }
        let is_kept = steps.read(|db| Box::pin(is_marked(db))).await.expect("an answer");
        assert_eq!(is_kept, kept, "{case}: {answer:?}");
    }
}

#[tokio::test]
async fn a_transaction_in_which_a_statement_failed_is_not_committed() {
    let folder = tempfile::tempdir().expect("a folder");
    let steps = marked_steps(folder.path()).await;
    let answer = steps.write(|db| Box::pin(careless(db))).await;
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    assert_eq!(steps.read(|db| Box::pin(notes(db))).await.expect("an answer"), 0);
}
