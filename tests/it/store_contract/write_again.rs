//! Changes that a node knows of, and the log has lost, are written again: once, whoever else writes them too.
//!
//! A database that lost its newest commits is made by putting the tables back to what they were.

use latchkey::domain::id::{Epoch, Position, SessionId, UserId};
use latchkey::domain::session::{Death, EndReason, Session};
use latchkey::domain::user::{DisplayName, User, UserState};
use latchkey::store::coordination::{Coordination as _, WrittenAgain};
use latchkey::store::sql::SqlStore;
use latchkey::store::{Change, ChangeKind, EndTarget, LogEntry, LoggedChange, Stamp, Store, UserChange};
use tokio::task::JoinSet;

use super::samples::{
    NOW, add_user, at, credentials, hash, head, log_after, new_user, record, sign_in, stamp, update, user,
    verdict,
};
use crate::support::databases::{TestDatabase, on_each_engine};

on_each_engine![
    a_session_that_ended_ends_again,
    sessions_of_a_user_that_ended_end_again,
    a_password_that_changed_is_no_longer_taken_for_the_same,
    a_user_who_was_disabled_or_deleted_is_disabled,
    everyones_end_is_in_force_again,
    a_user_that_changed_is_told_of_again,
    what_is_in_force_is_passed_over,
    what_nobody_knows_any_more_is_passed_over,
    all_kinds_at_once_are_written_in_order,
    many_nodes_write_it_once,
];

/// A row as it was in a log that is lost, at a position that means nothing any more.
fn lost(
    kind: ChangeKind,
    user: Option<UserId>,
    session: Option<SessionId>,
    epoch: Option<i64>,
) -> LoggedChange {
    let Stamp { time, nonce } = stamp(at(1));
    let entry = LogEntry::from_columns(kind.as_i16(), user, session, epoch.map(Epoch::from_i64), None);
    let entry = entry.expect("the fields of its kind");
    LoggedChange { position: Position::from_i64(77), nonce, entry, time }
}

/// Writes again, and again, which must change nothing more. The rows that are answered are those of the log.
async fn write_again(store: &SqlStore, lost: &[LoggedChange]) -> Change {
    let (before, first) = (head(store).await, stamp(at(5)));
    let WrittenAgain { change, last } = store.write_again(lost, first).await.expect("written");
    let rows = log_after(store, before).await;
    assert_eq!(change.rows, rows);
    assert!(rows.iter().all(|row| (row.nonce, row.time) == (first.nonce, first.time)));
    let after = head(store).await;
    assert_eq!(change.position, after);
    let at_head = log_after(store, Position::ZERO).await.pop().map(|row| (row.position, row.nonce));
    assert_eq!(last, at_head, "the last row of the log");
    let again = store.write_again(lost, stamp(at(6))).await.expect("passed over").change;
    let expected = lost.iter().filter(|row| row.kind() == ChangeKind::UserChanged).count();
    assert_eq!((again.ended, again.rows.len()), (0, expected.min(again.rows.len())), "{again:?}");
    assert!(again.rows.iter().all(|row| row.kind() == ChangeKind::UserChanged), "{again:?}");
    assert_eq!(again.rows, log_after(store, after).await);
    change
}

/// A user with three sessions.
async fn ada(store: &SqlStore) -> (User, Vec<Session>) {
    let ada = add_user(store, "ada").await;
    let mut sessions = Vec::new();
    for second in 0..3 {
        sessions.push(sign_in(store, &ada, at(second)).await);
    }
    (ada, sessions)
}

async fn a_session_that_ended_ends_again(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, sessions) = ada(&store).await;
    let row = lost(ChangeKind::SessionEnded, Some(ada.id), Some(sessions[1].id), None);
    let change = write_again(&store, &[row]).await;
    assert_eq!((change.ended, change.rows.len()), (1, 1));
    let written = &change.rows[0];
    assert_eq!(
        (written.kind(), written.user(), written.session(), written.epoch()),
        (ChangeKind::SessionEnded, Some(ada.id), Some(sessions[1].id), None)
    );
    assert_eq!(verdict(&store, sessions[1].id, at(9)).await, Err(Death::Revoked));
    for good in [&sessions[0], &sessions[2]] {
        assert_eq!(verdict(&store, good.id, at(9)).await, Ok(()));
    }
    assert_eq!(user(&store, ada.id).await, ada);
}

