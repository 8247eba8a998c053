//! Log set-up, and every metric in one documented struct.
//!
//! Metrics and logs are wired at three seams only: the gRPC front, the use cases, and the store decorator.

pub mod log_writer;
mod panic_hook;
mod wait_report;

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

pub use self::panic_hook::install_panic_hook;
pub use self::wait_report::{REPORT_INTERVAL, report_wait};

/// How log lines are written to stderr.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people, with colours on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// Text on a terminal, JSON elsewhere.
    pub fn for_stderr() -> Self {
        if std::io::stderr().is_terminal() { Self::Text } else { Self::Json }
    }
}

/// The filter was not understood.
#[derive(Debug, thiserror::Error)]
#[error("the log filter `{filter}` is not understood: {why}")]
pub struct BadFilter {
    filter: String,
    why: String,
}

/// Whether the environment lets a terminal show colours: neither `NO_COLOR` nor `TERM=dumb` says otherwise.
pub fn shows_colours() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    set("NO_COLOR").is_none() && set("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// Starts logging to stderr, coloured on a terminal unless `plain` or the environment says otherwise. `RUST_LOG` wins over
/// `filter`. Does nothing when logging was started before.
pub fn start_logging(format: LogFormat, filter: &str, plain: bool) -> Result<(), BadFilter> {
    let filter =
        std::env::var("RUST_LOG").map_or_else(|_| filter.to_owned(), |filter| filter.trim().to_owned());
    let parsed = EnvFilter::try_new(&filter).map_err(|why| BadFilter { filter, why: why.to_string() })?;
    let colours = !plain && std::io::stderr().is_terminal() && shows_colours();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_span_events(FmtSpan::NONE)
        .with_writer(log_writer::stderr)
        // They would go to stderr by a write that may block or panic.
        .log_internal_errors(false)
        .with_ansi(colours);
    // An error only says that a subscriber is in place already.
    let _ = match format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// Every metric of one server. Times are in seconds.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// RPCs begun on the server.
    pub grpc_server_started: Family<MethodLabels, Counter>,
    /// RPCs completed on the server, by code.
    pub grpc_server_handled: Family<CodeLabels, Counter>,
    /// Time from the head of a request to the end of its answer.
    pub grpc_server_handling: Family<MethodLabels, Histogram>,
    /// Answers other than OK, by reason. (Those inside a stream of answers are not counted.)
    pub refusals: Family<ReasonLabels, Counter>,
    /// Connections that are open.
    pub connections: Gauge,
    /// Connections refused because there were too many.
    pub connections_refused: Counter,
    /// Calls of the store that were answered, by step and outcome.
    pub store_calls: Family<StoreLabels, Counter>,
    /// Time of a call of the store.
    pub store_call_time: Family<StepLabels, Histogram>,
    /// Passwords waiting to be hashed.
    pub hash_queue_len: Gauge,
    /// Argon2 computations.
    pub hash_runs: Counter,
    /// Passwords refused because the queue was full.
    pub hash_refused: Counter,
    /// Passwords not hashed because the caller had left.
    pub hash_abandoned: Counter,
    /// Stored hashes that could not be read.
    pub hash_unreadable: Counter,
    /// Hashing jobs that ended in a panic.
    pub hash_panics: Counter,
    /// Memory that these wrote, in KiB: the measure of their work.
    pub hash_work_kib: Counter,
    /// Sessions deleted after their end.
    pub sessions_purged: Counter,
    /// 1 while this node answers, 0 while it does not.
    pub ready: Gauge,
    /// Log lines that stderr did not take in time.
    pub log_lines_dropped: Counter,
    /// Restarts of tasks that panicked.
    pub task_restarts: Family<TaskLabels, Counter>,
    /// How this node stands in the fleet, and what its memory holds.
    pub fleet: FleetMetrics,
}

/// How a node stands in the fleet, and what its memory holds.
#[derive(Debug, Default)]
pub struct FleetMetrics {
    /// Milliseconds that are left of the lease; 0 while there is none.
    pub lease_left_ms: Gauge,
    /// Milliseconds by which the database's clock has jumped, while that is not explained; 0 while all is well.
    pub clock_jump_ms: Gauge,
    /// Every row of the change log up to here is in memory.
    pub applied_position: Gauge,
    /// The head of the change log, as of the last poll.
    pub head_position: Gauge,
    /// Polls of the change log that were answered.
    pub polls: Counter,
    /// Polls of the change log that were not.
    pub polls_failed: Counter,
    /// Hints from the database that the change log has grown.
    pub hints: Counter,
    /// Connections for hints that took the place of one that broke or fell silent.
    pub hint_reconnects: Counter,
    /// 1 while a connection listens for hints; always 0 where the engine has none.
    pub hints_connected: Gauge,
    /// How often this node joined the fleet.
    pub joins: Counter,
    /// How often the database lost committed changes that this node had seen.
    pub chain_breaks: Counter,
    /// Changes that this node wrote again, or found in force, after such a loss.
    pub changes_written_again: Counter,
    /// Changes that may be lost for good: the database lost their positions, and this node no longer kept them.
    pub changes_forgotten: Counter,
    /// Silent nodes that this node let go of.
    pub nodes_evicted: Counter,
    /// Reads that filled memory.
    pub fills: Counter,
    /// Sessions read by them.
    pub sessions_filled: Counter,
    /// Sessions read by them that a change had overtaken.
    pub fills_overtaken: Counter,
    /// Questions refused because too many waited to be read.
    pub fills_refused: Counter,
    /// Waits until a change was in force on every node.
    pub barriers: Counter,
    /// Those that a silent node made as long as they can be.
    pub barriers_waited_out: Counter,
    /// Microseconds spent in these waits.
    pub barrier_micros: Counter,
    /// Sessions that this node ended without knowing whether the database did, and still has to end there.
    pub sessions_unsettled: Gauge,
    /// Sessions in memory, over or not.
    pub sessions_in_memory: Gauge,
    /// Sessions and tokens that are remembered as over or unknown.
    pub dead_in_memory: Gauge,
    /// Users in memory.
    pub users_in_memory: Gauge,
    /// Sessions that left memory to make room.
    pub sessions_evicted: Counter,
}

impl FleetMetrics {
    fn register(&self, own: &mut Registry) {
        let gauges = [
            ("lease_left_milliseconds", "What is left of the lease", &self.lease_left_ms),
            (
                "database_clock_jump_milliseconds",
                "Unexplained jump of the database's clock",
                &self.clock_jump_ms,
            ),
            ("log_applied_position", "Rows of the change log that are in memory", &self.applied_position),
            ("log_head_position", "The head of the change log", &self.head_position),
            ("hints_connected", "1 while a connection listens for notifications", &self.hints_connected),
            ("sessions_unsettled", "Sessions still to be ended in the database", &self.sessions_unsettled),
            ("sessions_in_memory", "Sessions in memory, over or not", &self.sessions_in_memory),
            ("dead_in_memory", "What is remembered as over or unknown", &self.dead_in_memory),
            ("users_in_memory", "Users in memory", &self.users_in_memory),
        ];
        for (name, help, gauge) in gauges {
            own.register(name, help, gauge.clone());
        }
        let counters = [
            ("log_polls", "Polls of the change log that were answered", &self.polls),
            ("log_polls_failed", "Polls of the change log that were not answered", &self.polls_failed),
            ("hints", "Notifications that the change log has grown", &self.hints),
            (
                "hint_reconnects",
                "Connections for notifications that had to be replaced",
                &self.hint_reconnects,
            ),
            ("fleet_joins", "How often this node joined the fleet", &self.joins),
            ("log_chain_breaks", "How often the database lost committed changes", &self.chain_breaks),
            ("log_changes_written_again", "Changes written again after a loss", &self.changes_written_again),
            ("log_changes_forgotten", "Lost changes that were no longer kept", &self.changes_forgotten),
            ("nodes_evicted", "Silent nodes that this node let go of", &self.nodes_evicted),
            ("fills", "Reads that filled memory", &self.fills),
            ("sessions_filled", "Sessions read by fills", &self.sessions_filled),
            ("fills_overtaken", "Sessions read by fills that a change had overtaken", &self.fills_overtaken),
            ("fills_refused", "Questions refused for want of room among the fills", &self.fills_refused),
            ("barriers", "Waits until a change was in force everywhere", &self.barriers),
            ("barriers_waited_out", "Barriers that a silent node made long", &self.barriers_waited_out),
            ("barrier_microseconds", "Time spent in barriers", &self.barrier_micros),
            ("sessions_evicted", "Sessions that left memory to make room", &self.sessions_evicted),
        ];
        for (name, help, counter) in counters {
            own.register(name, help, counter.clone());
        }
    }
}

/// A method of a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct MethodLabels {
    /// `package.Service`.
    pub grpc_service: Arc<str>,
    /// The method.
    pub grpc_method: Arc<str>,
}

