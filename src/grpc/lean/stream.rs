//! StreamValidateSessions: the questions that have come are answered out of memory in one go, and what is answered goes out
//! as one frame. Both ways are bounded: nothing is read while enough is waiting to be sent, so a client that does not read
//! its answers is asked by flow control to wait with its questions.
//!
//! What memory does not know waits for its read, and whatever was asked behind it waits for its turn.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame};
use hyper::body::{Bytes, Incoming};
use prost::Message as _;
use prost::bytes::{Buf as _, BytesMut};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Code, Status};

use super::Lean;
use super::answer::{put_framed, put_good, put_refused};
use super::question::{FRAME_HEAD, Tagged, message_len, tagged};
use crate::domain::refusal::Refusal;
use crate::grpc::auth::{STREAM_QUESTIONS_IN_FLIGHT_MAX, answer};
use crate::grpc::deadline::Timer;
use crate::grpc::observe::Begun;
use crate::grpc::proto::v1;
use crate::grpc::refused_message::{not_a_message, refusal_of_message, too_large, unreadable};
use crate::grpc::status::{code, ok_trailers, trailers};
use crate::usecases::validate_session::{Moment, validate_at};

/// Bytes of answers beyond which they are sent before more is read: with one more they are a frame of HTTP/2.
const ANSWERS_BYTES_MAX: usize = 15 * 1024;

/// A stream of answers.
pub struct Answers {
    lean: Arc<Lean>,
    begun: Begun,
    timer: Option<Timer>,
    /// Over when the node stops.
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    questions: Incoming,
    /// What came of questions that are not looked at yet.
    read: BytesMut,
    /// The first question that has to wait, and all those behind it.
    waiting: FuturesOrdered<Waiting>,
    /// Answers to be sent.
    out: Vec<u8>,
    /// How many bytes the answers took that were sent last.
    sent: usize,
    state: State,
}

/// An answer that is still to come, framed.
type Waiting = Pin<Box<dyn Future<Output = Vec<u8>> + Send>>;

/// How far a stream is.
enum State {
    /// Questions are taken.
    Open,
    /// No more are; once all are answered it ends: well, or with the refusal.
    Closing(Option<Refusal>),
    /// It has ended.
    Over,
}

