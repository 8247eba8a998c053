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
mod tests;
#[cfg(test)]
mod unfinished_tests;
