//! Gives each new request its first turn within the task of its connection. One that is answered at once, as nearly all
//! are that memory answers, needs no task of its own then, and what was answered together is sent together.
//!
//! Whatever is not done after that turn goes on in a task of its own, as every request would otherwise.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use hyper::rt::Executor;
use hyper_util::rt::TokioExecutor;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Requests of one connection that have come and had no turn yet. Clones share them.
#[derive(Clone, Default)]
pub struct FirstTurns(Arc<Mutex<Vec<Work>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for FirstTurns {
    fn execute(&self, work: F) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(work));
    }
}

/// A connection with the requests that come on it.
pub struct Served<'c, C> {
    /// The connection, which hands its requests to `turns`.
    pub connection: Pin<&'c mut C>,
    turns: FirstTurns,
    /// Those that have their turn; empty but for its room between two polls.
    now: Vec<Work>,
}

impl<'c, C> Served<'c, C> {
    /// Serves `connection`, which was made with `turns` for its executor.
    pub fn new(connection: Pin<&'c mut C>, turns: FirstTurns) -> Self {
        Self { connection, turns, now: Vec::new() }
    }
}

impl<C: Future> Future for Served<'_, C> {
    type Output = C::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        let this = self.get_mut();
        loop {
            let ended = this.connection.as_mut().poll(cx);
            std::mem::swap(&mut this.now, &mut *this.turns.0.lock().unwrap_or_else(PoisonError::into_inner));
            if this.now.is_empty() {
                return ended;
            }
            for mut work in this.now.drain(..) {
                // One that panics ends alone, as it would in a task of its own.
                let _ = catch_unwind(AssertUnwindSafe(|| {
                    if work.as_mut().poll(cx).is_pending() {
                        TokioExecutor::new().execute(work);
                    }
                }));
            }
            if ended.is_ready() {
                return ended;
            }
            // What was answered is to be sent.
        }
    }
}
