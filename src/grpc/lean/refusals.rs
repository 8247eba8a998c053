//! Refusals that are made before anybody asks: a flood of forged tokens is then the cheapest traffic of all.
//!
//! What is prepared is the very answer that `grpc/status.rs` gives, so the two ways to refuse cannot differ.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use http::{HeaderMap, Response};
use prost::Message as _;
use tonic::Code;

use crate::domain::refusal::Refusal;
use crate::grpc::auth::refused;
use crate::grpc::observe::Begun;
use crate::grpc::reply::Reply;
use crate::grpc::status::{code, reason, reason_name, status};
use crate::telemetry::{Count, Metrics, ReasonLabels};

/// What a question about a session is refused with, the most frequent first. Others are made when they are needed.
const PREPARED: [Refusal; 9] = [
    Refusal::SessionTokenInvalid,
    Refusal::SessionExpired,
    Refusal::SessionRevoked,
    Refusal::CredentialsChanged,
    Refusal::UserDisabled,
    Refusal::LeaseLost,
    Refusal::SessionBindingMismatch,
    Refusal::StoreUnavailable,
    Refusal::Deadline,
];

/// The answers.
pub(super) struct Refusals {
    metrics: Arc<Metrics>,
    prepared: [Prepared; PREPARED.len()],
}

struct Prepared {
    refusal: Refusal,
    code: Code,
    headers: HeaderMap,
    /// The `QuestionRefused` of a stream, encoded.
    in_a_stream: Vec<u8>,
    /// The counter of its reason, once it was used.
    count: OnceLock<Count>,
}

impl Refusals {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        let prepared = PREPARED.map(|refusal| {
            let headers = status(&refusal).into_http::<()>().into_parts().0.headers;
            let in_a_stream = refused(&refusal).encode_to_vec();
            Prepared { code: code(&refusal), headers, in_a_stream, count: OnceLock::new(), refusal }
        });
        Self { metrics, prepared }
    }

    /// What an answer of a stream says of a question that is refused, encoded.
    pub(super) fn in_a_stream(&self, refusal: &Refusal) -> Cow<'_, [u8]> {
        let prepared = self.prepared.iter().find(|one| one.refusal == *refusal);
        prepared
            .map_or_else(|| refused(refusal).encode_to_vec().into(), |one| one.in_a_stream.as_slice().into())
    }

    /// The answer to an RPC that is refused; nothing follows its headers.
    pub(super) fn answer(&self, refusal: &Refusal, mut begun: Begun) -> Response<Reply> {
        let Some(prepared) = self.prepared.iter().find(|one| one.refusal == *refusal) else {
            return begun.watch(status(refusal).into_http()).map(Reply::Tonic);
        };
        let count = || {
            let reason = reason_name(reason(refusal));
            self.metrics.refusals.get_or_create_owned(&ReasonLabels { reason })
        };
        prepared.count.get_or_init(count).inc();
        begun.end(prepared.code);
        let mut response = Response::new(Reply::Nothing);
        *response.headers_mut() = prepared.headers.clone();
        response
    }
}
