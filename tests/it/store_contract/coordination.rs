//! How nodes join, follow the log, acknowledge, fall silent and leave.

use std::time::Duration;

use latchkey::domain::id::{NodeId, Nonce, Position};
use latchkey::domain::session::EndReason;
use latchkey::domain::time::UnixMillis;
use latchkey::store::coordination::{
    AckCommit, Coordination, LeaseDuration, NewNode, NodeRow, NodeState, Polled, ServerId,
};
use latchkey::store::sql::SqlStore;
use latchkey::store::{EndTarget, LoggedChange, Store};

use super::samples::{NOW, add_user, at, new_node, stamp, write_rows};
use crate::support::databases::{Engine, TestDatabase, on_each_engine};

on_each_engine![
    only_one_process_has_a_sqlite_file,
    who_joins_an_empty_log_sees_every_change,
    who_joins_starts_at_the_head,
    a_poll_has_the_rows_from_where_it_is_asked,
    a_poll_hides_no_hole,
    a_poll_tells_what_a_lease_rests_on,
    a_database_that_takes_no_writes_is_not_the_primary,
    a_node_that_is_not_there_is_told_so,
    the_roster_is_in_the_order_of_ids,
    an_acknowledgement_never_goes_back,
    a_durable_acknowledgement_is_for_one_server,
    an_acknowledgement_of_a_row_that_is_another_counts_for_nothing,
    a_silent_node_is_evicted_in_two_phases,
    who_was_heard_of_is_not_evicted,
    an_evicting_node_is_not_revived,
    who_leaves_is_gone,
    a_lease_is_written_by_who_has_read_the_last_one,
    a_lease_that_changes_is_read_with_its_bounds,
];

const LIMIT: u32 = 500;
/// Later than any moment of the database's clock.
const EVER: UnixMillis = UnixMillis::from_millis(i64::MAX);

async fn join(store: &SqlStore, node: &NewNode) {
    store.join(node.clone()).await.expect("joined");
}

async fn poll(store: &SqlStore, node: &NewNode, from: Position) -> Polled {
    store.poll(node.id, from, LIMIT).await.expect("an answer")
}

async fn rows(store: &SqlStore) -> Vec<NodeRow> {
    store.nodes().await.expect("an answer").nodes
}

/// The row of a node, which must be there.
async fn row(store: &SqlStore, node: NodeId) -> NodeRow {
    let mut rows = rows(store).await;
    rows.retain(|row| row.id == node);
    rows.pop().expect("the node is there")
}

async fn only_one_process_has_a_sqlite_file(db: &TestDatabase) {
    let store = db.open().await;
    assert_eq!(store.is_exclusive(), db.engine() == Engine::Sqlite);
}

async fn who_joins_an_empty_log_sees_every_change(db: &TestDatabase) {
    let (store, node) = (db.open().await, new_node("a"));
    let joined = store.join(node.clone()).await.expect("joined");
    assert_eq!((joined.position, joined.nonce), (Position::ZERO, None));
    let first = poll(&store, &node, joined.position).await;
    assert_eq!((first.log, first.head, first.rows), (joined.log, Position::ZERO, Vec::new()));

    let ada = add_user(&store, "ada").await;
    let written = write_rows(&store, ada.id, 3).await;
    let polled = poll(&store, &node, joined.position).await;
    assert_eq!((polled.head, polled.rows), (Position::from_i64(3), written));
}

async fn who_joins_starts_at_the_head(db: &TestDatabase) {
    let (store, node) = (db.open().await, new_node("a"));
    let ada = add_user(&store, "ada").await;
    let before = write_rows(&store, ada.id, 5).await;
    let joined = store.join(node.clone()).await.expect("joined");
    assert_eq!((joined.position, joined.nonce), (before[4].position, Some(before[4].nonce)));
    assert_eq!(row(&store, node.id).await.applied, joined.position, "nobody waits for what it cannot know");

    let behind = write_rows(&store, ada.id, 2).await;
    let polled = poll(&store, &node, joined.position).await;
    assert_eq!(polled.rows, [&before[4..], &behind].concat(), "the row at the head comes again");
    assert_eq!(polled.head, behind[1].position);
}

async fn a_poll_has_the_rows_from_where_it_is_asked(db: &TestDatabase) {
    let (store, node) = (db.open().await, new_node("a"));
    let ada = add_user(&store, "ada").await;
    let written = write_rows(&store, ada.id, 20).await;
    join(&store, &node).await;
    for (from, limit) in
        [(0, 5), (1, 5), (7, 5), (18, 5), (20, 5), (21, 5), (99, 5), (1, 0), (-3, 9), (1, u32::MAX)]
    {
        let polled = store.poll(node.id, Position::from_i64(from), limit).await.expect("an answer");
        let to = from.saturating_add(i64::from(limit));
        let expected: Vec<LoggedChange> =
            written.iter().filter(|row| (from..to).contains(&row.position.as_i64())).cloned().collect();
        assert_eq!(polled.rows, expected, "from {from}, at most {limit}");
        assert_eq!(polled.head, Position::from_i64(20), "from {from}");
        assert_eq!(polled.node, Some(NodeState::Live), "from {from}");
    }
}

