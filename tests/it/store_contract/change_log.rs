//! The change log: what is read back is what was written, in order, without a gap, and what writes to it.

use latchkey::domain::id::{Nonce, Position};
use latchkey::domain::session::EndReason;
use latchkey::domain::time::UnixMillis;
use latchkey::domain::token::{KeyFingerprint, KeyId};
use latchkey::domain::user::{DisplayName, UserState};
use latchkey::store::{
    ChangeKind, EndTarget, LoggedChange, PasswordChange, SessionKey, Stamp, Store, UserChange, UserKey,
};

use super::samples::{
    NO_CAP, NOW, add_user, at, credentials, hash, head, log_after, new_session, new_user, record, register,
    sign_in, stamp, update,
};
use crate::support::databases::{TestDatabase, on_each_engine};

on_each_engine![
    rows_come_in_order_behind_a_position,
    every_kind_of_change_has_its_row,
    stamps_read_back_at_their_extremes,
    reads_and_quiet_writes_are_not_logged,
    every_read_names_the_same_head,
];

/// Writes `count` rows, and answers their stamps in order.
async fn write_rows(store: &dyn Store, count: u64) -> Vec<Stamp> {
    let ada = add_user(store, "ada").await;
    let mut stamps = Vec::new();
    for number in 0..count {
        let stamp = stamp(at(number));
        let target = EndTarget::User { user: ada.id, except: None };
        store.end_sessions(target, EndReason::Revoked, stamp).await.expect("the store answers");
        stamps.push(stamp);
    }
    stamps
}

async fn rows_come_in_order_behind_a_position(db: &TestDatabase) {
    let store = db.open().await;
    let stamps = write_rows(&store, 20).await;
    let all = store.changes_after(Position::ZERO, 1_000).await.expect("an answer");
    assert_eq!(all.iter().map(|row| row.position.as_i64()).collect::<Vec<_>>(), (1..=20).collect::<Vec<_>>());
    let nonces: Vec<Nonce> = all.iter().map(|row| row.nonce).collect();
    assert_eq!(nonces, stamps.iter().map(|stamp| stamp.nonce).collect::<Vec<_>>());
    for (after, limit) in
        [(0, 1), (0, 7), (7, 7), (14, 7), (19, 7), (20, 7), (99, 7), (5, 0), (-1, 3), (0, u32::MAX)]
    {
        let rows = store.changes_after(Position::from_i64(after), limit).await.expect("an answer");
        let expected: Vec<LoggedChange> =
            all.iter().filter(|row| row.position.as_i64() > after).take(limit as usize).cloned().collect();
        assert_eq!(rows, expected, "behind {after}, at most {limit}");
    }
}