/// A counter of a family, found once.
pub type Count = Counter;

/// The series of one method, found once, so that counting takes no look-up.
#[derive(Clone, Debug)]
pub struct MethodCounts {
    started: Counter,
    handling: Histogram,
}

impl MethodCounts {
    /// An RPC begins.
    pub fn started(&self) {
        self.started.inc();
    }

    /// An RPC took so long.
    pub fn took(&self, time: Duration) {
        self.handling.observe(time.as_secs_f64());
    }
}

/// A method of a service and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CodeLabels {
    /// `package.Service`.
    pub grpc_service: Arc<str>,
    /// The method.
    pub grpc_method: Arc<str>,
    /// The name of the status code, such as `OK` or `Unauthenticated`.
    pub grpc_code: &'static str,
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabels {
    /// The name of an `ErrorReason`, without its prefix.
    pub reason: &'static str,
}

/// A step of the store and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StoreLabels {
    /// The method of the store.
    pub step: &'static str,
    /// `ok`, `unavailable`, `outcome_unknown` or `corrupt`.
    pub outcome: &'static str,
}

/// A step of the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StepLabels {
    /// The method of the store.
    pub step: &'static str,
}

/// A task that the node cannot do without.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TaskLabels {
    /// Its name.
    pub task: &'static str,
}