impl Answers {
    /// Answers `questions`, until `stop`.
    pub fn new(
        lean: Arc<Lean>,
        questions: Incoming,
        begun: Begun,
        timer: Option<Timer>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            lean,
            begun,
            timer,
            stop: Box::pin(stop.cancelled_owned()),
            questions,
            read: BytesMut::new(),
            waiting: FuturesOrdered::new(),
            out: Vec::new(),
            sent: 0,
            state: State::Open,
        }
    }

    /// The next frame of the answer.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            self.take_questions();
            // Behind the questions: one that has to wait is asked for here for the first time. Each that was answered makes
            // room for a question.
            let answered = self.take_answers(cx);
            if self.is_full() || !(answered || self.may_ask() && self.read_more(cx)) {
                break;
            }
        }
        if !self.out.is_empty() {
            self.sent = self.out.len();
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.out).into()))));
        }
        match &mut self.state {
            State::Over => return Poll::Ready(None),
            State::Closing(why) if self.waiting.is_empty() => {
                let why = why.take();
                return Poll::Ready(Some(self.end(why.as_ref())));
            }
            State::Open | State::Closing(_) => {}
        }
        if self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Some(self.end(Some(&Refusal::Deadline))));
        }
        Poll::Pending
    }

    /// Whether nothing more is to come.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    fn is_full(&self) -> bool {
        self.out.len() >= ANSWERS_BYTES_MAX
    }

    /// Whether one more question may be taken.
    fn may_ask(&self) -> bool {
        matches!(self.state, State::Open) && self.waiting.len() < STREAM_QUESTIONS_IN_FLIGHT_MAX
    }

    /// Takes the answers that had to be waited for and are there, in their order; whether there were any.
    fn take_answers(&mut self, cx: &mut Context<'_>) -> bool {
        let before = self.waiting.len();
        while !self.waiting.is_empty() && !self.is_full() {
            let Poll::Ready(Some(frame)) = self.waiting.poll_next_unpin(cx) else { break };
            self.out.extend_from_slice(&frame);
        }
        self.waiting.len() < before
    }

    /// Answers the questions that came whole.
    fn take_questions(&mut self) {
        // Looked at where they lie: to split each off would take as long as to look it up.
        let mut read = std::mem::take(&mut self.read);
        let mut taken = 0;
        if !read.is_empty() && self.out.capacity() == 0 {
            // The next answers take about as much room as the last ones.
            self.out.reserve(self.sent);
        }
        // Asked for behind the questions that have come, and before what is known of their sessions.
        let mut moment = None;
        while self.may_ask() && !self.is_full() {
            let rest = &read[taken..];
            let Some(head) = rest.first_chunk::<FRAME_HEAD>() else { break };
            let Some(len) = message_len(*head) else {
                self.close(Some(not_a_message()));
                break;
            };
            if len > self.lean.message_bytes_max {
                self.close(Some(too_large()));
                break;
            }
            let Some(message) = rest[FRAME_HEAD..].get(..len) else { break };
            taken += FRAME_HEAD + len;
            let moment = *moment.get_or_insert_with(|| self.lean.app.fleet.moment(&read));
            if let Err(refusal) = self.ask(moment, message) {
                self.close(Some(refusal));
            }
        }
        read.advance(taken);
        self.read = read;
    }

    /// Answers one question, at once where that can be done. Refuses what is none.
    fn ask<'q>(&mut self, moment: Option<Moment<'q>>, message: &'q [u8]) -> Result<(), Refusal> {
        if let Ok(Tagged { tag, token }) = tagged(message) {
            let mut behind = Vec::new();
            // Who has to wait for others may not be answered before them.
            let turn = self.waiting.is_empty();
            let out = if turn { &mut self.out } else { &mut behind };
            let answered = validate_at(&self.lean.app, moment, token, |good| put_good(tag, &good, out));
            match answered {
                Ok(Some(())) => {}
                Err(refusal) => {
                    let out = if turn { &mut self.out } else { &mut behind };
                    put_refused(tag, &self.lean.refusals.in_a_stream(&refusal), out);
                }
                Ok(None) => {
                    self.wait_for(message)?;
                    return Ok(());
                }
            }
            if !turn {
                self.waiting.push_back(Box::pin(std::future::ready(behind)));
            }
            return Ok(());
        }
        self.wait_for(message)
    }

    /// Has a question answered by the way that all others take.
    fn wait_for(&mut self, message: &[u8]) -> Result<(), Refusal> {
        let question = v1::StreamValidateSessionsRequest::decode(message);
        let question = question.map_err(|error| unreadable(&error.to_string()))?;
        let app = Arc::clone(&self.lean.app);
        self.waiting.push_back(Box::pin(async move {
            let mut frame = Vec::new();
            put_framed(&answer(app, question).await, &mut frame);
            frame
        }));
        Ok(())
    }

    /// Reads more of the questions; false where there is nothing more for now.
    fn read_more(&mut self, cx: &mut Context<'_>) -> bool {
        if self.stop.as_mut().poll(cx).is_ready() {
            self.close(None);
            return true;
        }
        let Poll::Ready(frame) = Pin::new(&mut self.questions).poll_frame(cx) else { return false };
        match frame {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    self.read.extend_from_slice(&data);
                }
            }
            None => self.close(self.read.has_remaining().then(not_a_message)),
            Some(Err(error)) => {
                let told = Status::from_error(error.into());
                // A client that left has asked all that it asks.
                self.close((told.code() != Code::Cancelled).then(|| refusal_of_message(&told)));
            }
        }
        true
    }

    fn close(&mut self, why: Option<Refusal>) {
        self.state = State::Closing(why);
    }

    fn end(&mut self, why: Option<&Refusal>) -> Result<Frame<Bytes>, Status> {
        self.state = State::Over;
        self.begun.end(why.map_or(Code::Ok, code));
        let trailers: Result<HeaderMap, Status> = why.map_or_else(|| Ok(ok_trailers()), trailers);
        trailers.map(Frame::trailers)
    }
}
