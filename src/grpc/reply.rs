//! The body of an answer, whichever way it was made.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Bytes;
use tonic::{Code, Status};

use super::lean::stream::Answers;
use super::observe::{Begun, Observed};
use super::status::ok_trailers;

/// What follows the headers of an answer.
pub enum Reply {
    /// Nothing: the headers said all.
    Nothing,
    /// One message, and that all is well.
    One {
        /// The message, framed; none once it was sent.
        frame: Option<Bytes>,
        /// The RPC, which ends behind it; none once it has.
        begun: Option<Begun>,
    },
    /// Answers to a stream of questions.
    Many(Box<Answers>),
    /// What tonic made.
    Tonic(Observed),
}

impl HttpBody for Reply {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.get_mut() {
            Self::Nothing => Poll::Ready(None),
            Self::One { frame, begun } => {
                let data = frame.take().map(Frame::data);
                Poll::Ready(data.or_else(|| begun.take().map(all_is_well)).map(Ok))
            }
            Self::Many(answers) => answers.poll(cx),
            Self::Tonic(observed) => Pin::new(observed).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::One { begun, .. } => begun.is_none(),
            Self::Many(answers) => answers.is_over(),
            Self::Tonic(observed) => observed.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            // A length would be told in the headers, and tonic tells none.
            Self::Nothing | Self::One { .. } | Self::Many(_) => SizeHint::default(),
            Self::Tonic(observed) => observed.size_hint(),
        }
    }
}

/// The trailers of an RPC that ends well.
fn all_is_well(mut begun: Begun) -> Frame<Bytes> {
    begun.end(Code::Ok);
    Frame::trailers(ok_trailers())
}
