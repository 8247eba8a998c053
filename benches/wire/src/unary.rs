//! Unary calls under h2load: 8 connections with 32 streams each.

use std::path::Path;

use prost::Message;

use crate::Failure;
use crate::contract::{LOAD_USER, VALIDATE_SESSION};
use crate::echo::{self, Text};
use crate::latchkey::{Latchkey, Metrics, question};
use crate::process::{Server, run_client};
use crate::report::{Report, micros, nanos_each};

/// Calls of one round.
pub const CALLS: u64 = 40_000;
/// Rounds: many short ones, so that what else the machine does meets both sides of a ratio alike.
pub const ROUNDS: usize = 35;

pub fn measure(ours: &Latchkey, with_mimalloc: &str, report: &mut Report) -> Result<(), Failure> {
    let home = tempfile::tempdir()?;
    let asked = question(&ours.token);
    let bodies = Bodies {
        good: body(home.path(), "good", &asked)?,
        forged: body(home.path(), "forged", &question(&forged(&ours.token)))?,
        echo: body(home.path(), "echo", &Text::of_len(asked.encoded_len()))?,
    };
    let this = std::env::current_exe()?.display().to_string();
    let echo = |program: &str| Server::start(program, &["echo", &ours.answer_len.to_string()], &[]);
    let (bare, allocating) = (echo(&this)?, echo(with_mimalloc)?);
    let validate = || calls(&ours.server, &ours.grpc, VALIDATE_SESSION, &bodies.good);
    let echoed = |server: &Server| calls(server, server.first_line.trim(), echo::UNARY, &bodies.echo);
    let in_turn = |one: &dyn Fn() -> Result<f64, Failure>, other: &dyn Fn() -> Result<f64, Failure>| {
        (0..ROUNDS).map(|_| Ok((one()?, other()?))).collect::<Result<Vec<_>, Failure>>()
    };
    // Once, to warm both up.
    (validate()?, echoed(&bare)?, echoed(&allocating)?);

    let counted =
        "grpc_server_handled_total{grpc_service=\"latchkey.v1.AuthService\",grpc_method=\"ValidateSession\"";
    let before = ours.metrics()?;
    let rounds = in_turn(&validate, &|| echoed(&bare))?;
    let after = ours.metrics()?;
    let expected = (CALLS * ROUNDS as u64) as f64;
    let answered = after.sum(counted, "\"OK\"") - before.sum(counted, "\"OK\"");
    if answered < expected {
        return Err(format!("only {answered} of {expected} calls were answered well").into());
    }
    let sizes = format!("bare tonic unary echo, {} and {} B", asked.encoded_len(), ours.answer_len);
    report.add("ValidateSession, server CPU", &sizes, &micros(&rounds), "<= 0.80 x");
    let rounds = in_turn(&validate, &|| echoed(&allocating))?;
    report.add("ValidateSession, server CPU", "the same echo with mimalloc", &micros(&rounds), "-");
    let statements = format!("{} steps of the store", steps(&after) - steps(&before));
    report.add(&format!("database for {expected} calls"), "-", &statements, "0 besides polls");

    let forged = || calls(&ours.server, &ours.grpc, VALIDATE_SESSION, &bodies.forged);
    report.add(
        "a forged token, server CPU",
        "a good one",
        &micros(&in_turn(&forged, &validate)?),
        "<= 1.0 x",
    );
    let load = || calls(&ours.server, &ours.grpc, LOAD_USER, &bodies.good);
    let rounds = in_turn(&load, &validate)?;
    report.add("LoadUser by token, server CPU", "ValidateSession", &micros(&rounds), "<= 1.3 x");
    Ok(())
}

/// What ValidateSession costs now, for the yardsticks that are no gRPC.
pub fn validate(ours: &Latchkey) -> Result<f64, Failure> {
    let home = tempfile::tempdir()?;
    let body = body(home.path(), "good", &question(&ours.token))?;
    calls(&ours.server, &ours.grpc, VALIDATE_SESSION, &body)
}

struct Bodies {
    good: String,
    forged: String,
    echo: String,
}

/// Steps of the store that the server has taken, but for those by which it follows the log and looks after itself.
fn steps(metrics: &Metrics) -> f64 {
    let by_itself = ["poll", "acknowledge", "nodes", "touch_sessions", "purge_sessions", "truncate_log"];
    let count = |label: &str| metrics.sum("latchkey_store_calls_total", label);
    count("") - by_itself.iter().map(|step| count(&format!("\"{step}\""))).sum::<f64>()
}

/// A token with a changed tag. Its last character stays: not each would be Base64 there.
pub fn forged(token: &str) -> String {
    let (head, tag) = token.split_at(token.len() - 5);
    let (changed, last) = tag.split_at(4);
    let other: String = changed.chars().map(|letter| if letter == 'A' { 'B' } else { 'A' }).collect();
    format!("{head}{other}{last}")
}

/// One message in a frame, in a file.
fn body(home: &Path, name: &str, message: &impl Message) -> Result<String, Failure> {
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.encoded_len())?.to_be_bytes());
    message.encode(&mut frame)?;
    let path = home.join(name);
    std::fs::write(&path, frame)?;
    Ok(path.display().to_string())
}

/// Server CPU nanoseconds for each call of one round.
fn calls(server: &Server, address: &str, path: &str, body: &str) -> Result<f64, Failure> {
    let before = server.cpu()?;
    let (count, url) = (CALLS.to_string(), format!("http://{address}{path}"));
    let told = run_client(
        "h2load",
        &[
            "-n",
            &count,
            "-c",
            "8",
            "-m",
            "32",
            "-t",
            "1",
            "-d",
            body,
            "-H",
            "content-type: application/grpc",
            "-H",
            "te: trailers",
            &url,
        ],
    )?;
    let spent = server.cpu()?.saturating_sub(before);
    if !told.contains(&format!("{CALLS} succeeded, 0 failed")) {
        return Err(format!("not all calls were answered: {told}").into());
    }
    Ok(nanos_each(spent, CALLS))
}
