//! What a connection says in one turn, gathered and sent together: a call of the system for each turn, and not for each
//! frame of HTTP/2 above a kilobyte, as h2 would have it.
//!
//! Whoever writes may flush as often as they like. What was written goes out at the end of the turn of the connection's
//! task, which asks for it ([`Outbox::send`]), or when there is as much as may wait.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

/// Bytes that may wait, and one frame beyond.
const WAITING_MAX: usize = 64 * 1024;
/// Room that is kept for the next turn. A connection that says much once does not keep all of that.
const KEPT_MAX: usize = 16 * 1024;

/// The end of a connection that is written to. Clones are the same.
pub struct Outbox<W>(Arc<Mutex<Waiting<W>>>);

struct Waiting<W> {
    end: W,
    bytes: Vec<u8>,
    /// How many of them were sent.
    sent: usize,
    /// How many went out with the last turn that left nothing.
    last: usize,
    /// Why no more can be sent.
    broken: Option<io::ErrorKind>,
}

impl<W> Clone for Outbox<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<W: AsyncWrite + Unpin> Outbox<W> {
    /// Before a connection to which nothing was written.
    pub fn new(end: W) -> Self {
        Self(Arc::new(Mutex::new(Waiting { end, bytes: Vec::new(), sent: 0, last: 0, broken: None })))
    }

    /// Sends all that waits. Pending where the other side does not take it yet; the task is woken when it does. What goes
    /// wrong is told to whoever flushes next.
    pub fn send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.waiting().send(cx)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<W>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: AsyncWrite + Unpin> Waiting<W> {
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stands()?;
        while self.sent < self.bytes.len() {
            let rest = &self.bytes[self.sent..];
            let sent = match ready!(Pin::new(&mut self.end).poll_write(cx, rest)) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                sent => sent,
            };
            self.sent += sent.inspect_err(|error| self.broken = Some(error.kind()))?;
        }
        if self.sent > 0 {
            (self.last, self.sent) = (self.sent, 0);
            self.bytes.clear();
            if self.bytes.capacity() > KEPT_MAX {
                self.bytes = Vec::new();
            }
        }
        Poll::Ready(Ok(()))
    }

    fn stands(&self) -> io::Result<()> {
        self.broken.map_or(Ok(()), |kind| Err(kind.into()))
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Outbox<W> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut waiting = self.waiting();
        waiting.stands()?;
        if waiting.bytes.len() >= WAITING_MAX {
            ready!(waiting.send(cx))?;
        }
        if waiting.bytes.capacity() == 0 {
            // This turn may say as much as the last.
            let expected = waiting.last.max(bytes.len());
            waiting.bytes.reserve(expected);
        }
        waiting.bytes.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.waiting().stands())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut waiting = self.waiting();
        ready!(waiting.send(cx))?;
        Pin::new(&mut waiting.end).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Another side that takes so many bytes, and then no more for now; or none at all.
    #[derive(Default)]
    struct Other {
        taken: Vec<Vec<u8>>,
        room: usize,
        gone: bool,
        closed: bool,
    }

    impl AsyncWrite for &mut Other {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            if self.gone {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let len = bytes.len().min(self.room);
            if len == 0 {
                return Poll::Pending;
            }
            self.room -= len;
            self.taken.push(bytes[..len].to_vec());
            Poll::Ready(Ok(len))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.closed = true;
            Poll::Ready(Ok(()))
        }
    }

    fn nobody() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    fn write(outbox: &mut Outbox<&mut Other>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *outbox).poll_write(&mut nobody(), bytes);
        let _ = Pin::new(outbox).poll_flush(&mut nobody());
        written
    }

    fn taken<R>(outbox: &Outbox<&mut Other>, look: impl FnOnce(&mut Other) -> R) -> R {
        look(&mut *outbox.waiting().end)
    }

    #[test]
    fn what_is_said_in_one_turn_goes_out_together() {
        let mut other = Other { room: 100, ..Other::default() };
        let mut outbox = Outbox::new(&mut other);
        for part in [&b"one "[..], b"two ", b"three"] {
            assert!(matches!(write(&mut outbox, part), Poll::Ready(Ok(len)) if len == part.len()));
        }
        assert!(taken(&outbox, |other| other.taken.is_empty()), "before the turn ends");
        assert!(matches!(outbox.send(&mut nobody()), Poll::Ready(Ok(()))));
        assert!(matches!(outbox.send(&mut nobody()), Poll::Ready(Ok(()))), "nothing twice");
        assert_eq!(taken(&outbox, |other| other.taken.concat()), b"one two three");
        assert_eq!(taken(&outbox, |other| other.taken.len()), 1);
    }

    #[test]
    fn who_says_too_much_waits_until_it_is_taken_and_nothing_is_lost() {
        let mut other = Other::default();
        let mut outbox = Outbox::new(&mut other);
        let mut said = Vec::new();
        for byte in 0.. {
            let frame = [byte; 16 * 1024];
            match write(&mut outbox, &frame) {
                Poll::Ready(written) => said.extend_from_slice(&frame[..written.expect("it stands")]),
                Poll::Pending => break,
            }
        }
        assert_eq!(said.len(), WAITING_MAX);
        taken(&outbox, |other| other.room = 1_000);
        assert!(write(&mut outbox, b"x").is_pending());
        assert!(outbox.send(&mut nobody()).is_pending());
        taken(&outbox, |other| other.room = usize::MAX);
        assert!(matches!(write(&mut outbox, b"x"), Poll::Ready(Ok(1))));
        said.push(b'x');
        assert!(matches!(outbox.send(&mut nobody()), Poll::Ready(Ok(()))));
        assert_eq!(taken(&outbox, |other| other.taken.concat()), said);
        assert!(outbox.waiting().bytes.capacity() <= KEPT_MAX, "the room is given back");
    }

    #[test]
    fn a_broken_connection_is_told_to_whoever_flushes() {
        let mut other = Other { gone: true, ..Other::default() };
        let mut outbox = Outbox::new(&mut other);
        assert!(matches!(write(&mut outbox, b"x"), Poll::Ready(Ok(1))), "nobody knows yet");
        assert!(matches!(outbox.send(&mut nobody()), Poll::Ready(Err(_))));
        let flushed = Pin::new(&mut outbox).poll_flush(&mut nobody());
        assert!(matches!(flushed, Poll::Ready(Err(why)) if why.kind() == io::ErrorKind::BrokenPipe));
        assert!(matches!(write(&mut outbox, b"x"), Poll::Ready(Err(_))));
    }

    #[test]
    fn the_last_words_come_before_the_end() {
        let mut other = Other { room: 2, ..Other::default() };
        let mut outbox = Outbox::new(&mut other);
        let _ = write(&mut outbox, b"bye");
        assert!(Pin::new(&mut outbox).poll_shutdown(&mut nobody()).is_pending());
        assert!(!taken(&outbox, |other| std::mem::replace(&mut other.room, 9) > 9 || other.closed));
        assert!(matches!(Pin::new(&mut outbox).poll_shutdown(&mut nobody()), Poll::Ready(Ok(()))));
        assert!(taken(&outbox, |other| other.closed && other.taken.concat() == b"bye"));
    }
}
