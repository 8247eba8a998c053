//! Ending sessions: by name, by token, of a user, of everyone; with its reason, its count and its row in the log.

use std::time::Duration;

use futures_util::future::join_all;
use latchkey::domain::id::{Position, SessionId};
use latchkey::domain::session::{Death, EndReason, Ended, Session};
use latchkey::domain::time::UnixMillis;
use latchkey::domain::token::TokenDigest;
use latchkey::domain::user::{User, UserState};
use latchkey::host::{SystemEntropy, random};
use latchkey::store::{Change, ChangeKind, EndTarget, NewSession, Stamp, Store, UserChange};

use super::samples::{
    LIFETIME, NO_CAP, NOW, add, add_user, at, credentials, hash, head, log_after, new_session, new_user,
    only_row, record, sign_in, stamp, update, user, verdict,
};
use crate::support::databases::{Engine, TestDatabase, on_each_engine};

on_each_engine![
    one_session_ends_by_name_or_by_token,
    every_reason_is_kept,
    a_session_that_looks_unused_is_ended_all_the_same,
    the_unknown_and_the_dead_count_nothing_and_are_not_logged,
    all_sessions_of_a_user_end,
    the_excepted_session_goes_on,
    an_excepted_session_of_another_user_saves_nothing,
    an_excepted_session_that_is_dead_stays_dead,
    everyones_sessions_end,
    only_what_stood_is_counted,
    counting_does_not_hold_up_everyones_end,
    of_many_who_end_one_session_one_counts_it,
    what_is_over_keeps_its_reason,
];

async fn end(store: &dyn Store, target: EndTarget, stamp: Stamp) -> Change {
    store.end_sessions(target, EndReason::Revoked, stamp).await.expect("the store answers")
}

async fn one_session_ends_by_name_or_by_token(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let sibling = sign_in(&store, &ada, at(1)).await;
    let mut before = Position::ZERO;
    for by_token in [false, true] {
        let new = new_session(&ada, at(1));
        let session = add(&store, new.clone()).await;
        let target = if by_token { EndTarget::Digest(new.digest) } else { EndTarget::Session(session.id) };
        let stamp = stamp(at(2));
        let change = end(&store, target, stamp).await;
        assert_eq!(change.ended, 1);
        let row = only_row(&store, before, &change, stamp).await;
        assert_eq!(
            (row.kind(), row.user(), row.session()),
            (ChangeKind::SessionEnded, Some(ada.id), Some(session.id))
        );
        assert_eq!(row.epoch(), None, "no epoch changed");
        let ended = Some(Ended { time: at(2), reason: EndReason::Revoked });
        let after = record(&store, session.id).await;
        assert_eq!(after.session, Session { ended, ..session.clone() }, "nothing else of it changes");
        assert_eq!(after.position, change.position);
        assert_eq!(verdict(&store, session.id, at(3)).await, Err(Death::Revoked));
        before = change.position;
    }
    assert_eq!(verdict(&store, sibling.id, at(3)).await, Ok(()));
    assert_eq!(user(&store, ada.id).await, ada, "the user did not change");
}

async fn every_reason_is_kept(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    for number in 1..=6 {
        let reason = EndReason::from_i16(number).expect("a reason");
        let session = sign_in(&store, &ada, at(1)).await;
        let change = store.end_sessions(EndTarget::Session(session.id), reason, stamp(at(2))).await;
        assert_eq!(change.expect("the store answers").ended, 1);
        let ended = record(&store, session.id).await.session.ended;
        assert_eq!(ended, Some(Ended { time: at(2), reason }));
        assert_eq!(verdict(&store, session.id, at(3)).await, Err(Death::from(reason)));
    }
}