/// Whoever follows must notice it, so the rows behind it are no secret.
async fn a_poll_hides_no_hole(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let mut written = write_rows(&store, ada.id, 6).await;
    store.close().await;
    drop(store);
    let raw = db.raw().await;
    raw.run("DELETE FROM change_log WHERE position IN (1, 4)").await;
    raw.close().await;

    let (store, node) = (db.open().await, new_node("a"));
    join(&store, &node).await;
    written.retain(|row| ![1, 4].contains(&row.position.as_i64()));
    assert_eq!(poll(&store, &node, Position::ZERO).await.rows, written);
}

async fn a_poll_tells_what_a_lease_rests_on(db: &TestDatabase) {
    let (store, node) = (db.open().await, new_node("a"));
    add_user(&store, "ada").await;
    let joined = store.join(node.clone()).await.expect("joined");
    store.end_sessions(EndTarget::Everyone, EndReason::Revoked, stamp(NOW)).await.expect("an answer");
    let before = store.database_time().await.expect("the time");
    let polled = poll(&store, &node, Position::ZERO).await;
    let after = store.database_time().await.expect("the time");
    assert!((before..=after).contains(&polled.time), "{before:?} {:?} {after:?}", polled.time);
    assert!(polled.is_primary);
    assert_eq!((polled.log, polled.node), (joined.log, Some(NodeState::Live)));
    assert_eq!(
        polled.lease,
        LeaseDuration::settled(Duration::from_secs(5)),
        "the lease is what the database says"
    );
}