async fn every_kind_of_change_has_its_row(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let mut expected = Vec::new();
    let first = sign_in(&store, &ada, NOW).await;
    store
        .end_sessions(EndTarget::Session(first.id), EndReason::Revoked, stamp(at(1)))
        .await
        .expect("an answer");
    expected.push(ChangeKind::SessionEnded);

    let second = sign_in(&store, &ada, NOW).await;
    store.replace_session(second.id, new_session(&ada, at(2)), stamp(at(2))).await.expect("an answer");
    expected.push(ChangeKind::SessionEnded);
    store.create_session(new_session(&ada, at(3)), 1, stamp(at(3))).await.expect("an answer");
    expected.push(ChangeKind::SessionEnded);

    let target = EndTarget::User { user: ada.id, except: None };
    store.end_sessions(target, EndReason::Revoked, stamp(at(4))).await.expect("an answer");
    expected.push(ChangeKind::UserSessionsEnded);

    store.set_password(ada.id, hash("second"), stamp(at(5))).await.expect("an answer");
    expected.push(ChangeKind::PasswordChanged);
    let ada = credentials(&store, ada.id).await.user;
    let mut session = new_session(&ada, at(6));
    session.session.user_epoch = ada.credential_epoch.next();
    let change = PasswordChange { verified_epoch: ada.credential_epoch, hash: hash("third"), session };
    store.change_password(change, stamp(at(6))).await.expect("an answer").expect("the race was won");
    expected.push(ChangeKind::PasswordChanged);

    let renaming = UserChange { display_name: Some(DisplayName::default()), ..UserChange::default() };
    update(&store, ada.id, renaming, stamp(at(7))).await;
    expected.push(ChangeKind::UserChanged);
    let disabling = UserChange { state: Some(UserState::Disabled), ..UserChange::default() };
    update(&store, ada.id, disabling, stamp(at(8))).await;
    expected.push(ChangeKind::UserDisabled);
    store.end_sessions(EndTarget::Everyone, EndReason::Revoked, stamp(at(9))).await.expect("an answer");
    expected.push(ChangeKind::EveryoneEnded);
    store.delete_user(ada.id, stamp(at(10))).await.expect("an answer").expect("a change");
    expected.push(ChangeKind::UserDeleted);

    let rows = log_after(&store, Position::ZERO).await;
    assert_eq!(rows.iter().map(LoggedChange::kind).collect::<Vec<_>>(), expected);
    let times: Vec<UnixMillis> = rows.iter().map(|row| row.time).collect();
    assert_eq!(times, (1..=10).map(at).collect::<Vec<_>>());
    // The epochs in the log are the ones that a memory raises its own to, so they never go down.
    let epochs: Vec<_> = rows
        .iter()
        .filter(|row| row.user() == Some(ada.id) && row.kind() != ChangeKind::SessionEnded)
        .filter_map(LoggedChange::epoch)
        .collect();
    assert!(epochs.is_sorted(), "{epochs:?}");
}

async fn stamps_read_back_at_their_extremes(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let times = [0, 1, NOW.as_millis(), i64::from(u32::MAX) * 1_000, i64::MAX];
    let nonces = [[0; 8], [0xff; 8], *b"\0\n'\\\xc3\x28%\x80", [0x80; 8], [0x7f; 8]];
    for (time, nonce) in times.into_iter().zip(nonces) {
        let stamp = Stamp { time: UnixMillis::from_millis(time), nonce: Nonce(nonce) };
        let target = EndTarget::User { user: ada.id, except: None };
        let change = store.end_sessions(target, EndReason::Revoked, stamp).await.expect("an answer");
        let behind = Position::from_i64(change.position.as_i64() - 1);
        let rows = store.changes_after(behind, 1).await.expect("an answer");
        assert_eq!((rows[0].time, rows[0].nonce), (stamp.time, stamp.nonce));
    }
}

async fn reads_and_quiet_writes_are_not_logged(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let session = sign_in(&store, &ada, NOW).await;
    store.database_time().await.expect("an answer");
    register(&store, &[(KeyId(0), KeyFingerprint([0; 16]))], NOW).await.expect("an answer");
    store.user(UserKey::Id(ada.id)).await.expect("an answer");
    store.credentials(UserKey::Login(&ada.login)).await.expect("an answer");
    store.list_users(None, 10).await.expect("an answer");
    store.upgrade_password_hash(ada.id, &hash("first"), &hash("better")).await.expect("an answer");
    store.create_session(new_session(&ada, NOW), NO_CAP, stamp(NOW)).await.expect("an answer");
    store.session(SessionKey::Id(session.id)).await.expect("an answer");
    store.sessions_of_user(ada.id, None, 10, NOW).await.expect("an answer");
    store.touch_sessions(&[(session.id, at(1))]).await.expect("an answer");
    store.purge_sessions(NOW, 10).await.expect("an answer");
    store.create_user(new_user("bob")).await.expect("an answer");
    assert_eq!(log_after(&store, Position::ZERO).await, []);
}

async fn every_read_names_the_same_head(db: &TestDatabase) {
    let store = db.open().await;
    write_rows(&store, 3).await;
    let bob = add_user(&store, "bob").await;
    let session = sign_in(&store, &bob, NOW).await;
    let head = head(&store).await;
    assert_eq!(head, Position::from_i64(3));
    assert_eq!(credentials(&store, bob.id).await.position, head);
    assert_eq!(record(&store, session.id).await.position, head);
}
