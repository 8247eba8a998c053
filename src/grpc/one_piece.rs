//! A connection that is written to in one piece.
//!
//! h2 asks once, before anything is written, whether a connection takes several pieces at once. Told that it does, it sends
//! each DATA frame above 256 bytes as a piece of its own, and so one answer with each call of the system; told that it does
//! not, it copies frames of up to 1 KiB behind each other, and nearly all of our answers are of that size. Frames above are
//! still gathered: what it asks later is answered as it is.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

/// The end of a connection that is written to.
pub struct OnePiece<W> {
    end: W,
    begun: bool,
}

impl<W> OnePiece<W> {
    /// Of a connection to which nothing was written.
    pub fn new(end: W) -> Self {
        Self { end, begun: false }
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for OnePiece<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.begun = true;
        Pin::new(&mut self.end).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.end).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.end).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.end).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.begun && self.end.is_write_vectored()
    }
}
