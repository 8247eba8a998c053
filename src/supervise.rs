//! Restarts what a node cannot do without: threads and tasks that panic begin again, a bounded number of times. When that
//! does not help, the node is told to end, so that whatever runs it can start another.
//!
//! A task that requests set off is restarted without that bound: no request may end the node. See [`Supervisor::run`] and
//! [`Supervisor::run_for_requests`].

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;

use crate::domain::time::BootTime;
use crate::host::Clock;

/// Restarts of one task within [`RESTART_WINDOW`]; with one more the node ends.
pub const RESTARTS_MAX: usize = 5;
/// How long a restart counts.
pub const RESTART_WINDOW: Duration = Duration::from_mins(1);
/// The pause before the first restart. Each further one within the window takes twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Counts panics of tasks and says when the node has to end. Clones share it.
#[derive(Clone)]
pub struct Supervisor(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    restarts: Mutex<BTreeMap<&'static str, u64>>,
    failed: CancellationToken,
    failed_task: OnceLock<&'static str>,
}

impl Supervisor {
    /// One for each node.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let (restarts, failed) = (Mutex::default(), CancellationToken::new());
        Self(Arc::new(Inner { clock, restarts, failed, failed_task: OnceLock::new() }))
    }

    /// Runs `work`, and again where it panics. Returns when it returns, or when restarts do not help and the node ends.
    pub async fn run<F: Future<Output = ()>>(&self, task: &'static str, work: impl Fn() -> F) {
        let mut restarts = self.restarts(task);
        while AssertUnwindSafe(work()).catch_unwind().await.is_err() && restarts.again().await {}
    }

    /// The same for a task that requests set off: it is restarted however often it panics.
    pub async fn run_for_requests<F: Future<Output = ()>>(&self, task: &'static str, work: impl Fn() -> F) {
        let mut restarts = self.restarts(task);
        while AssertUnwindSafe(work()).catch_unwind().await.is_err() {
            let span = restarts.note().unwrap_or(PAUSE_MAX);
            pause(span).await;
        }
    }

    /// The same as [`run`](Self::run) for a thread, which begins again at once.
    pub fn run_thread(&self, task: &'static str, work: impl Fn()) {
        let mut restarts = self.restarts(task);
        while catch_unwind(AssertUnwindSafe(&work)).is_err() {
            if restarts.note().is_none() {
                self.fail(task);
                return;
            }
        }
    }

    /// The restarts of one task, for a loop of its own.
    pub fn restarts(&self, task: &'static str) -> Restarts {
        Restarts { supervisor: self.clone(), task, recent: VecDeque::new() }
    }

    /// The task that is gone for good; none while all are there.
    pub fn failed_task(&self) -> Option<&'static str> {
        self.0.failed_task.get().copied()
    }

    /// Waits until a task is gone for good.
    pub async fn failed(&self) {
        self.0.failed.cancelled().await;
    }

    /// How often each task that panicked was restarted.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        self.lock().iter().map(|(task, count)| (*task, *count)).collect()
    }

    fn fail(&self, task: &'static str) {
        let _ = self.0.failed_task.set(task);
        tracing::error!(
            task,
            restarts = RESTARTS_MAX,
            window_s = RESTART_WINDOW.as_secs(),
            "the task panics again and again; this node ends"
        );
        self.0.failed.cancel();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.0.restarts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The restarts of one task.
pub struct Restarts {
    supervisor: Supervisor,
    task: &'static str,
    /// Those within the window, the oldest first.
    recent: VecDeque<BootTime>,
}

impl Restarts {
    /// Call it after a panic. True after a pause if the task is to begin again; false if the node ends instead.
    pub async fn again(&mut self) -> bool {
        if let Some(span) = self.note() {
            pause(span).await;
            true
        } else {
            self.supervisor.fail(self.task);
            false
        }
    }

    /// Counts a panic, and returns how long to wait before the restart; none where there were too many.
    fn note(&mut self) -> Option<Duration> {
        let now = self.supervisor.0.clock.boottime();
        while self.recent.front().is_some_and(|at| now.since(*at) >= RESTART_WINDOW) {
            self.recent.pop_front();
        }
        if self.recent.len() >= RESTARTS_MAX {
            return None;
        }
        self.recent.push_back(now);
        *self.supervisor.lock().entry(self.task).or_default() += 1;
        let doublings = u32::try_from(self.recent.len() - 1).unwrap_or(u32::MAX);
        let span = PAUSE_FIRST.saturating_mul(2_u32.saturating_pow(doublings)).min(PAUSE_MAX);
        tracing::error!(task = self.task, restart = self.recent.len(), "a task panicked; it is restarted");
        Some(span)
    }
}

#[expect(clippy::disallowed_methods, reason = "a restart is paused by a timer; this is its one home")]
async fn pause(span: Duration) {
    tokio::time::sleep(span).await;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::host::ManualClock;

    fn supervisor() -> (Supervisor, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::default());
        (Supervisor::new(Arc::clone(&clock) as Arc<dyn Clock>), clock)
    }

    #[tokio::test]
    async fn a_task_that_panics_a_few_times_goes_on() {
        let (supervisor, _) = supervisor();
        let runs = AtomicUsize::new(0);
        let work = || async {
            let run = runs.fetch_add(1, Ordering::Relaxed);
            assert!(run >= RESTARTS_MAX, "the test asked for this panic");
        };
        supervisor.run("task", work).await;
        assert_eq!((runs.load(Ordering::Relaxed), supervisor.failed_task()), (RESTARTS_MAX + 1, None));
        assert_eq!(supervisor.counts(), [("task", RESTARTS_MAX as u64)]);
    }

    #[tokio::test]
    async fn a_task_that_panics_without_end_ends_the_node() {
        let (supervisor, _) = supervisor();
        supervisor.run("task", || async { panic!("the test asked for this panic") }).await;
        assert_eq!(supervisor.failed_task(), Some("task"));
        supervisor.failed().await;
    }

    #[tokio::test]
    async fn panics_of_long_ago_do_not_count() {
        let (supervisor, clock) = supervisor();
        let runs = AtomicUsize::new(0);
        let work = || async {
            clock.advance(RESTART_WINDOW / 2);
            assert!(runs.fetch_add(1, Ordering::Relaxed) >= 8, "the test asked for this panic");
        };
        supervisor.run("task", work).await;
        assert_eq!(supervisor.failed_task(), None);
    }

    #[tokio::test]
    async fn no_request_ends_the_node() {
        let (supervisor, _) = supervisor();
        let runs = AtomicUsize::new(0);
        let work = || async {
            assert!(runs.fetch_add(1, Ordering::Relaxed) > RESTARTS_MAX, "the test asked for it");
        };
        supervisor.run_for_requests("task", work).await;
        assert_eq!(supervisor.failed_task(), None);
    }

    #[test]
    fn a_thread_is_restarted_likewise() {
        let (supervisor, _) = supervisor();
        let runs = AtomicUsize::new(0);
        supervisor.run_thread("one", || assert!(runs.fetch_add(1, Ordering::Relaxed) >= 2, "asked for"));
        assert_eq!((runs.load(Ordering::Relaxed), supervisor.failed_task()), (3, None));
        supervisor.run_thread("other", || panic!("the test asked for this panic"));
        assert_eq!(supervisor.failed_task(), Some("other"));
    }
}
