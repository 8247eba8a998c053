//! The hashing pool: dedicated threads at low priority behind a bounded queue, so that a storm of sign-ins slows
//! sign-ins down and nothing else.
//!
//! A thread is busy until its hash is done, whether the caller still waits or not; who left before the hash began costs
//! nothing. Every verification does at least the work of the policy, whatever there is to verify against; only a stored
//! hash that costs more takes more. At its peak the pool holds
//! `threads` times the memory of one hash (of the policy; up to [`MEMORY_KIB_MAX`](super::cost::MEMORY_KIB_MAX) while
//! a stored hash asks for more).

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::oneshot;

use super::cost::Argon2Params;
use super::worker::{Job, Shared, Task};
use crate::domain::password::{Password, PasswordHash};
use crate::host::Entropy;
use crate::supervise::Supervisor;

/// How big a pool is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolLimits {
    /// Threads, each with the memory of one hash; at least 1.
    pub threads: usize,
    /// Jobs that may wait for a thread; at least 1.
    pub queue_len_max: usize,
}

impl PoolLimits {
    /// All cores but one, which is left to those who are signed in already.
    pub fn default_threads() -> usize {
        std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1))
    }
}

/// The queue is full, or the pool was closed: the job was not done. Wait, or ask another node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the password hashing pool has too much to do")]
pub struct Overloaded;

/// What became of a verification.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is the password.
    Match {
        /// The hash is not what the policy asks for: hash the password again and store that.
        upgrade: bool,
    },
    /// It is not, or there was nothing to verify against.
    Mismatch,
    /// The stored hash cannot be read, or asks for more than is allowed. To the client this is a mismatch, and it took
    /// as long; the operator should hear of it.
    Unreadable,
}

/// What a pool did since it was started, and what waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolStats {
    /// Jobs waiting for a thread now; some of their callers may have left.
    pub queue_len: usize,
    /// Argon2 computations.
    pub runs: u64,
    /// Memory written by them in all, in KiB: the measure of their work.
    pub work_kib: u64,
    /// Jobs refused because the queue was full.
    pub refused: u64,
    /// Jobs not started because the caller had left.
    pub abandoned: u64,
    /// Stored hashes that could not be read.
    pub unreadable: u64,
    /// Jobs that ended in a panic; a defect.
    pub panics: u64,
}

/// The pool. Dropping it closes it.
pub struct HashingPool {
    shared: Arc<Shared>,
}

impl HashingPool {
    /// Starts the threads, which `supervisor` restarts. New hashes cost `params`. Limits of zero and costs out of bounds
    /// are invalid input.
    pub fn start(
        params: Argon2Params,
        limits: PoolLimits,
        entropy: Arc<dyn Entropy>,
        supervisor: &Supervisor,
    ) -> io::Result<Self> {
        params.check_bounds().map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
        if limits.threads == 0 || limits.queue_len_max == 0 {
            let why = "a hashing pool needs at least one thread and one place in its queue";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let shared = Arc::new(Shared::new(params, limits.queue_len_max, entropy));
        // Made first: where a thread cannot be started, dropping it ends those that were.
        let pool = Self { shared };
        for number in 0..limits.threads {
            let (shared, supervisor) = (Arc::clone(&pool.shared), supervisor.clone());
            std::thread::Builder::new()
                .name(format!("latchkey-hash-{number}"))
                .spawn(move || supervisor.run_thread("hashing", || shared.work()))?;
        }
        Ok(pool)
    }

    /// Hashes a new password by the policy.
    pub async fn hash(&self, password: Password) -> Result<PasswordHash, Overloaded> {
        let (answer, outcome) = oneshot::channel();
        self.shared.submit(Job { password, task: Task::Hash(answer) })?;
        outcome.await.map_err(|_| Overloaded)
    }

    /// Verifies a password. Without a hash (no such user, no password, a user who may not sign in) the work is done all
    /// the same, and the verdict is a mismatch.
    pub async fn verify(
        &self,
        password: Password,
        hash: Option<PasswordHash>,
    ) -> Result<Verdict, Overloaded> {
        let (answer, outcome) = oneshot::channel();
        self.shared.submit(Job { password, task: Task::Verify(hash, answer) })?;
        outcome.await.map_err(|_| Overloaded)
    }

    /// Jobs waiting for a thread now.
    pub fn queue_len(&self) -> usize {
        self.shared.queue_len()
    }

    /// Counters, for metrics.
    pub fn stats(&self) -> PoolStats {
        let counters = &self.shared.counters;
        PoolStats {
            queue_len: self.queue_len(),
            runs: counters.runs.load(Relaxed),
            work_kib: counters.work_kib.load(Relaxed),
            refused: counters.refused.load(Relaxed),
            abandoned: counters.abandoned.load(Relaxed),
            unreadable: counters.unreadable.load(Relaxed),
            panics: counters.panics.load(Relaxed),
        }
    }

    /// Takes no more jobs; those that wait are answered [`Overloaded`], those that run are finished, and the threads
    /// end by themselves.
    pub fn close(&self) {
        self.shared.close();
    }
}

impl Drop for HashingPool {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};
    use std::time::Duration;

