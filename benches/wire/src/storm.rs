//! How long questions take while many people sign in.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use prost::Message;
use tokio::time::{MissedTickBehavior, interval};
use tonic::transport::Channel;

use crate::Failure;
use crate::contract::{self, Whole};
use crate::latchkey::{Latchkey, channel, question};
use crate::process::run_client;
use crate::report::{Report, micros};

/// How many sign-ins wait all the time.
const WAITING: usize = 500;
const ROUNDS: usize = 5;
/// Questions of each half of a round, one each millisecond.
const QUESTIONS: usize = 3_000;
/// How long it takes until all have come that are to wait.
const GATHERING: Duration = Duration::from_secs(1);

/// `LoginRequest`.
#[derive(Clone, PartialEq, Message)]
struct LogIn {
    #[prost(string, tag = "1")]
    login: String,
    #[prost(string, tag = "2")]
    password: String,
}

pub fn measure(ours: &Latchkey, report: &mut Report) -> Result<(), Failure> {
    let this = std::env::current_exe()?.display().to_string();
    let told = run_client(&this, &["storm", &ours.grpc, &ours.token])?;
    let rounds: Vec<(f64, f64)> = told
        .lines()
        .map(|line| {
            let (storm, calm) = line.split_once(' ').ok_or("two figures")?;
            Ok((storm.parse()?, calm.parse()?))
        })
        .collect::<Result<_, Failure>>()?;
    let what = format!("p99 of ValidateSession while {WAITING} sign-ins wait");
    report.add(&what, "p99 without", &micros(&rounds), "<= 2 x");
    Ok(())
}

/// The client: prints for each round the p99 in nanoseconds with the storm and without.
pub async fn client(address: &str, token: &str) -> Result<(), Failure> {
    // Questions have a connection of their own, as another service would.
    let (asking, signing_in) = (channel(address).await?, channels(address).await?);
    for _ in 0..ROUNDS {
        let calm = p99(&asking, token).await?;
        let storm = async {
            join_all((0..WAITING).map(|number| sign_in_for_ever(&signing_in[number % signing_in.len()])))
                .await;
        };
        let asked = async {
            tokio::time::sleep(GATHERING).await;
            p99(&asking, token).await
        };
        let stormy = tokio::select! {
            () = storm => return Err("the sign-ins ended".into()),
            stormy = asked => stormy?,
        };
        println!("{stormy} {calm}");
        // Those that left are passed over.
        tokio::time::sleep(GATHERING).await;
    }
    Ok(())
}

/// A connection takes a hundred calls at a time.
async fn channels(address: &str) -> Result<Vec<Channel>, Failure> {
    join_all((0..WAITING.div_ceil(100)).map(|_| channel(address))).await.into_iter().collect()
}

/// Somebody who is not known, which takes as long as with a wrong password.
async fn sign_in_for_ever(channel: &Channel) {
    loop {
        let request = LogIn { login: "nobody@example.com".to_owned(), password: "x".repeat(20) };
        let refused: Result<Whole, Failure> = contract::call(channel, contract::LOG_IN, request).await;
        if refused.is_ok() {
            return;
        }
    }
}

async fn p99(channel: &Channel, token: &str) -> Result<f64, Failure> {
    let mut ticks = interval(Duration::from_millis(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut took = Vec::with_capacity(QUESTIONS);
    for _ in 0..QUESTIONS {
        ticks.tick().await;
        let begun = Instant::now();
        let _: Whole = contract::call(channel, contract::VALIDATE_SESSION, question(token)).await?;
        took.push(begun.elapsed().as_secs_f64() * 1e9);
    }
    took.sort_by(f64::total_cmp);
    Ok(took[QUESTIONS * 99 / 100])
}
