//! What a node asks of the store when it starts: the time, and whether its token keys are the fleet's.

use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use latchkey::domain::id::Position;
use latchkey::domain::time::UnixMillis;
use latchkey::domain::token::{KeyFingerprint, KeyId};
use latchkey::store::{KEYS_HEARD_AFTER, LogEntry, RegisterTokenKeys, Store};

use super::samples::{NOW, at, head, log_after, register, stamp};
use crate::support::databases::{TestDatabase, on_each_engine};

on_each_engine![
    the_database_has_a_clock_that_goes_forward,
    a_new_key_is_recorded_and_then_known,
    a_key_with_another_fingerprint_is_named_and_nothing_recorded,
    nodes_that_start_together_agree_on_one_fingerprint,
    nodes_hear_of_keys_by_the_log,
    nodes_that_start_together_with_different_keys_hear_of_each_other,
    a_fresh_database_has_an_empty_log,
];

/// Two machines' clocks agree at least this well, or the test machine is broken.
const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_mins(1);

#[expect(clippy::disallowed_methods, reason = "the database's clock is held against the machine's")]
fn machine_time() -> UnixMillis {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is later than 1970");
    UnixMillis::default().plus(since_1970)
}

async fn the_database_has_a_clock_that_goes_forward(db: &TestDatabase) {
    let store = db.open().await;
    let machine = machine_time();
    let first = store.database_time().await.expect("the time");
    assert!(first.since(machine) < CLOCK_DIFFERENCE_MAX && machine.since(first) < CLOCK_DIFFERENCE_MAX);
    assert_ne!(first.as_millis() % 1_000, 0, "milliseconds are there, but for one time in a thousand");
    let mut last = first;
    for _ in 0..50 {
        let next = store.database_time().await.expect("the time");
        assert!(next >= last, "the clock went back from {last:?} to {next:?}");
        last = next;
    }
}

async fn a_new_key_is_recorded_and_then_known(db: &TestDatabase) {
    let store = db.open().await;
    let keys = [(KeyId(0), KeyFingerprint([0; 16])), (KeyId(255), KeyFingerprint([0xff; 16]))];
    assert_eq!(register(&store, &[], NOW).await.expect("an answer"), None);
    assert_eq!(register(&store, &keys, NOW).await.expect("an answer"), None);
    assert_eq!(register(&store, &keys, at(1)).await.expect("an answer"), None, "again");
    let wider = [keys[0], (KeyId(7), KeyFingerprint(*b"fingerprint \xc3\xa9\0\n"))];
    assert_eq!(register(&store, &wider, at(2)).await.expect("an answer"), None, "a rotation");
    store.close().await;
    drop(store);
    let reopened = db.open().await;
    let other = [(KeyId(7), KeyFingerprint(*b"fingerprint \xc3\xa9\0\r"))];
    assert_eq!(register(&reopened, &other, at(3)).await.expect("an answer"), Some(KeyId(7)));
}

async fn a_key_with_another_fingerprint_is_named_and_nothing_recorded(db: &TestDatabase) {
    let store = db.open().await;
    let known = (KeyId(1), KeyFingerprint([1; 16]));
    let fresh = (KeyId(2), KeyFingerprint([2; 16]));
    let foreign = (KeyId(1), KeyFingerprint([9; 16]));
    assert_eq!(register(&store, &[known], NOW).await.expect("an answer"), None);
    for keys in [[fresh, foreign], [foreign, fresh]] {
        assert_eq!(register(&store, &keys, at(1)).await.expect("an answer"), Some(KeyId(1)));
    }
    let otherwise = (KeyId(2), KeyFingerprint([8; 16]));
    assert_eq!(
        register(&store, &[known, otherwise], at(2)).await.expect("an answer"),
        None,
        "the key beside the foreign one was not recorded, so its number is still free"
    );
}

async fn nodes_that_start_together_agree_on_one_fingerprint(db: &TestDatabase) {
    let store = db.open().await;
    let rings: Vec<_> = (0..8).map(|node| [(KeyId(3), KeyFingerprint([node; 16]))]).collect();
    let answers = join_all(rings.iter().map(|ring| register(&store, ring, NOW))).await;
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.expect("a race is not an error")).collect();
    assert_eq!(answers.iter().filter(|answer| answer.is_none()).count(), 1, "one ring is the fleet's");
    assert_eq!(answers.iter().filter(|answer| **answer == Some(KeyId(3))).count(), 7, "the others are told");
}

