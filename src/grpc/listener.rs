//! Accepts connections, bounded in number, and speaks HTTP/2 on each with every limit set.
//!
//! tonic's own transport leaves streams and resets unbounded and can wait for ever when it shuts down; here both have
//! limits, and the drain ends when it is told to.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::first_turn::{FirstTurns, Served};
use super::front::Front;
use super::keepalive::KeepaliveTimer;
use super::outbox::Outbox;
use crate::host::Ticks;
use crate::supervise::Supervisor;
use crate::telemetry::Metrics;

/// Bounds on what clients may take.
#[derive(Clone, Copy, Debug)]
pub struct WireLimits {
    /// Open connections.
    pub connections_max: usize,
    /// Open connections of one network address.
    pub connections_per_address_max: usize,
    /// Streams of one connection at a time.
    pub streams_per_connection_max: u32,
    /// Bytes of all headers of a request.
    pub header_list_bytes_max: u32,
    /// How long a new connection may take to begin to speak HTTP/2.
    pub first_byte_timeout: Duration,
    /// How often a quiet connection is asked whether it lives.
    pub keepalive_interval: Duration,
    /// How long it may take to answer that.
    pub keepalive_timeout: Duration,
}

/// What each connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Streams that this side may break, since a client misbehaves, before it closes the connection.
const LOCAL_RESETS_MAX: usize = 256;
/// Streams that a client may break before they were looked at; with more, its connection is closed (CVE-2023-44487).
const UNSEEN_RESETS_MAX: usize = 20;
/// Bytes of a stream that may wait to be read.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// Bytes of a connection that may wait to be read. h2 closes a connection with `too_many_data_frames` once the DATA frames
/// that wait on it fall short of 256 bytes each by more than half of this, in all. The window of a stream holds 753 questions
/// of 87 bytes, each in a frame of its own as most clients send them, which fall short by 127 KB: eight such streams may wait.
const CONNECTION_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// Connections refused for each line of the log about it.
const REFUSED_PER_LOG_LINE: u64 = 1_000;
/// Failures to accept a connection for each line of the log about them: one every ten seconds.
const FAILURES_PER_LOG_LINE: u64 = 200;
/// How long to wait after the machine has no room for one more connection.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);

/// Accepts connections until `stop`, restarted by `supervisor`, then asks each open one to finish its streams; `abort` ends what is left.
#[expect(clippy::too_many_arguments, reason = "called once, by the composition root")]
pub async fn serve(
    listener: TcpListener,
    front: Front,
    limits: WireLimits,
    metrics: Arc<Metrics>,
    ticks: Arc<dyn Ticks>,
    supervisor: Supervisor,
    stop: CancellationToken,
    abort: CancellationToken,
) {
    let timer = KeepaliveTimer::new(ticks);
    let room = Room::new(limits, metrics);
    let connections = TaskTracker::new();
    let accept_all = async || {
        let mut failures = AcceptFailures::default();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    failures.back_off(&error).await;
                    continue;
                }
            };
            failures.end();
            let Some(seat) = room.enter(peer) else { continue };
            let work = connection(stream, front.clone(), limits, timer.clone(), stop.clone(), abort.clone());
            connections.spawn(async move {
                if let Err(error) = work.await {
                    tracing::debug!(%peer, error, "a connection broke");
                }
                drop(seat);
            });
        }
    };
    supervisor.run("grpc-listener", accept_all).await;
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Failures to accept a connection, such as for want of a file descriptor. Accepting again at once would spin.
#[derive(Debug, Default)]
pub struct AcceptFailures {
    /// Those in a row.
    count: u64,
}

impl AcceptFailures {
    /// Waits a moment. The log says it once, and then of few.
    #[expect(clippy::disallowed_methods, reason = "a pause between attempts is a timer")]
    pub async fn back_off(&mut self, error: &io::Error) {
        if self.count.is_multiple_of(FAILURES_PER_LOG_LINE) {
            tracing::warn!(%error, failures = self.count + 1, "cannot accept connections; trying again");
        }
        self.count += 1;
        tokio::time::sleep(ACCEPT_BACK_OFF).await;
    }

    /// A connection was accepted.
    pub fn end(&mut self) {
        self.count = 0;
    }
}

