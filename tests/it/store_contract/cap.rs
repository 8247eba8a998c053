//! How many sessions a user may hold: the oldest ends, through the log, and only then is the log touched.

use futures_util::future::join_all;
use latchkey::domain::id::{Epoch, Position, SessionId};
use latchkey::domain::session::{Death, EndReason, Ended};
use latchkey::domain::time::UnixMillis;
use latchkey::domain::user::User;
use latchkey::store::{Change, ChangeKind, EndTarget, NewSession, Store};

use super::samples::{
    LIFETIME, add_user, at, head, log_after, new_session, only_row, record, sign_in, stamp, verdict,
};
use crate::support::databases::{TestDatabase, on_each_engine};

on_each_engine![
    at_the_cap_nothing_ends_and_nothing_is_logged,
    above_the_cap_the_oldest_ends_through_the_log,
    under_a_lowered_cap_all_that_are_too_many_end,
    what_is_over_takes_no_place,
    the_sessions_of_others_take_no_place,
    a_session_that_is_dead_on_arrival_pushes_nobody_out,
    a_clock_that_was_set_back_does_not_end_the_new_session,
    many_sign_ins_at_once_leave_no_more_than_the_cap,
];

/// Signs in under a cap.
async fn sign_in_capped(
    store: &dyn Store,
    user: &User,
    second: u64,
    cap: u32,
) -> (SessionId, Option<Change>) {
    let new = new_session(user, at(second));
    let id = new.session.id;
    (id, store.create_session(new, cap, stamp(at(second))).await.expect("the store answers"))
}

/// The ids of a user's standing sessions, newest first.
async fn standing(store: &dyn Store, user: &User, now: UnixMillis) -> Vec<SessionId> {
    let page = store.sessions_of_user(user.id, None, 1_000, now).await.expect("a page");
    page.into_iter().map(|session| session.id).collect()
}

async fn at_the_cap_nothing_ends_and_nothing_is_logged(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    for second in 0..3 {
        assert_eq!(sign_in_capped(&store, &ada, second, 3).await.1, None);
    }
    assert_eq!(standing(&store, &ada, at(4)).await.len(), 3);
    assert_eq!(head(&store).await, Position::ZERO);
}

async fn above_the_cap_the_oldest_ends_through_the_log(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let oldest = sign_in(&store, &ada, at(0)).await;
    let second = sign_in(&store, &ada, at(1)).await;
    // Use makes a session no younger: the oldest is the one that began first.
    store.touch_sessions(&[(oldest.id, at(2))]).await.expect("touched");
    let (new, stamp) = (new_session(&ada, at(3)), stamp(at(3)));
    let id = new.session.id;
    let change = store.create_session(new, 2, stamp).await.expect("an answer").expect("one is capped");
    assert_eq!(change.ended, 1);
    let row = only_row(&store, Position::ZERO, &change, stamp).await;
    assert_eq!(
        (row.kind(), row.user(), row.session()),
        (ChangeKind::SessionEnded, Some(ada.id), Some(oldest.id))
    );
    let ended = record(&store, oldest.id).await.session.ended;
    assert_eq!(ended, Some(Ended { time: at(3), reason: EndReason::Capped }));
    assert_eq!(verdict(&store, oldest.id, at(4)).await, Err(Death::Revoked));
    assert_eq!(standing(&store, &ada, at(4)).await, [id, second.id]);
}

async fn under_a_lowered_cap_all_that_are_too_many_end(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let mut old = Vec::new();
    for second in 0..5 {
        old.push(sign_in(&store, &ada, at(second)).await.id);
    }
    let stamp = stamp(at(9));
    let new = new_session(&ada, at(9));
    let id = new.session.id;
    let change = store.create_session(new, 2, stamp).await.expect("an answer").expect("some are capped");
    assert_eq!(change.ended, 4);
    assert_eq!(standing(&store, &ada, at(10)).await, [id, old[4]]);
    // Each end has its row, since a follower knows no other way to hear of it.
    let rows = log_after(&store, Position::ZERO).await;
    let mut named: Vec<_> = rows.iter().filter_map(latchkey::store::LoggedChange::session).collect();
    named.sort_unstable();
    assert_eq!(named, old[..4]);
    assert!(rows.iter().all(|row| row.kind() == ChangeKind::SessionEnded && row.user() == Some(ada.id)));
    assert_eq!(
        rows.last().map(|row| row.position),
        Some(change.position),
        "behind it all of them have ended"
    );
}

