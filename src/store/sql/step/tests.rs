//! How steps run: what their callers are told, and what becomes of their connections.

use std::time::Duration;

use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use tokio::sync::Notify;

use super::*;

#[test]
fn either_the_commit_or_the_giving_up_comes_first() {
    let phase = Phase::default();
    assert!(phase.commit());
    assert!(!phase.abandon(), "it may have happened: the outcome is unknown");
    let phase = Phase::default();
    assert!(phase.abandon());
    assert!(phase.is_abandoned() && !phase.commit(), "the caller was told that nothing changed");
}

/// Steps on a database in memory, whose callers wait for as long as `limits` say.
async fn steps(limits: SqlLimits) -> Steps {
    let pool = sea_orm::Database::connect("sqlite::memory:").await.expect("a database");
    pool.execute_unprepared("CREATE TABLE notes (note INTEGER)").await.expect("a table");
    Steps::new(Source::lasting(Places::Common(pool)), limits, true)
}

/// Writes a note once it may.
async fn note(db: &Transaction, may: Arc<Notify>) -> std::result::Result<Verdict<()>, Failure> {
    may.notified().await;
    db.execute_unprepared("INSERT INTO notes VALUES (1)").await?;
    Ok(Verdict::Commit(()))
}

async fn notes(steps: &Steps) -> usize {
    steps.tasks.close();
    steps.tasks.wait().await;
    let all = Statement::from_string(DbBackend::Sqlite, "SELECT note FROM notes");
    steps.source.current().0.query_all_raw(all).await.expect("rows").len()
}

#[tokio::test]
async fn what_was_called_unchanged_stays_unchanged() {
    let brief = Duration::from_millis(10);
    let limits = SqlLimits { acquire_timeout: brief, statement_timeout: brief, ..SqlLimits::default() };
    let (steps, may) = (steps(limits).await, Arc::new(Notify::new()));
    let waiting = Arc::clone(&may);
    let answer = steps.write(move |db| Box::pin(note(db, Arc::clone(&waiting)))).await;
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    may.notify_one();
    assert_eq!(notes(&steps).await, 0, "the caller was told that nothing changed");
}

#[tokio::test]
async fn a_write_runs_to_its_end_without_its_caller() {
    let (steps, may) = (steps(SqlLimits::default()).await, Arc::new(Notify::new()));
    let waiting = Arc::clone(&may);
    {
        let mut caller = Box::pin(steps.write(move |db| Box::pin(note(db, Arc::clone(&waiting)))));
        assert!(futures_util::poll!(&mut caller).is_pending());
    }
    may.notify_one();
    assert_eq!(notes(&steps).await, 1);
}

#[tokio::test]
async fn a_read_ends_with_its_caller() {
    let steps = steps(SqlLimits::default()).await;
    for _ in 0..100 {
        let mut caller = Box::pin(steps.read::<(), _>(|_| Box::pin(std::future::pending())));
        assert!(futures_util::poll!(&mut caller).is_pending());
    }
    steps.tasks.close();
    let ended = tokio::time::timeout(Duration::from_secs(5), steps.tasks.wait()).await;
    assert!(ended.is_ok(), "{} reads run on", steps.tasks.len());
}

/// Reads so many rows that it can be cut short.
async fn count(db: &Pool) -> std::result::Result<usize, Failure> {
    let long =
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200000) SELECT i FROM n";
    Ok(db.query_all_raw(Statement::from_string(DbBackend::Sqlite, long)).await?.len())
}

#[tokio::test]
async fn a_read_that_is_cut_short_leaves_its_connection_usable() {
    let steps = steps(SqlLimits::default()).await;
    for _ in 0..20 {
        let brief = Duration::from_millis(1);
        let _ = tokio::time::timeout(brief, steps.read(|db| Box::pin(count(db)))).await;
    }
    assert_eq!(steps.read(|db| Box::pin(count(db))).await.expect("an answer"), 200_000);
}

#[tokio::test]
async fn a_step_that_panics_changes_nothing_and_breaks_nothing() {
    let steps = steps(SqlLimits::default()).await;
    let answer: Result<()> = steps.write(|_| Box::pin(async { panic!("a defect") })).await;
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    let may = Arc::new(Notify::new());
    may.notify_one();
    let answer = steps.write(move |db| Box::pin(note(db, Arc::clone(&may)))).await;
    assert!(answer.is_ok(), "{answer:?}");
    assert_eq!(notes(&steps).await, 1);
}

#[tokio::test]
async fn who_gives_way_is_tried_again_within_bounds() {
    let (steps, tries) = (steps(SqlLimits::default()).await, Arc::new(AtomicU8::new(0)));
    let counted = Arc::clone(&tries);
    let answer: Result<()> = steps
        .write(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            Box::pin(async { Err(Failure::GaveWay("a deadlock".to_owned())) })
        })
        .await;
    assert!(matches!(answer, Err(StoreError::Unavailable(why)) if why == "a deadlock"));
    assert_eq!(u32::from(tries.load(Ordering::SeqCst)), ATTEMPTS_MAX);
}
