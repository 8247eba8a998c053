//! The questions that come with every request of every other service, answered below tonic: read in place, answered out of
//! memory, written as one frame.
//!
//! In reading order: `question` reads requests, `answer` writes what is told of a good session (all of the `session` where
//! LoadUser asks) by its `fields`, `refusals` are prepared, `unary` puts them together for one call, `stream` for a stream
//! of them. Only what is plain is answered here: whatever is unusual about a request, and
//! whatever memory does not know, goes on to tonic's routes as if it had not been looked at. So every rule that is not
//! about speed has one home, there; one suite holds both ways against each other (`tests/it/rpc/lean`).

mod answer;
mod fields;
pub mod question;
mod refusals;
mod session;
pub mod stream;
pub mod unary;

use std::sync::Arc;

use http::header::{HeaderMap, HeaderName};
use http::{Method, Request, Response};
use hyper::body::{Bytes, Incoming};
use tokio_util::sync::CancellationToken;

use self::refusals::Refusals;
use self::stream::Answers;
use super::deadline::Timer;
use super::headers::find;
use super::observe::{Begun, MethodId, Observe};
use super::reply::Reply;
use crate::domain::refusal::Refusal;
use crate::telemetry::Metrics;
use crate::usecases::App;
use crate::usecases::validate_session::validate_at_once;

const VALIDATE_SESSION: &str = "/latchkey.v1.AuthService/ValidateSession";
const LOAD_USER: &str = "/latchkey.v1.AuthService/LoadUser";
const STREAM: &str = "/latchkey.v1.AuthService/StreamValidateSessions";
static ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// Which way ValidateSession, StreamValidateSessions and LoadUser take. The answers are the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HotPath {
    /// The lean path, and tonic's routes for what is unusual.
    #[default]
    Lean,
    /// Tonic's routes alone: for the tests that compare the two, and no setting.
    Routes,
}

/// Answers the plain ones among the hot questions.
pub struct Lean {
    app: Arc<App>,
    hot_path: HotPath,
    refusals: Refusals,
    message_bytes_max: usize,
    validate_session: MethodId,
    load_user: MethodId,
    stream: MethodId,
}

/// A question that may be answered here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hot {
    /// ValidateSession.
    ValidateSession,
    /// LoadUser, where it is by session token.
    LoadUser,
    /// StreamValidateSessions.
    Stream,
}

impl Lean {
    /// Answers out of the memory of `app`, messages of at most `message_bytes_max`.
    pub fn new(
        app: Arc<App>,
        hot_path: HotPath,
        metrics: &Arc<Metrics>,
        observe: &Observe,
        message_bytes_max: usize,
    ) -> Self {
        Self {
            app,
            hot_path,
            refusals: Refusals::new(Arc::clone(metrics)),
            message_bytes_max,
            validate_session: observe.method(VALIDATE_SESSION),
            load_user: observe.method(LOAD_USER),
            stream: observe.method(STREAM),
        }
    }

    /// Which hot question a request asks by its head, if any.
    pub fn recognise(&self, request: &Request<Incoming>) -> Option<(Hot, MethodId)> {
        let hot = match request.uri().path() {
            VALIDATE_SESSION => (Hot::ValidateSession, self.validate_session),
            LOAD_USER => (Hot::LoadUser, self.load_user),
            STREAM => (Hot::Stream, self.stream),
            _ => return None,
        };
        let plain = request.method() == Method::POST && is_plain(request.headers());
        (plain && self.hot_path == HotPath::Lean).then_some(hot)
    }

    /// Begins to answer a stream of questions, which ends at `stop`.
    pub fn answer_stream(
        self: &Arc<Self>,
        questions: Incoming,
        begun: Begun,
        timer: Option<Timer>,
        stop: CancellationToken,
    ) -> Response<Reply> {
        let answers = Answers::new(Arc::clone(self), questions, begun, timer, stop);
        unary::headed(Reply::Many(Box::new(answers)))
    }

    /// The answer to the one message that a request consists of; none where it is not plain, or memory does not know.
    fn answer(&self, hot: Hot, body: &Bytes) -> Option<Result<Bytes, Refusal>> {
        let message = question::only_message(body, self.message_bytes_max)?;
        let token = question::token_of(message).ok()?;
        let answer = match hot {
            Hot::ValidateSession => {
                validate_at_once(&self.app, token.unwrap_or_default(), answer::validated_frame)
            }
            Hot::LoadUser => validate_at_once(&self.app, token?, answer::loaded_frame),
            Hot::Stream => return None,
        };
        answer.transpose()
    }
}

/// Whether nothing in the headers asks for more than the least.
fn is_plain(headers: &HeaderMap) -> bool {
    find(headers, &ENCODING).is_none()
}

#[cfg(test)]
mod question_tests;
