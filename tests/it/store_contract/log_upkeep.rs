//! The log is kept short, but never shorter than somebody needs it; and a log of another history has another name.

use latchkey::domain::id::Position;
use latchkey::domain::session::{Death, EndReason};
use latchkey::domain::time::UnixMillis;
use latchkey::store::coordination::{AckCommit, Coordination as _, NodeState};
use latchkey::store::sql::SqlStore;
use latchkey::store::{ChangeKind, EndTarget, LoggedChange, Store as _};

use super::samples::{
    NOW, add_user, at, credentials, log_after, new_node, only_row, sign_in, stamp, verdict, write_rows,
};
use crate::support::databases::{TestDatabase, on_each_engine};

on_each_engine![
    only_what_is_old_is_deleted,
    the_newest_row_stays,
    what_a_live_node_has_yet_to_see_stays,
    at_most_so_many_rows_go_at_once,
    what_lies_behind_a_young_row_stays,
    a_log_that_was_shortened_is_read_from_its_first_row,
    numbers_go_on_behind_an_empty_beginning,
    a_new_log_ends_everyone_and_has_another_name,
];

/// Later than any row.
const EVER: UnixMillis = UnixMillis::from_millis(i64::MAX);

async fn truncate(store: &SqlStore, before: UnixMillis, limit: u32) -> u64 {
    store.truncate_log(before, limit).await.expect("an answer")
}

/// All rows that there are.
async fn positions(store: &SqlStore) -> Vec<i64> {
    log_after(store, Position::ZERO).await.iter().map(|row| row.position.as_i64()).collect()
}

/// Ten rows of the seconds 0 to 9.
async fn ten_rows(store: &SqlStore) -> Vec<LoggedChange> {
    let ada = add_user(store, "ada").await;
    write_rows(store, ada.id, 10).await
}

async fn only_what_is_old_is_deleted(db: &TestDatabase) {
    let store = db.open().await;
    assert_eq!(truncate(&store, EVER, 100).await, 0, "an empty log has nothing to lose");
    ten_rows(&store).await;
    assert_eq!(truncate(&store, at(0), 100).await, 0);
    assert_eq!(truncate(&store, at(4), 100).await, 4, "the row of that moment is not from before it");
    assert_eq!(positions(&store).await, [5, 6, 7, 8, 9, 10]);
    assert_eq!(truncate(&store, at(4), 100).await, 0);
}

async fn the_newest_row_stays(db: &TestDatabase) {
    let store = db.open().await;
    ten_rows(&store).await;
    assert_eq!(truncate(&store, EVER, 100).await, 9);
    assert_eq!(truncate(&store, EVER, 100).await, 0);
    assert_eq!(positions(&store).await, [10]);
    let joined = store.join(new_node("a")).await.expect("joined");
    assert_eq!(joined.position, Position::from_i64(10));
    assert!(joined.nonce.is_some());
}

async fn what_a_live_node_has_yet_to_see_stays(db: &TestDatabase) {
    let store = db.open().await;
    let [behind, ahead] = ["behind", "ahead"].map(new_node);
    for node in [&behind, &ahead] {
        store.join(node.clone()).await.expect("joined");
    }
    let rows = ten_rows(&store).await;
    assert_eq!(truncate(&store, EVER, 100).await, 0, "nobody has said that it has seen anything");
    store.acknowledge(ahead.id, Position::from_i64(10), None, AckCommit::Quick).await.expect("acknowledged");
    assert_eq!(truncate(&store, EVER, 100).await, 0, "one has not");
    store.acknowledge(behind.id, Position::from_i64(4), None, AckCommit::Quick).await.expect("acknowledged");
    assert_eq!(truncate(&store, EVER, 100).await, 3);
    // The row that it saw last is there, by which it finds that the log is the same.
    let polled = store.poll(behind.id, Position::from_i64(4), 100).await.expect("an answer");
    assert_eq!(polled.rows, rows[3..]);

    let nodes = store.nodes().await.expect("the nodes").nodes;
    let row = nodes.iter().find(|row| row.id == behind.id).expect("it has joined");
    assert!(store.mark_evicting(behind.id, row.heard_time).await.expect("an answer"));
    let polled = store.poll(behind.id, Position::from_i64(4), 100).await.expect("an answer");
    assert_eq!(polled.node, Some(NodeState::Evicting));
    assert_eq!(truncate(&store, EVER, 100).await, 6, "nobody waits for a node that is evicting");
    assert_eq!(positions(&store).await, [10]);
}

