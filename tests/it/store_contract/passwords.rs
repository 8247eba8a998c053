//! Reading what a sign-in decides on, and the three ways in which a password hash is replaced.

use futures_util::future::join_all;
use latchkey::domain::id::{Epoch, Position};
use latchkey::domain::password::PasswordHash;
use latchkey::domain::session::Death;
use latchkey::domain::user::{User, UserState};
use latchkey::store::{
    Change, ChangeKind, EndTarget, NewUser, PasswordChange, SessionKey, Store, UserChange, UserKey,
};

use super::samples::{
    add_user, at, credentials, hash, head, log_after, new_session, new_user, only_row, sign_in, stamp,
    update, user, verdict,
};
use crate::support::databases::{TestDatabase, on_each_engine};

on_each_engine![
    credentials_are_read_as_of_one_moment,
    a_user_without_password_has_none,
    setting_a_password_ends_every_session,
    a_password_can_be_set_for_the_disabled_and_the_passwordless,
    setting_a_password_of_nobody_is_not_logged,
    changing_a_password_keeps_one_new_session,
    a_change_that_lost_the_race_changes_nothing,
    of_many_changes_at_once_one_wins,
    a_change_and_a_reset_at_once_never_both_decide_the_hash,
    a_better_hash_takes_the_place_of_the_old_one_silently,
    a_better_hash_is_not_written_over_another_password,
    of_many_better_hashes_one_is_written,
];

/// The hash that is stored, as it is to be shown in a failed assertion: `Debug` of a hash hides it.
fn text(hash: Option<&PasswordHash>) -> Option<String> {
    hash.map(|hash| hash.expose().to_owned())
}

async fn stored_hash(store: &dyn Store, user: &User) -> Option<String> {
    text(credentials(store, user.id).await.password_hash.as_ref())
}

/// What a change by the owner hands over: a session at the epoch after the verified one.
fn password_change(user: &User, new: &str, seconds: u64) -> PasswordChange {
    let verified_epoch = user.credential_epoch;
    let mut session = new_session(user, at(seconds));
    session.session.user_epoch = verified_epoch.next();
    PasswordChange { verified_epoch, hash: hash(new), session }
}

async fn credentials_are_read_as_of_one_moment(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    for key in [UserKey::Id(ada.id), UserKey::Login(&ada.login)] {
        let read = store.credentials(key).await.expect("an answer").expect("found");
        assert_eq!(read.user, ada);
        assert_eq!(text(read.password_hash.as_ref()), text(Some(&hash("first"))));
        assert_eq!((read.everyone_epoch, read.position), (Epoch::FIRST, Position::ZERO));
    }
    let change = store.set_password(ada.id, hash("second"), stamp(at(1))).await.expect("an answer");
    let position = change.expect("a change").position;
    let read = credentials(&store, ada.id).await;
    assert_eq!((read.position, read.user.credential_epoch), (position, Epoch::FIRST.next()));
    let change = store
        .end_sessions(EndTarget::Everyone, latchkey::domain::session::EndReason::Revoked, stamp(at(2)))
        .await
        .expect("an answer");
    let read = credentials(&store, ada.id).await;
    assert_eq!((read.position, read.everyone_epoch), (change.position, Epoch::FIRST.next()));
}

async fn a_user_without_password_has_none(db: &TestDatabase) {
    let store = db.open().await;
    let robot = NewUser { password_hash: None, ..new_user("robot") };
    let id = robot.id;
    store.create_user(robot).await.expect("an answer");
    assert_eq!(text(credentials(&store, id).await.password_hash.as_ref()), None);
}

async fn setting_a_password_ends_every_session(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, bob) = (add_user(&store, "ada").await, add_user(&store, "bob").await);
    let sessions = [sign_in(&store, &ada, at(1)).await, sign_in(&store, &ada, at(2)).await];
    let bystander = sign_in(&store, &bob, at(2)).await;
    let stamp = stamp(at(3));
    let change =
        store.set_password(ada.id, hash("second"), stamp).await.expect("an answer").expect("a change");
    assert_eq!(change.ended, 2);
    let after = user(&store, ada.id).await;
    let raised = ada.credential_epoch.next();
    let expected = User {
        credential_epoch: raised,
        password_epoch: raised,
        update_time: at(3),
        password_time: Some(at(3)),
        ..ada.clone()
    };
    assert_eq!(after, expected);
    let row = only_row(&store, Position::ZERO, &change, stamp).await;
    assert_eq!((row.kind(), row.user(), row.session()), (ChangeKind::PasswordChanged, Some(ada.id), None));
    assert_eq!(row.epoch(), Some(raised));
    for session in &sessions {
        assert_eq!(verdict(&store, session.id, at(4)).await, Err(Death::CredentialsChanged));
    }
    assert_eq!(verdict(&store, bystander.id, at(4)).await, Ok(()));
    assert_eq!(stored_hash(&store, &ada).await, text(Some(&hash("second"))));
    assert_eq!(stored_hash(&store, &bob).await, text(Some(&hash("first"))));
}