async fn sessions_of_a_user_that_ended_end_again(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, sessions) = ada(&store).await;
    // Three endings were lost; the last of them let a session go on.
    let rows = [
        lost(ChangeKind::UserSessionsEnded, Some(ada.id), Some(sessions[2].id), Some(2)),
        lost(ChangeKind::UserSessionsEnded, Some(ada.id), Some(sessions[2].id), Some(4)),
    ];
    let change = write_again(&store, &rows).await;
    assert_eq!(change.ended, 2);
    let told: Vec<_> = change.rows.iter().map(|row| (row.kind(), row.session(), row.epoch())).collect();
    let kind = ChangeKind::UserSessionsEnded;
    let epochs = [2, 4].map(Epoch::from_i64);
    assert_eq!(told, epochs.map(|epoch| (kind, Some(sessions[2].id), Some(epoch))));
    let after = user(&store, ada.id).await;
    assert_eq!((after.credential_epoch, after.password_epoch), (epochs[1], ada.password_epoch));
    assert_eq!(record(&store, sessions[2].id).await.session.user_epoch, epochs[1], "it is stamped again");
    assert_eq!(verdict(&store, sessions[2].id, at(9)).await, Ok(()));
    for over in &sessions[..2] {
        assert_eq!(verdict(&store, over.id, at(9)).await, Err(Death::Revoked));
    }
}

async fn a_password_that_changed_is_no_longer_taken_for_the_same(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, sessions) = ada(&store).await;
    // The session that went on was made by the change, and is lost with it.
    let unknown = new_user("nobody").id.as_uuid();
    let row = lost(ChangeKind::PasswordChanged, Some(ada.id), Some(SessionId::from_uuid(unknown)), Some(5));
    let change = write_again(&store, &[row]).await;
    assert_eq!((change.ended, change.rows.len()), (3, 1));
    assert_eq!((change.rows[0].kind(), change.rows[0].session()), (ChangeKind::PasswordChanged, None));
    let after = user(&store, ada.id).await;
    let epoch = Epoch::from_i64(5);
    assert_eq!((after.credential_epoch, after.password_epoch), (epoch, epoch));
    for over in &sessions {
        assert_eq!(verdict(&store, over.id, at(9)).await, Err(Death::CredentialsChanged));
    }
}

async fn a_user_who_was_disabled_or_deleted_is_disabled(db: &TestDatabase) {
    let store = db.open().await;
    for kind in [ChangeKind::UserDisabled, ChangeKind::UserDeleted] {
        let login = format!("{kind:?}");
        let ada = add_user(&store, &login).await;
        let session = sign_in(&store, &ada, at(1)).await;
        let epoch = ada.credential_epoch.next();
        let change = write_again(&store, &[lost(kind, Some(ada.id), None, Some(epoch.as_i64()))]).await;
        assert_eq!((change.ended, change.rows.len()), (1, 1));
        assert_eq!((change.rows[0].kind(), change.rows[0].epoch()), (ChangeKind::UserDisabled, Some(epoch)));
        let after = user(&store, ada.id).await;
        assert_eq!((after.state, after.credential_epoch), (UserState::Disabled, epoch));
        assert_eq!(verdict(&store, session.id, at(9)).await, Err(Death::UserDisabled));
    }
}

async fn everyones_end_is_in_force_again(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, sessions) = ada(&store).await;
    let rows = [3, 7, 5].map(|epoch| lost(ChangeKind::EveryoneEnded, None, None, Some(epoch)));
    let change = write_again(&store, &rows).await;
    assert_eq!(change.rows.len(), 1, "the highest says it all");
    assert_eq!(
        (change.rows[0].kind(), change.rows[0].epoch()),
        (ChangeKind::EveryoneEnded, Some(Epoch::from_i64(7)))
    );
    assert_eq!(credentials(&store, ada.id).await.everyone_epoch, Epoch::from_i64(7));
    assert_eq!(verdict(&store, sessions[0].id, at(9)).await, Err(Death::Revoked));
    // The next end of everyone is one above.
    let next =
        store.end_sessions(EndTarget::Everyone, EndReason::Revoked, stamp(at(9))).await.expect("ended");
    assert_eq!(next.rows[0].epoch(), Some(Epoch::from_i64(8)));
}

async fn a_user_that_changed_is_told_of_again(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, sessions) = ada(&store).await;
    let row = lost(ChangeKind::UserChanged, Some(ada.id), None, Some(1));
    let change = write_again(&store, &[row.clone(), row]).await;
    assert_eq!((change.ended, change.rows.len()), (0, 1));
    let told = &change.rows[0];
    assert_eq!(
        (told.kind(), told.user(), told.epoch()),
        (ChangeKind::UserChanged, Some(ada.id), Some(ada.credential_epoch))
    );
    assert_eq!(user(&store, ada.id).await, ada);
    assert_eq!(verdict(&store, sessions[0].id, at(9)).await, Ok(()));
}

