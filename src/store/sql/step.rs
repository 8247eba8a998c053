//! How one step of the store runs: in a task of its own, in a transaction if it writes, again if it gave way, and never
//! longer than its caller may wait.
//!
//! The task of a write is not stopped when the caller goes away or stops to wait: dropping a transaction with a statement in
//! flight panics, and a write runs to its end. That of a read is, so that callers who come and go leave nothing behind; its
//! connection must answer a ping before it is used again. What a caller is told about a write that takes too long rests on one flag: whoever
//! sets it first, the task that is about to send COMMIT or the caller that gives up, decides whether it can have happened.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use futures_util::future::BoxFuture;
use sea_orm::{DatabaseTransaction, DbErr, SqliteTransactionMode, TransactionOptions, TransactionTrait as _};
use tokio::sync::{Mutex, MutexGuard};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::error::{Failure, describe, is_of_dead_connection};
use super::file_lock::FileWatch;
use super::limits::SqlLimits;
use super::places::{Held, Places};
use super::primary;
use super::source::{Attempt, Source};
use super::timed::{Timed, in_time};
use crate::store::{Result, StoreError};

/// How often a step is tried that gives way to others.
const ATTEMPTS_MAX: u32 = 8;

/// A connection for statements that each stand alone.
pub(super) type Pool = Timed<Places>;
/// A connection inside a transaction.
pub(super) type Transaction = Timed<DatabaseTransaction>;

/// How a transaction shall end.
pub(super) enum Verdict<T> {
    /// By COMMIT.
    Commit(T),
    /// By ROLLBACK: nothing was written, by what was read. So it must have been read from the primary.
    Nothing(T),
    /// By ROLLBACK: what is there does not allow what was to be written.
    Refused(T),
}

/// Runs steps on the places of one source.
#[derive(Clone)]
pub(super) struct Steps {
    source: Source,
    limits: SqlLimits,
    tasks: TaskTracker,
    /// SQLite lets one writer in at a time and others try again and again; here they queue up.
    writers: Option<Arc<Mutex<()>>>,
    /// The files that the places lead to, where that are files.
    files: Option<Arc<FileWatch>>,
    /// Looks after the places for as long as somebody may take one.
    _watch: Option<Arc<AbortOnDropHandle<()>>>,
}

impl Steps {
    /// Runs steps on the places of `source`; one writer at a time if `one_writer`.
    pub(super) fn new(source: Source, limits: SqlLimits, one_writer: bool) -> Self {
        let writers = one_writer.then(|| Arc::new(Mutex::new(())));
        let watch = source.watch().map(Arc::new);
        Self { source, limits, tasks: TaskTracker::new(), writers, files: None, _watch: watch }
    }

    /// The same steps, none of which runs or is acknowledged once the files are not those any more that were opened.
    pub(super) fn on_files(self, files: Option<Arc<FileWatch>>) -> Self {
        Self { files, ..self }
    }

    /// Runs steps on other places within other limits; who writes queues up with those of this one.
    pub(super) fn beside(&self, source: Source, limits: SqlLimits) -> Self {
        let (writers, files) = (self.writers.clone(), self.files.clone());
        Self { source, limits, tasks: TaskTracker::new(), writers, files, _watch: None }
    }

    /// The places, to be closed.
    pub(super) fn last_places(&self) -> Places {
        self.source.last()
    }

    /// The next step runs on another connection than those of now.
    pub(super) fn forget_connections(&self) {
        self.source.renew(self.source.current().1);
    }

    /// Runs a step that only reads. A connection that was dead already is replaced once.
    pub(super) async fn read<T, F>(&self, step: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c Pool) -> BoxFuture<'c, std::result::Result<T, Failure>> + Send + Sync + 'static,
    {
        let (this, attempt) = (self.clone(), self.source.begin());
        let reading = self.tasks.spawn(async move { this.alone(&step).await });
        succeed(attempt, self.wait_to_read(AbortOnDropHandle::new(reading)).await)
    }

    /// Runs a step of one statement that writes, outside a transaction; doing it twice, or not knowing whether it was done,
    /// must do no harm.
    pub(super) async fn write_alone<T, F>(&self, step: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c Pool) -> BoxFuture<'c, std::result::Result<T, Failure>> + Send + Sync + 'static,
    {
        let (this, attempt) = (self.clone(), self.source.begin());
        let writing = self.tasks.spawn(async move {
            let _turn = this.turn().await;
            this.alone(&step).await
        });
        succeed(attempt, self.wait_to_read(AbortOnDropHandle::new(writing)).await)
    }