async fn connection(
    mut stream: TcpStream,
    front: Front,
    limits: WireLimits,
    timer: KeepaliveTimer,
    stop: CancellationToken,
    abort: CancellationToken,
) -> Result<(), String> {
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    // hyper would wait for the rest of the preface without limit, and a drain for hyper.
    let mut said = [0; PREFACE.len()];
    let saying = tokio::time::timeout(limits.first_byte_timeout, stream.read_exact(&mut said));
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        said = saying => said.map_err(|_| "said too little".to_owned())?.map_err(|error| error.to_string())?,
    };
    if said != *PREFACE {
        return Err("speaks no HTTP/2".to_owned());
    }
    let (read, write) = stream.into_split();
    let outbox = Outbox::new(write);
    let stream = tokio::io::join(PREFACE.chain(read), outbox.clone());
    let turns = FirstTurns::default();
    let mut builder = http2::Builder::new(turns.clone());
    builder
        .timer(timer)
        // gRPC over HTTP/2 asks for none ("Responses"), whatever RFC 9110 (6.6.1) asks of others, and nobody looks at it.
        .auto_date_header(false)
        .max_concurrent_streams(limits.streams_per_connection_max)
        .max_local_error_reset_streams(LOCAL_RESETS_MAX)
        .max_pending_accept_reset_streams(UNSEEN_RESETS_MAX)
        .max_header_list_size(limits.header_list_bytes_max)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout);
    let connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), front));
    let mut serving = Served::new(connection, turns, outbox);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = stop.cancelled() => {
            serving.connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = &mut serving => ended,
                () = abort.cancelled() => return Err("given up at the end of the drain".to_owned()),
            }
        }
    };
    ended.map_err(|error| error.to_string())
}

/// Counts open connections.
#[derive(Clone)]
struct Room {
    limits: WireLimits,
    metrics: Arc<Metrics>,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    connections: Arc<tokio::sync::Semaphore>,
}

impl Room {
    fn new(limits: WireLimits, metrics: Arc<Metrics>) -> Self {
        let connections = Arc::new(tokio::sync::Semaphore::new(limits.connections_max));
        Self { limits, metrics, open: Arc::default(), connections }
    }

    /// A seat for a connection from `peer`, or none when the room is full; the connection is closed then.
    fn enter(&self, peer: SocketAddr) -> Option<Seat> {
        let ip = peer.ip().to_canonical();
        let permit = Arc::clone(&self.connections).try_acquire_owned().ok();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.get(&ip).copied().unwrap_or(0);
        match permit {
            Some(permit) if count < self.limits.connections_per_address_max => {
                open.insert(ip, count + 1);
                self.metrics.connections.inc();
                Some(Seat { ip, room: self.clone(), _permit: permit })
            }
            _ => {
                // The metric counts them; the log tells of the first, and then of few, since this is when many come.
                let before = self.metrics.connections_refused.inc();
                if before.is_multiple_of(REFUSED_PER_LOG_LINE) {
                    tracing::warn!(%peer, refused = before + 1, "too many connections");
                }
                None
            }
        }
    }
}

/// The right of one connection to be open.
struct Seat {
    ip: IpAddr,
    room: Room,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.room.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.ip);
            }
        }
        self.room.metrics.connections.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_has_limits_and_gives_seats_back() {
        let limits = WireLimits {
            connections_max: 3,
            connections_per_address_max: 2,
            streams_per_connection_max: 100,
            header_list_bytes_max: 8_192,
            first_byte_timeout: Duration::from_secs(1),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
        };
        let room = Room::new(limits, Arc::default());
        let (one, other) = (SocketAddr::from(([192, 0, 2, 1], 1)), SocketAddr::from(([192, 0, 2, 2], 1)));
        let first = room.enter(one).expect("room");
        let second = room.enter(one).expect("room");
        assert!(room.enter(one).is_none(), "two of one address");
        let third = room.enter(other).expect("room");
        assert!(room.enter(SocketAddr::from(([192, 0, 2, 3], 1))).is_none(), "three in all");
        assert_eq!((room.metrics.connections.get(), room.metrics.connections_refused.get()), (3, 2));
        drop((first, second, third));
        assert!(room.enter(one).is_some());
        assert_eq!(room.metrics.connections.get(), 0, "a seat that was not kept is free at once");
        assert!(room.open.lock().expect("not poisoned").is_empty());
    }
}
