//! What people ask Redis for instead: GET of a session of 120 bytes.

use crate::Failure;
use crate::latchkey::Latchkey;
use crate::process::{Server, run_client};
use crate::report::{Report, micros, nanos_each};
use crate::unary;

const CALLS: u64 = 500_000;
const ROUNDS: usize = 5;
const SESSION_LEN: usize = 120;

pub fn measure(ours: &Latchkey, report: &mut Report) -> Result<(), Failure> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let redis = Server::start(
        "redis-server",
        &["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
        &[],
    )?;
    let value = "x".repeat(SESSION_LEN);
    let set = || run_client("redis-cli", &["-p", &port, "SET", "session", &value]);
    let begun = std::time::Instant::now();
    while set().is_err() {
        if begun.elapsed().as_secs() > 10 {
            return Err("redis-server does not answer".into());
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let get = |pipelined: &str| -> Result<f64, Failure> {
        let before = redis.cpu()?;
        let count = CALLS.to_string();
        let arguments = ["-p", &port, "-n", &count, "-c", "50", "-P", pipelined, "-q", "GET", "session"];
        run_client("redis-benchmark", &arguments)?;
        Ok(nanos_each(redis.cpu()?.saturating_sub(before), CALLS))
    };
    for (pipelined, what, budget) in [
        ("1", "Redis GET of 120 B, redis-benchmark -c 50", "<= 0.85 x"),
        ("32", "the same with 32 commands in each write (-P 32)", "-"),
    ] {
        let rounds: Vec<_> = (0..ROUNDS)
            .map(|_| Ok((unary::validate(ours)?, get(pipelined)?)))
            .collect::<Result<_, Failure>>()?;
        report.add("ValidateSession, server CPU", what, &micros(&rounds), budget);
    }
    Ok(())
}