async fn a_session_that_looks_unused_is_ended_all_the_same(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    // The last use reaches the database late, in batches: a node may know of a later one. If ending such a session wrote
    // nothing, that node would go on accepting it.
    let session = sign_in(&store, &ada, NOW).await;
    let now = NOW.plus(session.idle_limit).plus(Duration::from_secs(1));
    assert_eq!(verdict(&store, session.id, now).await, Err(Death::Expired));
    let stamp = stamp(now);
    let change = end(&store, EndTarget::Session(session.id), stamp).await;
    let row = only_row(&store, Position::ZERO, &change, stamp).await;
    assert_eq!((row.kind(), row.session()), (ChangeKind::SessionEnded, Some(session.id)));
    store.touch_sessions(&[(session.id, now)]).await.expect("touched");
    assert_eq!(verdict(&store, session.id, now).await, Err(Death::Revoked));
}

async fn the_unknown_and_the_dead_count_nothing_and_are_not_logged(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, bob) = (add_user(&store, "ada").await, add_user(&store, "bob").await);
    let (expired, logged_out) = (new_session(&ada, at(9).minus(LIFETIME)), new_session(&ada, at(1)));
    let signed_out = new_session(&bob, at(1));
    for new in [&expired, &logged_out, &signed_out] {
        add(&store, new.clone()).await;
    }
    end(&store, EndTarget::Session(logged_out.session.id), stamp(at(2))).await;
    end(&store, EndTarget::User { user: bob.id, except: None }, stamp(at(2))).await;
    let before = head(&store).await;
    let unknown = SessionId::mint(NOW, random(&SystemEntropy));
    let targets = [
        EndTarget::Session(unknown),
        EndTarget::Digest(TokenDigest(random(&SystemEntropy))),
        EndTarget::User { user: new_user("nobody").id, except: None },
        EndTarget::User { user: new_user("nobody").id, except: Some(logged_out.session.id) },
        EndTarget::Session(expired.session.id),
        EndTarget::Digest(expired.digest),
        EndTarget::Session(logged_out.session.id),
        EndTarget::Digest(logged_out.digest),
        EndTarget::Session(signed_out.session.id),
        EndTarget::Digest(signed_out.digest),
    ];
    for target in targets {
        let change =
            store.end_sessions(target, EndReason::UserDisabled, stamp(at(9))).await.expect("an answer");
        assert_eq!(change, Change { ended: 0, position: before, rows: Vec::new() }, "{target:?}");
    }
    assert_eq!(log_after(&store, before).await, []);
    let ended = record(&store, logged_out.session.id).await.session.ended;
    assert_eq!(ended, Some(Ended { time: at(2), reason: EndReason::Revoked }), "the first end stays");
}

async fn all_sessions_of_a_user_end(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, bob) = (add_user(&store, "ada").await, add_user(&store, "bob").await);
    let sessions = [sign_in(&store, &ada, at(1)).await, sign_in(&store, &ada, at(2)).await];
    let bystander = sign_in(&store, &bob, at(1)).await;
    let stamp = stamp(at(3));
    let change = end(&store, EndTarget::User { user: ada.id, except: None }, stamp).await;
    assert_eq!(change.ended, 2);
    let after = user(&store, ada.id).await;
    assert_eq!(after.credential_epoch, ada.credential_epoch.next());
    assert_eq!(after.password_epoch, ada.password_epoch, "the password is what it was");
    let row = only_row(&store, Position::ZERO, &change, stamp).await;
    assert_eq!((row.kind(), row.user(), row.session()), (ChangeKind::UserSessionsEnded, Some(ada.id), None));
    assert_eq!(row.epoch(), Some(after.credential_epoch));
    for session in &sessions {
        assert_eq!(verdict(&store, session.id, at(4)).await, Err(Death::Revoked));
    }
    assert_eq!(verdict(&store, bystander.id, at(4)).await, Ok(()));
    let fresh = sign_in(&store, &after, at(5)).await;
    assert_eq!(verdict(&store, fresh.id, at(6)).await, Ok(()), "signing in again is possible");
}