async fn a_password_can_be_set_for_the_disabled_and_the_passwordless(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let disabling = UserChange { state: Some(UserState::Disabled), ..UserChange::default() };
    update(&store, ada.id, disabling, stamp(at(1))).await;
    let robot = NewUser { password_hash: None, ..new_user("robot") };
    let robot_id = robot.id;
    store.create_user(robot).await.expect("an answer");
    for id in [ada.id, robot_id] {
        let change = store.set_password(id, hash("set"), stamp(at(2))).await.expect("an answer");
        assert_eq!(change.expect("a change").ended, 0);
        assert_eq!(text(credentials(&store, id).await.password_hash.as_ref()), text(Some(&hash("set"))));
        assert_eq!(user(&store, id).await.password_time, Some(at(2)));
    }
    assert_eq!(user(&store, ada.id).await.state, UserState::Disabled, "a new password enables nobody");
}

async fn setting_a_password_of_nobody_is_not_logged(db: &TestDatabase) {
    let store = db.open().await;
    let answer = store.set_password(new_user("nobody").id, hash("x"), stamp(at(1))).await.expect("an answer");
    assert_eq!(answer, None);
    assert_eq!(head(&store).await, Position::ZERO);
}

async fn changing_a_password_keeps_one_new_session(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let old = [sign_in(&store, &ada, at(1)).await, sign_in(&store, &ada, at(2)).await];
    let (new, stamp) = (password_change(&ada, "second", 3), stamp(at(3)));
    let change =
        store.change_password(new.clone(), stamp).await.expect("an answer").expect("the race was won");
    assert_eq!(change.ended, 2);
    let kept = &new.session.session;
    let row = only_row(&store, Position::ZERO, &change, stamp).await;
    assert_eq!(
        (row.kind(), row.user(), row.session()),
        (ChangeKind::PasswordChanged, Some(ada.id), Some(kept.id))
    );
    assert_eq!(row.epoch(), Some(ada.credential_epoch.next()));
    for session in &old {
        assert_eq!(verdict(&store, session.id, at(4)).await, Err(Death::CredentialsChanged));
    }
    let found =
        store.session(SessionKey::Digest(new.session.digest)).await.expect("an answer").expect("found");
    assert_eq!((&found.session, found.position), (kept, change.position));
    assert_eq!(verdict(&store, kept.id, at(4)).await, Ok(()));
    let after = user(&store, ada.id).await;
    let raised = ada.credential_epoch.next();
    assert_eq!((after.credential_epoch, after.password_epoch), (raised, raised));
    assert_eq!(after.password_time, Some(at(3)));
    assert_eq!(stored_hash(&store, &ada).await, text(Some(&hash("second"))));
}

async fn a_change_that_lost_the_race_changes_nothing(db: &TestDatabase) {
    let store = db.open().await;
    let nobody = User { id: new_user("nobody").id, ..add_user(&store, "somebody").await };
    let raced = add_user(&store, "raced").await;
    let stale = password_change(&raced, "late", 9);
    store.set_password(raced.id, hash("winner"), stamp(at(1))).await.expect("an answer").expect("a change");
    let ended = add_user(&store, "ended").await;
    let signed_out = password_change(&ended, "late", 9);
    let target = EndTarget::User { user: ended.id, except: None };
    let reason = latchkey::domain::session::EndReason::Revoked;
    store.end_sessions(target, reason, stamp(at(1))).await.expect("an answer");
    let disabled = add_user(&store, "disabled").await;
    let disabling = UserChange { state: Some(UserState::Disabled), ..UserChange::default() };
    let (disabled, _) = update(&store, disabled.id, disabling, stamp(at(1))).await;

    let before = head(&store).await;
    let ahead = User { credential_epoch: raced.credential_epoch.next().next(), ..raced.clone() };
    let attempts = [
        stale,
        signed_out,
        password_change(&disabled, "late", 9),
        password_change(&nobody, "late", 9),
        password_change(&ahead, "early", 9),
    ];
    for attempt in attempts {
        let (session, owner) = (attempt.session.session.id, attempt.session.session.user_id);
        assert_eq!(store.change_password(attempt, stamp(at(9))).await.expect("an answer"), None);
        assert!(
            store.session(SessionKey::Id(session)).await.expect("an answer").is_none(),
            "nothing was added"
        );
        if let Some(after) = store.credentials(UserKey::Id(owner)).await.expect("an answer") {
            assert_ne!(text(after.password_hash.as_ref()), text(Some(&hash("late"))));
            assert_ne!(after.user.update_time, at(9));
        }
    }
    assert_eq!(log_after(&store, before).await, []);
}

