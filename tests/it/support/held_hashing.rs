//! Entropy that can hold the hashing threads: a new hash needs a salt, so whoever keeps the salt back stops the thread in
//! the middle of its job, and everybody else waits in the queue.

use std::sync::{Condvar, Mutex, MutexGuard};

use latchkey::host::{Entropy, SeededEntropy};

use super::waiting::eventually;

/// Seeded entropy; the hashing threads get theirs when they are not held.
pub struct HeldHashing {
    seeded: SeededEntropy,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    hold: bool,
    held: usize,
}

impl HeldHashing {
    /// The stream of bytes of `seed`; nobody is held.
    pub fn new(seed: u64) -> Self {
        Self { seeded: SeededEntropy::new(seed), state: Mutex::default(), changed: Condvar::new() }
    }

    /// From now on a thread that makes a new hash stops at the salt.
    pub fn hold(&self) {
        self.lock().hold = true;
    }

    /// Lets them go on.
    pub fn release(&self) {
        self.lock().hold = false;
        self.changed.notify_all();
    }

    /// Waits until a thread is held.
    pub async fn reached(&self) {
        eventually("a hashing thread is held", async || self.lock().held > 0).await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics in here")
    }
}

impl Entropy for HeldHashing {
    fn fill(&self, buffer: &mut [u8]) {
        if std::thread::current().name().is_some_and(|name| name.starts_with("latchkey-hash")) {
            let mut state = self.lock();
            state.held += 1;
            let mut state =
                self.changed.wait_while(state, |state| state.hold).expect("no test panics in here");
            state.held -= 1;
        }
        self.seeded.fill(buffer);
    }
}
