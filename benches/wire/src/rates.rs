//! How many sign-ins and endings one node takes in a second, on PostgreSQL: what bounds a fleet on one database.

use std::time::Instant;

use futures_util::StreamExt as _;
use prost::Message;
use tonic::transport::Channel;

use crate::Failure;
use crate::contract::{self, MadeSession, MadeUser, NewSession, NewUser};
use crate::latchkey::channel;
use crate::report::Report;

/// Calls of each kind, and how many are under way at the same time.
const CALLS: usize = 20_000;
const AT_ONCE: usize = 256;
const USERS: usize = 1_000;

/// `RevokeSessionsRequest` by session token: a log-out.
#[derive(Clone, PartialEq, Message)]
struct LogOut {
    #[prost(string, tag = "1")]
    session_token: String,
}

/// `RevokeSessionsResponse`.
#[derive(Clone, PartialEq, Message)]
struct Revoked {
    #[prost(int64, tag = "1")]
    revoked_count: i64,
}

pub async fn measure(address: &str, report: &mut Report) -> Result<(), Failure> {
    let channel = channel(address).await?;
    let mut users = Vec::new();
    for number in 0..USERS {
        let request = NewUser { login: format!("rate{number}@example.com"), ..NewUser::default() };
        let made: MadeUser = contract::call(&channel, contract::CREATE_USER, request).await?;
        users.push(made.user.ok_or("a user")?.user_id);
    }
    let begun = Instant::now();
    let signed_in = (0..CALLS).map(|number| sign_in(&channel, users[number % USERS].clone()));
    let tokens: Vec<_> = futures_util::stream::iter(signed_in).buffer_unordered(AT_ONCE).collect().await;
    let tokens: Vec<String> = tokens.into_iter().collect::<Result<_, _>>()?;
    let sign_ins = CALLS as f64 / begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let ended = tokens.into_iter().map(|token| log_out(&channel, token));
    let ended: Vec<_> = futures_util::stream::iter(ended).buffer_unordered(AT_ONCE).collect().await;
    let ended: usize = ended.into_iter().sum::<Result<usize, _>>()?;
    if ended != CALLS {
        return Err(format!("only {ended} of {CALLS} sessions were ended").into());
    }
    let endings = CALLS as f64 / begun.elapsed().as_secs_f64();
    let how = format!("{AT_ONCE} at once, one node, PostgreSQL on the same two cores");
    report.add("sessions created", &how, &format!("{sign_ins:.0} a second"), "-");
    report.add("log-outs, each with its barrier", &how, &format!("{endings:.0} a second"), "-");
    Ok(())
}

async fn sign_in(channel: &Channel, user_id: String) -> Result<String, Failure> {
    let request = NewSession { user_id, methods: vec!["sso".to_owned()] };
    let made: MadeSession = contract::call(channel, contract::CREATE_SESSION, request).await?;
    Ok(made.session_token)
}

async fn log_out(channel: &Channel, session_token: String) -> Result<usize, Failure> {
    let told: Revoked = contract::call(channel, contract::REVOKE_SESSIONS, LogOut { session_token }).await?;
    Ok(usize::try_from(told.revoked_count)?)
}
