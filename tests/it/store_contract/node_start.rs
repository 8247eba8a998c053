//! What a node asks of the store when it starts: the time, and whether its token keys are the fleet's.

use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use latchkey::domain::id::Position;
use latchkey::domain::time::UnixMillis;
use latchkey::domain::token::{KeyFingerprint, KeyId};
use latchkey::store::Store;

use super::samples::{NOW, at, head};
use crate::support::databases::{TestDatabase, on_each_engine};

on_each_engine![
    the_database_has_a_clock_that_goes_forward,
    a_new_key_is_recorded_and_then_known,
    a_key_with_another_fingerprint_is_named_and_nothing_recorded,
    nodes_that_start_together_agree_on_one_fingerprint,
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
    assert_eq!(store.register_token_keys(&[], NOW).await.expect("an answer"), None);
    assert_eq!(store.register_token_keys(&keys, NOW).await.expect("an answer"), None);
    assert_eq!(store.register_token_keys(&keys, at(1)).await.expect("an answer"), None, "again");
    let wider = [keys[0], (KeyId(7), KeyFingerprint(*b"fingerprint \xc3\xa9\0\n"))];
    assert_eq!(store.register_token_keys(&wider, at(2)).await.expect("an answer"), None, "a rotation");
    store.close().await;
    drop(store);
    let reopened = db.open().await;
    let other = [(KeyId(7), KeyFingerprint(*b"fingerprint \xc3\xa9\0\r"))];
    assert_eq!(reopened.register_token_keys(&other, at(3)).await.expect("an answer"), Some(KeyId(7)));
}

async fn a_key_with_another_fingerprint_is_named_and_nothing_recorded(db: &TestDatabase) {
    let store = db.open().await;
    let known = (KeyId(1), KeyFingerprint([1; 16]));
    let fresh = (KeyId(2), KeyFingerprint([2; 16]));
    let foreign = (KeyId(1), KeyFingerprint([9; 16]));
    assert_eq!(store.register_token_keys(&[known], NOW).await.expect("an answer"), None);
    for keys in [[fresh, foreign], [foreign, fresh]] {
        assert_eq!(store.register_token_keys(&keys, at(1)).await.expect("an answer"), Some(KeyId(1)));
    }
    let otherwise = (KeyId(2), KeyFingerprint([8; 16]));
    assert_eq!(
        store.register_token_keys(&[known, otherwise], at(2)).await.expect("an answer"),
        None,
        "the key beside the foreign one was not recorded, so its number is still free"
    );
}

async fn nodes_that_start_together_agree_on_one_fingerprint(db: &TestDatabase) {
    let store = db.open().await;
    let rings: Vec<_> = (0..8).map(|node| [(KeyId(3), KeyFingerprint([node; 16]))]).collect();
    let answers = join_all(rings.iter().map(|ring| store.register_token_keys(ring, NOW))).await;
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.expect("a race is not an error")).collect();
    assert_eq!(answers.iter().filter(|answer| answer.is_none()).count(), 1, "one ring is the fleet's");
    assert_eq!(answers.iter().filter(|answer| **answer == Some(KeyId(3))).count(), 7, "the others are told");
}

async fn a_fresh_database_has_an_empty_log(db: &TestDatabase) {
    let store = db.open().await;
    assert_eq!(store.changes_after(Position::ZERO, 10).await.expect("an answer"), []);
    store.register_token_keys(&[(KeyId(0), KeyFingerprint([0; 16]))], NOW).await.expect("an answer");
    assert_eq!(head(&store).await, Position::ZERO, "keys are not a change of anybody's validity");
}
