//! The flow of a stream: order whatever has to wait, bounds whoever does not read, and life across an outage.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use http::{Request, Version};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use latchkey::grpc::proto::v1;
use prost::Message as _;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::support::databases::{Engine, TestDatabase};
use crate::support::interposed_store::{Fault, shut_gate};
use crate::support::raw_call::framed;
use crate::support::server::{LEASE, TestServer};
use crate::support::verdicts::{question, verdict_of};
use crate::support::waiting::eventually;

fn asked(tag: u64, token: &str) -> v1::StreamValidateSessionsRequest {
    v1::StreamValidateSessionsRequest { tag, question: Some(question(token)) }
}

#[tokio::test]
async fn what_waits_for_the_database_is_not_overtaken() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let (ada, bob) = (server.add_bare_user("ada").await, server.add_bare_user("bob").await);
    let known = server.open_session(&ada).await.session_token;
    let read = server.open_session(&bob).await.session_token;
    server.make_stale(&bob).await;
    let (gate, fault) = shut_gate();
    server.faults.set("sessions_by_digest", fault);

    let (ask, questions) = mpsc::channel(200);
    let answers = server.auth().await.stream_validate_sessions(ReceiverStream::new(questions)).await;
    let mut answers = answers.expect("a stream").into_inner();
    // Every third has to be read; more of them than may be under way at once.
    for tag in 0..150 {
        ask.send(asked(tag, if tag % 3 == 1 { &read } else { &known })).await.expect("the stream is open");
    }
    drop(ask);
    let first = answers.message().await.expect("an answer").expect("an answer");
    assert_eq!(first.tag, 0, "what is before the one that waits does not wait");
    server.faults.asked_for("sessions_by_digest", 1).await;
    server.faults.clear();
    gate.add_permits(Semaphore::MAX_PERMITS);
    for tag in 1..150 {
        let answer = answers.message().await.expect("an answer").expect("an answer");
        assert_eq!(answer.tag, tag);
        verdict_of(answer).expect("good");
    }
    assert_eq!(answers.message().await.expect("a good end"), None);
}

#[tokio::test]
async fn a_stream_outlives_the_loss_of_the_lease() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    let (ask, questions) = mpsc::channel(1);
    let answers = server.auth().await.stream_validate_sessions(ReceiverStream::new(questions)).await;
    let mut answers = answers.expect("a stream").into_inner();
    let mut verdict = async |tag| {
        ask.send(asked(tag, &token)).await.expect("the stream is open");
        let answer = answers.message().await.expect("an answer").expect("an answer");
        assert_eq!(answer.tag, tag);
        verdict_of(answer).map(drop)
    };
    assert_eq!(verdict(1).await, Ok(()));
    server.faults.set("poll", Fault::Unavailable);
    server.advance(LEASE).await;
    assert_eq!(verdict(2).await, Err((Code::Unavailable, "LEASE_LOST".to_owned())));
    server.faults.clear();
    server.advance(Duration::from_secs(1)).await;
    assert_eq!(verdict(3).await, Ok(()));
}

#[tokio::test]
async fn who_does_not_read_the_answers_is_not_asked_for_more_questions() {
    /// The client's window and two frames are full of answers, and the server's window of questions: about 150 KB. A server
    /// that reads on without bounds took 700 KB here.
    const BYTES_MAX: usize = 256 * 1024;
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    let frame = Bytes::from(framed(&asked(1, &token).encode_to_vec()).repeat(100));
    let (sent, len) = (Arc::new(AtomicUsize::new(0)), frame.len());
    // Questions without end.
    let counted = Arc::clone(&sent);
    let questions = stream::repeat(frame).map(move |frame| {
        counted.fetch_add(len, Ordering::Relaxed);
        Ok::<_, Infallible>(Frame::data(frame))
    });
    let client = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .http2_initial_stream_window_size(64 * 1024)
        .build_http();
    let uri = format!("http://{}/latchkey.v1.AuthService/StreamValidateSessions", server.address);
    let request = Request::post(uri).version(Version::HTTP_2).header("content-type", "application/grpc");
    let request = request.header("te", "trailers").body(StreamBody::new(questions)).expect("a request");
    let mut answers = client.request(request).await.expect("the server answers").into_body();
    // Others are served meanwhile, often enough for a server that buffers to read on and on.
    for _ in 0..300 {
        server.validate(&token).await.expect("good");
    }
    let before = sent.load(Ordering::Relaxed);
    assert!(before < BYTES_MAX, "{before} bytes of questions were taken without an answer being read");
    // Who reads again is asked for more.
    let mut read = 0;
    while read <= before {
        let frame = answers.frame().await.expect("the stream goes on").expect("the stream is whole");
        read += frame.into_data().expect("answers").len();
    }
    assert!(sent.load(Ordering::Relaxed) > before);
}

#[tokio::test]
async fn small_frames_that_wait_do_not_break_the_connection() {
    // Each question is a frame by itself, as gRPC clients of other languages send them, and there are more of them than the
    // window of a stream takes.
    const QUESTIONS: usize = 2_000;
    const STREAMS: usize = 8;
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    server.make_stale(&ada).await;
    let (gate, fault) = shut_gate();
    server.faults.set("sessions_by_digest", fault);

    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let uri = format!("http://{}/latchkey.v1.AuthService/StreamValidateSessions", server.address);
    let sent = Arc::new(AtomicUsize::new(0));
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let (token, sent) = (token.clone(), Arc::clone(&sent));
        let questions = stream::iter(1..).take(QUESTIONS).map(move |tag| {
            sent.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(Frame::data(framed(&asked(tag, &token).encode_to_vec())))
        });
        let request = Request::post(&uri).version(Version::HTTP_2).header("content-type", "application/grpc");
        let request = request.header("te", "trailers").body(StreamBody::new(questions.boxed()));
        let answer = client.request(request.expect("a request")).await.expect("the server answers");
        streams.push(answer.into_body());
    }
    eventually("the windows are full of questions", async || {
        let before = sent.load(Ordering::Relaxed);
        for _ in 0..20 {
            server.validate("no token").await.expect_err("refused");
        }
        before > STREAMS * 300 && before == sent.load(Ordering::Relaxed)
    })
    .await;
    assert!(sent.load(Ordering::Relaxed) < STREAMS * QUESTIONS, "nobody waits");
    server.faults.clear();
    gate.add_permits(Semaphore::MAX_PERMITS);
    for answers in streams {
        let mut body = answers.collect().await.expect("the stream is whole").to_bytes();
        let mut tags = 1..;
        while !body.is_empty() {
            let head = body.split_to(5);
            let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
            let message = body.split_to(usize::try_from(len).expect("a length"));
            let answer = v1::StreamValidateSessionsResponse::decode(message).expect("an answer");
            assert_eq!(Some(answer.tag), tags.next());
            verdict_of(answer).expect("good");
        }
        assert_eq!(tags.start, 1 + QUESTIONS as u64);
    }
}
