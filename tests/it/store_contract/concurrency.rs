//! Commit order is position order: many writers at once, and a reader who polls the log behind the last row it saw.
//!
//! `LATCHKEY_TEST_LOG_ROWS` says how many rows they write.

use std::collections::HashSet;
use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use latchkey::domain::id::{Position, UserId};
use latchkey::domain::session::EndReason;
use latchkey::domain::user::DisplayName;
use latchkey::store::sql::SqlStore;
use latchkey::store::{Change, EndTarget, LoggedChange, Stamp, Store, UserChange};
use tokio::task::JoinSet;

use super::following::{Acknowledged, check_followed};
use super::samples::{add_user, at, hash, stamp, update};
use crate::support::databases::{Engine, TestDatabase, on_each_engine};

on_each_engine![a_polling_reader_sees_every_row_of_many_writers_in_order];

const WRITERS: u64 = 64;
const ROWS_VARIABLE: &str = "LATCHKEY_TEST_LOG_ROWS";
const ROWS_DEFAULT: u64 = 10_000;
const USERS: u64 = 24;
/// Rows of one poll; small, so that the reader is often right behind the head.
const POLL_LIMIT: u32 = 100;

/// How many rows are written.
fn rows_wanted() -> u64 {
    env::var(ROWS_VARIABLE).map_or(ROWS_DEFAULT, |text| {
        text.parse().unwrap_or_else(|_| panic!("{ROWS_VARIABLE} is a number, not {text:?}"))
    })
}

/// The write that is `number` in its writer's life: each kind in turn, and the users in an order of each writer's own, so
/// that their locks cross.
async fn write(store: &dyn Store, users: &[UserId], writer: u64, number: u64, stamp: Stamp) -> Change {
    let pick = (writer + number * (1 + writer % 5)) % USERS;
    let user = users[usize::try_from(pick).expect("few users")];
    match (writer + number) % 3 {
        0 => {
            let target = EndTarget::User { user, except: None };
            store.end_sessions(target, EndReason::Revoked, stamp).await.expect("a write among many succeeds")
        }
        1 => {
            let change =
                store.set_password(user, hash("x"), stamp).await.expect("a write among many succeeds");
            change.expect("the user is there")
        }
        _ => {
            let name = DisplayName::parse(&format!("{writer} {number}")).expect("a display name");
            let change = UserChange { display_name: Some(name), ..UserChange::default() };
            update(store, user, change, stamp).await.1
        }
    }
}

/// Writes one writer's share, and keeps what was answered.
async fn write_share(
    store: Arc<SqlStore>,
    users: Arc<Vec<UserId>>,
    answered: Arc<AtomicI64>,
    writer: u64,
    share: u64,
) -> Vec<Acknowledged> {
    let mut acknowledged = Vec::new();
    for number in 0..share {
        let stamp = stamp(at(number));
        let floor = Position::from_i64(answered.load(Ordering::SeqCst));
        let position = write(&*store, &users, writer, number, stamp).await.position;
        answered.fetch_max(position.as_i64(), Ordering::SeqCst);
        acknowledged.push(Acknowledged { position, nonce: stamp.nonce, floor });
    }
    acknowledged
}

/// Polls until the writers are done and nothing is left. A poll that begins after a write was answered must reach it.
async fn follow(store: Arc<SqlStore>, answered: Arc<AtomicI64>, done: Arc<AtomicBool>) -> Vec<LoggedChange> {
    let mut seen: Vec<LoggedChange> = Vec::new();
    loop {
        let was_done = done.load(Ordering::SeqCst);
        let must_reach = answered.load(Ordering::SeqCst);
        let last = seen.last().map_or(Position::ZERO, |row| row.position);
        let rows = store.changes_after(last, POLL_LIMIT).await.expect("a poll succeeds");
        if rows.is_empty() {
            assert!(last.as_i64() >= must_reach, "behind {last:?} nothing, though {must_reach} was answered");
            if was_done {
                return seen;
            }
        }
        assert!(rows.first().is_none_or(|row| row.position > last), "a row comes twice");
        seen.extend(rows);
    }
}

async fn a_polling_reader_sees_every_row_of_many_writers_in_order(db: &TestDatabase) {
    let first = Arc::new(db.open().await);
    // Two nodes write and one reads, as in a fleet. SQLite belongs to one process: there one store does all three.
    let [second, reader] = if db.engine() == Engine::Sqlite {
        [Arc::clone(&first), Arc::clone(&first)]
    } else {
        [Arc::new(db.open().await), Arc::new(db.open().await)]
    };
    let rows = rows_wanted();
    let mut users = Vec::new();
    for number in 0..USERS {
        users.push(add_user(&*first, &format!("user-{number}")).await.id);
    }
    let users = Arc::new(users);
    let answered = Arc::new(AtomicI64::new(0));
    let done = Arc::new(AtomicBool::new(false));

    let mut following = JoinSet::new();
    following.spawn(follow(reader, Arc::clone(&answered), Arc::clone(&done)));
    let mut writing = JoinSet::new();
    for writer in 0..WRITERS {
        let store = if writer % 2 == 0 { &first } else { &second };
        let share = rows / WRITERS + u64::from(writer < rows % WRITERS);
        let (store, users, answered) = (Arc::clone(store), Arc::clone(&users), Arc::clone(&answered));
        writing.spawn(write_share(store, users, answered, writer, share));
    }
    let acknowledged = writing.join_all().await.concat();
    done.store(true, Ordering::SeqCst);
    let seen = following.join_all().await.concat();

    let shown: HashSet<_> = seen.iter().map(|row| row.position).collect();
    let missed = acknowledged.iter().filter(|write| !shown.contains(&write.position)).count();
    let (engine, written, twice) = (db.engine(), acknowledged.len(), seen.len() - shown.len());
    println!("{engine}: {WRITERS} writers, {written} rows written, {missed} missed, {twice} seen twice");
    assert_eq!(acknowledged.len() as u64, rows);
    assert_eq!(check_followed(&seen, &acknowledged), Ok(()));
}
