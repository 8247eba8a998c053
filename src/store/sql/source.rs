//! The places that steps run on, which are replaced as a whole when they lead to the wrong server; those of the follower,
//! which is one, also when a step on it fails.
//!
//! A node whose only connection for following the log hangs would be without a lease although the database answers, so it
//! does not wait until that one place is looked at.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::places::Places;

/// How often places are looked at for connections that never came back. Longer than a connection may take.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Places, and perhaps how to make others.
#[derive(Clone)]
pub(super) struct Source {
    current: Arc<Mutex<Current>>,
    make: Option<Arc<dyn Fn() -> Places + Send + Sync>>,
    is_for_one: bool,
}

struct Current {
    places: Places,
    number: u64,
    is_last: bool,
}

impl Source {
    /// Places that stay.
    pub(super) fn lasting(places: Places) -> Self {
        let current = Current { places, number: 0, is_last: false };
        Self { current: Arc::new(Mutex::new(current)), make: None, is_for_one: false }
    }

    /// Places that are replaced when it is asked for.
    pub(super) fn renewed_by(make: impl Fn() -> Places + Send + Sync + 'static) -> Self {
        let places = make();
        Self { make: Some(Arc::new(make)), ..Self::lasting(places) }
    }

    /// The same, also when a step fails.
    pub(super) fn renewed_at_failure_by(make: impl Fn() -> Places + Send + Sync + 'static) -> Self {
        Self { is_for_one: true, ..Self::renewed_by(make) }
    }

    /// The places of now, and their number.
    pub(super) fn current(&self) -> (Places, u64) {
        let current = self.lock();
        (current.places.clone(), current.number)
    }

    /// The places of now, to be closed: there will be no others.
    pub(super) fn last(&self) -> Places {
        let mut current = self.lock();
        current.is_last = true;
        current.places.clone()
    }

    /// A step begins; where places are for one, a step that fails, or that nobody waits for any more, is not to be followed
    /// by another one on the same.
    pub(super) fn begin(&self) -> Attempt<'_> {
        Attempt { source: self, number: self.lock().number, is_over: !self.is_for_one }
    }

    /// Replaces the places of that number. Steps that failed together failed on the same ones.
    pub(super) fn renew(&self, number: u64) {
        let Some(make) = &self.make else { return };
        let mut current = self.lock();
        if current.number == number && !current.is_last {
            *current = Current { places: make(), number: number + 1, is_last: false };
        }
    }

    /// Looks at places that can be replaced now and then, for as long as both this source and what is answered are there.
    pub(super) fn watch(&self) -> Option<AbortOnDropHandle<()>> {
        self.make.as_ref()?;
        let watching = TaskTracker::new().spawn(look_again_and_again(Arc::downgrade(&self.current)));
        Some(AbortOnDropHandle::new(watching))
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        lock(&self.current)
    }
}

fn lock(current: &Mutex<Current>) -> MutexGuard<'_, Current> {
    current.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn look_again_and_again(current: Weak<Mutex<Current>>) {
    let mut turns = tokio::time::interval(LOOK_INTERVAL);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        let Some(current) = current.upgrade() else { return };
        let places = lock(&current).places.clone();
        places.look();
    }
}

/// A step on the places that were current when it began.
pub(super) struct Attempt<'s> {
    source: &'s Source,
    number: u64,
    is_over: bool,
}

impl Attempt<'_> {
    /// The step ended well.
    pub(super) fn succeeded(mut self) {
        self.is_over = true;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.source.renew(self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use sea_orm::DatabaseConnection;

    use super::*;

    #[test]
    fn places_are_replaced_once_however_many_steps_fail_on_them() {
        let made = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&made);
        let source = Source::renewed_at_failure_by(move || {
            count.fetch_add(1, Ordering::SeqCst);
            Places::Common(DatabaseConnection::default())
        });
        source.begin().succeeded();
        assert_eq!(made.load(Ordering::SeqCst), 1, "what works is kept");
        let (one, other) = (source.begin(), source.begin());
        drop(one);
        drop(other);
        assert_eq!(made.load(Ordering::SeqCst), 2);
        drop(source.begin());
        assert_eq!(made.load(Ordering::SeqCst), 3);
        source.last();
        drop(source.begin());
        assert_eq!(made.load(Ordering::SeqCst), 3, "what is closed stays closed");
    }

    #[test]
    fn lasting_places_are_kept_whatever_fails() {
        let source = Source::lasting(Places::Common(DatabaseConnection::default()));
        drop(source.begin());
        source.renew(0);
        assert_eq!(source.lock().number, 0);
    }
}
