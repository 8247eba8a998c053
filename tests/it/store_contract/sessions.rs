//! Adding, finding, listing, touching and replacing sessions.

use std::time::Duration;

use futures_util::future::join_all;
use latchkey::domain::client::Client;
use latchkey::domain::id::{Epoch, Position, SessionId};
use latchkey::domain::session::{Death, EndReason, Ended, Methods, Session};
use latchkey::domain::time::UnixMillis;
use latchkey::domain::token::TokenDigest;
use latchkey::domain::user::User;
use latchkey::host::{SystemEntropy, random};
use latchkey::store::{ChangeKind, EndTarget, NewSession, SessionKey, Store};

use super::samples::{
    IDLE_LIMIT, LIFETIME, NO_CAP, NOW, add, add_user, at, head, log_after, new_session, only_row, record,
    sign_in, stamp, verdict,
};
use crate::support::databases::{TestDatabase, on_each_engine};

on_each_engine![
    a_session_reads_back_as_written,
    sessions_at_their_limits_read_back,
    a_session_is_read_together_with_what_decides_on_it,
    the_unknown_is_not_there,
    an_id_or_digest_that_is_taken_leaves_the_first_session_alone,
    standing_sessions_are_listed_newest_first_in_pages,
    what_is_over_is_not_listed,
    the_last_use_moves_forward_only,
    a_touch_wakes_nobody_and_is_not_logged,
    replacing_ends_the_old_session_and_adds_the_new_one,
    replacing_what_is_over_adds_nothing,
    of_many_replacements_one_is_made,
];

async fn a_session_reads_back_as_written(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let new = new_session(&ada, NOW);
    add(&store, new.clone()).await;
    for key in [SessionKey::Id(new.session.id), SessionKey::Digest(new.digest)] {
        let record = store.session(key).await.expect("an answer").expect("found");
        assert_eq!(record.session, new.session);
        assert_eq!(record.user.as_ref(), Some(&ada));
    }
}

async fn sessions_at_their_limits_read_back(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let widest = "\u{10fffd}";
    let methods: Vec<String> = (0..8).map(|n| format!("{n:0>64}")).collect();
    let year = Duration::from_hours(366 * 24);
    let base = new_session(&ada, NOW).session;
    let variants = [
        Session {
            client: Client::parse(
                "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
                &widest.repeat(1_024),
                &widest.repeat(128),
            )
            .expect("at the limit"),
            methods: Methods::parse(&methods).expect("at the limit"),
            remembered: true,
            ..base.clone()
        },
        Session { client: Client::default(), ..base.clone() },
        Session {
            client: Client::parse("0.0.0.0", "'\\\"%_", "\u{1f4f1} l'\u{e9}").expect("a client"),
            ..base.clone()
        },
        Session { client: Client::parse("255.255.255.255", "", " ").expect("a client"), ..base.clone() },
        // The last second that a token can name, and the first moment of the calendar.
        Session {
            expire_time: UnixMillis::from_millis(i64::from(u32::MAX) * 1_000),
            idle_limit: year,
            ..base.clone()
        },
        Session {
            create_time: UnixMillis::default(),
            authenticate_time: UnixMillis::default(),
            ..base.clone()
        },
        Session { idle_limit: Duration::from_millis(1), last_seen_time: at(9), ..base.clone() },
        Session { everyone_epoch: Epoch::from_i64(i64::MAX), ..base.clone() },
        Session { user_epoch: Epoch::from_i64(i64::MAX), ..base },
    ];
    for (number, variant) in variants.into_iter().enumerate() {
        // The extremes of the digest too: bytes that text would trip over.
        let number = u8::try_from(number).expect("few");
        let digest = TokenDigest(if number % 2 == 0 { [number; 16] } else { [0xff - number; 16] });
        let session = Session { id: SessionId::mint(NOW, random(&SystemEntropy)), ..variant };
        let change =
            store.create_session(NewSession { session: session.clone(), digest }, NO_CAP, stamp(NOW)).await;
        assert_eq!(change.expect("the store answers"), None);
        let found = store.session(SessionKey::Digest(digest)).await.expect("an answer").expect("found");
        assert_eq!(found.session, session);
    }
}

async fn a_session_is_read_together_with_what_decides_on_it(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let session = sign_in(&store, &ada, NOW).await;
    let first = record(&store, session.id).await;
    assert_eq!((first.everyone_epoch, first.position), (Epoch::FIRST, Position::ZERO));
    let target = EndTarget::User { user: ada.id, except: None };
    let change = store.end_sessions(target, EndReason::Revoked, stamp(at(1))).await.expect("an answer");
    let second = record(&store, session.id).await;
    assert_eq!((second.everyone_epoch, second.position), (Epoch::FIRST, change.position));
    assert_eq!(second.user.map(|user| user.credential_epoch), Some(ada.credential_epoch.next()));
    let change =
        store.end_sessions(EndTarget::Everyone, EndReason::Revoked, stamp(at(2))).await.expect("an answer");
    let third = record(&store, session.id).await;
    assert_eq!((third.everyone_epoch, third.position), (Epoch::FIRST.next(), change.position));
}