/// From 100 microseconds to 10 seconds.
const BUCKETS: [f64; 16] =
    [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let histogram = || Histogram::new(BUCKETS);
        let metrics = Self {
            grpc_server_started: Family::default(),
            grpc_server_handled: Family::default(),
            grpc_server_handling: Family::new_with_constructor(histogram),
            refusals: Family::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            store_calls: Family::default(),
            store_call_time: Family::new_with_constructor(histogram),
            hash_queue_len: Gauge::default(),
            hash_runs: Counter::default(),
            hash_refused: Counter::default(),
            hash_abandoned: Counter::default(),
            hash_unreadable: Counter::default(),
            hash_panics: Counter::default(),
            hash_work_kib: Counter::default(),
            sessions_purged: Counter::default(),
            ready: Gauge::default(),
            log_lines_dropped: Counter::default(),
            task_restarts: Family::default(),
            fleet: FleetMetrics::default(),
            registry: Registry::default(),
        };
        registry.register(
            "grpc_server_started",
            "RPCs begun on the server",
            metrics.grpc_server_started.clone(),
        );
        registry.register(
            "grpc_server_handled",
            "RPCs completed on the server",
            metrics.grpc_server_handled.clone(),
        );
        registry.register(
            "grpc_server_handling_seconds",
            "Time from the head of a request to the end of its answer",
            metrics.grpc_server_handling.clone(),
        );
        let own = registry.sub_registry_with_prefix("latchkey");
        own.register("refusals", "Answers other than OK, by reason", metrics.refusals.clone());
        metrics.fleet.register(own);
        own.register("connections", "Connections that are open", metrics.connections.clone());
        own.register(
            "connections_refused",
            "Connections refused for want of room",
            metrics.connections_refused.clone(),
        );
        own.register("store_calls", "Calls of the store that were answered", metrics.store_calls.clone());
        own.register("store_call_seconds", "Time of a call of the store", metrics.store_call_time.clone());
        own.register("hash_queue_length", "Passwords waiting to be hashed", metrics.hash_queue_len.clone());
        own.register("hash_work_kib", "KiB written by Argon2 computations", metrics.hash_work_kib.clone());
        own.register("hash_refused", "Passwords not hashed for want of room", metrics.hash_refused.clone());
        own.register("hash_runs", "Argon2 computations", metrics.hash_runs.clone());
        own.register("hash_abandoned", "Passwords whose caller had left", metrics.hash_abandoned.clone());
        own.register(
            "hash_unreadable",
            "Stored hashes that could not be read",
            metrics.hash_unreadable.clone(),
        );
        own.register("hash_panics", "Hashing jobs that ended in a panic", metrics.hash_panics.clone());
        own.register("sessions_purged", "Sessions deleted after their end", metrics.sessions_purged.clone());
        own.register("ready", "1 while this node answers", metrics.ready.clone());
        own.register("task_restarts", "Restarts of tasks that panicked", metrics.task_restarts.clone());
        own.register(
            "log_lines_dropped",
            "Log lines that stderr did not take in time",
            metrics.log_lines_dropped.clone(),
        );
        Self { registry, ..metrics }
    }
}

impl Metrics {
    /// All metrics in the OpenMetrics text format.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &self.registry) {
            let _ = writeln!(text, "# {error}");
        }
        text
    }

    /// The series of a method that have no other label.
    pub fn method_counts(&self, labels: &MethodLabels) -> MethodCounts {
        MethodCounts {
            started: self.grpc_server_started.get_or_create_owned(labels),
            handling: self.grpc_server_handling.get_or_create_owned(labels),
        }
    }

    /// Counts a call of the store.
    pub fn observe_store_call(&self, step: &'static str, outcome: &'static str, time: Duration) {
        self.store_calls.get_or_create(&StoreLabels { step, outcome }).inc();
        self.store_call_time.get_or_create(&StepLabels { step }).observe(time.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_that_dashboards_know_are_there() {
        let metrics = Metrics::default();
        let method = MethodLabels { grpc_service: "s".into(), grpc_method: "m".into() };
        metrics.grpc_server_started.get_or_create(&method).inc();
        let code = CodeLabels { grpc_service: "s".into(), grpc_method: "m".into(), grpc_code: "OK" };
        metrics.grpc_server_handled.get_or_create(&code).inc();
        metrics.grpc_server_handling.get_or_create(&method).observe(0.001);
        metrics.observe_store_call("user", "ok", Duration::from_millis(1));
        let text = metrics.to_text();
        for line in [
            "grpc_server_started_total{grpc_service=\"s\",grpc_method=\"m\"} 1",
            "grpc_server_handled_total{grpc_service=\"s\",grpc_method=\"m\",grpc_code=\"OK\"} 1",
            "grpc_server_handling_seconds_count{grpc_service=\"s\",grpc_method=\"m\"} 1",
            "latchkey_store_calls_total{step=\"user\",outcome=\"ok\"} 1",
            "latchkey_ready 0",
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
    }

    #[test]
    fn a_filter_that_is_not_understood_is_an_error() {
        assert!(start_logging(LogFormat::Json, "latchkey=loud", true).is_err());
    }
}