async fn the_excepted_session_goes_on(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let sessions = [sign_in(&store, &ada, at(1)).await, sign_in(&store, &ada, at(1)).await];
    let kept = sign_in(&store, &ada, at(1)).await;
    for round in 0..3 {
        let before = head(&store).await;
        let stamp = stamp(at(2 + round));
        let change = end(&store, EndTarget::User { user: ada.id, except: Some(kept.id) }, stamp).await;
        assert_eq!(change.ended, if round == 0 { 2 } else { 0 });
        let epoch = user(&store, ada.id).await.credential_epoch;
        let row = only_row(&store, before, &change, stamp).await;
        assert_eq!(
            (row.kind(), row.user(), row.session()),
            (ChangeKind::UserSessionsEnded, Some(ada.id), Some(kept.id))
        );
        assert_eq!(row.epoch(), Some(epoch));
        let after = record(&store, kept.id).await.session;
        assert_eq!(after, Session { user_epoch: epoch, ..kept.clone() }, "re-stamped, and nothing else");
        assert_eq!(verdict(&store, kept.id, at(9)).await, Ok(()));
        for session in &sessions {
            assert_eq!(verdict(&store, session.id, at(9)).await, Err(Death::Revoked));
        }
    }
    assert_eq!(user(&store, ada.id).await.credential_epoch.as_i64(), ada.credential_epoch.as_i64() + 3);
}

async fn an_excepted_session_of_another_user_saves_nothing(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, bob) = (add_user(&store, "ada").await, add_user(&store, "bob").await);
    let (of_ada, of_bob) = (sign_in(&store, &ada, at(1)).await, sign_in(&store, &bob, at(1)).await);
    // Bob's epoch is one ahead, so that a stamp with Ada's would show.
    end(&store, EndTarget::User { user: bob.id, except: Some(of_bob.id) }, stamp(at(2))).await;
    let of_bob = record(&store, of_bob.id).await.session;
    let unknown = SessionId::mint(NOW, random(&SystemEntropy));
    for (except, ended) in [(of_bob.id, 1), (unknown, 0)] {
        let (before, stamp) = (head(&store).await, stamp(at(3)));
        let change = end(&store, EndTarget::User { user: ada.id, except: Some(except) }, stamp).await;
        assert_eq!(change.ended, ended);
        let row = only_row(&store, before, &change, stamp).await;
        assert_eq!(
            (row.user(), row.session()),
            (Some(ada.id), None),
            "the row names no session that goes on"
        );
        assert_eq!(verdict(&store, of_ada.id, at(4)).await, Err(Death::Revoked));
        assert_eq!(record(&store, of_bob.id).await.session, of_bob, "another user's session is not touched");
        assert_eq!(verdict(&store, of_bob.id, at(4)).await, Ok(()));
    }
}

/// Ways in which an excepted session may be dead, each made of a standing session of `user`.
async fn dead_sessions(store: &dyn Store, user: &User) -> Vec<SessionId> {
    let logged_out = sign_in(store, user, at(1)).await.id;
    end(store, EndTarget::Session(logged_out), stamp(at(2))).await;
    let expired = sign_in(store, user, at(9).minus(LIFETIME)).await.id;
    let signed_out = sign_in(store, user, at(1)).await.id;
    end(store, EndTarget::User { user: user.id, except: None }, stamp(at(2))).await;
    vec![logged_out, expired, signed_out]
}

async fn an_excepted_session_that_is_dead_stays_dead(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    for dead in dead_sessions(&store, &ada).await {
        let (before, stamp) = (head(&store).await, stamp(at(9)));
        let change = end(&store, EndTarget::User { user: ada.id, except: Some(dead) }, stamp).await;
        assert_eq!(change.ended, 0);
        let row = only_row(&store, before, &change, stamp).await;
        assert_eq!(row.session(), None, "a memory that stamped it again would bring it back");
        assert!(verdict(&store, dead, at(9)).await.is_err());
        let epoch = user(&store, ada.id).await.credential_epoch;
        assert!(record(&store, dead).await.session.user_epoch < epoch);
    }
}

