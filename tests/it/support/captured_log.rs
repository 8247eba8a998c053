//! Everything that the server and its database driver log, down to the finest level, while a test listens.

use std::io;
use std::sync::{LazyLock, Mutex, MutexGuard};

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

/// What was logged since somebody listens; none while nobody does.
static HEARD: Mutex<Option<Vec<u8>>> = Mutex::new(None);
/// One subscriber serves the whole process: the server logs from many threads.
static LISTENING: LazyLock<()> = LazyLock::new(|| {
    let wanted = dynamic_filter_fn(|line, _| {
        let ours = ["latchkey", "sqlx", "sea_orm"].iter().any(|name| line.target().starts_with(name));
        ours && *line.level() <= Level::TRACE && heard().is_some()
    });
    let lines = tracing_subscriber::fmt::layer().json().with_writer(Ear);
    let lines = lines.with_filter(wanted.with_max_level_hint(LevelFilter::TRACE));
    let subscriber = tracing_subscriber::registry().with(lines);
    tracing::subscriber::set_global_default(subscriber).expect("no other test listens by itself");
});

fn heard() -> MutexGuard<'static, Option<Vec<u8>>> {
    HEARD.lock().expect("no test panics in here")
}

/// Begins to listen; lines of other tests that run meanwhile are heard as well.
pub fn listen() {
    LazyLock::force(&LISTENING);
    heard().get_or_insert_default();
}

/// Stops to listen, and gives what was logged meanwhile.
pub fn stop() -> Vec<String> {
    let text = String::from_utf8(heard().take().unwrap_or_default()).expect("lines are texts");
    text.lines().map(str::to_owned).collect()
}

/// Writes down what is logged.
struct Ear;

impl io::Write for Ear {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(heard) = heard().as_mut() {
            heard.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Ear {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}
