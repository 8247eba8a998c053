//! What memory is filled from: the sessions of tokens, and the sessions that were used last.

use std::collections::BTreeSet;
use std::time::Duration;

use latchkey::domain::id::{Position, SessionId};
use latchkey::domain::session::{EndReason, Session};
use latchkey::domain::time::UnixMillis;
use latchkey::domain::token::TokenDigest;
use latchkey::domain::user::{User, UserState};
use latchkey::host::{SystemEntropy, random};
use latchkey::store::{EndTarget, Filling, FoundSession, NewSession, Store, UserChange};

use super::samples::{
    LIFETIME, NOW, add, add_user, at, credentials, head, new_session, record, stamp, update, user,
};
use crate::support::databases::{TestDatabase, on_each_engine};

on_each_engine![
    tokens_find_their_sessions_and_users,
    what_is_over_is_found_all_the_same,
    many_tokens_are_asked_for_at_once,
    pages_by_use_follow_each_other_without_gap_or_double,
    a_page_that_is_cut_short_leaves_its_connection_usable,
    only_the_unended_of_active_users_come_by_use,
    a_filling_tells_the_head_and_the_epoch_of_everyone,
];

async fn by_digest(store: &dyn Store, digests: &[TokenDigest]) -> Filling {
    store.sessions_by_digest(digests).await.expect("an answer")
}

async fn by_use(store: &dyn Store, after: Option<(UnixMillis, SessionId)>, limit: u32) -> Vec<FoundSession> {
    store.sessions_by_use(after, limit, at(60)).await.expect("an answer").found
}

fn found<'f>(filling: &'f Filling, new: &NewSession) -> &'f FoundSession {
    let mut found = filling.found.iter().filter(|found| found.digest == new.digest);
    let one = found.next().expect("it is found");
    assert!(found.next().is_none(), "it is found once");
    one
}

async fn tokens_find_their_sessions_and_users(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, bob) = (add_user(&store, "ada").await, add_user(&store, "bob").await);
    let new = [new_session(&ada, at(1)), new_session(&bob, at(2)), new_session(&ada, at(3))];
    for new in &new {
        add(&store, new.clone()).await;
    }
    let unknown = TokenDigest(random(&SystemEntropy));
    let asked = [new[2].digest, unknown, new[0].digest, new[1].digest, new[2].digest];
    let filling = by_digest(&store, &asked).await;
    assert_eq!(filling.found.len(), 3, "the unknown is left out, and nothing comes twice");
    for (new, user) in new.iter().zip([&ada, &bob, &ada]) {
        let found = found(&filling, new);
        assert_eq!((&found.session, found.user.as_ref()), (&new.session, Some(user)));
    }
    assert_eq!(found(&by_digest(&store, &[new[1].digest]).await, &new[1]).user, Some(bob));
    assert!(by_digest(&store, &[unknown]).await.found.is_empty());
    assert!(by_digest(&store, &[]).await.found.is_empty());
}

async fn what_is_over_is_found_all_the_same(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, bob, eve) =
        (add_user(&store, "ada").await, add_user(&store, "bob").await, add_user(&store, "eve").await);
    let (ended, expired) = (new_session(&ada, at(1)), new_session(&ada, NOW.minus(LIFETIME)));
    let (of_disabled, of_deleted) = (new_session(&bob, at(1)), new_session(&eve, at(1)));
    let all = [&ended, &expired, &of_disabled, &of_deleted];
    for new in all {
        add(&store, new.clone()).await;
    }
    let target = EndTarget::Digest(ended.digest);
    store.end_sessions(target, EndReason::Replaced, stamp(at(2))).await.expect("an answer");
    let disabling = UserChange { state: Some(UserState::Disabled), ..UserChange::default() };
    let (bob, _) = update(&store, bob.id, disabling, stamp(at(3))).await;
    store.delete_user(eve.id, stamp(at(4))).await.expect("an answer").expect("deleted");

    let filling = by_digest(&store, &all.map(|new| new.digest)).await;
    let users = [Some(ada.clone()), Some(ada), Some(bob), None];
    for (new, user) in all.into_iter().zip(users) {
        let (found, known) = (found(&filling, new), record(&store, new.session.id).await);
        assert_eq!((&found.session, &found.user), (&known.session, &user));
        assert_eq!((known.user, filling.position), (user, known.position));
    }
}

async fn many_tokens_are_asked_for_at_once(db: &TestDatabase) {
    const SESSIONS: usize = 1_100;
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let mut new = Vec::new();
    for _ in 0..SESSIONS {
        new.push(new_session(&ada, at(1)));
        add(&store, new[new.len() - 1].clone()).await;
    }
    for count in [499, 500, 501, 1_000, SESSIONS] {
        let asked: Vec<_> = new[..count].iter().map(|new| new.digest).collect();
        let filling = by_digest(&store, &asked).await;
        let found: BTreeSet<_> =
            filling.found.iter().map(|found| (found.digest.0, found.session.id)).collect();
        let expected: BTreeSet<_> = new[..count].iter().map(|new| (new.digest.0, new.session.id)).collect();
        assert_eq!((filling.found.len(), found), (count, expected));
    }
}