/// Registers a ring and answers what the log says of it, and all keys that the database knows.
async fn registered(store: &dyn Store, keys: &[u8]) -> (Vec<KeyId>, Vec<LogEntry>) {
    let ring: Vec<_> = keys.iter().map(|&key| (KeyId(key), KeyFingerprint([key; 16]))).collect();
    match store.register_token_keys(&ring, stamp(NOW)).await.expect("an answer") {
        RegisterTokenKeys::Registered { mut known, change } => {
            known.sort_unstable();
            let change = change.expect("others may still have to hear of it");
            assert_eq!(change.position, head(store).await, "whoever waits for it has heard of all keys");
            (known, change.rows.iter().map(|row| row.entry).collect())
        }
        RegisterTokenKeys::Mismatch(key) => panic!("{key:?} is another"),
    }
}

async fn nodes_hear_of_keys_by_the_log(db: &TestDatabase) {
    let store = db.open().await;
    let added = |key| LogEntry::TokenKeyAdded { key: KeyId(key) };
    assert_eq!(registered(&store, &[1]).await, (vec![KeyId(1)], vec![]), "there is nobody else");
    assert_eq!(registered(&store, &[1]).await, (vec![KeyId(1)], vec![]));
    let all = vec![KeyId(0), KeyId(1), KeyId(255)];
    assert_eq!(registered(&store, &[1, 255, 0]).await, (all.clone(), vec![added(255), added(0)]));
    assert_eq!(registered(&store, &[1]).await, (all, vec![]), "those of others as well");
    let later = stamp(NOW.plus(KEYS_HEARD_AFTER));
    let ring = [(KeyId(1), KeyFingerprint([1; 16]))];
    let answer = store.register_token_keys(&ring, later).await.expect("an answer");
    assert!(matches!(answer, RegisterTokenKeys::Registered { change: None, .. }), "{answer:?}");
    let forgotten =
        store.forget_token_key(KeyId(255), stamp(at(1))).await.expect("an answer").expect("known");
    assert_eq!(forgotten.rows[0].entry, LogEntry::TokenKeyForgotten { key: KeyId(255) });
    assert_eq!(store.forget_token_key(KeyId(255), stamp(at(1))).await.expect("an answer"), None, "again");
    let log: Vec<_> = log_after(&store, Position::ZERO).await.iter().map(|row| row.entry).collect();
    assert_eq!(log, [added(255), added(0), LogEntry::TokenKeyForgotten { key: KeyId(255) }]);
    assert_eq!(registered(&store, &[1]).await.0, [KeyId(0), KeyId(1)]);
    let other = (KeyId(255), KeyFingerprint([7; 16]));
    assert_eq!(register(&store, &[other], NOW).await.expect("an answer"), None, "its number is free");
}

async fn nodes_that_start_together_with_different_keys_hear_of_each_other(db: &TestDatabase) {
    let store = db.open().await;
    let rings: Vec<_> = (0..8).map(|node| [(KeyId(node), KeyFingerprint([node; 16]))]).collect();
    let answers = join_all(rings.iter().map(|ring| store.register_token_keys(ring, stamp(NOW)))).await;
    let log = log_after(&store, Position::ZERO).await;
    for (node, answer) in (0..).zip(answers) {
        let Ok(RegisterTokenKeys::Registered { known, change }) = answer else { panic!("{answer:?}") };
        let change = change.expect("others may still have to hear of it");
        // What a node did not read it hears from the log, behind what it read.
        let heard = log.iter().filter(|row| row.position > change.position).filter_map(|row| row.entry.key());
        let mut all: Vec<_> = known.into_iter().chain(heard).collect();
        all.sort_unstable();
        assert_eq!(all, (0..8).map(KeyId).collect::<Vec<_>>(), "node {node}");
    }
}

async fn a_fresh_database_has_an_empty_log(db: &TestDatabase) {
    let store = db.open().await;
    assert_eq!(store.changes_after(Position::ZERO, 10).await.expect("an answer"), []);
    register(&store, &[(KeyId(0), KeyFingerprint([0; 16]))], NOW).await.expect("an answer");
    assert_eq!(head(&store).await, Position::ZERO, "keys are not a change of anybody's validity");
}