    use futures_util::poll;

    use super::*;
    use crate::host::SeededEntropy;
    use crate::passwords::argon::Hasher;

    const CHEAP: Argon2Params = Argon2Params::unchecked(64, 2, 1);
    /// Long enough for the slowest machine; nothing waits that long unless it is broken.
    const PATIENCE: Duration = Duration::from_mins(1);

    /// Entropy that holds whoever asks, while it is shut: new hashes need a salt, so this stops a thread mid-job.
    #[derive(Default)]
    struct Gate {
        state: Mutex<GateState>,
        changed: Condvar,
    }

    #[derive(Default)]
    struct GateState {
        shut: bool,
        held: usize,
        panic_next: bool,
    }

    impl Gate {
        fn set(&self, change: impl FnOnce(&mut GateState)) {
            change(&mut self.state.lock().expect("no panic"));
            self.changed.notify_all();
        }

        fn wait_until(&self, reached: impl Fn(&GateState) -> bool) {
            let state = self.state.lock().expect("no panic");
            let (_state, wait) =
                self.changed.wait_timeout_while(state, PATIENCE, |state| !reached(state)).expect("no panic");
            assert!(!wait.timed_out(), "the gate never got there");
        }
    }

    impl Entropy for Gate {
        fn fill(&self, buffer: &mut [u8]) {
            let mut state = self.state.lock().expect("no panic");
            let panics = std::mem::take(&mut state.panic_next);
            state.held += 1;
            self.changed.notify_all();
            let mut state = self.changed.wait_while(state, |state| state.shut).expect("no panic");
            state.held -= 1;
            drop(state);
            assert!(!panics, "the test asked for this panic");
            buffer.fill(7);
        }
    }

    fn supervisor() -> Supervisor {
        Supervisor::new(Arc::new(crate::host::SystemClock))
    }

    fn pool(threads: usize, queue_len_max: usize) -> (HashingPool, Arc<Gate>) {
        let gate = Arc::new(Gate::default());
        let limits = PoolLimits { threads, queue_len_max };
        let pool = HashingPool::start(CHEAP, limits, Arc::clone(&gate) as Arc<dyn Entropy>, &supervisor());
        (pool.expect("threads can be started"), gate)
    }

    fn password(text: &str) -> Password {
        Password::parse(text).expect("a password")
    }

    /// Makes the only thread of a pool stop in the middle of a job, and hands out that job.
    async fn hold(
        pool: &HashingPool,
        gate: &Gate,
    ) -> std::pin::Pin<Box<impl Future<Output = Result<PasswordHash, Overloaded>>>> {
        gate.set(|state| state.shut = true);
        let mut held = Box::pin(pool.hash(password("held")));
        assert!(poll!(held.as_mut()).is_pending());
        gate.wait_until(|state| state.held == 1);
        held
    }

    #[tokio::test]
    async fn a_password_verifies_against_its_own_hash_only() {
        let (pool, _) = pool(2, 8);
        let hash = pool.hash(password("correct horse")).await.expect("room");
        let verify = async |text| pool.verify(password(text), Some(hash.clone())).await;
        assert_eq!(verify("correct horse").await, Ok(Verdict::Match { upgrade: false }));
        assert_eq!(verify("correct horsf").await, Ok(Verdict::Mismatch));
        assert_eq!(verify("correct horse ").await, Ok(Verdict::Mismatch));
    }

    #[tokio::test]
    async fn a_hash_of_other_cost_matches_and_asks_for_its_upgrade() {
        let (pool, _) = pool(1, 8);
        let mut hasher = Hasher::new(CHEAP);
        for cost in [Argon2Params::unchecked(16, 1, 1), Argon2Params::unchecked(128, 3, 2)] {
            let old = hasher.hash(b"correct horse", cost, &SeededEntropy::new(1));
            let verdict = pool.verify(password("correct horse"), Some(old)).await;
            assert_eq!(verdict, Ok(Verdict::Match { upgrade: true }), "{cost:?}");
        }
    }