async fn the_unknown_is_not_there(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let known = new_session(&ada, NOW);
    add(&store, known.clone()).await;
    let mut near = known.digest;
    near.0[15] ^= 1;
    let unknown = SessionId::mint(NOW, random(&SystemEntropy));
    for key in [SessionKey::Id(unknown), SessionKey::Digest(near)] {
        assert!(store.session(key).await.expect("an answer").is_none());
    }
}

async fn an_id_or_digest_that_is_taken_leaves_the_first_session_alone(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, bob) = (add_user(&store, "ada").await, add_user(&store, "bob").await);
    let first = new_session(&ada, NOW);
    add(&store, first.clone()).await;
    let fresh = new_session(&bob, at(1));
    let same_digest = NewSession { digest: first.digest, ..fresh.clone() };
    let same_id = NewSession {
        session: Session { id: first.session.id, ..fresh.session.clone() },
        digest: fresh.digest,
    };
    for taken in [same_digest, same_id] {
        store.create_session(taken, NO_CAP, stamp(at(1))).await.expect_err("128 random bits met twice");
    }
    for key in [SessionKey::Id(first.session.id), SessionKey::Digest(first.digest)] {
        let found = store.session(key).await.expect("an answer").expect("found");
        assert_eq!(found.session, first.session);
    }
    assert!(store.session(SessionKey::Digest(fresh.digest)).await.expect("an answer").is_none());
}

async fn standing_sessions_are_listed_newest_first_in_pages(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, bob) = (add_user(&store, "ada").await, add_user(&store, "bob").await);
    let mut expected = Vec::new();
    for second in 0..23 {
        expected.push(sign_in(&store, &ada, at(second)).await);
        sign_in(&store, &bob, at(second)).await;
    }
    expected.reverse();
    for limit in [1, 5, 23, 1_000] {
        let mut seen: Vec<Session> = Vec::new();
        loop {
            let after = seen.last().map(|session| session.id);
            let page = store.sessions_of_user(ada.id, after, limit, at(30)).await.expect("a page");
            assert!(page.len() <= limit as usize);
            assert!(seen.len() + page.len() <= expected.len(), "an entry comes twice");
            if page.is_empty() {
                break;
            }
            seen.extend(page);
        }
        assert_eq!(seen, expected, "pages of {limit}");
    }
    assert_eq!(store.sessions_of_user(ada.id, None, 0, at(30)).await.expect("a page"), [], "a page of none");
}

async fn what_is_over_is_not_listed(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let base = |second| new_session(&ada, at(second)).session;
    let short = Session { expire_time: at(100), ..base(1) };
    let unused = Session { idle_limit: Duration::from_secs(100), ..base(2) };
    let ended = base(3);
    let stale = Session { user_epoch: Epoch::from_i64(0), ..base(4) };
    let stale_for_everyone = Session { everyone_epoch: Epoch::from_i64(0), ..base(5) };
    let standing = base(6);
    for session in [&short, &unused, &ended, &stale, &stale_for_everyone, &standing] {
        add(&store, NewSession { session: session.clone(), digest: TokenDigest(random(&SystemEntropy)) })
            .await;
    }
    store
        .end_sessions(EndTarget::Session(ended.id), EndReason::Revoked, stamp(at(7)))
        .await
        .expect("an answer");
    let listed = async |now: UnixMillis| -> Vec<SessionId> {
        let page = store.sessions_of_user(ada.id, None, 10, now).await.expect("a page");
        page.into_iter().map(|session| session.id).collect()
    };
    let millisecond = Duration::from_millis(1);
    assert_eq!(listed(at(8)).await, [standing.id, unused.id, short.id]);
    assert_eq!(listed(at(100).minus(millisecond)).await, [standing.id, unused.id, short.id]);
    assert_eq!(listed(at(100)).await, [standing.id, unused.id], "its absolute end, to the millisecond");
    assert_eq!(listed(at(102).minus(millisecond)).await, [standing.id, unused.id]);
    assert_eq!(listed(at(102)).await, [standing.id], "its idle end, to the millisecond");
    assert_eq!(listed(at(6).plus(IDLE_LIMIT)).await, []);
}