async fn what_is_in_force_is_passed_over(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, sessions) = ada(&store).await;
    store
        .end_sessions(EndTarget::Session(sessions[0].id), EndReason::Replaced, stamp(at(3)))
        .await
        .expect("ended");
    store.set_password(ada.id, hash("second"), stamp(at(3))).await.expect("an answer").expect("a change");
    let disabling = |state| UserChange { state: Some(state), ..UserChange::default() };
    update(&store, ada.id, disabling(UserState::Disabled), stamp(at(3))).await;
    update(&store, ada.id, disabling(UserState::Active), stamp(at(3))).await;
    store.end_sessions(EndTarget::Everyone, EndReason::Revoked, stamp(at(3))).await.expect("ended");
    let (log, before) = (log_after(&store, Position::ZERO).await, user(&store, ada.id).await);
    // A node that is not sure what was lost may hand in all that it knows.
    let known: Vec<_> = log.iter().filter(|row| row.kind() != ChangeKind::UserChanged).cloned().collect();
    let change = write_again(&store, &known).await;
    let position = log.last().expect("a row").position;
    assert_eq!(change, Change { ended: 0, position, rows: Vec::new() });
    assert_eq!(user(&store, ada.id).await, before, "who was enabled again stays enabled");
    let reason = record(&store, sessions[0].id).await.session.ended.map(|ended| ended.reason);
    assert_eq!(reason, Some(EndReason::Replaced), "the first end stays");
}

async fn what_nobody_knows_any_more_is_passed_over(db: &TestDatabase) {
    let store = db.open().await;
    let nobody = Some(new_user("nobody").id);
    let unknown = Some(SessionId::from_uuid(new_user("nobody").id.as_uuid()));
    let rows = [
        lost(ChangeKind::SessionEnded, nobody, unknown, None),
        lost(ChangeKind::UserSessionsEnded, nobody, unknown, Some(9)),
        lost(ChangeKind::PasswordChanged, nobody, None, Some(9)),
        lost(ChangeKind::UserChanged, nobody, None, Some(9)),
        lost(ChangeKind::UserDisabled, nobody, None, Some(9)),
        lost(ChangeKind::UserDeleted, nobody, None, Some(9)),
        lost(ChangeKind::EveryoneEnded, None, None, Some(1)),
    ];
    let change = write_again(&store, &rows).await;
    assert_eq!(change, Change { ended: 0, position: Position::ZERO, rows: Vec::new() });
    assert_eq!(write_again(&store, &[]).await, change);
}

async fn all_kinds_at_once_are_written_in_order(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, sessions) = ada(&store).await;
    let (bob, eve) = (add_user(&store, "bob").await, add_user(&store, "eve").await);
    let of_bob = sign_in(&store, &bob, NOW).await;
    let name = UserChange { display_name: Some(DisplayName::default()), ..UserChange::default() };
    update(&store, eve.id, name, stamp(at(3))).await;
    let rows = [
        lost(ChangeKind::EveryoneEnded, None, None, Some(2)),
        lost(ChangeKind::UserDisabled, Some(bob.id), None, Some(3)),
        lost(ChangeKind::SessionEnded, Some(ada.id), Some(sessions[0].id), None),
        lost(ChangeKind::UserChanged, Some(eve.id), None, Some(1)),
        lost(ChangeKind::UserSessionsEnded, Some(ada.id), Some(sessions[1].id), Some(2)),
        lost(ChangeKind::SessionEnded, Some(ada.id), Some(sessions[1].id), None),
        lost(ChangeKind::SessionEnded, Some(bob.id), Some(of_bob.id), None),
    ];
    let change = write_again(&store, &rows).await;
    let kinds: Vec<_> = change.rows.iter().map(LoggedChange::kind).collect();
    assert_eq!(
        kinds,
        [
            ChangeKind::UserDisabled,
            ChangeKind::SessionEnded,
            ChangeKind::UserChanged,
            ChangeKind::UserSessionsEnded,
            ChangeKind::SessionEnded,
            // The head is locked last, whatever was said first.
            ChangeKind::EveryoneEnded,
        ]
    );
    assert_eq!(change.ended, 4);
    for over in sessions.iter().chain([&of_bob]) {
        assert!(verdict(&store, over.id, at(9)).await.is_err());
    }
}

async fn many_nodes_write_it_once(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, sessions) = ada(&store).await;
    let bob = add_user(&store, "bob").await;
    let rows = vec![
        lost(ChangeKind::SessionEnded, Some(ada.id), Some(sessions[0].id), None),
        lost(ChangeKind::UserSessionsEnded, Some(ada.id), Some(sessions[1].id), Some(2)),
        lost(ChangeKind::PasswordChanged, Some(bob.id), None, Some(4)),
        lost(ChangeKind::EveryoneEnded, None, None, Some(3)),
    ];
    let mut writing = JoinSet::new();
    for _ in 0..8 {
        let (store, rows) = (store.clone(), rows.clone());
        writing.spawn(async move { store.write_again(&rows, stamp(at(5))).await.expect("written").change });
    }
    let changes = writing.join_all().await;
    assert_eq!(changes.iter().map(|change| change.rows.len()).sum::<usize>(), 4);
    assert_eq!(changes.iter().map(|change| change.ended).sum::<u64>(), 2);
    assert_eq!(log_after(&store, Position::ZERO).await.len(), 4);
    assert_eq!(credentials(&store, bob.id).await.everyone_epoch, Epoch::from_i64(3));
    assert_eq!(user(&store, ada.id).await.credential_epoch, Epoch::from_i64(2));
}
