//! Writes lines to stderr or stdout on a thread of its own, so that a reader that is slow, stuck or gone never blocks or
//! breaks the node. Lines that find no room, or that the descriptor does not take, are dropped and counted.
//!
//! It writes to the descriptor itself, past the lock of the standard library, which a blocked write would hold.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Bytes of lines that may wait to be written.
const WAITING_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What a waiting line takes besides its text.
const LINE_OVERHEAD_BYTES: usize = 64;
/// How long the end of the process waits for lines to be written. A reader that takes nothing must not hold it up.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// A bounded queue of lines and the thread that writes them.
#[derive(Debug)]
pub struct LineWriter {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    waiting_bytes_max: usize,
    state: Mutex<State>,
    /// A line was added, or the writer was closed.
    added: Condvar,
    /// Every line was written or dropped.
    idle: Condvar,
    thread: OnceLock<ThreadId>,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Box<[u8]>>,
    /// What lines take, the one that is being written included.
    bytes: usize,
    is_writing: bool,
    is_closed: bool,
    dropped: u64,
    /// Those of `dropped` that no notice has reported yet.
    unreported: u64,
}

/// The writer of stderr, shared by the whole process. Its first use starts the thread.
pub fn stderr() -> &'static LineWriter {
    STDERR.get_or_init(|| LineWriter::start("log-writer", Stderr, WAITING_BYTES_MAX, report_dropped))
}

/// The writer of stdout, for a line that must not hold the process up.
pub fn stdout() -> &'static LineWriter {
    STDOUT.get_or_init(|| LineWriter::start("stdout-writer", Stdout, WAITING_BYTES_MAX, |_| ()))
}

static STDERR: OnceLock<LineWriter> = OnceLock::new();
static STDOUT: OnceLock<LineWriter> = OnceLock::new();

/// Waits until stderr and stdout have taken what was written, for a second at most.
pub fn flush_all() {
    for writer in [&STDOUT, &STDERR].into_iter().filter_map(OnceLock::get) {
        writer.flush(FLUSH_TIMEOUT);
    }
}

/// Calls [`flush_all`] when it goes out of scope.
#[derive(Debug)]
pub struct FlushOnDrop;

impl Drop for FlushOnDrop {
    fn drop(&mut self) {
        flush_all();
    }
}

/// Runs on the thread of the writer, whose own lines are never dropped for want of room.
fn report_dropped(dropped: u64) {
    tracing::warn!(dropped, "log lines were dropped, because stderr did not take them in time");
}

impl LineWriter {
    /// Starts the thread. `report` is called with the number of dropped lines when `output` takes lines again. Without a
    /// thread every line is dropped and counted.
    fn start(
        name: &str,
        output: impl Write + Send + 'static,
        waiting_bytes_max: usize,
        report: fn(u64),
    ) -> Self {
        let shared = Arc::new(Shared {
            waiting_bytes_max,
            state: Mutex::default(),
            added: Condvar::new(),
            idle: Condvar::new(),
            thread: OnceLock::new(),
        });
        let work = Arc::clone(&shared);
        let started = thread::Builder::new().name(name.to_owned()).spawn(move || work.run(output, report));
        if started.is_err() {
            shared.lock().is_closed = true;
        }
        Self { shared }
    }

    /// Hands one or more whole lines over, and returns at once.
    pub fn write_lines(&self, text: &[u8]) {
        let own_line = self.shared.thread.get() == Some(&thread::current().id());
        let takes = text.len() + LINE_OVERHEAD_BYTES;
        let mut state = self.shared.lock();
        let has_room = own_line || state.bytes + takes <= self.shared.waiting_bytes_max;
        if state.is_closed || !has_room {
            state.dropped += 1;
            state.unreported += 1;
            return;
        }
        state.bytes += takes;
        state.lines.push_back(text.into());
        drop(state);
        self.shared.added.notify_one();
    }

    /// Waits until no line waits any more, for `timeout` at most. False where some still do.
    pub fn flush(&self, timeout: Duration) -> bool {
        let busy = |state: &mut State| state.is_writing || !state.lines.is_empty();
        let waited = self.shared.idle.wait_timeout_while(self.shared.lock(), timeout, busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Lines that were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.shared.lock().dropped
    }
}

impl Drop for LineWriter {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.added.notify_one();
    }
}