    #[tokio::test]
    async fn every_refusal_costs_the_same_work() {
        let (pool, _) = pool(1, 8);
        let own = pool.hash(password("correct horse")).await.expect("room");
        let mut hasher = Hasher::new(CHEAP);
        let weak = hasher.hash(b"correct horse", Argon2Params::unchecked(16, 1, 1), &SeededEntropy::new(1));
        let hostile = "$argon2id$v=19$m=4294967295,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA";
        let cases = [
            (Some(own), Verdict::Mismatch),
            (None, Verdict::Mismatch),
            (Some(weak), Verdict::Mismatch),
            (Some(PasswordHash::from_phc(hostile.to_owned())), Verdict::Unreadable),
            (Some(PasswordHash::from_phc(String::new())), Verdict::Unreadable),
        ];
        for (hash, verdict) in cases {
            let before = pool.stats();
            assert_eq!(pool.verify(password("wrong"), hash.clone()).await, Ok(verdict), "{hash:?}");
            let after = pool.stats();
            assert_eq!(after.work_kib - before.work_kib, CHEAP.work_kib(), "{verdict:?}");
            assert!(after.runs > before.runs);
        }
        assert_eq!(pool.stats().unreadable, 2);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once_and_recovers() {
        let (pool, gate) = pool(1, 2);
        let held = hold(&pool, &gate).await;
        let mut waiting = [Box::pin(pool.hash(password("a"))), Box::pin(pool.hash(password("b")))];
        for job in &mut waiting {
            assert!(poll!(job.as_mut()).is_pending());
        }
        assert_eq!(pool.queue_len(), 2);
        assert_eq!(pool.verify(password("c"), None).await, Err(Overloaded));
        assert_eq!((pool.queue_len(), pool.stats().refused), (2, 1));
        gate.set(|state| state.shut = false);
        assert!(held.await.is_ok());
        for job in waiting {
            assert!(job.await.is_ok());
        }
        assert_eq!(pool.verify(password("c"), None).await, Ok(Verdict::Mismatch));
    }

    #[tokio::test]
    async fn jobs_of_callers_who_left_are_not_started() {
        let (pool, gate) = pool(1, 2);
        let held = hold(&pool, &gate).await;
        let mut left = [Box::pin(pool.hash(password("a"))), Box::pin(pool.hash(password("b")))];
        for job in &mut left {
            assert!(poll!(job.as_mut()).is_pending());
        }
        drop(left);
        // Their places are free again before the thread has seen them.
        let mut stays = Box::pin(pool.verify(password("c"), None));
        assert!(poll!(stays.as_mut()).is_pending());
        let mut leaves = Box::pin(pool.hash(password("d")));
        assert!(poll!(leaves.as_mut()).is_pending());
        drop(leaves);
        // The one that runs is finished, although nobody waits for it: the thread belongs to the hash.
        drop(held);
        gate.set(|state| state.shut = false);
        assert_eq!(stays.await, Ok(Verdict::Mismatch));
        assert_eq!(pool.verify(password("e"), None).await, Ok(Verdict::Mismatch));
        let PoolStats { runs, abandoned, refused, .. } = pool.stats();
        assert_eq!((runs, abandoned, refused), (3, 3, 0));
    }

    #[tokio::test]
    async fn a_panic_is_answered_counted_and_survived() {
        let (pool, gate) = pool(1, 2);
        gate.set(|state| state.panic_next = true);
        assert_eq!(pool.hash(password("a")).await, Err(Overloaded));
        assert!(pool.hash(password("a")).await.is_ok());
        assert_eq!(pool.stats().panics, 1);
    }

    #[tokio::test]
    async fn closing_refuses_what_waits_finishes_what_runs_and_ends_the_threads() {
        let (pool, gate) = pool(1, 2);
        let held = hold(&pool, &gate).await;
        let mut waiting = Box::pin(pool.hash(password("a")));
        assert!(poll!(waiting.as_mut()).is_pending());
        pool.close();
        assert_eq!(waiting.await, Err(Overloaded));
        assert_eq!(pool.hash(password("b")).await, Err(Overloaded));
        let shared = Arc::downgrade(&pool.shared);
        gate.set(|state| state.shut = false);
        assert!(held.await.is_ok());
        drop(pool);
        let deadline = tokio::time::timeout(PATIENCE, async {
            while shared.strong_count() > 0 {
                tokio::task::yield_now().await;
            }
        });
        assert!(deadline.await.is_ok(), "a thread did not end");
    }

    #[test]
    fn senseless_limits_are_refused() {
        let start = |params, threads, queue_len_max| {
            let limits = PoolLimits { threads, queue_len_max };
            HashingPool::start(params, limits, Arc::new(SeededEntropy::new(1)), &supervisor()).is_ok()
        };
        assert!(!start(CHEAP, 0, 1) && !start(CHEAP, 1, 0));
        assert!(!start(Argon2Params::unchecked(u32::MAX, 1, 1), 1, 1));
        assert!(start(CHEAP, PoolLimits::default_threads(), 1));
    }
}
