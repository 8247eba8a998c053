//! A sign-in takes long (the hash), and anything may happen in between. The new session carries the epochs that were read
//! together with the hash, so whatever took validity away since then has taken it from this session too.

use latchkey::domain::id::Epoch;
use latchkey::domain::session::{Death, EndReason, Session};
use latchkey::domain::user::{User, UserState};
use latchkey::store::{
    CreateUser, Credentials, EndTarget, NewSession, NewUser, PasswordChange, SessionKey, Store, UserChange,
};

use super::samples::{
    NO_CAP, add_user, at, credentials, hash, log_after, new_session, new_user, record, sign_in, stamp,
    update, user, verdict,
};
use crate::support::databases::{TestDatabase, on_each_engine};

on_each_engine![
    a_sign_in_that_nothing_overtook_stands,
    a_reset_password_overtakes,
    a_changed_password_overtakes,
    ending_the_users_sessions_overtakes,
    ending_everyones_sessions_overtakes,
    disabling_overtakes_and_enabling_does_not_undo_it,
    deleting_overtakes_and_an_heir_of_the_id_does_not_undo_it,
    a_better_hash_does_not_overtake,
    a_re_authentication_that_is_overtaken_replaces_nothing,
];

/// The session of a sign-in that had read `credentials`.
fn session_born_with(credentials: &Credentials) -> NewSession {
    let NewSession { session, digest } = new_session(&credentials.user, at(9));
    NewSession { session: Session { everyone_epoch: credentials.everyone_epoch, ..session }, digest }
}

/// Ends a sign-in that began with `read`, and answers what its session is worth.
async fn finish_sign_in(store: &dyn Store, read: &Credentials) -> Result<(), Death> {
    let new = session_born_with(read);
    let id = new.session.id;
    let before = log_after(store, read.position).await;
    assert_eq!(store.create_session(new.clone(), NO_CAP, stamp(at(9))).await.expect("an answer"), None);
    let stored = Session { ended: None, ..record(store, id).await.session };
    assert_eq!(stored, new.session, "the epochs are those it brought");
    assert_eq!(log_after(store, read.position).await, before);
    let verdict = verdict(store, id, at(10)).await;
    let listed = store.sessions_of_user(read.user.id, None, 10, at(10)).await.expect("a page");
    assert_eq!(listed.iter().any(|session| session.id == id), verdict.is_ok());
    verdict
}

async fn begin_sign_in(store: &dyn Store) -> (User, Credentials) {
    let user = add_user(store, "ada").await;
    let read = credentials(store, user.id).await;
    (user, read)
}

async fn a_sign_in_that_nothing_overtook_stands(db: &TestDatabase) {
    let store = db.open().await;
    let (_, read) = begin_sign_in(&store).await;
    let bob = add_user(&store, "bob").await;
    store.set_password(bob.id, hash("x"), stamp(at(1))).await.expect("an answer").expect("a change");
    assert_eq!(finish_sign_in(&store, &read).await, Ok(()));
}

async fn a_reset_password_overtakes(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, read) = begin_sign_in(&store).await;
    store.set_password(ada.id, hash("second"), stamp(at(1))).await.expect("an answer").expect("a change");
    assert_eq!(finish_sign_in(&store, &read).await, Err(Death::CredentialsChanged));
}

async fn a_changed_password_overtakes(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, read) = begin_sign_in(&store).await;
    let mut session = new_session(&ada, at(1));
    session.session.user_epoch = ada.credential_epoch.next();
    let change = PasswordChange { verified_epoch: ada.credential_epoch, hash: hash("second"), session };
    store.change_password(change, stamp(at(1))).await.expect("an answer").expect("the race was won");
    assert_eq!(finish_sign_in(&store, &read).await, Err(Death::CredentialsChanged));
}

async fn ending_the_users_sessions_overtakes(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, read) = begin_sign_in(&store).await;
    // There is no session to end, but there is a sign-in under way: the epoch goes up all the same.
    let target = EndTarget::User { user: ada.id, except: None };
    let change = store.end_sessions(target, EndReason::Revoked, stamp(at(1))).await.expect("an answer");
    assert_eq!(change.ended, 0);
    assert_eq!(log_after(&store, read.position).await.len(), 1, "memories must hear of the new epoch");
    assert_eq!(finish_sign_in(&store, &read).await, Err(Death::Revoked));
}

