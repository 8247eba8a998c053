//! StreamValidateSessions: many questions on one stream, answered in their order, each by itself.

use std::time::Duration;

use futures_util::StreamExt as _;
use latchkey::grpc::proto::v1;
use latchkey::grpc::proto::v1::stream_validate_sessions_response::Answer;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use crate::support::databases::{Engine, TestDatabase};
use crate::support::interposed_store::{FAULT, Fault};
use crate::support::raw_call::{call_with, field, framed};
use crate::support::refusals::{assert_blames, assert_refused};
use crate::support::server::{TestServer, open_request, span};
use crate::support::verdicts::{question, verdict_of};

const STREAM: &str = "/latchkey.v1.AuthService/StreamValidateSessions";

/// A stream that stays open, and the end that asks.
async fn open_stream(
    server: &TestServer,
) -> (mpsc::Sender<v1::StreamValidateSessionsRequest>, Streaming<v1::StreamValidateSessionsResponse>) {
    let (ask, questions) = mpsc::channel(1);
    let questions = ReceiverStream::new(questions);
    let answers = server.auth().await.stream_validate_sessions(questions).await.expect("a stream");
    (ask, answers.into_inner())
}

fn asked(tag: u64, question: v1::ValidateSessionRequest) -> v1::StreamValidateSessionsRequest {
    v1::StreamValidateSessionsRequest { tag, question: Some(question) }
}

#[tokio::test]
async fn a_thousand_questions_of_all_kinds_are_answered_in_order() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let good = server.open_session(&ada).await;
    let ended = server.open_session(&ada).await.session_token;
    let short = v1::CreateSessionRequest { lifetime: Some(span(1, 0)), ..open_request(&ada) };
    let expired = server.create_session(short).await.session_token;
    server.log_out(&ended).await;
    server.advance(Duration::from_secs(1)).await;

    let good_id = good.session.expect("a session").session_id;
    let refused = |code, reason: &str| Err((code, reason.to_owned()));
    let kinds = [
        (question(&good.session_token), Ok(good_id)),
        (question("no token"), refused(Code::Unauthenticated, "SESSION_TOKEN_INVALID")),
        (question(&ended), refused(Code::Unauthenticated, "SESSION_REVOKED")),
        (question(&expired), refused(Code::Unauthenticated, "SESSION_EXPIRED")),
        (
            v1::ValidateSessionRequest { max_auth_age: Some(span(0, 0)), ..question(&good.session_token) },
            refused(Code::FailedPrecondition, "REAUTHENTICATION_REQUIRED"),
        ),
        (
            v1::ValidateSessionRequest { max_auth_age: Some(span(-1, 0)), ..question(&good.session_token) },
            refused(Code::InvalidArgument, "INVALID_FIELD"),
        ),
        (v1::ValidateSessionRequest::default(), refused(Code::Unauthenticated, "SESSION_TOKEN_INVALID")),
    ];
    // Tags are the caller's business: here they come backwards, and twice each.
    let tag = |at: u64| (1_000 - at) / 2;
    let kind = |at: u64| &kinds[usize::try_from(at % 7).expect("small")];
    let questions = (0..1_000).map(|at| asked(tag(at), kind(at).0.clone()));
    let answers = server.ask_in_stream(questions.collect()).await;
    assert_eq!(answers.len(), 1_000);
    for (at, answer) in (0..).zip(answers) {
        assert_eq!(answer.tag, tag(at), "answer {at}");
        assert_eq!(verdict_of(answer), kind(at).1, "answer {at}");
    }
}

#[tokio::test]
async fn a_good_answer_is_that_of_the_unary_call() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    let unary = server.validate(&token).await.expect("good");
    let answers = server.ask_in_stream(vec![asked(u64::MAX, question(&token))]).await;
    let expected = v1::StreamValidateSessionsResponse { tag: u64::MAX, answer: Some(Answer::Good(unary)) };
    assert_eq!(answers, [expected]);
}

#[tokio::test]
async fn an_answer_does_not_wait_for_the_next_question() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    let (ask, mut answers) = open_stream(&server).await;
    for tag in 0..3 {
        ask.send(asked(tag, question(&token))).await.expect("the stream is open");
        assert_eq!(answers.message().await.expect("an answer").expect("an answer").tag, tag);
    }
    // What ends while the stream is open is refused by its next answer.
    server.log_out(&token).await;
    ask.send(asked(3, question(&token))).await.expect("the stream is open");
    let answer = answers.message().await.expect("an answer").expect("an answer");
    assert_eq!(verdict_of(answer), Err((Code::Unauthenticated, "SESSION_REVOKED".to_owned())));
    drop(ask);
    assert_eq!(answers.message().await.expect("a good end"), None);
}

#[tokio::test]
async fn no_questions_are_no_answers_and_a_missing_question_is_one_without_token() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    assert_eq!(server.ask_in_stream(Vec::new()).await, []);
    let nothing = v1::StreamValidateSessionsRequest { tag: 5, question: None };
    let answer = server.ask_in_stream(vec![nothing]).await.remove(0);
    assert_eq!(answer.tag, 5);
    assert_eq!(verdict_of(answer), Err((Code::Unauthenticated, "SESSION_TOKEN_INVALID".to_owned())));
}

#[tokio::test]
async fn an_outage_is_an_answer_that_is_no_log_out() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    let (ask, mut answers) = open_stream(&server).await;
    server.make_stale(&ada).await;
    server.faults.set("sessions_by_digest", Fault::Unavailable);
    ask.send(asked(1, question(&token))).await.expect("the stream is open");
    let answer = answers.message().await.expect("an answer").expect("an answer");
    let Some(Answer::Refused(refused)) = answer.answer else { panic!("answered without the database") };
    assert_eq!((refused.code, refused.reason()), (14, v1::ErrorReason::StoreUnavailable));
    assert!(refused.retry_delay.is_some_and(|delay| delay.seconds > 0 || delay.nanos > 0));
    assert!(!refused.message.is_empty() && !refused.message.contains(FAULT));
    server.faults.clear();
    ask.send(asked(2, question(&token))).await.expect("the stream is open");
    verdict_of(answers.message().await.expect("an answer").expect("an answer")).expect("good again");
}

#[tokio::test]
async fn what_is_no_question_ends_the_stream_in_our_words() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    // Field 2 is the question, whose field 1 is the token, which is no UTF-8 here.
    let question = field(2, &field(1, &[b'l', 0xff]));
    let answer = call_with(&server, STREAM, &[], framed(&question)).await;
    assert_blames(answer.outcome::<v1::StreamValidateSessionsResponse>(), &["question.session_token"]);

    let huge = field(2, &field(1, &vec![b'x'; 66_000]));
    let answer = call_with(&server, STREAM, &[], framed(&huge)).await;
    assert_blames(answer.outcome::<v1::StreamValidateSessionsResponse>(), &["request"]);
}

#[tokio::test]
async fn many_streams_share_a_connection_until_its_limit() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start_with(&database, |config| config.grpc.streams_per_connection_max = 3).await;
    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(open_stream(&server).await);
    }
    let mut waiting = Box::pin(server.validate(&token));
    for (ask, answers) in &mut open {
        ask.send(asked(1, question(&token))).await.expect("the stream is open");
        tokio::select! {
            _ = &mut waiting => panic!("a fourth stream was let in"),
            answer = answers.next() => { answer.expect("an answer").expect("an answer"); }
        }
    }
    open.pop();
    waiting.await.expect("the place of the stream that ended is free");
    assert_refused(server.validate("x").await, Code::Unauthenticated, "SESSION_TOKEN_INVALID");
}
