//! What the threads of the hashing pool share, and what each of them does all its life.
//!
//! A thread takes the oldest job whose caller is still there, does it to its end, answers, and wipes its memory.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::argon::{Hasher, StoredHash};
use super::cost::Argon2Params;
use super::pool::{Overloaded, Verdict};
use crate::domain::password::{Password, PasswordHash};
use crate::host::Entropy;

/// How much nicer than the rest of the process the threads are (`nice(2)`): under full load they get about a tenth of
/// what an ordinary thread does, which keeps sign-ins going.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// Since the pool was started; see `PoolStats` for what each counts.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) runs: AtomicU64,
    pub(super) work_kib: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) abandoned: AtomicU64,
    pub(super) unreadable: AtomicU64,
    pub(super) panics: AtomicU64,
}

impl Counters {
    fn count_run(&self, params: Argon2Params) {
        self.runs.fetch_add(1, Relaxed);
        self.work_kib.fetch_add(params.work_kib(), Relaxed);
    }
}

/// A password and what is to be done with it.
pub(super) struct Job {
    pub(super) password: Password,
    pub(super) task: Task,
}

/// What is to be done, and who waits for it. A sender that is dropped tells the caller that it was not done.
pub(super) enum Task {
    Hash(oneshot::Sender<PasswordHash>),
    Verify(Option<PasswordHash>, oneshot::Sender<Verdict>),
}

impl Job {
    fn is_abandoned(&self) -> bool {
        match &self.task {
            Task::Hash(answer) => answer.is_closed(),
            Task::Verify(_, answer) => answer.is_closed(),
        }
    }
}

struct Queue {
    jobs: VecDeque<Job>,
    open: bool,
}

/// The queue, and what is needed to do a job.
pub(super) struct Shared {
    params: Argon2Params,
    dummy: StoredHash,
    entropy: Arc<dyn Entropy>,
    queue_len_max: usize,
    queue: Mutex<Queue>,
    changed: Condvar,
    pub(super) counters: Counters,
}

impl Shared {
    pub(super) fn new(params: Argon2Params, queue_len_max: usize, entropy: Arc<dyn Entropy>) -> Self {
        Self {
            params,
            dummy: StoredHash::dummy(params, &*entropy),
            entropy,
            queue_len_max,
            queue: Mutex::new(Queue { jobs: VecDeque::new(), open: true }),
            changed: Condvar::new(),
            counters: Counters::default(),
        }
    }

    pub(super) fn queue_len(&self) -> usize {
        self.lock().jobs.len()
    }

    /// Drops what waits and lets the threads end.
    pub(super) fn close(&self) {
        let mut queue = self.lock();
        queue.open = false;
        queue.jobs.clear();
        drop(queue);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn submit(&self, job: Job) -> Result<(), Overloaded> {
        let mut queue = self.lock();
        // Places of callers who left are free.
        if queue.jobs.len() >= self.queue_len_max {
            let before = queue.jobs.len();
            queue.jobs.retain(|waiting| !waiting.is_abandoned());
            self.counters.abandoned.fetch_add((before - queue.jobs.len()) as u64, Relaxed);
        }
        if !queue.open || queue.jobs.len() >= self.queue_len_max {
            self.counters.refused.fetch_add(1, Relaxed);
            return Err(Overloaded);
        }
        queue.jobs.push_back(job);
        drop(queue);
        self.changed.notify_one();
        Ok(())
    }

    /// The life of one thread.
    pub(super) fn work(&self) {
        lower_priority();
        let mut hasher = Hasher::new(self.params);
        while let Some(job) = self.next() {
            if catch_unwind(AssertUnwindSafe(|| self.run(job, &mut hasher))).is_err() {
                // The caller was answered by the channel that broke. Nothing half-done is used again.
                self.counters.panics.fetch_add(1, Relaxed);
                hasher = Hasher::new(self.params);
            }
            // After the answer, so that nobody waits for it.
            hasher.wipe();
        }
    }

    /// Waits for a job whose caller is still there. None when the pool was closed.
    fn next(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            while let Some(job) = queue.jobs.pop_front() {
                if !job.is_abandoned() {
                    return Some(job);
                }
                self.counters.abandoned.fetch_add(1, Relaxed);
            }
            if !queue.open {
                return None;
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A caller who left meanwhile hears nothing, which is all right.
    fn run(&self, job: Job, hasher: &mut Hasher) {
        let password = job.password.expose();
        match job.task {
            Task::Hash(answer) => {
                self.counters.count_run(self.params);
                let _ = answer.send(hasher.hash(password, self.params, &*self.entropy));
            }
            Task::Verify(hash, answer) => {
                let _ = answer.send(self.verify(password, hash.as_ref(), hasher));
            }
        }
    }

    fn verify(&self, password: &[u8], hash: Option<&PasswordHash>, hasher: &mut Hasher) -> Verdict {
        let parsed = hash.map(|hash| StoredHash::parse(hash.expose()));
        let (stored, without) = match parsed {
            Some(Ok(stored)) => (Some(stored), Verdict::Mismatch),
            Some(Err(_)) => {
                self.counters.unreadable.fetch_add(1, Relaxed);
                (None, Verdict::Unreadable)
            }
            None => (None, Verdict::Mismatch),
        };
        let against = stored.as_ref().unwrap_or(&self.dummy);
        self.counters.count_run(against.params);
        let equal = hasher.verify(password, against);
        // A hash cheaper than the policy would tell by its speed that this user exists.
        if let Some(rest) = self.params.remainder(against.params) {
            self.counters.count_run(rest);
            hasher.waste(password, &self.dummy, rest);
        }
        match stored {
            Some(stored) if equal => Verdict::Match { upgrade: stored.needs_upgrade(self.params) },
            _ => without,
        }
    }
}

/// Makes room for everybody else; a system that refuses leaves the thread as it is.
fn lower_priority() {
    // On Linux, and only there, this is about the calling thread and not the process.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(NICENESS);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn only_the_own_thread_becomes_nicer() {
        let nice = || rustix::process::nice(0).expect("can be asked");
        let before = nice();
        let lowered = std::thread::spawn(move || {
            lower_priority();
            nice()
        });
        assert_eq!(lowered.join().expect("no panic"), (before + NICENESS).min(19));
        assert_eq!(nice(), before);
    }
}