/// One call of `write` is one line or more, as the formatter of log lines does it. It never fails.
impl Write for &LineWriter {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.write_lines(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of the thread. A panic costs one line.
    fn run(&self, mut output: impl Write, report: fn(u64)) {
        let _ = self.thread.set(thread::current().id());
        let mut mid_line = false;
        while let Some(line) = self.next() {
            let written =
                catch_unwind(AssertUnwindSafe(|| write_line(&mut output, &line, &mut mid_line).is_ok()));
            let unreported = self.done(&line, written.unwrap_or(false));
            if unreported > 0 {
                let _ = catch_unwind(|| report(unreported));
            }
        }
    }

    /// Waits for the next line; none when the writer was closed and nothing is left.
    fn next(&self) -> Option<Box<[u8]>> {
        let mut state = self.lock();
        state.is_writing = false;
        loop {
            if let Some(line) = state.lines.pop_front() {
                state.is_writing = true;
                return Some(line);
            }
            self.idle.notify_all();
            if state.is_closed {
                return None;
            }
            state = self.added.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Accounts for a line, and returns how many dropped lines are to be reported now.
    fn done(&self, line: &[u8], is_written: bool) -> u64 {
        let mut state = self.lock();
        state.bytes -= line.len() + LINE_OVERHEAD_BYTES;
        if is_written {
            return std::mem::take(&mut state.unreported);
        }
        state.dropped += 1;
        state.unreported += 1;
        0
    }
}

/// Writes a line. `mid_line` says whether the last one broke off in the middle; the next one then begins on a line of its
/// own.
fn write_line(output: &mut impl Write, line: &[u8], mid_line: &mut bool) -> io::Result<()> {
    if *mid_line {
        output.write_all(b"\n")?;
        *mid_line = false;
    }
    let mut rest = line;
    while !rest.is_empty() {
        match output.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                rest = &rest[count..];
                *mid_line = !rest.is_empty();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_to(io::stderr().as_fd(), bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_to(io::stdout().as_fd(), bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Another process may have made the open file non-blocking; then this waits as a blocking write does.
fn write_to(descriptor: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match rustix::io::write(descriptor, bytes) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => match poll(&mut [PollFd::new(&descriptor, PollFlags::OUT)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            },
            written => return Ok(written?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc;

    use super::*;

    /// Long enough for the slowest machine.
    const PATIENCE: Duration = Duration::from_mins(1);
    const ROOM: usize = 10 * (LINE_OVERHEAD_BYTES + 1);

    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Mood {
        Takes,
        Blocks,
        Fails,
        /// Takes one byte, and fails after that.
        BreaksOff,
    }

    /// A descriptor whose mood the test sets.
    #[derive(Clone)]
    struct Pipe(Arc<Ends>);

    struct Ends {
        state: Mutex<(Mood, Vec<u8>)>,
        changed: Condvar,
    }

    impl Pipe {
        fn new(mood: Mood) -> Self {
            Self(Arc::new(Ends { state: Mutex::new((mood, Vec::new())), changed: Condvar::new() }))
        }

        fn set(&self, mood: Mood) {
            self.0.state.lock().expect("no panic").0 = mood;
            self.0.changed.notify_all();
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.state.lock().expect("no panic").1.clone()).expect("a text")
        }
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let state = self.0.state.lock().expect("no panic");
            let mut state =
                self.0.changed.wait_while(state, |state| state.0 == Mood::Blocks).expect("no panic");
            let count = match state.0 {
                Mood::Fails => return Err(io::ErrorKind::BrokenPipe.into()),
                Mood::BreaksOff => {
                    state.0 = Mood::Fails;
                    1
                }
                Mood::Takes | Mood::Blocks => bytes.len(),
            };
            state.1.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Whether `work` returns although nobody reads the pipe.
    fn returns(work: impl FnOnce() + Send + 'static) -> bool {
        let (done, returned) = mpsc::channel();
        thread::spawn(move || {
            work();
            let _ = done.send(());
        });
        returned.recv_timeout(Duration::from_secs(2)).is_ok()
    }

    #[test]
    fn a_pipe_that_nobody_reads_holds_nobody_up_and_drops_are_reported_when_it_is_read_again() {
        static REPORTED: AtomicU64 = AtomicU64::new(0);
        let pipe = Pipe::new(Mood::Blocks);
        let report = |count| _ = REPORTED.fetch_add(count, Ordering::Relaxed);
        let writer = Arc::new(LineWriter::start("test", pipe.clone(), ROOM, report));
        let lines = Arc::clone(&writer);
        assert!(returns(move || (0..100).for_each(|_| lines.write_lines(b"\n"))));
        assert_eq!((writer.dropped(), writer.flush(Duration::from_millis(1))), (90, false));
        pipe.set(Mood::Takes);
        assert!(writer.flush(PATIENCE));
        assert_eq!((pipe.text().len(), REPORTED.load(Ordering::Relaxed), writer.dropped()), (10, 90, 90));
        writer.write_lines(b"\n");
        assert!(writer.flush(PATIENCE));
        assert_eq!((pipe.text().len(), REPORTED.load(Ordering::Relaxed)), (11, 90), "room is given back");
    }

    #[test]
    fn a_writer_that_blocks_is_seen() {
        let pipe = Pipe::new(Mood::Blocks);
        let mut direct = pipe.clone();
        assert!(!returns(move || direct.write_all(b"\n").expect("taken in the end")));
        pipe.set(Mood::Takes);
    }

    #[test]
    fn a_descriptor_that_fails_costs_lines_and_nothing_else() {
        static REPORTED: AtomicU64 = AtomicU64::new(0);
        let pipe = Pipe::new(Mood::Fails);
        let report = |count| _ = REPORTED.fetch_add(count, Ordering::Relaxed);
        let writer = LineWriter::start("test", pipe.clone(), ROOM, report);
        writer.write_lines(b"one\n");
        writer.write_lines(b"two\n");
        assert!(writer.flush(PATIENCE));
        assert_eq!((writer.dropped(), REPORTED.load(Ordering::Relaxed)), (2, 0));
        pipe.set(Mood::BreaksOff);
        writer.write_lines(b"three\n");
        assert!(writer.flush(PATIENCE));
        pipe.set(Mood::Takes);
        writer.write_lines(b"four\n");
        assert!(writer.flush(PATIENCE));
        assert_eq!((pipe.text().as_str(), writer.dropped()), ("t\nfour\n", 3));
        assert_eq!(REPORTED.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_panic_of_the_writer_costs_one_line() {
        struct Panics(u32);
        impl Write for Panics {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 += 1;
                assert!(self.0 > 1, "the test asked for this panic");
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let writer = LineWriter::start("test", Panics(0), ROOM, |_| ());
        writer.write_lines(b"one\n");
        writer.write_lines(b"two\n");
        assert!(writer.flush(PATIENCE));
        assert_eq!(writer.dropped(), 1);
    }
}
