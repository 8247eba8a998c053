//! What a call costs on the wire, beside what it is measured against, in one run: server CPU time for each answer, as a
//! ratio. `scripts/bench` builds and starts it; docs/PERFORMANCE.md holds the figures.
//!
//! Servers are pinned to one core and clients to another. What is compared is measured in turn, round by round, so that
//! whatever else the machine does meets both sides; of the ratios of all rounds the median counts.

mod contract;
mod echo;
mod latchkey;
mod postgres;
mod process;
mod rates;
mod redis;
mod report;
mod start;
mod storm;
mod stream;
mod tokens;
mod unary;

use report::Report;

/// As in the program that is shipped; without it tonic is as bare as it comes.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["echo", answer_len] => one_thread()?.block_on(echo::serve(answer_len.parse()?)),
        ["stream", rest @ ..] => one_thread()?.block_on(stream::client(rest)),
        ["storm", address, token] => one_thread()?.block_on(storm::client(address, token)),
        ["start", program, database, sessions] => {
            let mut report = Report::default();
            start::measure(program, database, sessions.parse()?, &mut report)?;
            report.print();
            Ok(())
        }
        ["wire", program, database, with_mimalloc] => measure(program, database, with_mimalloc),
        _ => Err("usage: wire PROGRAM POSTGRES_URL THIS_WITH_MIMALLOC | start PROGRAM POSTGRES_URL SESSIONS"
            .into()),
    }
}

/// `with_mimalloc` is this program, made with the feature of that name.
fn measure(program: &str, database: &str, with_mimalloc: &str) -> Result<(), Failure> {
    let mut report = Report::default();
    let ours = one_thread()?.block_on(latchkey::start(program))?;
    unary::measure(&ours, with_mimalloc, &mut report)?;
    stream::measure(&ours, &mut report)?;
    storm::measure(&ours, &mut report)?;
    redis::measure(&ours, &mut report)?;
    postgres::measure(database, &mut report)?;
    tokens::measure(&mut report)?;
    report.print();
    Ok(())
}

fn one_thread() -> Result<tokio::runtime::Runtime, std::io::Error> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
