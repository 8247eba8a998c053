//! Whether this node answers, told to everybody who asks: gRPC health checks, `/readyz`, and a metric.
//!
//! A node is not ready before it has begun, while it holds no lease, and from the moment it is told to stop. It is alive
//! as long as the threads and tasks work that it cannot do without, whether or not the database answers.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthApi, HealthServer};
use tonic_health::server::HealthReporter;
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};
use tonic_reflection::server::v1alpha;

use crate::grpc::proto::{DESCRIPTORS, admin, v1};
use crate::telemetry::Metrics;

const AUTH: &str = v1::auth_service_server::SERVICE_NAME;
const ADMIN: [&str; 2] =
    [admin::user_service_server::SERVICE_NAME, admin::fleet_service_server::SERVICE_NAME];
const LIVENESS: &str = "liveness";
const READINESS: &str = "readiness";

const STARTING: u8 = 0;
const READY: u8 = 1;
const LEASE_LOST: u8 = 2;
const STOPPING: u8 = 3;

/// Whether this node answers.
#[derive(Clone)]
pub(super) struct Health {
    reporter: HealthReporter,
    metrics: Arc<Metrics>,
    state: Arc<AtomicU8>,
    /// Why the node is not alive.
    defect: Arc<Mutex<Option<String>>>,
    /// One after the other: of two changes at once, both would be told in any order.
    changing: Arc<tokio::sync::Mutex<()>>,
    admin: bool,
}

impl Health {
    /// Alive, but not ready. (A new reporter says that the whole server is ready; that is taken back first.)
    pub(super) async fn new(metrics: Arc<Metrics>, admin: bool) -> (Self, HealthServer<impl HealthApi>) {
        let (reporter, service) = tonic_health::server::health_reporter();
        let health = Self {
            reporter,
            metrics,
            state: Arc::default(),
            defect: Arc::default(),
            changing: Arc::default(),
            admin,
        };
        health.tell(ServingStatus::NotServing).await;
        health.reporter.set_service_status(LIVENESS, ServingStatus::Serving).await;
        (health, service)
    }

    /// The node answers from now on.
    pub(super) async fn begin(&self) {
        self.go(STARTING, READY).await;
    }

    /// The node may not answer from memory: it cannot know the latest state.
    pub(super) async fn lease_lost(&self) {
        self.go(READY, LEASE_LOST).await;
    }

    /// The node knows the latest state again.
    pub(super) async fn lease_back(&self) {
        self.go(LEASE_LOST, READY).await;
    }

    /// The node stops, for good.
    pub(super) async fn end(&self) {
        // The state itself is known at once, whoever is telling one right now.
        self.state.store(STOPPING, Ordering::Release);
        let _turn = self.changing.lock().await;
        self.tell(ServingStatus::NotServing).await;
    }

    /// Ends the streams of everybody who watches; a watcher would hold the drain for ever.
    pub(super) async fn let_watchers_go(&self) {
        let mut reporter = self.reporter.clone();
        for name in self.names().chain([LIVENESS]) {
            reporter.clear_service_status(name).await;
        }
    }

    /// The node works, or it has a defect that only a restart mends. (A database that does not answer is none.)
    pub(super) async fn set_defect(&self, defect: Option<String>) {
        let _turn = self.changing.lock().await;
        let is_alive = defect.is_none();
        let before = std::mem::replace(&mut *self.lock_defect(), defect);
        // A stopping node has let its watchers go; telling them anew would bring them back.
        if before.is_none() == is_alive || self.state.load(Ordering::Acquire) == STOPPING {
            return;
        }
        let status = if is_alive { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.reporter.set_service_status(LIVENESS, status).await;
    }

    /// Why the node is not alive; none when it is.
    pub(super) fn defect(&self) -> Option<String> {
        self.lock_defect().clone()
    }

    fn lock_defect(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.defect.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the node is not ready; none when it is.
    pub(super) fn obstacle(&self) -> Option<&'static str> {
        match self.state.load(Ordering::Acquire) {
            READY => None,
            LEASE_LOST => Some("no lease: the database does not answer, or says that this node may not"),
            STOPPING => Some("stopping"),
            _ => Some("starting"),
        }
    }

    async fn go(&self, from: u8, to: u8) {
        let _turn = self.changing.lock().await;
        // A stop that comes in between waits for its turn, and has the last word.
        if self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.tell(if to == READY { ServingStatus::Serving } else { ServingStatus::NotServing }).await;
        }
    }

    async fn tell(&self, status: ServingStatus) {
        for name in self.names() {
            self.reporter.set_service_status(name, status).await;
        }
        self.metrics.ready.set(i64::from(matches!(status, ServingStatus::Serving)));
    }

    /// What is ready or not.
    fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        let admin = self.admin;
        ["", READINESS, AUTH].into_iter().chain(ADMIN.into_iter().filter(move |_| admin))
    }
}

/// Reflection in both its versions (older tools ask for v1alpha only), with comments, for the services served.
pub(super) fn reflection(
    admin: bool,
) -> (
    ServerReflectionServer<impl ServerReflection>,
    v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection>,
) {
    let builder = || {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // With these a tool can show the details of an error.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .with_service_name(AUTH)
            .with_service_name("grpc.health.v1.Health");
        if admin {
            ADMIN.into_iter().fold(builder, tonic_reflection::server::Builder::with_service_name)
        } else {
            builder
        }
    };
    let current = builder().build_v1().expect("the descriptors are whole");
    let alpha = builder().build_v1alpha().expect("the descriptors are whole");
    (current, alpha)
}

#[expect(clippy::disallowed_methods, reason = "the delays of a shutdown are timers; this is their one home")]
pub(super) async fn pause(span: Duration) {
    tokio::time::sleep(span).await;
}
