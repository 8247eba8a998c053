//! Bytes that are no request: each is refused in our words, blames the field where there is one, and harms nobody else.

use tonic::Code;

use super::contract::Contract;
use super::every_rpc::every_rpc;
use crate::support::databases::{Engine, TestDatabase};
use crate::support::raw_call::{LOGIN, VALIDATE, call_with, field, framed};
use crate::support::refusals::{assert_blames, assert_refused, blamed_fields};
use crate::support::server::TestServer;
use crate::support::verdicts::question;

type Nothing = ();

/// Bytes that are no UTF-8.
const NO_TEXT: &[u8] = b"a\xff\xfeb";

#[tokio::test]
async fn a_text_that_is_not_utf_8_is_blamed_wherever_it_is() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let contract = Contract::read();
    let mut asked = 0;
    for (name, method) in contract.methods() {
        for bad in contract.with_each_text(method.input_type(), NO_TEXT) {
            let answer = call_with(&server, &format!("/{name}"), &[], framed(&bad.message)).await;
            let status = assert_refused(answer.outcome::<Nothing>(), Code::InvalidArgument, "INVALID_FIELD");
            assert_eq!(blamed_fields(&status), [bad.path], "{name}");
            asked += 1;
        }
    }
    assert!(asked > 40, "only {asked} fields were found");
    assert!(server.faults.steps_of_calls().is_empty(), "nothing was asked of the database");
}

#[tokio::test]
async fn fields_of_a_newer_contract_are_passed_over() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    for mut call in every_rpc(&server).await {
        call.request.extend(field(15_000, b"from the future"));
        assert_eq!(call.make(&server).await, Ok(()), "{}", call.name);
    }
}

#[tokio::test]
async fn rubbish_and_huge_messages_are_blamed_on_the_request() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let huge = field(15_000, &vec![b'x'; 65_536]);
    for call in every_rpc(&server).await {
        for bad in [&[0xff_u8][..], &huge] {
            let answer = call_with(&server, &call.path(), &[], framed(bad)).await;
            assert_blames(answer.outcome::<Nothing>(), &["request"]);
        }
    }
    let (cut_text, number) = ([0x0a, 100, b'x'], [0x08, 1]);
    for bad in [&cut_text[..], &number] {
        let answer = call_with(&server, LOGIN, &[], framed(bad)).await;
        assert_blames(answer.outcome::<Nothing>(), &["login"]);
    }
}

#[tokio::test]
async fn a_message_of_just_the_limit_is_read() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    // The number and the length take three bytes each.
    let whole = field(15_000, &vec![b'x'; 65_536 - 6]);
    assert_eq!(whole.len(), 65_536);
    let answer = call_with(&server, VALIDATE, &[], framed(&whole)).await;
    assert_refused(answer.outcome::<Nothing>(), Code::Unauthenticated, "SESSION_TOKEN_INVALID");
    let more = field(15_000, &vec![b'x'; 65_536 - 5]);
    assert_blames(call_with(&server, VALIDATE, &[], framed(&more)).await.outcome::<Nothing>(), &["request"]);
}

#[tokio::test]
async fn broken_framing_is_blamed_on_the_request() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let cut = framed(b"12345").slice(..7);
    let no_frame = hyper::body::Bytes::from_static(b"\x00\x00");
    let none = hyper::body::Bytes::new();
    let absurd_flag = hyper::body::Bytes::from_static(&[7, 0, 0, 0, 0]);
    let said_huge = hyper::body::Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff]);
    for (what, body) in [
        ("cut", cut),
        ("no frame", no_frame),
        ("none", none),
        ("absurd flag", absurd_flag),
        ("said to be huge", said_huge),
    ] {
        let outcome = call_with(&server, LOGIN, &[], body).await.outcome::<Nothing>();
        let status = assert_refused(outcome, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(blamed_fields(&status), ["request"], "{what}");
    }
}

#[tokio::test]
async fn compressed_messages_are_not_taken_and_that_is_said() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    for call in every_rpc(&server).await {
        for encoding in ["gzip", "zstd", "deflate", "something"] {
            // Whether or not this message is compressed: a client may leave small ones as they are.
            for flag in [0, 1] {
                let mut body = framed(&call.request).to_vec();
                body[0] = flag;
                let headers = [("grpc-encoding", encoding)];
                let answer = call_with(&server, &call.path(), &headers, body.into()).await;
                assert_eq!(answer.headers["grpc-accept-encoding"], "identity", "{} {encoding}", call.name);
                assert_refused(answer.outcome::<Nothing>(), Code::Unimplemented, "ENCODING_UNSUPPORTED");
            }
        }
        let identity = call.make_with(&server, &[("grpc-encoding", "identity")]).await;
        assert_eq!(identity, Ok(()), "{}", call.name);
    }
}

#[tokio::test]
async fn what_is_not_served_is_told_in_our_words() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    for path in [
        "/",
        "/latchkey.v1.AuthService",
        "/latchkey.v1.AuthService/",
        "/latchkey.v1.AuthService/login",
        "/latchkey.v1.AuthService/Login/",
        "/latchkey.v1.AuthService/Login/More",
        "/latchkey.v2.AuthService/Login",
        "/somebody.Elses/Method",
    ] {
        let answer = call_with(&server, path, &[], framed(b"")).await;
        assert_refused(answer.outcome::<Nothing>(), Code::Unimplemented, "METHOD_UNKNOWN");
    }
}

#[tokio::test]
async fn headers_beyond_the_limit_harm_only_their_own_call() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let mut client = server.auth().await;
    let mut huge = tonic::Request::new(question("x"));
    huge.metadata_mut().insert("x-padding", "p".repeat(10_000).parse().expect("metadata"));
    let refused = client.validate_session(huge).await.expect_err("more than 8 KiB of headers");
    assert_ne!(refused.code(), Code::Unauthenticated, "the token was never looked at");
    let next = client.validate_session(question("x")).await;
    assert_refused(next, Code::Unauthenticated, "SESSION_TOKEN_INVALID");
}
