//! Counts and times each RPC under the names that gRPC dashboards know.
//!
//! Labels come from the contract, never from the request: a stranger's path counts as `unknown`, so that nobody can
//! grow the number of series.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use http::{HeaderMap, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Bytes;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::body::Body;
use tonic::{Code, Status};

use super::proto::DESCRIPTORS;
use super::status::reason_told;
use crate::domain::time::BootTime;
use crate::host::Clock;
use crate::telemetry::{CodeLabels, Count, MethodCounts, MethodLabels, Metrics, ReasonLabels};

/// Counts RPCs. Clones share it.
#[derive(Clone)]
pub struct Observe(Arc<Observing>);

struct Observing {
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    by_path: HashMap<String, MethodId>,
    methods: Vec<Method>,
}

/// Which method an RPC is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MethodId(usize);

/// What is not of the contract.
const UNKNOWN: MethodId = MethodId(0);

/// A method, and its series as far as they were used: found once, they are counted up without a lock or an allocation.
struct Method {
    labels: MethodLabels,
    counts: OnceLock<MethodCounts>,
    handled: [OnceLock<Count>; CODES],
}

/// How many codes there are.
const CODES: usize = 17;

impl Method {
    fn new(service: &str, method: &str) -> Self {
        let labels = MethodLabels { grpc_service: service.into(), grpc_method: method.into() };
        Self { labels, counts: OnceLock::new(), handled: Default::default() }
    }

    fn counts(&self, metrics: &Metrics) -> &MethodCounts {
        self.counts.get_or_init(|| metrics.method_counts(&self.labels))
    }

    fn handled(&self, metrics: &Metrics, code: Code) {
        let labels = || CodeLabels {
            grpc_service: Arc::clone(&self.labels.grpc_service),
            grpc_method: Arc::clone(&self.labels.grpc_method),
            grpc_code: code_name(code),
        };
        let count = || metrics.grpc_server_handled.get_or_create_owned(&labels());
        self.handled[code as usize].get_or_init(count).inc();
    }
}

impl Observe {
    /// Counts into `metrics` by the time of `clock`.
    pub fn new(metrics: Arc<Metrics>, clock: Arc<dyn Clock>) -> Self {
        let standard = [
            ("grpc.health.v1.Health", "Check"),
            ("grpc.health.v1.Health", "Watch"),
            ("grpc.reflection.v1.ServerReflection", "ServerReflectionInfo"),
            ("grpc.reflection.v1alpha.ServerReflection", "ServerReflectionInfo"),
        ];
        let own = own_methods();
        let all = own.iter().map(|(service, method)| (service.as_str(), method.as_str())).chain(standard);
        let (mut by_path, mut methods) = (HashMap::new(), vec![Method::new("unknown", "unknown")]);
        for (service, method) in all {
            by_path.insert(format!("/{service}/{method}"), MethodId(methods.len()));
            methods.push(Method::new(service, method));
        }
        Self(Arc::new(Observing { metrics, clock, by_path, methods }))
    }

    /// The method of a path.
    pub fn method(&self, path: &str) -> MethodId {
        self.0.by_path.get(path).copied().unwrap_or(UNKNOWN)
    }

    /// An RPC begins.
    pub fn begin(&self, method: MethodId) -> Begun {
        let begun = Begun {
            begin_time: self.0.clock.boottime(),
            method,
            observing: Arc::clone(&self.0),
            done: false,
        };
        begun.method().counts(&self.0.metrics).started();
        begun
    }
}

/// Service and name of each method of the contract.
fn own_methods() -> Vec<(String, String)> {
    let files = FileDescriptorSet::decode(DESCRIPTORS).expect("build.rs wrote the descriptors").file;
    let services =
        files.iter().flat_map(|file| file.service.iter().map(move |service| (file.package(), service)));
    let methods = services.flat_map(|(package, service)| {
        let name = format!("{package}.{}", service.name());
        service.method.iter().map(move |method| (name.clone(), method.name().to_owned())).collect::<Vec<_>>()
    });
    methods.collect()
}

/// An RPC that has begun. One that is dropped before its end was given up by the client.
pub struct Begun {
    begin_time: BootTime,
    method: MethodId,
    observing: Arc<Observing>,
    done: bool,
}

impl Begun {
    /// Watches the answer to its end; none of it may have been sent.
    pub fn watch(mut self, response: Response<Body>) -> Response<Observed> {
        if let Some(status) = Status::from_header_map(response.headers()) {
            if let Some(reason) = reason_told(&status) {
                self.observing.metrics.refusals.get_or_create(&ReasonLabels { reason }).inc();
            }
            self.end(status.code());
        }
        response.map(|body| Observed { body, begun: self })
    }

    /// The RPC ends with `code`; only the first end counts.
    pub fn end(&mut self, code: Code) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        let Observing { metrics, clock, .. } = &*self.observing;
        let method = self.method();
        method.handled(metrics, code);
        let time = clock.boottime().since(self.begin_time);
        let (service, name) = (&*method.labels.grpc_service, &*method.labels.grpc_method);
        tracing::debug!(
            service,
            method = name,
            code = code_name(code),
            micros = time.as_micros(),
            "answered"
        );
        method.counts(metrics).took(time);
    }

    fn method(&self) -> &Method {
        &self.observing.methods[self.method.0]
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

/// A body whose trailers say how the RPC ended.
pub struct Observed {
    body: Body,
    begun: Begun,
}

impl Observed {
    fn read(&mut self, trailers: &HeaderMap) {
        self.begun.end(Status::from_header_map(trailers).map_or(Code::Unknown, |status| status.code()));
    }
}

impl HttpBody for Observed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            self.read(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The name of a code as the metrics of other languages spell it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}
