//! How a panic is logged: as a log line, by the writer that never blocks. The hook of the standard library writes to
//! stderr itself; there a reader that is gone turns one panic into an abort.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};
use std::time::Duration;

use super::log_writer;

/// How long a panic waits until its line is written, since the process may abort next.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(100);

/// Replaces the hook of this process.
pub fn install_panic_hook() {
    panic::set_hook(Box::new(|info| {
        log(info);
        log_writer::stderr().flush(FLUSH_TIMEOUT);
    }));
}

fn log(info: &PanicHookInfo<'_>) {
    let current = std::thread::current();
    let thread = current.name().unwrap_or("unnamed");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let message = info.payload_as_str().unwrap_or("no message");
    // Captured where RUST_BACKTRACE asks for it.
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
    if tracing::dispatcher::has_been_set() {
        let backtrace = backtrace.as_ref().map(tracing::field::display);
        tracing::error!(thread, place, backtrace, "panicked: {message}");
    } else {
        let backtrace = backtrace.map(|backtrace| format!("{backtrace}\n")).unwrap_or_default();
        let text = format!("error: thread {thread} panicked at {place}: {message}\n{backtrace}");
        log_writer::stderr().write_lines(text.as_bytes());
    }
}