    /// Runs a step that writes, in a transaction, as often as it gives way to others (within bounds).
    pub(super) async fn write<T, F>(&self, step: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'t> Fn(&'t Transaction) -> BoxFuture<'t, std::result::Result<Verdict<T>, Failure>>
            + Send
            + Sync
            + 'static,
    {
        let (phase, this, attempt) = (Arc::new(Phase::default()), self.clone(), self.source.begin());
        let task_phase = Arc::clone(&phase);
        let writing = self.tasks.spawn(async move { this.attempts(&task_phase, &step).await });
        let answer = match self.wait(writing).await {
            Ok(answer) => answer.map_err(StoreError::from),
            Err(why) if phase.abandon() => Err(StoreError::Unavailable(why)),
            Err(why) => Err(StoreError::OutcomeUnknown(why)),
        };
        succeed(attempt, answer)
    }

    /// Waits for all steps that run to end.
    pub(super) async fn finish(&self) {
        self.tasks.close();
        // Each statement of a step is limited, so this limit is met only when the server answers nothing.
        let _ = tokio::time::timeout(self.limits.step_timeout(), self.tasks.wait()).await;
    }

    async fn alone<T, F>(&self, step: &F) -> std::result::Result<T, Failure>
    where
        F: for<'c> Fn(&'c Pool) -> BoxFuture<'c, std::result::Result<T, Failure>>,
    {
        match self.once(step).await {
            Err(Failure::Lost(_) | Failure::GaveWay(_) | Failure::NotPrimary) => self.once(step).await,
            answer => answer,
        }
    }

    async fn once<T, F>(&self, step: &F) -> std::result::Result<T, Failure>
    where
        F: for<'c> Fn(&'c Pool) -> BoxFuture<'c, std::result::Result<T, Failure>>,
    {
        self.check_files().map_err(Failure::Refused)?;
        let limit = self.limits.acquire_timeout.saturating_add(self.limits.answer_timeout());
        let (places, number) = self.source.current();
        let answer = step(&Timed::new(places, limit)).await;
        self.leave_replica(number, &answer);
        answer
    }

    /// No connection may be made to files that are not those any more that were opened: it would lead to others, or make
    /// them.
    fn check_files(&self) -> std::result::Result<(), String> {
        self.files.as_ref().map_or(Ok(()), |files| files.check())
    }

    /// Who met a server that is not the primary does not go there again: a new connection may lead elsewhere.
    fn leave_replica<T>(&self, number: u64, answer: &std::result::Result<T, Failure>) {
        if matches!(answer, Err(Failure::NotPrimary)) {
            self.source.renew(number);
        }
    }

    /// The turn to write, where only one may.
    async fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        match &self.writers {
            Some(writers) => Some(writers.lock().await),
            None => None,
        }
    }

    async fn wait_to_read<T>(&self, step: AbortOnDropHandle<std::result::Result<T, Failure>>) -> Result<T> {
        match self.wait(step).await {
            Ok(answer) => answer.map_err(StoreError::from),
            Err(why) => Err(StoreError::Unavailable(why)),
        }
    }

    async fn wait<T>(
        &self,
        step: impl Future<Output = std::result::Result<T, tokio::task::JoinError>>,
    ) -> std::result::Result<T, String> {
        match tokio::time::timeout(self.limits.step_timeout(), step).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err("the step panicked".to_owned()),
            Err(_) => Err(format!("no answer within {} ms", self.limits.step_timeout().as_millis())),
        }
    }

    async fn attempts<T, F>(&self, phase: &Phase, step: &F) -> std::result::Result<T, Failure>
    where
        F: for<'t> Fn(&'t Transaction) -> BoxFuture<'t, std::result::Result<Verdict<T>, Failure>>,
    {
        let _turn = self.turn().await;
        let (mut attempt, mut met_replica) = (1, false);
        loop {
            let (places, number) = self.source.current();
            let answer = self.attempt(&places, phase, step).await;
            self.leave_replica(number, &answer);
            match answer {
                Err(Failure::GaveWay(_)) if attempt < ATTEMPTS_MAX => attempt += 1,
                Err(Failure::NotPrimary) if !met_replica => met_replica = true,
                answer => return answer,
            }
        }
    }

    async fn attempt<T, F>(&self, places: &Places, phase: &Phase, step: &F) -> std::result::Result<T, Failure>
    where
        F: for<'t> Fn(&'t Transaction) -> BoxFuture<'t, std::result::Result<Verdict<T>, Failure>>,
    {
        if phase.is_abandoned() {
            return Err(Failure::Abandoned);
        }
        self.check_files().map_err(Failure::Refused)?;
        // The place is given back after its connection, also where the step panics.
        let (mut held, transaction) = self.begin(places).await?;
        let transaction = Timed::new(transaction, self.limits.answer_timeout());
        let verdict = match step(&transaction).await {
            Ok(Verdict::Nothing(answer)) => {
                primary::ask(&transaction).await.map(|()| Verdict::Nothing(answer))
            }
            Ok(Verdict::Commit(_)) if transaction.has_failed() => Err(Failure::Refused(
                "a statement of the transaction failed, so that it is not committed".to_owned(),
            )),
            verdict => verdict,
        };
        match verdict {
            Ok(Verdict::Commit(answer)) if phase.commit() => {
                self.commit(&mut held, transaction.into_inner()).await.map(|()| answer)
            }
            Ok(Verdict::Commit(_)) => {
                self.roll_back(&mut held, transaction.into_inner()).await;
                Err(Failure::Abandoned)
            }
            Ok(Verdict::Nothing(answer) | Verdict::Refused(answer)) => {
                self.roll_back(&mut held, transaction.into_inner()).await;
                Ok(answer)
            }
            // Who does not answer would not answer ROLLBACK either; the connection is closed.
            Err(failure @ Failure::Lost(_)) => Err(failure),
            Err(failure) => {
                self.roll_back(&mut held, transaction.into_inner()).await;
                Err(failure)
            }
        }
    }

    /// A connection that was dead already is replaced once: nothing was done on it.
    async fn begin(&self, places: &Places) -> std::result::Result<(Held, DatabaseTransaction), DbErr> {
        match self.begin_once(places).await {
            Err(error) if is_of_dead_connection(&error) => self.begin_once(places).await,
            begun => begun,
        }
    }

    async fn begin_once(&self, places: &Places) -> std::result::Result<(Held, DatabaseTransaction), DbErr> {
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        let limit = self.limits.acquire_timeout.saturating_add(self.limits.answer_timeout());
        let beginning = async {
            let mut held = places.take().await?;
            held.begins();
            match held.pool().begin_with_options(options).await {
                Ok(transaction) => Ok((held, transaction)),
                Err(error) => {
                    if matches!(error, DbErr::ConnectionAcquire(_)) {
                        held.not_begun();
                    }
                    Err(error)
                }
            }
        };
        in_time(limit, beginning).await
    }

    /// A COMMIT that failed may be in force all the same. SQLite, too, may have written all of it before the disk refused:
    /// unless another commit takes its place, the next process that opens the file finds it.
    async fn commit(
        &self,
        held: &mut Held,
        transaction: DatabaseTransaction,
    ) -> std::result::Result<(), Failure> {
        let committed = in_time(self.limits.answer_timeout(), transaction.commit()).await;
        committed.map_err(|error| Failure::Commit(describe(&error)))?;
        held.finished();
        // What was written to a file that nobody finds any more was not done.
        self.check_files().map_err(Failure::Commit)
    }

    /// An error changes nothing: what was not committed is rolled back when the connection is closed.
    async fn roll_back(&self, held: &mut Held, transaction: DatabaseTransaction) {
        if in_time(self.limits.answer_timeout(), transaction.rollback()).await.is_ok() {
            held.finished();
        }
    }
}

/// Hands an answer on; a good one says that its pool is.
fn succeed<T>(attempt: Attempt<'_>, answer: Result<T>) -> Result<T> {
    if answer.is_ok() {
        attempt.succeeded();
    }
    answer
}

const RUNNING: u8 = 0;
const COMMITTING: u8 = 1;
const ABANDONED: u8 = 2;

/// How far a write is, as both its task and its caller see it.
#[derive(Default)]
struct Phase(AtomicU8);

impl Phase {
    /// Asks to send COMMIT; not after the caller was told that nothing changed.
    fn commit(&self) -> bool {
        self.leave_running(COMMITTING)
    }

    /// Asks to tell the caller that nothing changed; not after COMMIT may have been sent.
    fn abandon(&self) -> bool {
        self.leave_running(ABANDONED)
    }

    fn is_abandoned(&self) -> bool {
        self.0.load(Ordering::SeqCst) == ABANDONED
    }

    fn leave_running(&self, to: u8) -> bool {
        self.0.compare_exchange(RUNNING, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

#[cfg(test)]
mod tests {
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
}
