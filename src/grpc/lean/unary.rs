//! One call that may be answered here: waits for its whole body, answers, or hands it on as if it had not been looked at.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
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

/// A call whose body is waited for.
pub struct Unary {
    hot: Hot,
    begun: Begun,
    /// The time that the client allows.
    allowed: Option<Duration>,
    request: Request<Incoming>,
    /// What was read of the body.
    read: Option<Bytes>,
    /// Runs once the body was waited for.
    timer: Option<Timer>,
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
    /// Begins to answer a call. Where its body is there already, as nearly always, something comes of it at once, and
    /// nothing of it has to be kept; else the call that waits is given back.
    pub fn begin(
        lean: &Lean,
        hot: Hot,
        begun: Begun,
        allowed: Option<Duration>,
        mut request: Request<Incoming>,
    ) -> ControlFlow<Outcome, Box<Self>> {
        let mut read = None;
        // Whoever finds it pending polls it again.
        let mut nobody = Context::from_waker(Waker::noop());
        match read_whole(request.body_mut(), &mut read, &mut nobody) {
            Poll::Pending => {
                ControlFlow::Continue(Box::new(Self { hot, begun, allowed, request, read, timer: None }))
            }
            Poll::Ready(last) => ControlFlow::Break(match answer(lean, hot, read.as_ref(), last.as_ref()) {
                Some(answer) => Outcome::Answered(told(lean, answer, begun)),
                None => Outcome::hand_on(begun, allowed.map(timer), request, read, last),
            }),
        }
    }

    /// Goes on with a call. Leaves none in `call` once something came of it.
    pub fn poll(call: &mut Option<Box<Self>>, lean: &Lean, cx: &mut Context<'_>) -> Poll<Outcome> {
        let Some(this) = call.as_mut() else { return Poll::Pending };
        let last = match read_whole(this.request.body_mut(), &mut this.read, cx) {
            Poll::Ready(last) => Some(last),
            Poll::Pending if this.is_late(cx) => None,
            Poll::Pending => return Poll::Pending,
        };
        let Some(this) = call.take() else { return Poll::Pending };
        let Self { hot, begun, allowed, request, read, timer: running } = *this;
        let Some(last) = last else {
            return Poll::Ready(Outcome::Answered(lean.refusals.answer(&Refusal::Deadline, begun)));
        };
        Poll::Ready(match answer(lean, hot, read.as_ref(), last.as_ref()) {
            Some(answer) => Outcome::Answered(told(lean, answer, begun)),
            None => Outcome::hand_on(begun, running.or_else(|| allowed.map(timer)), request, read, last),
        })
    }

    /// Whether the time of the client is over, which runs from the first time that its body is waited for: no call that
    /// comes whole needs a timer.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(allowed) = self.allowed else { return false };
        self.timer.get_or_insert_with(|| timer(allowed)).as_mut().poll(cx).is_ready()
    }
}

impl Outcome {
    fn hand_on(
        begun: Begun,
        timer: Option<Timer>,
        request: Request<Incoming>,
        read: Option<Bytes>,
        last: Option<Result<Bytes, hyper::Error>>,
    ) -> Self {
        let ahead = read.map(Ok).into_iter().chain(last).collect();
        let request = request.map(|rest| Body::new(Replay { ahead, rest }));
        Self::HandedOn(HandedOn { begun, timer, request })
    }
}

/// Reads a body that comes in one piece, until it has ended. If there is more, or it breaks, that is what is told.
fn read_whole(
    body: &mut Incoming,
    read: &mut Option<Bytes>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Bytes, hyper::Error>>> {
    loop {
        if read.is_some() && body.is_end_stream() {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        match frame.map(|frame| frame.map(Frame::into_data)) {
            None => return Poll::Ready(None),
            Some(Ok(Ok(data))) if data.is_empty() => {}
            Some(Ok(Ok(data))) if read.is_none() => *read = Some(data),
            Some(Ok(Ok(more))) => return Poll::Ready(Some(Ok(more))),
            // Trailers of a request say nothing to us.
            Some(Ok(Err(_))) => {}
            Some(Err(broken)) => return Poll::Ready(Some(Err(broken))),
        }
    }
}

/// The answer, if the body ended with what was `read`, and memory knows.
fn answer(
    lean: &Lean,
    hot: Hot,
    read: Option<&Bytes>,
    last: Option<&Result<Bytes, hyper::Error>>,
) -> Option<Result<Bytes, Refusal>> {
    if last.is_none() { lean.answer(hot, read?) } else { None }
}

fn told(lean: &Lean, answer: Result<Bytes, Refusal>, begun: Begun) -> Response<Reply> {
    match answer {
        Ok(frame) => headed(Reply::One { frame: Some(frame), begun: Some(begun) }),
        Err(refusal) => lean.refusals.answer(&refusal, begun),
    }
}

/// The head of an answer that has a body.
pub(super) fn headed(reply: Reply) -> Response<Reply> {
    let mut response = Response::new(reply);
    let mut headers = HeaderMap::with_capacity(1);
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