async fn ending_everyones_sessions_overtakes(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, read) = begin_sign_in(&store).await;
    store.end_sessions(EndTarget::Everyone, EndReason::Revoked, stamp(at(1))).await.expect("an answer");
    assert_eq!(finish_sign_in(&store, &read).await, Err(Death::Revoked));
    let read_again = credentials(&store, ada.id).await;
    assert_eq!(finish_sign_in(&store, &read_again).await, Ok(()), "who signs in afterwards is in");
}

async fn disabling_overtakes_and_enabling_does_not_undo_it(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, read) = begin_sign_in(&store).await;
    let to = |state| UserChange { state: Some(state), ..UserChange::default() };
    update(&store, ada.id, to(UserState::Disabled), stamp(at(1))).await;
    assert_eq!(finish_sign_in(&store, &read).await, Err(Death::UserDisabled));
    update(&store, ada.id, to(UserState::Active), stamp(at(2))).await;
    assert_eq!(finish_sign_in(&store, &read).await, Err(Death::Revoked));
}

async fn deleting_overtakes_and_an_heir_of_the_id_does_not_undo_it(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, read) = begin_sign_in(&store).await;
    let mut session = new_session(&ada, at(3));
    session.session.user_epoch = read.user.credential_epoch.next();
    let change = PasswordChange { verified_epoch: read.user.credential_epoch, hash: hash("x"), session };
    store.delete_user(ada.id, stamp(at(1))).await.expect("an answer").expect("a change");
    assert_eq!(finish_sign_in(&store, &read).await, Err(Death::UserDisabled));
    // Whoever imports the same users again gives them the same ids.
    for second in 2..5 {
        let heir = NewUser { id: ada.id, ..new_user("ada") };
        let made = store.create_user(heir).await.expect("an answer");
        let CreateUser::Created(heir) = made else { panic!("the names are free, not {made:?}") };
        assert!(heir.credential_epoch > read.user.credential_epoch && heir.password_epoch > Epoch::FIRST);
        assert_eq!(user(&store, ada.id).await, *heir, "what is answered is what is written");
        let before_the_heir = store.sessions_of_user(ada.id, None, 10, at(10)).await.expect("a page");
        assert_eq!(before_the_heir, [], "a sign-in of the deleted user is one of the heir");
        assert!(finish_sign_in(&store, &read).await.is_err(), "it comes even later");
        assert_eq!(store.change_password(change.clone(), stamp(at(3))).await.expect("an answer"), None);
        store.delete_user(ada.id, stamp(at(second))).await.expect("an answer").expect("a change");
    }
}

async fn a_better_hash_does_not_overtake(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, read) = begin_sign_in(&store).await;
    assert!(store.upgrade_password_hash(ada.id, &hash("first"), &hash("better")).await.expect("an answer"));
    assert_eq!(finish_sign_in(&store, &read).await, Ok(()));
}

async fn a_re_authentication_that_is_overtaken_replaces_nothing(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, read) = begin_sign_in(&store).await;
    let old = sign_in(&store, &ada, at(0)).await;
    // The session is spared, but what was read with the hash is out of date.
    let target = EndTarget::User { user: ada.id, except: Some(old.id) };
    store.end_sessions(target, EndReason::Revoked, stamp(at(1))).await.expect("an answer");
    let read_again = credentials(&store, ada.id).await;
    let of_an_old_everyone = Credentials { everyone_epoch: Epoch::from_i64(0), ..read_again.clone() };
    for stale in [&read, &of_an_old_everyone] {
        let new = session_born_with(stale);
        let id = new.session.id;
        assert_eq!(store.replace_session(old.id, new, stamp(at(9))).await.expect("an answer"), None);
        assert!(store.session(SessionKey::Id(id)).await.expect("an answer").is_none());
        assert_eq!(verdict(&store, old.id, at(10)).await, Ok(()), "it was to go on");
    }
    assert_eq!(log_after(&store, read_again.position).await, []);
    let new = session_born_with(&read_again);
    let id = new.session.id;
    assert!(store.replace_session(old.id, new, stamp(at(9))).await.expect("an answer").is_some());
    assert_eq!(verdict(&store, id, at(10)).await, Ok(()));
}
