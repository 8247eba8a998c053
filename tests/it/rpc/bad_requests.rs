//! However much is wrong with a request, and however large it is: the answer says so within the headers that every
//! client and proxy takes.

use prost::Message as _;
use prost_types::FieldMask;

use latchkey::grpc::proto::{admin, v1};

use super::contract::Contract;
use crate::support::databases::{Engine, TestDatabase};
use crate::support::dice::{Dice, replay, seeds};
use crate::support::raw_call::{RawAnswer, call_with, field, framed};
use crate::support::server::TestServer;

/// What clients and proxies take of headers, unless they are told otherwise: curl, grpc-core, grpc-java, envoy.
const HEADER_BYTES_MAX: usize = 8 * 1_024;
const REQUESTS_PER_RPC: usize = 60;

/// Bytes of the headers and trailers, as HTTP/2 counts them.
fn header_bytes(answer: &RawAnswer) -> usize {
    answer.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
}

async fn answer(server: &TestServer, rpc: &str, message: &[u8], seed: &str) -> RawAnswer {
    let answer = call_with(server, &format!("/{rpc}"), &[], framed(message)).await;
    let bytes = header_bytes(&answer);
    assert!(bytes < HEADER_BYTES_MAX, "{rpc}: {bytes} bytes of headers; {seed}");
    answer
}

#[tokio::test]
async fn everything_wrong_is_told_within_the_headers() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let create = admin::CreateUserRequest {
        login: "a b".repeat(50),
        password: "x".to_owned(),
        display_name: "d\n".repeat(200),
        roles: (0..64).map(|at| format!("bad role {at} \u{20ac}")).collect(),
        attributes: (0..32)
            .map(|at| (format!("bad key {at} {}", "x".repeat(50)), "v\n".to_owned()))
            .collect(),
        user_id: "no uuid".to_owned(),
        ..Default::default()
    };
    let mask = |count: usize| admin::UpdateUserRequest {
        user: Some(v1::User { user_id: "x".to_owned(), ..v1::User::default() }),
        update_mask: Some(FieldMask {
            paths: (0..count).map(|at| format!("path_{at}_{}", "y".repeat(60))).collect(),
        }),
    };
    let euros = admin::CreateUserRequest { login: "\u{20ac}".repeat(5_000), ..Default::default() };
    for (rpc, message) in [
        ("CreateUser", create.encode_to_vec()),
        ("CreateUser", euros.encode_to_vec()),
        ("UpdateUser", mask(30).encode_to_vec()),
        ("UpdateUser", mask(150).encode_to_vec()),
        ("UpdateUser", mask(900).encode_to_vec()),
        ("CreateUser", field(15_000, &vec![b'x'; 100_000])),
    ] {
        let rpc = format!("latchkey.admin.v1.UserService/{rpc}");
        let answer = answer(&server, &rpc, &message, "").await;
        assert_eq!(answer.status.code(), tonic::Code::InvalidArgument, "{:?}", answer.status);
    }
}

/// Requests of many random fields, within the contract and beyond it, for every RPC.
#[tokio::test]
async fn no_request_gets_an_answer_that_headers_cannot_hold() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let contract = Contract::read();
    for seed in seeds(1) {
        let mut dice = Dice::new(seed);
        for (rpc, method) in contract.methods() {
            if rpc.ends_with("StartNewLog") {
                continue;
            }
            for _ in 0..REQUESTS_PER_RPC {
                let message = any_message(&contract, method.input_type(), &mut dice);
                answer(&server, &rpc, &message, &replay(seed)).await;
            }
        }
    }
}

/// Up to 200 of the texts that a message can hold, each with something else in it.
fn any_message(contract: &Contract, input: &str, dice: &mut Dice) -> Vec<u8> {
    let texts = ["a b", "\u{20ac}", "\u{1f600}%", "\n", "path_", "\0", "x"];
    let mut message = Vec::new();
    for _ in 0..=dice.below(200) {
        let text = dice.pick(&texts).repeat(1 + dice.below(60));
        let fields = contract.with_each_text(input, text.as_bytes());
        if fields.is_empty() {
            break;
        }
        message.extend(&fields[dice.below(fields.len())].message);
    }
    if dice.chance(10) {
        message.truncate(dice.below(message.len() + 1));
    }
    message
}
