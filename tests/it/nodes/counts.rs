//! What memory answers costs the database nothing: statements are counted while many questions are asked.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use latchkey::grpc::proto::v1;
use latchkey::grpc::proto::v1::auth_service_client::AuthServiceClient;
use latchkey::grpc::proto::v1::stream_validate_sessions_response::Answer;
use tonic::transport::Endpoint;

use super::harness::{Fleet, USUAL_LEASE};
use super::load::sign_in;
use super::log::now;
use crate::crash::own_turn;
use crate::support::databases::{Engine, TestDatabase, on_each_server};
use crate::support::verdicts::question;

/// Questions that are asked, over how many streams, about how many sessions.
const QUESTIONS: u64 = 20_000;
/// Names another number of questions.
const QUESTIONS_FROM: &str = "LATCHKEY_TEST_QUESTIONS";
const STREAMS: u64 = 4;
const SESSIONS: usize = 50;

on_each_server!(questions_that_memory_answers_cost_no_statement);

async fn questions_that_memory_answers_cost_no_statement(db: &TestDatabase) {
    let _turn = own_turn().await;
    let wanted = std::env::var(QUESTIONS_FROM).ok();
    let questions = wanted.map_or(QUESTIONS, |count| count.parse().expect("a number of questions"));
    let fleet = Fleet::start(db, 1, USUAL_LEASE).await;
    let slot = &fleet.slots[0];
    for number in 0..SESSIONS {
        let user = fleet.world.users[number % fleet.world.users.len()].clone();
        sign_in(fleet.log(), slot.door(), user).await;
    }
    // Once, so that all of them are in memory and each first use is noted.
    ask_all(&fleet, SESSIONS as u64 * STREAMS).await;
    let (before, begun) = (slot.metrics().await.all_store_calls(), now());
    let mut asked = 0;
    // At least for as long as it takes until the log is polled, which shows that the metric counts.
    let (after, took) = loop {
        ask_all(&fleet, questions).await;
        asked += questions;
        let after = slot.metrics().await.all_store_calls();
        if after.get("poll") > before.get("poll") {
            break (after, now().since(begun));
        }
    };
    let grown: BTreeMap<_, _> = after
        .into_iter()
        .map(|(step, count)| (step.clone(), count - before.get(&step).copied().unwrap_or_default()))
        .filter(|(_, grown)| *grown > 0.0)
        .collect();
    println!(
        "{}: {asked} questions in {} ms, {} a second; calls of the store meanwhile: {grown:?}",
        db.engine(),
        took.as_millis(),
        u128::from(asked) * 1_000 / took.as_millis().max(1)
    );
    let poll = Duration::from_millis(if db.engine() == Engine::Mariadb { 100 } else { 500 });
    let times = |period: Duration| (took.as_secs_f64() / period.as_secs_f64()).ceil() + 2.0;
    for (step, count) in &grown {
        let explained = match step.as_str() {
            "poll" => times(poll),
            "acknowledge" => times(fleet.lease / 2),
            // Last uses are written in batches, at most once a minute for each session.
            "nodes" | "touch_sessions" => times(Duration::from_secs(1)),
            "purge_sessions" | "truncate_log" => times(Duration::from_mins(1)),
            _ => 0.0,
        };
        assert!(*count <= explained, "{step}: {count} calls, of which time explains {explained}; {grown:?}");
    }
}

/// Asks so many questions over some streams at a time; each is answered well.
async fn ask_all(fleet: &Fleet, count: u64) {
    let address = format!("http://{}", fleet.slots[0].grpc());
    let channel = Endpoint::from_shared(address).expect("an address").connect().await.expect("it listens");
    let tokens: Vec<String> =
        (0..SESSIONS).map(|back| fleet.log().session_back(back).expect("signed in").token).collect();
    let streams = (0..STREAMS).map(async |_| {
        let tokens = tokens.clone();
        let asked = (0..count / STREAMS)
            .zip(tokens.into_iter().cycle())
            .map(|(tag, token)| v1::StreamValidateSessionsRequest { tag, question: Some(question(&token)) });
        let asked = futures_util::stream::iter(asked);
        let answers = AuthServiceClient::new(channel.clone()).stream_validate_sessions(asked).await;
        let mut answers = answers.expect("a stream").into_inner();
        let mut good = 0;
        while let Some(answer) = answers.next().await {
            let answer = answer.expect("the stream goes on").answer.expect("an answer says something");
            assert!(matches!(answer, Answer::Good(_)), "{answer:?}");
            good += 1;
        }
        assert_eq!(good, count / STREAMS);
    });
    futures_util::future::join_all(streams).await;
}
