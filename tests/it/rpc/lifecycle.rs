//! How a node ends, and what it refuses to start with.

use std::net::SocketAddr;
use std::sync::Arc;

use latchkey::config::Config;
use latchkey::domain::token::{KEY_LEN, KeyId, KeyRing, TokenKey};
use latchkey::grpc::proto::v1::revoke_sessions_request::Target;
use latchkey::server::{Drained, StartError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;

use crate::support::databases::{Engine, TestDatabase};
use crate::support::interposed_store::shut_gate;
use crate::support::raw_call::{VALIDATE, call_with, framed};
use crate::support::refusals::assert_refused;
use crate::support::server::{TestServer, config, key_ring};
use crate::support::waiting::{eventually, in_time};

async fn refuses_connections(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_err()
}

#[tokio::test]
async fn a_call_in_flight_is_answered_and_new_connections_are_refused() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    let (gate, fault) = shut_gate();
    server.faults.set("end_sessions_together", fault);
    let stops = async {
        server.faults.asked_for("end_sessions_together", 1).await;
        server.shutdown.cancel();
        let address = server.address;
        eventually("new connections are refused", async || refuses_connections(address).await).await;
        gate.add_permits(1);
    };
    let (outcome, ()) = tokio::join!(server.revoke(Target::SessionToken(token.clone())), stops);
    assert_eq!(outcome.expect("answered").revoked_count, 1);
    let http_address = server.http_address;
    assert_eq!(server.ended().await, Drained::Clean);
    assert!(refuses_connections(http_address).await);
    let server = TestServer::start(&database).await;
    server.assert_dead(&token, "SESSION_REVOKED").await;
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_stop() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start_with(&database, |config| config.shutdown.drain_ms = 600_000).await;
    let _answered = server.validate("x").await;
    let silent = TcpStream::connect(server.address).await.expect("a connection that says nothing");
    let mut hesitant = TcpStream::connect(server.address).await.expect("a connection that says too little");
    hesitant.write_all(b"PRI * HTTP").await.expect("sent");
    assert_eq!(server.stop().await, Drained::Clean);
    drop((silent, hesitant));
}

#[tokio::test]
async fn the_drain_has_a_limit_and_what_was_cut_off_is_said() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start_with(&database, |config| config.shutdown.drain_ms = 20).await;
    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    let (gate, fault) = shut_gate();
    server.faults.set("end_sessions_together", fault);
    let stops = async {
        server.faults.asked_for("end_sessions_together", 1).await;
        server.shutdown.cancel();
    };
    let (outcome, ()) =
        in_time("the cut", async { tokio::join!(server.revoke(Target::SessionToken(token)), stops) }).await;
    outcome.expect_err("cut off");
    // The write itself is not torn apart; it only has no limit of its own here.
    gate.add_permits(1);
    assert_eq!(server.ended().await, Drained::CutOff);
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start_with(&database, |config| {
        config.shutdown.lame_duck_ms = 300_000;
        config.shutdown.drain_ms = 600_000;
    })
    .await;
    let (gate, fault) = shut_gate();
    server.faults.set("user", fault);
    let load = latchkey::grpc::proto::v1::LoadUserRequest {
        by: Some(latchkey::grpc::proto::v1::load_user_request::By::Login("ada".to_owned())),
    };
    let mut client = server.auth().await;
    let stops = async {
        server.faults.asked_for("user", 1).await;
        server.shutdown.cancel();
        server.abort.cancel();
    };
    let (outcome, ()) = in_time("the cut", async { tokio::join!(client.load_user(load), stops) }).await;
    outcome.expect_err("cut off");
    assert_eq!(server.ended().await, Drained::CutOff);
    drop(gate);
}

#[tokio::test]
async fn a_stop_in_the_lame_duck_delay_waits_for_it() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start_with(&database, |config| config.shutdown.lame_duck_ms = 300_000).await;
    server.shutdown.cancel();
    // It goes on answering, on connections made after the signal as well.
    let answer = call_with(&server, VALIDATE, &[], framed(b"")).await;
    assert_refused(answer.outcome::<()>(), Code::Unauthenticated, "SESSION_TOKEN_INVALID");
    server.abort.cancel();
    assert_eq!(server.ended().await, Drained::CutOff);
}

