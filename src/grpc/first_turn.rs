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
use tokio::io::AsyncWrite;

use super::outbox::Outbox;

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
pub struct Served<'c, C, W> {
    /// The connection, which hands its requests to `turns`.
    pub connection: Pin<&'c mut C>,
    turns: FirstTurns,
    /// Those that have their turn; empty but for its room between two polls.
    now: Vec<Work>,
    outbox: Outbox<W>,
}

impl<'c, C: Future, W: AsyncWrite + Unpin> Served<'c, C, W> {
    /// Serves `connection`, which was made with `turns` for its executor and writes into `outbox`.
    pub fn new(connection: Pin<&'c mut C>, turns: FirstTurns, outbox: Outbox<W>) -> Self {
        Self { connection, turns, now: Vec::new(), outbox }
    }

    /// Reads what has come and answers what can be answered, until there is nothing more for now, or the connection ends.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<C::Output> {
        loop {
            let ended = self.connection.as_mut().poll(cx);
            std::mem::swap(&mut self.now, &mut *self.turns.0.lock().unwrap_or_else(PoisonError::into_inner));
            if self.now.is_empty() {
                return ended;
            }
            for mut work in self.now.drain(..) {
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

impl<C: Future, W: AsyncWrite + Unpin> Future for Served<'_, C, W> {
    type Output = C::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        let this = self.get_mut();
        let ended = this.turn(cx);
        if let Poll::Ready(Err(_)) = this.outbox.send(cx)
            && ended.is_pending()
        {
            // The connection learns of it when it flushes, as it does in each turn.
            cx.waker().wake_by_ref();
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Waker;

    use super::*;

    #[tokio::test]
    async fn each_has_a_turn_and_one_that_panics_ends_alone() {
        let (turns, done) = (FirstTurns::default(), Arc::new(AtomicU32::new(0)));
        let count = |by: u32| {
            let done = Arc::clone(&done);
            async move {
                done.fetch_add(by, Ordering::Relaxed);
            }
        };
        turns.execute(count(1));
        turns.execute(async { panic!("a defect") });
        turns.execute(count(10));
        turns.execute(pending());
        let mut polls = 0;
        let connection = std::pin::pin!(poll_fn(|_| {
            polls += 1;
            Poll::<()>::Pending
        }));
        let mut served = Served::new(connection, turns.clone(), Outbox::new(tokio::io::sink()));
        let mut nobody = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut served).poll(&mut nobody).is_pending());
        assert_eq!(done.load(Ordering::Relaxed), 11);
        turns.execute(count(100));
        assert!(Pin::new(&mut served).poll(&mut nobody).is_pending());
        assert_eq!(done.load(Ordering::Relaxed), 111);
        assert_eq!(polls, 4, "what was answered is written in the same turn");
    }
}
