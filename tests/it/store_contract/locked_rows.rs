//! Rows that another transaction has locked: what needs them is skipped, and nothing else is.

use latchkey::domain::session::{Death, EndReason, Session};
use latchkey::store::{EndTarget, Ending, SessionKey, Store};

use super::samples::{add_user, at, head, log_after, record, sign_in, stamp, user, verdict};
use crate::support::databases::{Raw, TestDatabase, on_each_server};

on_each_server![
    a_group_skips_what_is_locked_and_ends_the_rest,
    a_user_with_one_locked_session_is_skipped_as_a_whole,
    a_locked_row_keeps_no_other_use_from_being_written,
    a_locked_row_keeps_no_other_from_being_purged,
];

/// Another transaction, which holds rows for as long as it lives.
async fn holder(db: &TestDatabase) -> Raw {
    let raw = db.raw().await;
    raw.run("BEGIN").await;
    raw
}

async fn lock_user(holder: &Raw, login: &str) {
    holder.rows(&format!("SELECT user_id FROM users WHERE login_key = '{login}' FOR UPDATE")).await;
}

async fn lock_session(holder: &Raw, session: &Session) {
    let created = session.create_time.as_millis();
    let id = session.id.as_uuid();
    let id = if holder.is_postgres() { format!("'{id}'") } else { format!("X'{}'", id.simple()) };
    let sql = format!("SELECT create_time FROM sessions WHERE session_id = {id} FOR UPDATE");
    assert_eq!(holder.number(&sql).await, created);
}

fn revoked(target: EndTarget) -> Ending {
    Ending { target, reason: EndReason::Revoked }
}

async fn a_group_skips_what_is_locked_and_ends_the_rest(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, bob) = (add_user(&store, "ada").await, add_user(&store, "bob").await);
    let (locked, free) = (sign_in(&store, &ada, at(1)).await, sign_in(&store, &ada, at(1)).await);
    let (of_bob, of_eve) = (sign_in(&store, &bob, at(1)).await, add_user(&store, "eve").await);
    sign_in(&store, &of_eve, at(1)).await;
    let holder = holder(db).await;
    lock_user(&holder, "bob").await;
    lock_session(&holder, &locked).await;

    let endings = [
        revoked(EndTarget::User { user: bob.id, except: None }),
        revoked(EndTarget::Session(locked.id)),
        revoked(EndTarget::Session(free.id)),
        // The row of the user is locked, not that of the session.
        revoked(EndTarget::Session(of_bob.id)),
        revoked(EndTarget::User { user: of_eve.id, except: None }),
    ];
    let before = head(&store).await;
    let changes = store.end_sessions_together(&endings, stamp(at(2))).await.expect("an answer");
    let ended: Vec<_> = changes.iter().map(|change| change.as_ref().map(|change| change.ended)).collect();
    assert_eq!(ended, [None, None, Some(1), Some(1), Some(1)]);
    assert_eq!(log_after(&store, before).await.len(), 3, "what was skipped has no row");
    assert_eq!(user(&store, bob.id).await.credential_epoch, bob.credential_epoch);
    assert_eq!(verdict(&store, locked.id, at(3)).await, Ok(()));
    let again = store.end_sessions_together(&endings, stamp(at(2))).await.expect("an answer");
    assert_eq!(again.iter().map(Option::is_none).collect::<Vec<_>>(), [true, true, false, false, false]);

    holder.run("ROLLBACK").await;
    let changes = store.end_sessions_together(&endings, stamp(at(4))).await.expect("an answer");
    assert!(changes.iter().all(Option::is_some), "nothing is locked any more");
    assert_eq!(verdict(&store, locked.id, at(5)).await, Err(Death::Revoked));
}

async fn a_user_with_one_locked_session_is_skipped_as_a_whole(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let (locked, other) = (sign_in(&store, &ada, at(1)).await, sign_in(&store, &ada, at(1)).await);
    let holder = holder(db).await;
    lock_session(&holder, &locked).await;
    let all = [revoked(EndTarget::User { user: ada.id, except: None })];
    assert_eq!(store.end_sessions_together(&all, stamp(at(2))).await.expect("an answer"), [None]);
    for session in [locked.id, other.id] {
        assert_eq!(verdict(&store, session, at(3)).await, Ok(()));
    }
    holder.run("ROLLBACK").await;
    let changes = store.end_sessions_together(&all, stamp(at(2))).await.expect("an answer");
    assert_eq!(changes[0].as_ref().map(|change| change.ended), Some(2));
}

async fn a_locked_row_keeps_no_other_use_from_being_written(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let (locked, other) = (sign_in(&store, &ada, at(1)).await, sign_in(&store, &ada, at(1)).await);
    let holder = holder(db).await;
    lock_session(&holder, &locked).await;
    let seen = [(locked.id, at(10)), (other.id, at(10))];
    assert_eq!(store.touch_sessions(&seen).await.expect("an answer"), [locked.id]);
    assert_eq!(record(&store, other.id).await.session.last_seen_time, at(10));
    assert_eq!(record(&store, locked.id).await.session.last_seen_time, at(1));
    holder.run("ROLLBACK").await;
    assert_eq!(store.touch_sessions(&seen).await.expect("an answer"), []);
    assert_eq!(record(&store, locked.id).await.session.last_seen_time, at(10));
}

async fn a_locked_row_keeps_no_other_from_being_purged(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let (locked, other) = (sign_in(&store, &ada, at(1)).await, sign_in(&store, &ada, at(1)).await);
    let all = EndTarget::User { user: ada.id, except: None };
    store.end_sessions(all, EndReason::Revoked, stamp(at(2))).await.expect("an answer");
    let holder = holder(db).await;
    lock_session(&holder, &locked).await;
    assert_eq!(store.purge_sessions(at(3), 100).await.expect("an answer"), 1);
    for (id, is_there) in [(locked.id, true), (other.id, false)] {
        let found = store.session(SessionKey::Id(id)).await.expect("an answer");
        assert_eq!(found.is_some(), is_there);
    }
    holder.run("ROLLBACK").await;
    assert_eq!(store.purge_sessions(at(3), 100).await.expect("an answer"), 1);
}
