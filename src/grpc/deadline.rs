//! The deadline of a call (`grpc-timeout`), kept by us since tonic answers a passed one with CANCELLED.
//!
//! It covers the whole answer: of a stream as well, which then ends with DEADLINE_EXCEEDED in its trailers. Only the
//! answer is given up; a write that has begun runs to its end in its own task.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderName, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Bytes;
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;

use super::headers::find;
use super::status::{status, trailers};
use crate::domain::refusal::Refusal;

static HEADER: HeaderName = HeaderName::from_static("grpc-timeout");
const DIGITS_MAX: usize = 8;

/// Reads the time that the client allows; none when it does not say. (gRPC over HTTP/2: up to 8 digits and a unit.)
pub fn allowed(headers: &HeaderMap) -> Result<Option<Duration>, Refusal> {
    let Some(value) = find(headers, &HEADER) else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(parse);
    let why = "must be up to 8 digits and one of H M S m u n";
    parsed
        .map(Some)
        .ok_or_else(|| Refusal::field(crate::domain::invalid::FieldViolation::new(HEADER.as_str(), why)))
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3_600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Is over when the time of a call is.
pub type Timer = Pin<Box<Sleep>>;

/// The answer of `work`, or the refusal once the timer is over.
pub async fn within(timer: Option<Timer>, work: impl Future<Output = Response<Body>>) -> Response<Body> {
    let Some(mut sleep) = timer else { return work.await };
    tokio::select! {
        biased;
        response = work => response.map(|body| Body::new(Limited { body, sleep, over: false })),
        () = &mut sleep => status(&Refusal::Deadline).into_http(),
    }
}

/// A timer that runs from now on.
#[expect(clippy::disallowed_methods, reason = "the deadline of a call is a timer; this is its one home")]
pub fn timer(span: Duration) -> Timer {
    Box::pin(tokio::time::sleep(span))
}

/// A body that ends with DEADLINE_EXCEEDED when its time is up.
struct Limited {
    body: Body,
    sleep: Timer,
    over: bool,
}

impl HttpBody for Limited {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        // What is there already is sent, even late: cutting a finished answer helps nobody.
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        if self.sleep.as_mut().poll(cx).is_ready() {
            self.over = true;
            return Poll::Ready(Some(trailers(&Refusal::Deadline).map(Frame::trailers)));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Duration {
        let headers = HeaderMap::from_iter([(HEADER.clone(), value.parse().expect("a value"))]);
        allowed(&headers).expect("readable").expect("a deadline")
    }

    #[test]
    fn every_unit_is_read() {
        assert_eq!(read("2H"), Duration::from_hours(2));
        assert_eq!(read("3M"), Duration::from_mins(3));
        assert_eq!(read("4S"), Duration::from_secs(4));
        assert_eq!(read("5m"), Duration::from_millis(5));
        assert_eq!(read("6u"), Duration::from_micros(6));
        assert_eq!(read("99999999n"), Duration::from_nanos(99_999_999));
        assert_eq!(allowed(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn what_is_no_deadline_is_refused() {
        for bad in ["", "5", "S", "123456789S", "-1S", "+1S", "1s", "1 S", "1.5S", "1\u{b5}"] {
            let value = http::HeaderValue::from_bytes(bad.as_bytes()).expect("a value");
            let headers = HeaderMap::from_iter([(HEADER.clone(), value)]);
            assert!(allowed(&headers).is_err(), "{bad:?}");
        }
    }
}
