//! Two ways, one answer: the same requests go to a node that answers hot questions by the lean path and to the same node
//! with tonic's routes alone, on the same database at the same time, and all that a client can see is compared.

mod exchange;
mod requests;
mod scene;

use latchkey::server::HotPath;

use self::exchange::{Asked, Told, exchange};
use self::requests::{all_requests, broken_off, while_the_lease_is_lost};
use self::scene::Scene;
use crate::support::databases::{Engine, TestDatabase};
use crate::support::interposed_store::Fault;
use crate::support::raw_call::get;
use crate::support::server::{LEASE, TestServer};
use crate::support::waiting::eventually;

/// What is counted of calls. (How long they took is not the same twice.)
const COUNTED: [&str; 4] = [
    "grpc_server_started_total",
    "grpc_server_handled_total",
    "grpc_server_handling_seconds_count",
    "latchkey_refusals_total",
];

/// All that a client and an operator saw of a run.
struct Run {
    told: Vec<(String, Told)>,
    counted: Vec<String>,
}

async fn ask(server: &TestServer, requests: Vec<Asked>, told: &mut Vec<(String, Told)>) {
    for asked in requests {
        told.push((asked.what.clone(), exchange(server, &asked).await));
    }
}

/// Asks everything of a node that is well. Nothing is changed by it that an answer would tell.
async fn run(server: &TestServer, scene: &Scene) -> Run {
    let mut told = Vec::new();
    ask(server, all_requests(scene), &mut told).await;

    // What memory does not know: the user changed, and is read again.
    server.make_stale(&scene.ada).await;
    ask(server, vec![Asked::validate("of a user who changed", &scene.good)], &mut told).await;
    server.make_stale(&scene.ada).await;
    ask(server, vec![Asked::load_user("of a user who changed", &scene.good)], &mut told).await;
    // And it cannot be read.
    server.make_stale(&scene.ada).await;
    server.faults.set("sessions_by_digest", Fault::Unavailable);
    ask(server, vec![Asked::validate("while the database is out", &scene.good)], &mut told).await;
    server.faults.clear();

    broken_off(server, scene).await;
    Run { told, counted: counts(server).await }
}

/// Asks of a node whose lease is over.
async fn run_without_lease(server: &TestServer, scene: &Scene) -> Run {
    server.faults.set("poll", Fault::Unavailable);
    server.advance(LEASE).await;
    let mut told = Vec::new();
    ask(server, while_the_lease_is_lost(scene), &mut told).await;
    Run { told, counted: counts(server).await }
}

/// The counts, once all calls that the client left have been seen to end.
async fn counts(server: &TestServer) -> Vec<String> {
    let mut counted = Vec::new();
    eventually("every call that began has ended", async || {
        let (_, text) = get(server, "/metrics").await;
        let lines = text.lines().filter(|line| COUNTED.iter().any(|name| line.starts_with(name)));
        counted = lines.map(str::to_owned).collect();
        let sum = |name: &str| -> u64 {
            let values = counted.iter().filter(|line| line.starts_with(name));
            values.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
        };
        sum(COUNTED[0]) == sum(COUNTED[1])
    })
    .await;
    counted.sort();
    counted
}

#[tokio::test]
async fn both_ways_tell_the_same_and_count_the_same() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let scene = Scene::set(&server).await;
    // Each run begins with a node that has answered nothing yet.
    let server = server.restart_on(&database, HotPath::Lean).await;
    let lean = run(&server, &scene).await;
    let server = server.restart_on(&database, HotPath::Routes).await;
    let routes = run(&server, &scene).await;
    assert_alike(&lean, &routes);
    assert!(lean.told.len() >= 200, "only {} requests", lean.told.len());
    assert_counted(
        &lean,
        &[
            "SESSION_TOKEN_INVALID",
            "SESSION_EXPIRED",
            "SESSION_REVOKED",
            "CREDENTIALS_CHANGED",
            "USER_DISABLED",
            "STORE_UNAVAILABLE",
            "INVALID_FIELD",
            "DEADLINE",
        ],
    );

    let server = server.restart_on(&database, HotPath::Routes).await;
    let routes = run_without_lease(&server, &scene).await;
    let server = server.restart_on(&database, HotPath::Lean).await;
    let lean = run_without_lease(&server, &scene).await;
    assert_alike(&lean, &routes);
    assert_counted(&lean, &["SESSION_TOKEN_INVALID", "SESSION_EXPIRED", "LEASE_LOST"]);
}

#[track_caller]
fn assert_alike(lean: &Run, routes: &Run) {
    for ((what, lean), (_, routes)) in lean.told.iter().zip(&routes.told) {
        assert_eq!(lean, routes, "{what}");
    }
    assert_eq!(lean.counted, routes.counted);
}

#[track_caller]
fn assert_counted(run: &Run, reasons: &[&str]) {
    for reason in reasons {
        assert!(run.counted.iter().any(|line| line.contains(reason)), "{reason} was not told");
    }
}
