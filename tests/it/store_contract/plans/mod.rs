//! No request reads a whole table. Each method that a request takes is called once on a database of 30 000 users and
//! 100 000 sessions, and the engine itself tells what it read; nobody's copy of a statement is explained here.
//!
//! Left out is only the end of everyone's sessions, which counts what it ends.

mod crowd;
mod methods;
mod watch;

use latchkey::domain::id::Position;

use self::methods::{METHODS, Subject, call};
use self::watch::Watch;
use super::samples::{NOW, add_user, at, hash, stamp};
use crate::support::databases::{TestDatabase, on_each_engine};

use latchkey::store::Store as _;

on_each_engine![no_method_of_a_request_reads_a_whole_table, what_is_over_costs_a_robot_nothing,];

async fn no_method_of_a_request_reads_a_whole_table(db: &TestDatabase) {
    let store = db.open().await;
    let mut subjects = Vec::new();
    for method in METHODS {
        subjects.push((method, Subject::add(&store, method).await));
    }
    // The row that the bulk of the log is made of.
    let spare = add_user(&store, "spare").await;
    store.set_password(spare.id, hash("second"), stamp(NOW)).await.expect("an answer").expect("a change");
    store.close().await;
    drop(store);
    crowd::bring_in(db, None).await;

    let watch = Watch::begin(db).await;
    let mut readers_of_all = Vec::new();
    for (method, subject) in &subjects {
        let store = db.open().await;
        let answer = call(&store, method, subject, at(60)).await;
        store.close().await;
        drop(store);
        if let Some(what) = watch.read_everything_since(answer).await {
            readers_of_all.push(format!("{method}: {what}"));
        }
    }
    assert_eq!(readers_of_all, Vec::<String>::new());

    // The same check, on queries that do read everything.
    for table in crowd::TABLES {
        let raw = db.raw().await;
        let answer = raw.try_run(&format!("SELECT COUNT(*) FROM {table} WHERE create_time < 0")).await;
        raw.close().await;
        assert!(watch.read_everything_since(answer).await.is_some(), "a scan of {table} went unnoticed");
    }
    let store = db.open().await;
    let answer =
        store.changes_after(Position::ZERO, u32::MAX).await.map(drop).map_err(|error| error.to_string());
    store.close().await;
    drop(store);
    assert!(watch.read_everything_since(answer).await.is_some(), "a poll of the whole log went unnoticed");
}

/// A robot that signs in all the time: what stands is little, what is over waits a day to be purged.
async fn what_is_over_costs_a_robot_nothing(db: &TestDatabase) {
    let store = db.open().await;
    let robot = Subject::add(&store, "robot").await;
    let spare = add_user(&store, "spare").await;
    store.set_password(spare.id, hash("second"), stamp(NOW)).await.expect("an answer").expect("a change");
    store.close().await;
    drop(store);
    crowd::bring_in(db, Some(robot.id())).await;

    let watch = Watch::begin(db).await;
    let mut slow = Vec::new();
    for method in ["sessions_of_user", "create_session above the cap", "end_sessions of a user"] {
        let store = db.open().await;
        let answer = call(&store, method, &robot, at(60)).await;
        store.close().await;
        drop(store);
        if let Some(what) = watch.read_everything_since(answer).await {
            slow.push(format!("{method}: {what}"));
        }
    }
    assert_eq!(slow, Vec::<String>::new());
}