async fn of_many_changes_at_once_one_wins(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let changes: Vec<_> = (0..8).map(|n| password_change(&ada, &format!("new-{n}"), 1)).collect();
    let answers = join_all(changes.iter().map(|c| store.change_password(c.clone(), stamp(at(1))))).await;
    let answers: Vec<Option<Change>> =
        answers.into_iter().map(|answer| answer.expect("a race is not an error")).collect();
    let won: Vec<_> = changes.iter().zip(&answers).filter(|(_, answer)| answer.is_some()).collect();
    assert_eq!(won.len(), 1, "exactly one wins: {answers:?}");
    assert_eq!(stored_hash(&store, &ada).await, text(Some(&won[0].0.hash)), "the winner's hash is stored");
    assert_eq!(user(&store, ada.id).await.credential_epoch, ada.credential_epoch.next());
    for change in &changes {
        let id = change.session.session.id;
        let there = store.session(SessionKey::Id(id)).await.expect("an answer").is_some();
        assert_eq!(there, id == won[0].0.session.session.id, "only the winner's session was added");
    }
    assert_eq!(log_after(&store, Position::ZERO).await.len(), 1);
}

async fn a_change_and_a_reset_at_once_never_both_decide_the_hash(db: &TestDatabase) {
    let store = db.open().await;
    for round in 0..10 {
        let ada = add_user(&store, &format!("ada-{round}")).await;
        let change = password_change(&ada, "by the owner", 1);
        let session = change.session.session.id;
        let (by_owner, by_admin) = futures_util::join!(
            store.change_password(change, stamp(at(1))),
            store.set_password(ada.id, hash("by the administrator"), stamp(at(1))),
        );
        let by_owner = by_owner.expect("a race is not an error");
        by_admin.expect("a race is not an error").expect("the administrator always gets through");
        // Whatever came first, the administrator's word is the last: behind it the owner's change finds another epoch.
        assert_eq!(stored_hash(&store, &ada).await, text(Some(&hash("by the administrator"))));
        let raises = if by_owner.is_some() { 2 } else { 1 };
        assert_eq!(
            user(&store, ada.id).await.credential_epoch.as_i64(),
            ada.credential_epoch.as_i64() + raises
        );
        if by_owner.is_some() {
            assert_eq!(verdict(&store, session, at(2)).await, Err(Death::CredentialsChanged));
        }
    }
}

async fn a_better_hash_takes_the_place_of_the_old_one_silently(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let session = sign_in(&store, &ada, at(1)).await;
    assert!(store.upgrade_password_hash(ada.id, &hash("first"), &hash("better")).await.expect("an answer"));
    assert_eq!(stored_hash(&store, &ada).await, text(Some(&hash("better"))));
    let after = user(&store, ada.id).await;
    assert_eq!((after.credential_epoch, after.password_epoch), (ada.credential_epoch, ada.password_epoch));
    assert_eq!(after.password_time, ada.password_time, "it is the same password");
    assert_eq!(verdict(&store, session.id, at(2)).await, Ok(()));
    assert_eq!(head(&store).await, Position::ZERO);
}

async fn a_better_hash_is_not_written_over_another_password(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let robot = NewUser { password_hash: None, ..new_user("robot") };
    let robot_id = robot.id;
    store.create_user(robot).await.expect("an answer");
    let nobody = new_user("nobody").id;
    let first = hash("first").expose().to_owned();
    // Compared byte for byte: neither case nor a trailing space is passed over.
    for other in [hash("other"), hash("FIRST"), hash("first ")] {
        assert!(!store.upgrade_password_hash(ada.id, &other, &hash("better")).await.expect("an answer"));
    }
    for id in [robot_id, nobody] {
        assert!(!store.upgrade_password_hash(id, &hash("first"), &hash("better")).await.expect("an answer"));
    }
    assert_eq!(stored_hash(&store, &ada).await, Some(first));
    assert_eq!(text(credentials(&store, robot_id).await.password_hash.as_ref()), None);
}

async fn of_many_better_hashes_one_is_written(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let first = hash("first");
    let better: Vec<_> = (0..8).map(|number| hash(&format!("better-{number}"))).collect();
    let answers = join_all(better.iter().map(|new| store.upgrade_password_hash(ada.id, &first, new))).await;
    let won: Vec<_> = better
        .iter()
        .zip(answers)
        .filter(|(_, answer)| *answer.as_ref().expect("a race is not an error"))
        .map(|(new, _)| new.expose().to_owned())
        .collect();
    assert_eq!(won.len(), 1);
    assert_eq!(stored_hash(&store, &ada).await, Some(won[0].clone()));
}
