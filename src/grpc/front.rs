//! What every request passes, in this order, whichever service it is for.
//!
//! 1. It is counted.
//! 2. The caller is known and allowed.
//! 3. Its deadline runs.
//! 4. The service answers; what a reflection stream asks ends when the node stops. The hot questions are answered by
//!    `lean` where that can be done at once, and by tonic's routes like all others where not.
//! 5. What tonic refused by itself is told in our words.
//! 6. The end of the answer is counted.

use std::any::Any;
use std::convert::Infallible;
use std::future::Future;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::StreamExt as _;
use http::{Request, Response};
use http_body_util::{BodyStream, StreamBody};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::ServiceExt as _;

use super::callers::Callers;
use super::deadline::{self, Timer};
use super::lean::unary::{Outcome, Unary};
use super::lean::{Hot, Lean};
use super::observe::{Begun, Observe};
use super::refused_message::refusal_of_message;
use super::reply::Reply;
use super::status::status;
use crate::domain::refusal::Refusal;

/// Standard services answer by their own contracts, without our details.
const STANDARD: &str = "/grpc.";
const REFLECTION: &str = "/grpc.reflection.";
const DETAILS: &str = "grpc-status-details-bin";

/// The services behind the common front. Clones share it.
#[derive(Clone)]
pub struct Front(Arc<Services>);

/// What is shared by all requests.
pub struct Services {
    observe: Observe,
    callers: Callers,
    lean: Arc<Lean>,
    routes: Routes,
    stop: CancellationToken,
}

impl Front {
    /// Puts the front before `lean` and `routes`; from `stop` on, reflection takes no more questions.
    pub fn new(
        observe: Observe,
        callers: Callers,
        lean: Lean,
        routes: Routes,
        stop: CancellationToken,
    ) -> Self {
        let (lean, routes) = (Arc::new(lean), routes.prepare());
        Self(Arc::new(Services { observe, callers, lean, routes, stop }))
    }
}

impl hyper::service::Service<Request<Incoming>> for Front {
    type Response = Response<Reply>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        let answering = catch_unwind(AssertUnwindSafe(|| self.answer(request)));
        answering.unwrap_or_else(|panic| Answering::Broken(Some(panic)))
    }
}

impl Front {
    fn answer(&self, request: Request<Incoming>) -> Answering {
        let services = &self.0;
        let path = request.uri().path();
        let hot = services.lean.recognise(&request);
        let begun =
            services.observe.begin(hot.map_or_else(|| services.observe.method(path), |(_, method)| method));
        let admitted = services.callers.admit(path, request.headers());
        let allowed = admitted.and_then(|()| deadline::allowed(request.headers()));
        match (hot, allowed) {
            (Some((Hot::Stream, _)), Ok(allowed)) => {
                let (timer, stop) = (allowed.map(deadline::timer), services.stop.clone());
                Answering::Answered(
                    services.lean.answer_stream(request.into_body(), begun, timer, stop).into(),
                )
            }
            (Some((hot, _)), Ok(allowed)) => services.begin(hot, begun, allowed, request),
            (_, allowed) => {
                let timer = allowed.map(|allowed| allowed.map(deadline::timer));
                services.ordinary(begun, timer, request.map(Body::new))
            }
        }
    }
}

/// A request that is being answered.
pub enum Answering {
    /// A response that is there already; none once it was given.
    Answered(Option<Response<Reply>>),
    /// By the lean path, once its body has come.
    Lean(Arc<Services>, Option<Box<Unary>>),
    /// By tonic's routes.
    Ordinary(Pin<Box<dyn Future<Output = Response<Reply>> + Send>>),
    /// A panic.
    Broken(Option<Box<dyn Any + Send>>),
}

impl Future for Answering {
    type Output = Result<Response<Reply>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match &mut *self {
                Self::Answered(response) => {
                    return response.take().map_or(Poll::Pending, |response| Poll::Ready(Ok(response)));
                }
                Self::Lean(services, call) => {
                    let outcome = ready!(Unary::poll(call, &services.lean, cx));
                    *self = services.take_over(outcome);
                }
                Self::Ordinary(answer) => return answer.as_mut().poll(cx).map(Ok),
                // Here it ends one request; where it happened it would have ended all of the connection.
                Self::Broken(panic) => match panic.take() {
                    Some(panic) => resume_unwind(panic),
                    None => return Poll::Pending,
                },
            }
        }
    }
}

impl Services {
    fn begin(
        self: &Arc<Self>,
        hot: Hot,
        begun: Begun,
        allowed: Option<Duration>,
        request: Request<Incoming>,
    ) -> Answering {
        match Unary::begin(&self.lean, hot, begun, allowed, request) {
            ControlFlow::Break(outcome) => self.take_over(outcome),
            ControlFlow::Continue(waiting) => Answering::Lean(Arc::clone(self), Some(waiting)),
        }
    }

    fn take_over(self: &Arc<Self>, outcome: Outcome) -> Answering {
        match outcome {
            Outcome::Answered(response) => Answering::Answered(Some(response)),
            Outcome::HandedOn(handed_on) => {
                self.ordinary(handed_on.begun, Ok(handed_on.timer), handed_on.request)
            }
        }
    }

    fn ordinary(
        self: &Arc<Self>,
        begun: Begun,
        timer: Result<Option<Timer>, Refusal>,
        request: Request<Body>,
    ) -> Answering {
        let (routes, stop) = (self.routes.clone(), self.stop.clone());
        Answering::Ordinary(Box::pin(answer(begun, timer, routes, stop, request)))
    }
}

async fn answer(
    begun: Begun,
    timer: Result<Option<Timer>, Refusal>,
    routes: Routes,
    stop: CancellationToken,
    request: Request<Body>,
) -> Response<Reply> {
    let ours = !request.uri().path().starts_with(STANDARD);
    let response = match timer {
        Ok(timer) => deadline::within(timer, route(routes, request, stop)).await,
        Err(refusal) => status(&refusal).into_http(),
    };
    begun.watch(if ours { explain(response) } else { response }).map(Reply::Tonic)
}

async fn route(routes: Routes, request: Request<Body>, stop: CancellationToken) -> Response<Body> {
    // The library's reflection ends when the client does, and some tools never do. Ours are told by their handlers.
    let endless = request.uri().path().starts_with(REFLECTION);
    let request = if endless { request.map(|body| until(stop, body)) } else { request };
    match routes.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// A body that ends, as if the client had ended it, when the node stops.
fn until(stop: CancellationToken, body: Body) -> Body {
    Body::new(StreamBody::new(BodyStream::new(body).take_until(stop.cancelled_owned())))
}

/// Gives our details to a refusal that tonic made by itself.
fn explain(response: Response<Body>) -> Response<Body> {
    match Status::from_header_map(response.headers()) {
        Some(refused) if refused.code() != tonic::Code::Ok && !response.headers().contains_key(DETAILS) => {
            status(&refusal_of_message(&refused)).into_http()
        }
        _ => response,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_a_call_is_one_of_its_answer() {
        let mut broken = Answering::Broken(Some(Box::new("a defect")));
        let mut nobody = Context::from_waker(std::task::Waker::noop());
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut broken).poll(&mut nobody)));
        assert!(polled.is_err_and(|panic| panic.downcast_ref() == Some(&"a defect")));
    }
}