async fn the_last_use_moves_forward_only(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let (one, other) = (sign_in(&store, &ada, NOW).await, sign_in(&store, &ada, NOW).await);
    let unknown = SessionId::mint(NOW, random(&SystemEntropy));
    let last_seen = async |id| record(&store, id).await.session.last_seen_time;

    store.touch_sessions(&[]).await.expect("nothing to do");
    store.touch_sessions(&[(unknown, at(5)), (one.id, at(20)), (other.id, at(10))]).await.expect("touched");
    assert_eq!((last_seen(one.id).await, last_seen(other.id).await), (at(20), at(10)));
    store.touch_sessions(&[(one.id, at(19)), (other.id, at(11))]).await.expect("touched");
    assert_eq!((last_seen(one.id).await, last_seen(other.id).await), (at(20), at(11)), "never back");
    store.touch_sessions(&[(one.id, at(30)), (one.id, at(40)), (one.id, at(35))]).await.expect("touched");
    assert_eq!(last_seen(one.id).await, at(40), "the latest of several");
    let expected = Session { last_seen_time: at(40), ..one };
    assert_eq!(record(&store, expected.id).await.session, expected, "and nothing else moves");

    let mut many = Vec::new();
    for _ in 0..300 {
        many.push((sign_in(&store, &ada, NOW).await.id, at(50)));
    }
    store.touch_sessions(&many).await.expect("a batch as a flush makes it");
    for (id, time) in many {
        assert_eq!(last_seen(id).await, time);
    }
}

async fn a_touch_wakes_nobody_and_is_not_logged(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let session = sign_in(&store, &ada, NOW).await;
    let target = EndTarget::Session(session.id);
    store.end_sessions(target, EndReason::Revoked, stamp(at(1))).await.expect("an answer");
    let before = head(&store).await;
    store.touch_sessions(&[(session.id, at(2))]).await.expect("touched");
    assert_eq!(verdict(&store, session.id, at(3)).await, Err(Death::Revoked));
    assert_eq!(log_after(&store, before).await, []);
}

/// The session that takes the place of another of the same user.
fn successor(user: &User, second: u64) -> NewSession {
    new_session(user, at(second))
}

async fn replacing_ends_the_old_session_and_adds_the_new_one(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let (old, sibling) = (sign_in(&store, &ada, at(1)).await, sign_in(&store, &ada, at(1)).await);
    let (new, stamp) = (successor(&ada, 2), stamp(at(2)));
    let change = store.replace_session(old.id, new.clone(), stamp).await.expect("an answer").expect("won");
    assert_eq!(change.ended, 1);
    let row = only_row(&store, Position::ZERO, &change, stamp).await;
    assert_eq!(
        (row.kind(), row.user(), row.session()),
        (ChangeKind::SessionEnded, Some(ada.id), Some(old.id))
    );
    let ended = record(&store, old.id).await.session.ended;
    assert_eq!(ended, Some(Ended { time: at(2), reason: EndReason::Replaced }));
    let found = store.session(SessionKey::Digest(new.digest)).await.expect("an answer").expect("found");
    assert_eq!(found.session, new.session);
    for standing in [new.session.id, sibling.id] {
        assert_eq!(verdict(&store, standing, at(3)).await, Ok(()));
    }
}

async fn replacing_what_is_over_adds_nothing(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, bob) = (add_user(&store, "ada").await, add_user(&store, "bob").await);
    let unknown = SessionId::mint(NOW, random(&SystemEntropy));
    let logged_out = sign_in(&store, &ada, at(1)).await.id;
    let target = EndTarget::Session(logged_out);
    store.end_sessions(target, EndReason::Revoked, stamp(at(2))).await.expect("an answer");
    let expired = sign_in(&store, &ada, at(2).minus(LIFETIME)).await.id;
    let signed_out = sign_in(&store, &bob, at(1)).await.id;
    let target = EndTarget::User { user: bob.id, except: None };
    store.end_sessions(target, EndReason::Revoked, stamp(at(2))).await.expect("an answer");
    let before = head(&store).await;
    for (user, old) in [(&ada, unknown), (&ada, logged_out), (&ada, expired), (&bob, signed_out)] {
        let new = successor(user, 3);
        assert_eq!(store.replace_session(old, new.clone(), stamp(at(3))).await.expect("an answer"), None);
        assert!(store.session(SessionKey::Digest(new.digest)).await.expect("an answer").is_none());
    }
    assert_eq!(log_after(&store, before).await, []);
    let ended = record(&store, logged_out).await.session.ended;
    assert_eq!(ended, Some(Ended { time: at(2), reason: EndReason::Revoked }), "the first end stays");
}

async fn of_many_replacements_one_is_made(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let old = sign_in(&store, &ada, at(1)).await;
    let candidates: Vec<_> = (0..8).map(|_| successor(&ada, 2)).collect();
    let answers =
        join_all(candidates.iter().map(|new| store.replace_session(old.id, new.clone(), stamp(at(2))))).await;
    let won =
        answers.iter().filter(|answer| answer.as_ref().expect("a race is not an error").is_some()).count();
    assert_eq!(won, 1);
    let standing = store.sessions_of_user(ada.id, None, 10, at(3)).await.expect("a page");
    assert_eq!(standing.len(), 1, "one token went in, one came out");
    assert_eq!(log_after(&store, Position::ZERO).await.len(), 1);
}
