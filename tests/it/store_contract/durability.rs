//! What was answered is still there after the store was closed and opened again.

use latchkey::domain::id::Position;
use latchkey::domain::session::{Death, EndReason};
use latchkey::domain::user::UserState;
use latchkey::store::sql::{Migrated, SqlLimits, migrate_up};
use latchkey::store::{EndTarget, SessionKey, Store, StoreError, UserChange};

use super::samples::{
    add, add_user, at, credentials, hash, log_after, new_session, record, sign_in, stamp, update, user,
    verdict,
};
use crate::support::databases::{TestDatabase, on_each_engine, url_of};

on_each_engine![
    what_was_answered_is_there_after_a_restart,
    bringing_up_the_schema_again_changes_nothing,
    a_closed_store_refuses_and_changes_nothing,
];

async fn what_was_answered_is_there_after_a_restart(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, bob) = (add_user(&store, "ada").await, add_user(&store, "bob").await);
    let kept = new_session(&ada, at(1));
    add(&store, kept.clone()).await;
    let ended = sign_in(&store, &ada, at(1)).await;
    let of_bob = sign_in(&store, &bob, at(1)).await;
    store
        .end_sessions(EndTarget::Session(ended.id), EndReason::Revoked, stamp(at(2)))
        .await
        .expect("an answer");
    store.set_password(bob.id, hash("second"), stamp(at(3))).await.expect("an answer").expect("a change");
    let disabling = UserChange { state: Some(UserState::Disabled), ..UserChange::default() };
    let (bob, change) = update(&store, bob.id, disabling, stamp(at(4))).await;
    let log = log_after(&store, Position::ZERO).await;
    store.close().await;
    drop(store);

    let store = db.open().await;
    assert_eq!(user(&store, ada.id).await, ada);
    assert_eq!(user(&store, bob.id).await, bob);
    assert_eq!(credentials(&store, bob.id).await.position, change.position);
    let found = store.session(SessionKey::Digest(kept.digest)).await.expect("an answer").expect("found");
    assert_eq!(found.session, kept.session);
    assert_eq!(verdict(&store, kept.session.id, at(5)).await, Ok(()));
    assert_eq!(verdict(&store, ended.id, at(5)).await, Err(Death::Revoked));
    assert_eq!(
        verdict(&store, of_bob.id, at(5)).await,
        Err(Death::CredentialsChanged),
        "the first end counts"
    );
    assert_eq!(log_after(&store, Position::ZERO).await, log);

    let target = EndTarget::User { user: ada.id, except: None };
    let next = store.end_sessions(target, EndReason::Revoked, stamp(at(6))).await.expect("an answer");
    assert_eq!(next.position.as_i64(), change.position.as_i64() + 1, "the numbers go on where they were");
}

async fn bringing_up_the_schema_again_changes_nothing(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let session = sign_in(&store, &ada, at(1)).await;
    store.close().await;
    drop(store);
    let steps =
        migrate_up(&url_of(db.url()), SqlLimits::default()).await.expect("an up-to-date schema is no error");
    assert_eq!(steps, Migrated::default(), "there was nothing to do");
    let store = db.open().await;
    assert_eq!(record(&store, session.id).await.session, session);
}

async fn a_closed_store_refuses_and_changes_nothing(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    store.close().await;
    store.close().await;
    let read = store.database_time().await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    let write = store.set_password(ada.id, hash("late"), stamp(at(1))).await;
    assert!(matches!(write, Err(StoreError::Unavailable(_))), "a refusal is no unknown outcome: {write:?}");
    drop(store);
    assert_eq!(user(&db.open().await, ada.id).await, ada);
}
