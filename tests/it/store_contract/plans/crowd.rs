//! The rows that make a scan cost something: copies of rows that the store wrote itself, so that whatever columns the
//! schema has, they hold what they should.

use std::fmt::Write as _;
use std::time::Duration;

use latchkey::domain::id::{SessionId, UserId};
use latchkey::host::{SeededEntropy, random};

use super::super::samples::NOW;
use crate::support::databases::{Engine, Raw, TestDatabase};

/// The tables that grow with use.
pub const TABLES: [&str; 3] = ["users", "sessions", "change_log"];

const USERS: usize = 30_000;
const SESSIONS: usize = 100_000;
const LOG_ROWS: usize = 30_000;
/// Rows of one statement.
const BATCH: usize = 1_000;

/// Fills the tables. The sessions are those of many users and stand; or they are all those of `robot`, and over: ended, or
/// past their time. The store must be closed.
pub async fn bring_in(db: &TestDatabase, robot: Option<UserId>) {
    // The same bytes in every run: where a row lies in its trees, and so what a call comes near to, never varies.
    let entropy = SeededEntropy::new(7);
    let id = |uuid: uuid::Uuid| *uuid.as_bytes();
    let users: Vec<[u8; 16]> =
        (0..USERS).map(|_| id(UserId::mint(NOW, random(&entropy)).as_uuid())).collect();
    let raw = db.raw().await;
    let crowd = Crowd { engine: db.engine(), raw: &raw };
    raw.run("BEGIN").await;
    let user_rows = users.iter().map(|user| {
        let login = UserId::mint(NOW, random(&entropy)).to_string();
        vec![Value::Uuid(*user), Value::Bytes(login.into_bytes())]
    });
    crowd.copy("users", &["user_id", "login_key"], user_rows.collect()).await;
    let session_rows = (0..SESSIONS).map(|number| {
        let time = NOW.plus(Duration::from_millis(u64::try_from(number).expect("few") / 10));
        let session = id(SessionId::mint(time, random(&entropy)).as_uuid());
        let digest = random::<16>(&entropy).to_vec();
        let user = robot.map_or(users[number % USERS], |robot| id(robot.as_uuid()));
        let own = vec![Value::Uuid(session), Value::Bytes(digest), Value::Uuid(user)];
        if robot.is_some() { [own, over(number, time.as_millis())].concat() } else { own }
    });
    let own = ["session_id", "digest", "user_id", "expire_time", "end_time", "end_reason"];
    let own = if robot.is_some() { &own[..] } else { &own[..3] };
    crowd.copy("sessions", own, session_rows.collect()).await;
    let log_rows = (0..LOG_ROWS).map(|number| vec![Value::Number(i64::try_from(number).expect("few") + 10)]);
    crowd.copy("change_log", &["position"], log_rows.collect()).await;
    // The head of the log is where its last row is; MariaDB has moved it along already.
    raw.run("UPDATE log_head SET position = (SELECT MAX(position) FROM change_log)").await;
    raw.run("COMMIT").await;
    // A server does this by itself. Nobody does it to a SQLite file, whose plans follow from the schema alone.
    for table in TABLES {
        match db.engine() {
            Engine::Sqlite => {}
            Engine::Postgres => raw.run(&format!("ANALYZE {table}")).await,
            Engine::Mariadb => raw.run(&format!("ANALYZE TABLE {table}")).await,
        }
    }
    raw.close().await;
}

/// The columns of a session that is over: of four, three were ended, and one has run out. So the middle of the robot's
/// sessions, in whatever order, is far from those that stand.
fn over(number: usize, time: i64) -> Vec<Value> {
    match number % 4 {
        0 => vec![Value::Number(time), Value::Null, Value::Null],
        _ => vec![Value::Number(time + 60_000), Value::Number(time), Value::Number(5)],
    }
}

/// What a copy has in another place than the copied row.
#[derive(Clone)]
enum Value {
    Null,
    Uuid([u8; 16]),
    Bytes(Vec<u8>),
    Number(i64),
}

impl Value {
    fn literal(&self, engine: Engine) -> String {
        let hex = |bytes: &[u8]| {
            bytes.iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            })
        };
        match (self, engine) {
            (Self::Null, _) => "NULL".to_owned(),
            (Self::Number(number), _) => number.to_string(),
            (Self::Uuid(bytes), Engine::Postgres) => format!("'{}'::uuid", hex(bytes)),
            (Self::Bytes(bytes), Engine::Postgres) => format!("'\\x{}'::bytea", hex(bytes)),
            (Self::Uuid(bytes), _) => format!("x'{}'", hex(bytes)),
            (Self::Bytes(bytes), _) => format!("x'{}'", hex(bytes)),
        }
    }
}

struct Crowd<'a> {
    engine: Engine,
    raw: &'a Raw,
}

impl Crowd<'_> {
    /// Adds to a table copies of its first row, in which the `own` columns hold the given values.
    async fn copy(&self, table: &str, own: &[&str], rows: Vec<Vec<Value>>) {
        let order = own[0];
        let first = self.raw.rows(&format!("SELECT * FROM {table} ORDER BY {order} LIMIT 1")).await;
        let columns = first[0].column_names();
        let chosen: Vec<String> = columns
            .iter()
            .map(|column| {
                let of = if own.contains(&column.as_str()) { "v" } else { "t" };
                format!("{of}.{column}")
            })
            .collect();
        for batch in rows.chunks(BATCH) {
            let mut values = String::new();
            for row in batch {
                let literals: Vec<String> = row.iter().map(|value| value.literal(self.engine)).collect();
                let comma = if values.is_empty() { "" } else { ", " };
                let _ = write!(values, "{comma}({})", literals.join(", "));
            }
            let statement = format!(
                "INSERT INTO {table} ({}) WITH v ({}) AS (VALUES {values}) \
                 SELECT {} FROM v CROSS JOIN (SELECT * FROM {table} ORDER BY {order} LIMIT 1) AS t",
                columns.join(", "),
                own.join(", "),
                chosen.join(", "),
            );
            self.raw.run(&statement).await;
        }
    }
}