async fn everyones_sessions_end(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, bob) = (add_user(&store, "ada").await, add_user(&store, "bob").await);
    for round in 1..=2 {
        let everyone_epoch = credentials(&store, ada.id).await.everyone_epoch;
        let mut sessions = Vec::new();
        for user in [&ada, &bob, &ada] {
            let mut new = new_session(user, at(1));
            new.session.everyone_epoch = everyone_epoch;
            sessions.push(add(&store, new).await.id);
        }
        let (before, stamp) = (head(&store).await, stamp(at(2)));
        let change = end(&store, EndTarget::Everyone, stamp).await;
        assert_eq!(change.ended, 3, "round {round}");
        let row = only_row(&store, before, &change, stamp).await;
        assert_eq!((row.kind(), row.user(), row.session()), (ChangeKind::EveryoneEnded, None, None));
        assert_eq!(row.epoch(), Some(everyone_epoch.next()));
        for session in sessions {
            assert_eq!(record(&store, session).await.everyone_epoch, everyone_epoch.next());
            assert_eq!(verdict(&store, session, at(3)).await, Err(Death::Revoked));
        }
    }
    assert_eq!(
        user(&store, ada.id).await.credential_epoch,
        ada.credential_epoch,
        "no user's own epoch changed"
    );
    let nobody_left = end(&store, EndTarget::Everyone, stamp(at(4))).await;
    assert_eq!(nobody_left.ended, 0);
    assert_eq!(head(&store).await.as_i64(), 3, "sign-ins under way must die all the same, so it is logged");
}

/// Adds to `user` two standing sessions, and one of each kind that is over at `now` by deadline or epoch.
async fn add_standing_and_over(store: &dyn Store, user: &User, now: UnixMillis) {
    let second = Duration::from_secs(1);
    let base = || new_session(user, now.minus(second)).session;
    let mut expired = base();
    expired.expire_time = now;
    let mut unused = base();
    unused.idle_limit = second;
    let mut stale = base();
    stale.user_epoch = latchkey::domain::id::Epoch::from_i64(0);
    let mut stale_for_everyone = base();
    stale_for_everyone.everyone_epoch = latchkey::domain::id::Epoch::from_i64(0);
    for session in [base(), base(), expired, unused, stale, stale_for_everyone] {
        add(store, NewSession { session, digest: TokenDigest(random(&SystemEntropy)) }).await;
    }
}

async fn only_what_stood_is_counted(db: &TestDatabase) {
    let store = db.open().await;
    let now = at(10);
    let ada = add_user(&store, "ada").await;
    add_standing_and_over(&store, &ada, now).await;
    assert_eq!(end(&store, EndTarget::User { user: ada.id, except: None }, stamp(now)).await.ended, 2);
    assert_eq!(end(&store, EndTarget::User { user: ada.id, except: None }, stamp(now)).await.ended, 0);

    let bob = add_user(&store, "bob").await;
    add_standing_and_over(&store, &bob, now).await;
    let change = store.set_password(bob.id, hash("x"), stamp(now)).await.expect("an answer");
    assert_eq!(change.expect("a change").ended, 2);

    let eve = add_user(&store, "eve").await;
    add_standing_and_over(&store, &eve, now).await;
    assert_eq!(end(&store, EndTarget::Everyone, stamp(now)).await.ended, 2);

    let eve_again = add_user(&store, "eve again").await;
    add_standing_and_over(&store, &eve_again, now).await;
    let deleted = store.delete_user(eve_again.id, stamp(now)).await.expect("an answer").expect("a change");
    assert_eq!(deleted.ended, 0, "all were born before everyone's end");
}

async fn counting_does_not_hold_up_everyones_end(db: &TestDatabase) {
    let lock = match db.engine() {
        // Nothing makes a reader wait there.
        Engine::Sqlite => return,
        Engine::Postgres => "BEGIN; LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE",
        Engine::Mariadb => "LOCK TABLES sessions WRITE",
    };
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let session = sign_in(&store, &ada, at(1)).await;
    let raw = db.raw().await;
    raw.run(lock).await;
    let ending = end(&store, EndTarget::Everyone, stamp(at(2)));
    let change = tokio::time::timeout(Duration::from_secs(10), ending).await.expect("it does not wait");
    raw.close().await;
    assert_eq!(change.ended, 0, "nobody could count");
    assert_eq!(log_after(&store, Position::ZERO).await.len(), 1);
    assert_eq!(verdict(&store, session.id, at(3)).await, Err(Death::Revoked));
}

