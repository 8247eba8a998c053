//! One call that may be answered here: waits for its whole body, answers, or hands it on as if it had not been looked at.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::{Bytes, Incoming};
use tonic::body::Body;

use super::{Hot, Lean};
use crate::domain::refusal::Refusal;
use crate::grpc::deadline::{Timer, timer};
use crate::grpc::observe::Begun;
use crate::grpc::reply::Reply;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// A call under way.
pub struct Unary {
    /// What is asked.
    pub hot: Hot,
    /// The RPC.
    pub begun: Begun,
    /// The time that the client allows.
    pub allowed: Option<Duration>,
    /// Head and body as they came.
    pub request: Request<Incoming>,
    /// What was read of the body.
    pub read: Option<Bytes>,
    /// Runs once the body was waited for.
    pub timer: Option<Timer>,
}

/// What came of a call.
pub enum Outcome {
    /// It is answered.
    Answered(Response<Reply>),
    /// It is not for us.
    HandedOn(HandedOn),
}

/// A call that tonic's routes shall answer.
pub struct HandedOn {
    /// The RPC.
    pub begun: Begun,
    /// Ends it where the client said when.
    pub timer: Option<Timer>,
    /// The request, whole.
    pub request: Request<Body>,
}

impl Unary {
    /// Goes on with a call. Leaves none in `call` once something came of it.
    pub fn poll(call: &mut Option<Self>, lean: &Lean, cx: &mut Context<'_>) -> Poll<Outcome> {
        let Some(this) = call.as_mut() else { return Poll::Pending };
        let last = loop {
            let body = this.request.body_mut();
            if this.read.is_some() && body.is_end_stream() {
                break None;
            }
            let frame = match Pin::new(body).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending if this.is_late(cx) => {
                    let refused =
                        call.take().map(|this| lean.refusals.answer(&Refusal::Deadline, this.begun));
                    return refused.map_or(Poll::Pending, |refused| Poll::Ready(Outcome::Answered(refused)));
                }
                Poll::Pending => return Poll::Pending,
            };
            match frame.map(|frame| frame.map(Frame::into_data)) {
                None => break None,
                Some(Ok(Ok(data))) if data.is_empty() => {}
                Some(Ok(Ok(data))) if this.read.is_none() => this.read = Some(data),
                Some(Ok(Ok(more))) => break Some(Ok(more)),
                // Trailers of a request say nothing to us.
                Some(Ok(Err(_))) => {}
                Some(Err(broken)) => break Some(Err(broken)),
            }
        };
        let Some(this) = call.take() else { return Poll::Pending };
        Poll::Ready(this.finish(lean, last))
    }

    /// Whether the time of the client is over, which runs from the first time that its body is waited for: no call that
    /// comes whole needs a timer.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(allowed) = self.allowed else { return false };
        self.timer.get_or_insert_with(|| timer(allowed)).as_mut().poll(cx).is_ready()
    }

    /// Answers the call if the body ended with what was `read`, and memory knows.
    fn finish(self, lean: &Lean, last: Option<Result<Bytes, hyper::Error>>) -> Outcome {
        let Self { hot, begun, allowed, request, read, timer: running } = self;
        let answer = match (&read, &last) {
            (Some(body), None) => lean.answer(hot, body),
            _ => None,
        };
        match answer {
            Some(Ok(frame)) => Outcome::Answered(good(frame, begun)),
            Some(Err(refusal)) => Outcome::Answered(lean.refusals.answer(&refusal, begun)),
            None => {
                let ahead = read.map(Ok).into_iter().chain(last).collect();
                let request = request.map(|rest| Body::new(Replay { ahead, rest }));
                Outcome::HandedOn(HandedOn { begun, timer: running.or_else(|| allowed.map(timer)), request })
            }
        }
    }
}

fn good(frame: Bytes, begun: Begun) -> Response<Reply> {
    headed(Reply::One { frame: Some(frame), begun: Some(begun) })
}

/// The head of an answer that has a body.
pub(super) fn headed(reply: Reply) -> Response<Reply> {
    let mut response = Response::new(reply);
    // One more than is put in: hyper adds the date.
    let mut headers = HeaderMap::with_capacity(2);
    headers.insert(CONTENT_TYPE, GRPC);
    *response.headers_mut() = headers;
    response
}

/// A body of which something was read already.
struct Replay {
    ahead: VecDeque<Result<Bytes, hyper::Error>>,
    rest: Incoming,
}

impl HttpBody for Replay {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.ahead.pop_front() {
            Some(read) => Poll::Ready(Some(read.map(Frame::data))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