async fn what_is_over_takes_no_place(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let kept = sign_in(&store, &ada, at(0)).await;
    sign_in(&store, &ada, at(2).minus(LIFETIME)).await;
    let logged_out = sign_in(&store, &ada, at(1)).await;
    let target = EndTarget::Session(logged_out.id);
    store.end_sessions(target, EndReason::Revoked, stamp(at(2))).await.expect("an answer");
    let mut stale = new_session(&ada, at(1));
    stale.session.user_epoch = Epoch::from_i64(0);
    super::samples::add(&store, stale).await;
    let before = head(&store).await;
    let (id, change) = sign_in_capped(&store, &ada, 3, 2).await;
    assert_eq!(change, None);
    assert_eq!(standing(&store, &ada, at(4)).await, [id, kept.id]);
    assert_eq!(log_after(&store, before).await, []);
}

async fn the_sessions_of_others_take_no_place(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, bob) = (add_user(&store, "ada").await, add_user(&store, "bob").await);
    let (of_ada, of_bob) = (sign_in(&store, &ada, at(0)).await, sign_in(&store, &bob, at(1)).await);
    assert_eq!(sign_in_capped(&store, &bob, 2, 2).await.1, None);
    assert_eq!(sign_in_capped(&store, &bob, 3, 2).await.1.map(|change| change.ended), Some(1));
    assert_eq!(verdict(&store, of_ada.id, at(4)).await, Ok(()));
    assert_eq!(verdict(&store, of_bob.id, at(4)).await, Err(Death::Revoked));
}

async fn a_session_that_is_dead_on_arrival_pushes_nobody_out(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let kept = [sign_in(&store, &ada, at(0)).await.id, sign_in(&store, &ada, at(1)).await.id];
    let mut dead = new_session(&ada, at(2));
    dead.session.user_epoch = Epoch::from_i64(0);
    assert_eq!(store.create_session(dead, 2, stamp(at(2))).await.expect("an answer"), None);
    assert_eq!(standing(&store, &ada, at(3)).await, [kept[1], kept[0]]);
    assert_eq!(head(&store).await, Position::ZERO);
}

async fn a_clock_that_was_set_back_does_not_end_the_new_session(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let (oldest, _) = sign_in_capped(&store, &ada, 10, 2).await;
    let (second, _) = sign_in_capped(&store, &ada, 11, 2).await;
    let (new, change) = sign_in_capped(&store, &ada, 5, 2).await;
    assert_eq!(change.map(|change| change.ended), Some(1));
    assert_eq!(standing(&store, &ada, at(12)).await, [second, new]);
    assert_eq!(verdict(&store, oldest, at(12)).await, Err(Death::Revoked));
    // The one that looks oldest goes first, the next time.
    let (newest, _) = sign_in_capped(&store, &ada, 12, 2).await;
    assert_eq!(standing(&store, &ada, at(13)).await, [newest, second]);
}

async fn many_sign_ins_at_once_leave_no_more_than_the_cap(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let new: Vec<NewSession> = (0..24).map(|second| new_session(&ada, at(second))).collect();
    let answers =
        join_all(new.iter().map(|session| store.create_session(session.clone(), 5, stamp(at(30))))).await;
    let ended: u64 = answers
        .into_iter()
        .filter_map(|a| a.expect("a race is not an error"))
        .map(|change| change.ended)
        .sum();
    // A sign-in takes no lock that all users share, so two that run at once may count each other or not; but whoever
    // signs in afterwards finds all of them.
    let (_, change) = sign_in_capped(&store, &ada, 40, 5).await;
    let ended = ended + change.map_or(0, |change| change.ended);
    assert_eq!(standing(&store, &ada, at(50)).await.len(), 5);
    assert_eq!(ended, 20, "25 began, 5 stand");
    assert_eq!(log_after(&store, Position::ZERO).await.len(), 20, "each end has its row, and only one");
}