async fn of_many_who_end_one_session_one_counts_it(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let new = new_session(&ada, at(1));
    let session = add(&store, new.clone()).await;
    let changes = join_all((0..12).map(|number| {
        let target =
            if number % 2 == 0 { EndTarget::Session(session.id) } else { EndTarget::Digest(new.digest) };
        end(&store, target, stamp(at(2)))
    }))
    .await;
    assert_eq!(changes.iter().map(|change| change.ended).sum::<u64>(), 1);
    let rows = log_after(&store, Position::ZERO).await;
    assert_eq!(rows.len(), 1);
    // Everybody waits for a position behind which the session has ended, also who found it over.
    assert!(changes.iter().all(|change| change.position >= rows[0].position), "{changes:?}");
}

/// Whatever ends the sessions of a user, one after the other; each must leave what is over as it is.
async fn end_again_in_every_way(store: &dyn Store, session: SessionId, user: &User, reason: Death) {
    let all = EndTarget::User { user: user.id, except: None };
    end(store, all, stamp(at(3))).await;
    assert_eq!(verdict(store, session, at(3)).await, Err(reason), "all of the user's were ended");
    store.set_password(user.id, hash("other"), stamp(at(3))).await.expect("an answer").expect("changed");
    assert_eq!(verdict(store, session, at(3)).await, Err(reason), "the password was set");
    end(store, EndTarget::Everyone, stamp(at(3))).await;
    assert_eq!(verdict(store, session, at(3)).await, Err(reason), "everyone's were ended");
    let disable = UserChange { state: Some(UserState::Disabled), ..UserChange::default() };
    update(store, user.id, disable, stamp(at(3))).await;
    assert_eq!(verdict(store, session, at(3)).await, Err(reason), "the user was disabled");
    store.delete_user(user.id, stamp(at(4))).await.expect("an answer").expect("deleted");
    assert_eq!(verdict(store, session, at(4)).await, Err(reason), "the user was deleted");
}

async fn what_is_over_keeps_its_reason(db: &TestDatabase) {
    let store = db.open().await;
    let sign_in_as = async |login: &str| {
        let user = add_user(&store, login).await;
        let read = credentials(&store, user.id).await;
        let mut new = new_session(&read.user, at(1));
        new.session.everyone_epoch = read.everyone_epoch;
        (user, add(&store, new).await.id, read)
    };
    let (ada, session, _) = sign_in_as("ada").await;
    end(&store, EndTarget::Everyone, stamp(at(2))).await;
    end_again_in_every_way(&store, session, &ada, Death::Revoked).await;
    let (bob, session, _) = sign_in_as("bob").await;
    store.set_password(bob.id, hash("second"), stamp(at(2))).await.expect("an answer").expect("changed");
    end_again_in_every_way(&store, session, &bob, Death::CredentialsChanged).await;
    let (eve, session, _) = sign_in_as("eve").await;
    end(&store, EndTarget::User { user: eve.id, except: None }, stamp(at(2))).await;
    end_again_in_every_way(&store, session, &eve, Death::Revoked).await;
    // One that is over when it is written.
    let (ian, _, read) = sign_in_as("ian").await;
    end(&store, EndTarget::User { user: ian.id, except: None }, stamp(at(2))).await;
    let mut late = new_session(&read.user, at(1));
    late.session.everyone_epoch = read.everyone_epoch;
    store.create_session(late.clone(), NO_CAP, stamp(at(2))).await.expect("an answer");
    end_again_in_every_way(&store, late.session.id, &ian, Death::Revoked).await;
}
