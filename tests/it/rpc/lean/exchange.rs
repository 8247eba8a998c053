//! One request over bare HTTP/2, frame by frame, and all that comes back.

use std::convert::Infallible;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use http::{HeaderMap, Method, Request, StatusCode, Version};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::TokioExecutor;
use latchkey::grpc::proto::v1;
use latchkey::grpc::proto::v1::load_user_request::By;
use prost::Message as _;

use crate::support::raw_call::{VALIDATE, framed};
use crate::support::server::TestServer;
use crate::support::verdicts::question;
use crate::support::waiting::in_time;

/// The path of `LoadUser`.
pub const LOAD_USER: &str = "/latchkey.v1.AuthService/LoadUser";

/// The path of `StreamValidateSessions`.
pub const STREAM: &str = "/latchkey.v1.AuthService/StreamValidateSessions";

/// A body that is sent frame by frame.
type FramedBody = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

/// A request, as it goes over the wire.
#[derive(Clone)]
pub struct Asked {
    pub what: String,
    pub method: Method,
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    /// DATA frames, each by itself.
    pub frames: Vec<Bytes>,
    /// What the trailers say, where there are any.
    pub trailers: Option<HeaderMap>,
    /// Whether the body never ends.
    pub endless: bool,
}

/// All that came back.
#[derive(PartialEq, Eq, Debug)]
pub struct Told {
    pub status: StatusCode,
    pub headers: Vec<(String, Bytes)>,
    pub body: Bytes,
    pub trailers: Option<Vec<(String, Bytes)>>,
    /// How many DATA frames with something in them the body came in; not counted of a stream, whose answers are sent as they
    /// are ready.
    pub frames: usize,
    /// Whether the stream was broken off instead of ended.
    pub broken: bool,
}

impl Asked {
    /// A usual request with this message.
    pub fn of(what: &str, path: &str, message: &[u8]) -> Self {
        Self {
            what: format!("{path}: {what}"),
            method: Method::POST,
            path: path.to_owned(),
            headers: vec![("content-type", "application/grpc".to_owned()), ("te", "trailers".to_owned())],
            frames: vec![framed(message)],
            trailers: None,
            endless: false,
        }
    }

    /// ValidateSession of a token.
    pub fn validate(what: &str, token: &str) -> Self {
        Self::of(what, VALIDATE, &question(token).encode_to_vec())
    }

    /// LoadUser by token.
    pub fn load_user(what: &str, token: &str) -> Self {
        let request = v1::LoadUserRequest { by: Some(By::SessionToken(token.to_owned())) };
        Self::of(what, LOAD_USER, &request.encode_to_vec())
    }

    /// StreamValidateSessions of these messages, in these frames.
    pub fn stream(what: &str, frames: Vec<Bytes>) -> Self {
        Self::of(what, STREAM, &[]).framed_as(frames)
    }

    /// With one more header.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(other, _)| *other != name || name.starts_with("x-"));
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Without a header.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self
    }

    /// With its body in these frames.
    pub fn framed_as(self, frames: Vec<Bytes>) -> Self {
        Self { frames, ..self }
    }

    fn request(&self, server: &TestServer) -> Request<FramedBody> {
        let uri = format!("http://{}{}", server.address, self.path);
        let mut request = Request::builder().method(&self.method).uri(uri).version(Version::HTTP_2);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let data = self.frames.clone().into_iter().map(Frame::data);
        let frames = stream::iter(data.chain(self.trailers.clone().map(Frame::trailers)).map(Ok));
        let frames = if self.endless { frames.chain(stream::pending()).boxed() } else { frames.boxed() };
        request.body(StreamBody::new(frames)).expect("a request")
    }

    /// Sends it on a connection of its own; the answer as far as its head.
    pub async fn send(&self, server: &TestServer) -> Result<http::Response<Incoming>, Error> {
        let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        client.request(self.request(server)).await
    }
}

/// Sends a request and reads all that comes back.
pub async fn exchange(server: &TestServer, asked: &Asked) -> Told {
    in_time(&asked.what, async {
        let response = asked.send(server).await.unwrap_or_else(|error| panic!("{}: {error:?}", asked.what));
        let mut told = read(response).await;
        if asked.path == STREAM {
            told.frames = 0;
        }
        told
    })
    .await
}

async fn read(response: http::Response<Incoming>) -> Told {
    let (head, mut incoming) = response.into_parts();
    let (mut body, mut trailers, mut frames, mut broken) = (Vec::new(), None, 0, false);
    while let Some(frame) = incoming.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => {
                frames += usize::from(!data.is_empty());
                body.extend_from_slice(&data);
            }
            Ok(Err(frame)) => trailers = frame.into_trailers().ok().map(|trailers| all(&trailers)),
            Err(_) => {
                broken = true;
                break;
            }
        }
    }
    Told { status: head.status, headers: all(&head.headers), body: body.into(), trailers, frames, broken }
}

fn all(headers: &HeaderMap) -> Vec<(String, Bytes)> {
    let mut told: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.to_string(), Bytes::copy_from_slice(value.as_bytes())))
        .collect();
    told.sort();
    told
}
