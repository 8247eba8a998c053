//! Forgetting sessions that are over for long: bounded, and never a change of anybody's validity.

use std::time::Duration;

use latchkey::domain::id::{Position, SessionId};
use latchkey::domain::session::{EndReason, Session};
use latchkey::domain::time::UnixMillis;
use latchkey::domain::token::TokenDigest;
use latchkey::host::{SystemEntropy, random};
use latchkey::store::{EndTarget, NewSession, SessionKey, Store};

use super::samples::{
    IDLE_LIMIT, LIFETIME, NOW, add, add_user, at, hash, log_after, new_session, stamp, verdict,
};
use crate::support::databases::{TestDatabase, on_each_engine};

on_each_engine![
    each_kind_of_end_is_purged_when_it_lies_behind,
    no_more_than_the_limit_goes_at_once,
    what_is_left_is_worth_what_it_was,
];

/// As far back as a node's sweeper keeps sessions, so that their end can still be told apart.
const KEPT: Duration = Duration::from_hours(24);

async fn is_there(store: &dyn Store, id: SessionId) -> bool {
    store.session(SessionKey::Id(id)).await.expect("the store answers").is_some()
}

async fn add_session(store: &dyn Store, session: Session) -> SessionId {
    add(store, NewSession { session, digest: TokenDigest(random(&SystemEntropy)) }).await.id
}

async fn each_kind_of_end_is_purged_when_it_lies_behind(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let base = |time| new_session(&ada, time).session;
    let end = at(500_000);
    let idle_for_ever = LIFETIME * 2;
    // Three sessions whose end, each of another kind, is the same moment.
    let expired = Session { expire_time: end, idle_limit: idle_for_ever, ..base(end.minus(LIFETIME)) };
    let unused = Session { last_seen_time: end.minus(IDLE_LIMIT), ..base(end.minus(IDLE_LIMIT)) };
    let logged_out = base(end.minus(Duration::from_secs(1)));
    let ids = [
        add_session(&store, expired).await,
        add_session(&store, unused).await,
        add_session(&store, logged_out.clone()).await,
    ];
    let target = EndTarget::Session(logged_out.id);
    store.end_sessions(target, EndReason::Revoked, stamp(end)).await.expect("an answer");

    assert_eq!(store.purge_sessions(end, 100).await.expect("an answer"), 0, "the end must lie before");
    for id in ids {
        assert!(is_there(&store, id).await);
    }
    let behind = end.plus(Duration::from_millis(1));
    assert_eq!(store.purge_sessions(behind, 100).await.expect("an answer"), 3);
    for id in ids {
        assert!(!is_there(&store, id).await);
    }
    assert_eq!(store.purge_sessions(behind, 100).await.expect("an answer"), 0);
}

async fn no_more_than_the_limit_goes_at_once(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    for _ in 0..10 {
        add_session(&store, new_session(&ada, NOW).session).await;
    }
    let long_after = NOW.plus(LIFETIME).plus(KEPT);
    assert_eq!(store.purge_sessions(long_after, 0).await.expect("an answer"), 0);
    for expected in [4, 4, 2, 0] {
        assert_eq!(store.purge_sessions(long_after, 4).await.expect("an answer"), expected);
    }
}

async fn what_is_left_is_worth_what_it_was(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, bob) = (add_user(&store, "ada").await, add_user(&store, "bob").await);
    let now = NOW.plus(KEPT * 3);
    let ages = [Duration::ZERO, IDLE_LIMIT / 2, IDLE_LIMIT, LIFETIME, KEPT, KEPT + LIFETIME, KEPT * 2];
    let mut ids = Vec::new();
    for age in ages {
        for user in [&ada, &bob] {
            for ended in [false, true] {
                let id = add_session(&store, new_session(user, now.minus(age)).session).await;
                if ended {
                    let target = EndTarget::Session(id);
                    let stamp = stamp(now.minus(age));
                    store.end_sessions(target, EndReason::Capped, stamp).await.expect("an answer");
                }
                ids.push(id);
            }
        }
    }
    store.set_password(bob.id, hash("second"), stamp(now)).await.expect("an answer").expect("a change");
    let verdicts = async |now: UnixMillis| {
        let mut verdicts = Vec::new();
        for id in &ids {
            let there = is_there(&store, *id).await;
            verdicts.push(if there { Some(verdict(&store, *id, now).await) } else { None });
        }
        verdicts
    };
    let (before, log) = (verdicts(now).await, log_after(&store, Position::ZERO).await);
    let purged = store.purge_sessions(now.minus(KEPT), 1_000).await.expect("an answer");
    let after = verdicts(now).await;
    assert_eq!(after.iter().filter(|verdict| verdict.is_none()).count() as u64, purged);
    assert!(purged > 0 && after.contains(&Some(Ok(()))), "the story shows both");
    for (id, (before, after)) in ids.iter().zip(before.iter().zip(&after)) {
        if after.is_some() {
            assert_eq!(before, after, "{id:?}");
        } else {
            assert!(matches!(before, Some(Err(_))), "{id:?} was still good");
        }
    }
    assert_eq!(log_after(&store, Position::ZERO).await, log, "the log is not touched");
}
