//! Health and metrics over plain HTTP, for probes and scrapers that speak no gRPC or no TLS. Nothing here is secret.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::health::Health;
use crate::fleet::FleetStats;
use crate::grpc::listener::AcceptFailures;
use crate::supervise::Supervisor;
use crate::telemetry::{FleetMetrics, Metrics, TaskLabels, log_writer};
use crate::usecases::App;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Connections at a time; probes and scrapers are few.
pub(super) const CONNECTIONS_MAX: usize = 64;
/// How long a client may take to say what it wants.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Sources {
    health: Health,
    app: Arc<App>,
    metrics: Arc<Metrics>,
    supervisor: Supervisor,
}

/// Serves `/livez`, `/readyz` and `/metrics` until `stop`, restarted by `supervisor`.
pub(super) async fn serve(
    listener: TcpListener,
    health: Health,
    app: Arc<App>,
    metrics: Arc<Metrics>,
    supervisor: Supervisor,
    stop: CancellationToken,
) {
    let router = Router::new()
        .route("/livez", get(alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .with_state(Sources { health, app, metrics, supervisor: supervisor.clone() });
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    let accept_all = || accept_all(&listener, &router, &seats, &connections, &stop);
    supervisor.run("http-listener", accept_all).await;
}

async fn accept_all(
    listener: &TcpListener,
    router: &Router,
    seats: &Arc<Semaphore>,
    connections: &TaskTracker,
    stop: &CancellationToken,
) {
    let mut failures = AcceptFailures::default();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accept(listener, seats, &mut failures) => accepted,
        };
        let Some((stream, seat)) = accepted else { continue };
        let (service, stop) = (TowerToHyperService::new(router.clone()), stop.clone());
        connections.spawn(async move {
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                ended = serving => if let Err(error) = ended {
                    tracing::debug!(%error, "an HTTP connection broke");
                },
                () = stop.cancelled() => {}
            }
            drop(seat);
        });
    }
}

/// The next connection, once there is room for it; none where the machine has none.
async fn accept(
    listener: &TcpListener,
    seats: &Arc<Semaphore>,
    failures: &mut AcceptFailures,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let seat = Arc::clone(seats).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => {
            failures.end();
            Some((stream, seat))
        }
        Err(error) => {
            failures.back_off(&error).await;
            None
        }
    }
}

async fn alive(State(sources): State<Sources>) -> (StatusCode, String) {
    match sources.health.defect() {
        None => (StatusCode::OK, "alive\n".to_owned()),
        Some(defect) => (StatusCode::SERVICE_UNAVAILABLE, format!("not alive: {defect}\n")),
    }
}

async fn ready(State(sources): State<Sources>) -> (StatusCode, String) {
    match sources.health.obstacle() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(obstacle) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {obstacle}\n")),
    }
}

async fn scrape(State(sources): State<Sources>) -> impl IntoResponse {
    let (stats, metrics) = (sources.app.hashing.stats(), &sources.metrics);
    metrics.hash_queue_len.set(i64::try_from(stats.queue_len).unwrap_or(i64::MAX));
    for (counter, count) in [
        (&metrics.hash_runs, stats.runs),
        (&metrics.hash_work_kib, stats.work_kib),
        (&metrics.hash_refused, stats.refused),
        (&metrics.hash_abandoned, stats.abandoned),
        (&metrics.hash_unreadable, stats.unreadable),
        (&metrics.hash_panics, stats.panics),
        (&metrics.log_lines_dropped, log_writer::stderr().dropped()),
    ] {
        counter.inner().store(count, Relaxed);
    }
    for (task, restarts) in sources.supervisor.counts() {
        metrics.task_restarts.get_or_create(&TaskLabels { task }).inner().store(restarts, Relaxed);
    }
    tell_fleet(&sources.app.fleet.stats(), &metrics.fleet);
    ([(CONTENT_TYPE, OPEN_METRICS)], metrics.to_text())
}

fn tell_fleet(stats: &FleetStats, metrics: &FleetMetrics) {
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    for (gauge, value) in [
        (&metrics.lease_left_ms, i64::try_from(stats.lease_left.as_millis()).unwrap_or(i64::MAX)),
        (&metrics.clock_jump_ms, stats.clock_jump_ms),
        (&metrics.applied_position, stats.applied),
        (&metrics.head_position, stats.head),
        (&metrics.hints_connected, i64::try_from(stats.hints_connected).unwrap_or(i64::MAX)),
        (&metrics.sessions_unsettled, count(stats.unsettled)),
        (&metrics.sessions_in_memory, count(stats.holding.sessions)),
        (&metrics.dead_in_memory, count(stats.holding.dead)),
        (&metrics.users_in_memory, count(stats.holding.users)),
    ] {
        gauge.set(value);
    }
    for (counter, value) in [
        (&metrics.polls, stats.polls),
        (&metrics.polls_failed, stats.polls_failed),
        (&metrics.hints, stats.hints),
        (&metrics.hint_reconnects, stats.hint_reconnects),
        (&metrics.joins, stats.starts),
        (&metrics.chain_breaks, stats.chain_breaks),
        (&metrics.changes_written_again, stats.changes_written_again),
        (&metrics.changes_forgotten, stats.changes_forgotten),
        (&metrics.nodes_evicted, stats.nodes_evicted),
        (&metrics.fills, stats.fills),
        (&metrics.sessions_filled, stats.filled),
        (&metrics.fills_overtaken, stats.holding.overtaken),
        (&metrics.fills_refused, stats.fills_refused),
        (&metrics.barriers, stats.barriers),
        (&metrics.barriers_waited_out, stats.barriers_waited_out),
        (&metrics.barrier_micros, stats.barrier_micros),
        (&metrics.sessions_evicted, stats.holding.evicted),
    ] {
        counter.inner().store(value, Relaxed);
    }
}