#[tokio::test]
async fn a_key_that_the_database_knows_otherwise_is_refused() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    server.stop().await;
    let ring = |keys: &[(u8, u8)]| {
        KeyRing::new(keys.iter().map(|&(id, byte)| TokenKey::new(KeyId(id), [byte; KEY_LEN])).collect())
            .expect("a ring")
    };
    let start = async |keys| TestServer::try_start(&database, &config(), Arc::default(), keys).await;
    for keys in [ring(&[(1, 8)]), ring(&[(2, 9), (1, 8)])] {
        let refused = start(keys).await.err().expect("another key of the same number");
        assert!(matches!(refused, StartError::KeyMismatch(KeyId(1))), "{refused}");
        assert!(refused.to_string().contains("token key 1"), "{refused}");
    }
    // A new key in front signs from now on, and what the old one signed is good.
    let server = start(ring(&[(2, 9), (1, 7)])).await.unwrap_or_else(|why| panic!("{why}"));
    server.assert_good(&token).await;
    let newer = server.open_session(&ada).await.session_token;
    server.stop().await;
    let server = start(key_ring()).await.unwrap_or_else(|why| panic!("{why}"));
    server.assert_good(&token).await;
    assert_eq!(server.verdict(&newer).await, Err((Code::Unavailable, "LEASE_LOST".to_owned())));
}

#[tokio::test]
async fn tokens_do_not_cross_a_network_in_the_clear_by_accident() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let start = async |insecure| {
        let config = Config { listen: everywhere, insecure, ..config() };
        TestServer::try_start(&database, &config, Arc::default(), key_ring()).await
    };
    let refused = start(false).await.err().expect("plaintext on every interface");
    assert!(matches!(refused, StartError::Plaintext(address) if address == everywhere), "{refused}");
    let server = start(true).await.unwrap_or_else(|why| panic!("{why}"));
    assert!(server.address.ip().is_unspecified());
}

#[tokio::test]
async fn an_address_that_is_taken_is_said() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let other = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let mut same = config();
    same.listen = server.address;
    let refused = TestServer::try_start(&other, &same, Arc::default(), key_ring()).await.err();
    let refused = refused.expect("the address is taken");
    assert!(matches!(refused, StartError::Bind { address, .. } if address == server.address), "{refused}");
}

#[tokio::test]
async fn costs_below_the_floor_are_refused() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let mut cheap = config();
    cheap.password.argon2_memory_kib = 8_192;
    let refused = TestServer::try_start(&database, &cheap, Arc::default(), key_ring()).await.err();
    let refused = refused.expect("OWASP asks for more");
    assert!(matches!(refused, StartError::BadSetting { setting: "password.argon2_*", .. }), "{refused}");
}

#[tokio::test]
async fn connections_are_bounded_and_places_come_back() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start_with(&database, |config| config.grpc.connections_max = 2).await;
    let (first, second) = (server.new_channel().await, server.new_channel().await);
    let ask = async |channel: &tonic::transport::Channel| {
        let mut client =
            latchkey::grpc::proto::v1::auth_service_client::AuthServiceClient::new(channel.clone());
        let answer = client.validate_session(crate::support::verdicts::question("x")).await;
        answer.expect_err("no token").code() == Code::Unauthenticated
    };
    assert!(ask(&first).await && ask(&second).await);
    let third = tonic::transport::Endpoint::from_shared(format!("http://{}", server.address))
        .expect("an address")
        .connect_lazy();
    assert!(!ask(&third).await, "there is no room");
    drop(first);
    eventually("a place is free", async || ask(&third).await).await;
}

#[tokio::test]
async fn a_connection_that_says_nothing_or_not_enough_is_closed() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start_with(&database, |config| config.grpc.first_byte_timeout_ms = 100).await;
    for said in ["", "PRI * HTTP/2.0\r\n", "GET / HTTP/1.1\r\nhost: here\r\n\r\n"] {
        let mut stream = TcpStream::connect(server.address).await.expect("a connection");
        stream.write_all(said.as_bytes()).await.expect("sent");
        let mut heard = Vec::new();
        // Whether it ends cleanly or by a reset depends on what of it was not read.
        let _ended = in_time("the server gives up", stream.read_to_end(&mut heard)).await;
        assert!(heard.is_empty(), "closed without a word after {said:?}");
    }
}
