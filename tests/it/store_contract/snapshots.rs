//! What is read together belongs together: while others write, a read never shows half of a change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use latchkey::domain::id::{Position, UserId};
use latchkey::domain::password::PasswordHash;
use latchkey::domain::session::EndReason;
use latchkey::store::sql::SqlStore;
use latchkey::store::{EndTarget, SessionKey, Store, UserKey};
use tokio::task::JoinSet;

use super::samples::{NOW, add_user, at, hash, sign_in, stamp};
use crate::support::databases::{Engine, TestDatabase, on_each_engine};

on_each_engine![reads_show_whole_changes_only];

const CHANGES: i64 = 150;

/// The hash that belongs to an epoch.
fn hash_of(epoch: i64) -> PasswordHash {
    if epoch == 1 { hash("first") } else { hash(&format!("epoch-{epoch}")) }
}

/// Raises now the user's epoch and now everyone's, one log row each, so that the head is the sum of what they were raised.
async fn write(store: Arc<SqlStore>, user: UserId, done: Arc<AtomicBool>) {
    for number in 1..=CHANGES {
        let stamp = stamp(at(number.unsigned_abs()));
        if number % 2 == 1 {
            let hash = hash_of(1 + (number + 1) / 2);
            store.set_password(user, hash, stamp).await.expect("an answer").expect("a change");
        } else {
            store.end_sessions(EndTarget::Everyone, EndReason::Revoked, stamp).await.expect("an answer");
        }
    }
    done.store(true, Ordering::SeqCst);
}

/// What was read shows `changes`, which must be all up to `position`. On MariaDB, where the position is read before, there
/// may be more.
fn assert_reached(db: &TestDatabase, position: Position, changes: i64) {
    match db.engine() {
        Engine::Sqlite | Engine::Postgres => assert_eq!(position.as_i64(), changes),
        Engine::Mariadb => assert!(position.as_i64() <= changes, "{position:?}, but {changes} changes"),
    }
}

async fn reads_show_whole_changes_only(db: &TestDatabase) {
    let store = Arc::new(db.open().await);
    let ada = add_user(&*store, "ada").await;
    let session = sign_in(&*store, &ada, NOW).await;
    let done = Arc::new(AtomicBool::new(false));
    let mut writing = JoinSet::new();
    writing.spawn(write(Arc::clone(&store), ada.id, Arc::clone(&done)));

    let (mut reads, mut last) = (0, 0);
    loop {
        let was_done = done.load(Ordering::SeqCst);
        let read = store.credentials(UserKey::Id(ada.id)).await.expect("an answer").expect("found");
        let epoch = read.user.credential_epoch.as_i64();
        assert_eq!(
            read.password_hash.map(|hash| hash.expose().to_owned()),
            Some(hash_of(epoch).expose().to_owned())
        );
        assert_eq!(read.user.password_epoch.as_i64(), epoch);
        assert_reached(db, read.position, (epoch - 1) + (read.everyone_epoch.as_i64() - 1));
        assert!(read.position.as_i64() >= last, "the head went back");

        let read = store.session(SessionKey::Id(session.id)).await.expect("an answer").expect("found");
        let epoch = read.user.expect("the user is there").credential_epoch.as_i64();
        assert_reached(db, read.position, (epoch - 1) + (read.everyone_epoch.as_i64() - 1));
        assert_eq!(read.session.ended.is_some(), epoch > 1, "the session ended with the first password");
        last = read.position.as_i64();
        reads += 1;
        if was_done {
            break;
        }
    }
    writing.join_all().await;
    assert_eq!(last, CHANGES);
    assert!(reads > 10, "the reader was beside the writer: {reads} reads");
}
