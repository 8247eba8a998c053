//! How long a node takes until it answers, with many sessions in its database, beside one sequential read of the same rows;
//! and how much memory they take.

use std::process::{Command, Stdio};
use std::time::Instant;

use crate::Failure;
use crate::process::Server;
use crate::report::Report;
use crate::{latchkey, rates};

const ROUNDS: usize = 3;

pub fn measure(program: &str, database: &str, sessions: u64, report: &mut Report) -> Result<(), Failure> {
    let home = tempfile::tempdir()?;
    let key = home.path().join("token.key").display().to_string();
    run(Command::new(program).args(["key", "new", &key]))?;
    let (server, _) = database.rsplit_once('/').ok_or("a URL names a database")?;
    let own = format!("{server}/latchkey_start");
    run(psql(database).args([
        "-c",
        "DROP DATABASE IF EXISTS latchkey_start",
        "-c",
        "CREATE DATABASE latchkey_start",
    ]))?;
    run(Command::new(program).args(["migrate", "up"]).env("LATCHKEY_DATABASE_URL", &own))?;
    for statement in rows(sessions) {
        run(psql(&own).args(["-c", &statement]))?;
    }
    let (mut ready, mut read) = (Vec::new(), Vec::new());
    let mut held = 0;
    for round in 1..=ROUNDS {
        let begun = Instant::now();
        let all = "COPY (SELECT * FROM sessions JOIN users USING (user_id)) TO STDOUT";
        run(psql(&own).args(["-c", all]))?;
        read.push(begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        let settings = [
            ("LATCHKEY_LISTEN", "127.0.0.1:0"),
            ("LATCHKEY_HTTP_LISTEN", "127.0.0.1:0"),
            ("LATCHKEY_DATABASE_URL", own.as_str()),
            ("LATCHKEY_TOKEN_KEY_FILE", key.as_str()),
            ("RUST_LOG", "warn"),
        ];
        let server = Server::start(program, &["serve"], &settings)?;
        ready.push(begun.elapsed().as_secs_f64());
        held = server.memory()?;
        if round == ROUNDS {
            let address = latchkey::place(&server, "grpc")?;
            crate::one_thread()?.block_on(rates::measure(&address, report))?;
        }
    }
    let best = |times: &[f64]| times.iter().copied().fold(f64::INFINITY, f64::min);
    let (ready, read) = (best(&ready), best(&read));
    report.add(
        &format!("start with {sessions} live sessions"),
        "one read of the same rows by psql COPY TO",
        &format!("{ready:.1} s against {read:.1} s: **{:.1} x**", ready / read),
        "ready within 3 x",
    );
    let each = held / sessions.max(1);
    report.add("memory of that process", "-", &format!("{} MiB, {each} B a session in all", held >> 20), "-");
    Ok(())
}

/// Three sessions for each user, all of them good for hours.
fn rows(sessions: u64) -> [String; 3] {
    let users = sessions.div_ceil(3);
    let now = "(extract(epoch from clock_timestamp()) * 1000)::bigint";
    [
        format!(
            "INSERT INTO users SELECT ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, \
             convert_to('user' || n || '@example.com', 'UTF8'), 'user' || n || '@example.com', 'User ' || n, 1, \
             '[\"member\"]', '{{}}', NULL, 1, 0, {now}, {now}, NULL FROM generate_series(1, {users}) AS n"
        ),
        format!(
            "INSERT INTO sessions SELECT ('01910000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, \
             substring(sha256(convert_to(n::text, 'UTF8')) for 16), \
             ('01900000-0000-7000-8000-' || lpad(to_hex((n - 1) / 3 + 1), 12, '0'))::uuid, 1, 1, {now}, {now}, \
             {now} + 36000000, {now}, 36000000, {now} + 36000000, false, '[\"pwd\"]', '192.0.2.7', 'Mozilla/5.0', '', \
             NULL, NULL FROM generate_series(1, {sessions}) AS n"
        ),
        "ANALYZE".to_owned(),
    ]
}

fn psql(database: &str) -> Command {
    let mut command = Command::new("psql");
    command.args(["-q", "-v", "ON_ERROR_STOP=1", database]);
    command
}

fn run(command: &mut Command) -> Result<(), Failure> {
    let ended = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    if ended.success() { Ok(()) } else { Err(format!("{command:?} failed").into()) }
}