async fn a_database_that_takes_no_writes_is_not_the_primary(db: &TestDatabase) {
    // SQLite has no replicas. MariaDB says it for the whole server, which other tests write to meanwhile.
    if db.engine() != Engine::Postgres {
        return;
    }
    let (store, node) = (db.open().await, new_node("a"));
    join(&store, &node).await;
    store.close().await;
    let raw = db.raw().await;
    let name: String =
        raw.rows("SELECT current_database()").await[0].try_get_by_index(0).expect("a database has a name");
    raw.run(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
    raw.close().await;
    let store = db.open().await;
    assert!(!poll(&store, &node, Position::ZERO).await.is_primary);
}

async fn a_node_that_is_not_there_is_told_so(db: &TestDatabase) {
    let (store, stranger, node) = (db.open().await, new_node("a"), new_node("b"));
    join(&store, &node).await;
    let ada = add_user(&store, "ada").await;
    let written = write_rows(&store, ada.id, 2).await;
    let polled = poll(&store, &stranger, Position::ZERO).await;
    assert_eq!((polled.node, polled.rows), (None, written), "the log is read all the same");
    store
        .acknowledge(stranger.id, Position::from_i64(2), None, AckCommit::Quick)
        .await
        .expect("nothing happens");
    assert_eq!(rows(&store).await.len(), 1, "an acknowledgement makes no row");
}

async fn the_roster_is_in_the_order_of_ids(db: &TestDatabase) {
    let store = db.open().await;
    let empty = store.nodes().await.expect("an answer");
    assert_eq!((empty.head, empty.nodes), (Position::ZERO, Vec::new()));
    let ada = add_user(&store, "ada").await;
    write_rows(&store, ada.id, 2).await;
    let names = ["node-1 [::1]:50051", "héllo \u{1f600} \\ ' \"", ""];
    let mut nodes = names.map(new_node);
    let before = store.database_time().await.expect("the time");
    for node in &nodes {
        join(&store, node).await;
    }
    let roster = store.nodes().await.expect("an answer");
    nodes.sort_by_key(|node| node.id);
    let told: Vec<_> = roster.nodes.iter().map(|row| (row.id, row.name.clone())).collect();
    assert_eq!(told, nodes.map(|node| (node.id, node.name)));
    assert_eq!((roster.head, roster.lease.current), (Position::from_i64(2), Duration::from_secs(5)));
    for row in roster.nodes {
        assert_eq!((row.state, row.evict_time), (NodeState::Live, None));
        assert_eq!(row.join_time, row.heard_time);
        assert!((before..=roster.time).contains(&row.join_time), "{row:?} of {:?}", roster.time);
    }
}

async fn an_acknowledgement_never_goes_back(db: &TestDatabase) {
    let (store, node, other) = (db.open().await, new_node("a"), new_node("b"));
    join(&store, &node).await;
    join(&store, &other).await;
    let joined = row(&store, node.id).await;
    for (said, kept) in [(5, 5), (3, 5), (0, 5), (9, 9), (9, 9), (8, 9)] {
        store
            .acknowledge(node.id, Position::from_i64(said), None, AckCommit::Quick)
            .await
            .expect("acknowledged");
        assert_eq!(row(&store, node.id).await.applied, Position::from_i64(kept), "after {said}");
    }
    let heard = row(&store, node.id).await;
    assert!(heard.heard_time > joined.heard_time, "{heard:?}");
    assert_eq!(heard.join_time, joined.join_time);
    assert_eq!(row(&store, other.id).await.applied, Position::ZERO, "nobody else's moved");
}

/// It proves that the server which was polled commits. Where it changes nothing, it commits nothing.
async fn a_durable_acknowledgement_is_for_one_server(db: &TestDatabase) {
    let (store, node) = (db.open().await, new_node("a"));
    join(&store, &node).await;
    let joined = row(&store, node.id).await;
    let server = poll(&store, &node, Position::ZERO).await.server;
    let durable =
        async |server| store.acknowledge(node.id, Position::ZERO, None, AckCommit::Durable(server)).await;
    assert!(durable(ServerId(server.0 + 1)).await.is_err(), "another server");
    assert_eq!(row(&store, node.id).await, joined);
    durable(server).await.expect("the same server");
    assert!(row(&store, node.id).await.heard_time > joined.heard_time);
    store.leave(node.id).await.expect("it leaves");
    assert!(durable(server).await.is_err(), "there is no row any more");
}

/// Numbers are given again after a fail-over that lost commits.
async fn an_acknowledgement_of_a_row_that_is_another_counts_for_nothing(db: &TestDatabase) {
    let (store, node) = (db.open().await, new_node("a"));
    join(&store, &node).await;
    let joined = row(&store, node.id).await;
    let ada = add_user(&store, "ada").await;
    let written = write_rows(&store, ada.id, 3).await;
    let lost = Nonce([0xee; 8]);
    for (said, nonce) in [(2, lost), (4, lost), (4, written[2].nonce), (1, written[2].nonce)] {
        store
            .acknowledge(node.id, Position::from_i64(said), Some(nonce), AckCommit::Quick)
            .await
            .expect("nothing happens");
        assert_eq!(row(&store, node.id).await, joined, "{said}");
    }
    store
        .acknowledge(node.id, Position::from_i64(3), Some(written[2].nonce), AckCommit::Quick)
        .await
        .expect("acknowledged");
    assert_eq!(row(&store, node.id).await.applied, Position::from_i64(3));
}

async fn a_silent_node_is_evicted_in_two_phases(db: &TestDatabase) {
    let (store, node, other) = (db.open().await, new_node("a"), new_node("b"));
    join(&store, &node).await;
    join(&store, &other).await;
    store.remove_evicted(node.id).await.expect("nothing happens");
    assert_eq!(rows(&store).await.len(), 2, "a live node is not removed");

    let heartbeat = row(&store, node.id).await.heard_time;
    assert!(store.mark_evicting(node.id, heartbeat).await.expect("an answer"));
    let marked = row(&store, node.id).await;
    let now = store.database_time().await.expect("the time");
    assert_eq!(marked.state, NodeState::Evicting);
    assert!(marked.evict_time.is_some_and(|time| (marked.heard_time..=now).contains(&time)), "{marked:?}");
    assert_eq!(poll(&store, &node, Position::ZERO).await.node, Some(NodeState::Evicting));
    assert_eq!(poll(&store, &other, Position::ZERO).await.node, Some(NodeState::Live));
    assert!(!store.mark_evicting(node.id, heartbeat).await.expect("an answer"), "it is evicting already");
    assert_eq!(row(&store, node.id).await, marked, "the time of the first mark counts");

    store.remove_evicted(node.id).await.expect("removed");
    assert_eq!(poll(&store, &node, Position::ZERO).await.node, None);
    assert!(!store.mark_evicting(node.id, heartbeat).await.expect("an answer"), "it is gone");
    store.remove_evicted(node.id).await.expect("removing twice is nothing");
    assert_eq!(rows(&store).await.len(), 1);
}

async fn who_was_heard_of_is_not_evicted(db: &TestDatabase) {
    let (store, node) = (db.open().await, new_node("a"));
    join(&store, &node).await;
    let mut before = row(&store, node.id).await.heard_time;
    // However fast they come, each is another one, so that a clock that stands still silences nobody.
    for _ in 0..5 {
        store.acknowledge(node.id, Position::ZERO, None, AckCommit::Quick).await.expect("acknowledged");
        let heartbeat = row(&store, node.id).await.heard_time;
        assert_ne!(heartbeat, before);
        for other in [before, UnixMillis::from_millis(heartbeat.as_millis() + 1), EVER] {
            assert!(!store.mark_evicting(node.id, other).await.expect("an answer"), "heard of since");
        }
        before = heartbeat;
    }
    assert_eq!(row(&store, node.id).await.state, NodeState::Live);
    assert!(store.mark_evicting(node.id, before).await.expect("an answer"));
}

async fn an_evicting_node_is_not_revived(db: &TestDatabase) {
    let (store, node) = (db.open().await, new_node("a"));
    join(&store, &node).await;
    let heartbeat = row(&store, node.id).await.heard_time;
    assert!(store.mark_evicting(node.id, heartbeat).await.expect("an answer"));
    store.acknowledge(node.id, Position::from_i64(7), None, AckCommit::Quick).await.expect("acknowledged");
    assert_eq!(row(&store, node.id).await.state, NodeState::Evicting);
    store.remove_evicted(node.id).await.expect("removed");
    store.acknowledge(node.id, Position::from_i64(8), None, AckCommit::Quick).await.expect("nothing happens");
    assert_eq!(rows(&store).await, []);
}

async fn who_leaves_is_gone(db: &TestDatabase) {
    let (store, node, other) = (db.open().await, new_node("a"), new_node("b"));
    join(&store, &node).await;
    join(&store, &other).await;
    store.leave(node.id).await.expect("left");
    assert_eq!(poll(&store, &node, Position::ZERO).await.node, None);
    store.leave(node.id).await.expect("leaving twice is nothing");
    assert_eq!(rows(&store).await.iter().map(|row| row.id).collect::<Vec<_>>(), [other.id]);
    // Joining anew is done under a new id; the old one is not taken again while its row is there.
    assert!(store.join(other.clone()).await.is_err());
    assert!(store.mark_evicting(other.id, at(0)).await.is_ok_and(|marked| !marked));
}

fn changing(current: u64, longest: u64, target: u64, change: u8) -> LeaseDuration {
    LeaseDuration {
        current: Duration::from_millis(current),
        longest: Duration::from_millis(longest),
        target: Duration::from_millis(target),
        change: Some(Nonce([change; 8])),
    }
}

async fn a_lease_is_written_by_who_has_read_the_last_one(db: &TestDatabase) {
    let (store, node) = (db.open().await, new_node("a"));
    join(&store, &node).await;
    let first = store.nodes().await.expect("an answer").lease;
    assert!(first.is_settled(), "{first:?}");
    let other = LeaseDuration::settled(Duration::from_secs(9));
    let (one, two) = (changing(2_000, 5_000, 2_000, 1), changing(2_000, 9_000, 9_000, 2));
    for (from, to, is_done, lease) in [
        (other, one, false, first),
        (one, two, false, first),
        (first, one, true, one),
        (first, two, false, one),
        (changing(2_000, 5_000, 2_000, 7), two, false, one),
        (one, two, true, two),
        (one, LeaseDuration::settled(Duration::from_secs(2)), false, two),
        (two, other, true, other),
        (two, other, false, other),
    ] {
        let written = store.change_lease(from, to).await.expect("an answer");
        assert_eq!(written, is_done, "{from:?} to {to:?}");
        let (polled, roster) = (poll(&store, &node, Position::ZERO).await, store.nodes().await);
        assert_eq!((polled.lease, roster.expect("an answer").lease), (lease, lease));
    }
}

/// An operator may have written the lease by hand, also while it changed.
async fn a_lease_that_changes_is_read_with_its_bounds(db: &TestDatabase) {
    let store = db.open().await;
    let write = async |sql: &str| {
        let raw = db.raw().await;
        raw.run(&format!("UPDATE log_head SET {sql}")).await;
        raw.close().await;
    };
    store.close().await;
    drop(store);
    for (sql, current, longest, target) in [
        ("lease_ms = 3000", 3_000, 3_000, 3_000),
        ("lease_longest_ms = 8000", 3_000, 8_000, 3_000),
        ("lease_longest_ms = 1000", 3_000, 3_000, 3_000),
        ("lease_longest_ms = 0, lease_target_ms = 7000", 3_000, 7_000, 7_000),
    ] {
        write(sql).await;
        let store = db.open().await;
        let lease = store.nodes().await.expect("an answer").lease;
        let expected = LeaseDuration { change: None, ..changing(current, longest, target, 0) };
        assert_eq!(lease, expected, "{sql}");
        store.close().await;
    }
}