async fn at_most_so_many_rows_go_at_once(db: &TestDatabase) {
    let store = db.open().await;
    ten_rows(&store).await;
    assert_eq!(truncate(&store, EVER, 0).await, 0);
    assert_eq!(truncate(&store, EVER, 3).await, 3);
    assert_eq!(positions(&store).await, [4, 5, 6, 7, 8, 9, 10], "the lowest go first");
    for left in [4, 1] {
        truncate(&store, EVER, 3).await;
        assert_eq!(positions(&store).await.len(), left);
    }
}

async fn what_lies_behind_a_young_row_stays(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    for second in [1, 2, 9, 3, 4] {
        let target = EndTarget::User { user: ada.id, except: None };
        store.end_sessions(target, EndReason::Revoked, stamp(at(second))).await.expect("an answer");
    }
    // A log has one beginning: a row in the middle would be a hole.
    assert_eq!(truncate(&store, at(5), 100).await, 2);
    assert_eq!(positions(&store).await, [3, 4, 5]);
}

async fn a_log_that_was_shortened_is_read_from_its_first_row(db: &TestDatabase) {
    let store = db.open().await;
    let rows = ten_rows(&store).await;
    truncate(&store, at(4), 100).await;
    for after in [-1, 0, 1, 3, 4, 5, 9, 10, 11] {
        for limit in [0, 1, 3, 100] {
            let read = store.changes_after(Position::from_i64(after), limit).await.expect("an answer");
            let expected = rows[4..].iter().filter(|row| row.position.as_i64() > after);
            let expected: Vec<_> = expected.take(limit as usize).cloned().collect();
            assert_eq!(read, expected, "behind {after}, at most {limit}");
        }
    }
    store.close().await;
    drop(store);
    let raw = db.raw().await;
    raw.run("DELETE FROM change_log WHERE position = 7").await;
    raw.close().await;
    let store = db.open().await;
    let read = store.changes_after(Position::ZERO, 100).await.expect("an answer");
    assert_eq!(read, rows[4..6], "a row behind a hole is not answered, wherever the log begins");
}

async fn numbers_go_on_behind_an_empty_beginning(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    write_rows(&store, ada.id, 3).await;
    truncate(&store, EVER, 100).await;
    let more = write_rows(&store, ada.id, 2).await;
    assert_eq!(positions(&store).await, [3, 4, 5]);
    assert_eq!(log_after(&store, Position::from_i64(3)).await, more);
}

async fn a_new_log_ends_everyone_and_has_another_name(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, node) = (add_user(&store, "ada").await, new_node("a"));
    write_rows(&store, ada.id, 2).await;
    let ada = credentials(&store, ada.id).await.user;
    let session = sign_in(&store, &ada, NOW).await;
    let joined = store.join(node.clone()).await.expect("joined");
    let mut names = vec![joined.log];
    for round in 1..=2 {
        let (before, stamp) = (super::samples::head(&store).await, stamp(at(1)));
        let (log, change) = store.start_new_log(stamp).await.expect("a new log");
        assert!(!names.contains(&log), "a name is never taken again");
        names.push(log);
        assert_eq!(change.ended, u64::from(round == 1));
        let row = only_row(&store, before, &change, stamp).await;
        let everyone = credentials(&store, ada.id).await.everyone_epoch;
        assert_eq!((row.kind(), row.epoch()), (ChangeKind::EveryoneEnded, Some(everyone)));
        assert_eq!(everyone.as_i64(), 1 + round);
        assert_eq!(verdict(&store, session.id, at(2)).await, Err(Death::Revoked));
        let polled = store.poll(node.id, joined.position, 10).await.expect("an answer");
        assert_eq!((polled.log, polled.node), (log, Some(NodeState::Live)), "nodes notice by the name");
    }
}