/// Adds a session that was used at that second.
async fn add_used(store: &dyn Store, user: &User, second: u64) -> Session {
    let mut new = new_session(user, NOW);
    new.session.last_seen_time = at(second);
    add(store, new).await
}

async fn pages_by_use_follow_each_other_without_gap_or_double(db: &TestDatabase) {
    let store = db.open().await;
    let mut sessions = Vec::new();
    for number in 0..4 {
        let user = add_user(&store, &format!("user-{number}")).await;
        // Batches of uses bear the same time, so ties are common.
        for second in [3, 5, 5, 5, 5, 8, 9] {
            sessions.push(add_used(&store, &user, second).await);
        }
    }
    sessions.sort_by_key(|session| std::cmp::Reverse((session.last_seen_time, session.id)));
    for limit in [1, 3, 7, 28, 100] {
        let (mut read, mut after) = (Vec::new(), None);
        loop {
            let page = by_use(&store, after, limit).await;
            assert!(page.len() <= limit as usize);
            let Some(last) = page.last() else { break };
            after = Some((last.session.last_seen_time, last.session.id));
            read.extend(page.into_iter().map(|found| found.session));
        }
        assert_eq!(read, sessions, "{limit} a page");
    }
    assert!(by_use(&store, None, 0).await.is_empty());
    // A use moves a session to the front.
    let last = sessions[27].id;
    store.touch_sessions(&[(last, at(30))]).await.expect("touched");
    assert_eq!(by_use(&store, None, 1).await[0].session.id, last);
}

/// Rows are read as they come, so that who gives up leaves some on their way.
async fn a_page_that_is_cut_short_leaves_its_connection_usable(db: &TestDatabase) {
    const SESSIONS: usize = 300;
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    for number in 0..SESSIONS {
        add_used(&store, &ada, u64::try_from(number).expect("fits")).await;
    }
    let limit = u32::try_from(SESSIONS).expect("fits");
    let mut given_up = 0;
    for micros in 0..60 {
        let patience = Duration::from_micros(100 * micros);
        given_up += usize::from(tokio::time::timeout(patience, by_use(&store, None, limit)).await.is_err());
    }
    assert!(given_up > 0);
    assert_eq!(by_use(&store, None, limit).await.len(), SESSIONS);
}

async fn only_the_unended_of_active_users_come_by_use(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, bob, eve) =
        (add_user(&store, "ada").await, add_user(&store, "bob").await, add_user(&store, "eve").await);
    let good = new_session(&ada, at(1));
    add(&store, good.clone()).await;
    let ended = add_used(&store, &ada, 50).await;
    store.end_sessions(EndTarget::Session(ended.id), EndReason::Revoked, stamp(at(51))).await.expect("ended");
    let mut expired = new_session(&ada, at(2));
    expired.session.expire_time = at(60);
    add(&store, expired).await;
    // What was added behind the end of all bears no mark, and its user says it all.
    store.delete_user(eve.id, stamp(at(3))).await.expect("an answer").expect("deleted");
    let disabling = UserChange { state: Some(UserState::Disabled), ..UserChange::default() };
    update(&store, bob.id, disabling, stamp(at(3))).await;
    add(&store, new_session(&bob, at(4))).await;
    add(&store, new_session(&eve, at(4))).await;
    // Seeming idle is no end: a use may not have been written down yet.
    let mut idle = new_session(&ada, at(0));
    idle.session.idle_limit = Duration::from_secs(1);
    add(&store, idle.clone()).await;

    let read = by_use(&store, None, 100).await;
    let expected = [&good, &idle];
    assert_eq!(read.len(), expected.len(), "{read:?}");
    for (found, new) in read.iter().zip(expected) {
        assert_eq!(
            (found.digest, &found.session, found.user.as_ref()),
            (new.digest, &new.session, Some(&ada))
        );
    }
    assert_eq!(user(&store, ada.id).await, ada);
}

async fn a_filling_tells_the_head_and_the_epoch_of_everyone(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let new = new_session(&ada, at(1));
    add(&store, new.clone()).await;
    for round in 0..3 {
        let (position, everyone) = (head(&store).await, credentials(&store, ada.id).await.everyone_epoch);
        assert_eq!(position, Position::from_i64(round));
        let fillings = [
            by_digest(&store, &[new.digest]).await,
            by_digest(&store, &[TokenDigest([0; 16])]).await,
            by_digest(&store, &[]).await,
            store.sessions_by_use(None, 10, at(2)).await.expect("an answer"),
            store.sessions_by_use(None, 10, UnixMillis::from_millis(i64::MAX)).await.expect("an answer"),
        ];
        for filling in fillings {
            assert_eq!((filling.position, filling.everyone_epoch), (position, everyone));
        }
        store.end_sessions(EndTarget::Everyone, EndReason::Revoked, stamp(at(3))).await.expect("an answer");
    }
}
