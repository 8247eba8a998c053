//! Endings in groups: one transaction, a change for each, and log rows that follow each other.

use std::sync::Arc;

use latchkey::domain::id::{Position, SessionId};
use latchkey::domain::session::{Death, EndReason};
use latchkey::domain::token::TokenDigest;
use latchkey::host::{SystemEntropy, random};
use latchkey::store::sql::SqlStore;
use latchkey::store::{Change, ChangeKind, EndTarget, Ending, Stamp, Store};
use tokio::task::JoinSet;

use super::samples::{
    NOW, add, add_user, at, head, log_after, new_session, new_user, record, sign_in, stamp, user, verdict,
};
use crate::support::databases::{Engine, TestDatabase, on_each_engine};

on_each_engine![
    each_target_has_its_change_and_its_row,
    each_reason_is_kept,
    a_group_without_work_writes_nothing,
    what_is_named_twice_ends_once,
    a_user_named_twice_has_two_epochs,
    everyone_ends_beside_the_others,
    a_large_group_is_one_transaction,
    groups_that_cross_do_not_fail_each_other,
];

fn ending(target: EndTarget) -> Ending {
    Ending { target, reason: EndReason::Revoked }
}

async fn end(store: &dyn Store, targets: &[EndTarget], stamp: Stamp) -> Vec<Change> {
    let endings: Vec<_> = targets.iter().copied().map(ending).collect();
    let changes = store.end_sessions_together(&endings, stamp).await.expect("the store answers");
    assert_eq!(changes.len(), targets.len(), "an answer for each");
    let mut answers = Vec::new();
    for (change, target) in changes.into_iter().zip(targets) {
        // What another group has locked just then is waited for.
        answers.push(match change {
            Some(change) => change,
            None => store.end_sessions(*target, EndReason::Revoked, stamp).await.expect("the store answers"),
        });
    }
    answers
}

fn everything_of(user: &latchkey::domain::user::User) -> EndTarget {
    EndTarget::User { user: user.id, except: None }
}

async fn each_target_has_its_change_and_its_row(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, bob) = (add_user(&store, "ada").await, add_user(&store, "bob").await);
    let (by_name, by_token) = (new_session(&ada, at(1)), new_session(&ada, at(1)));
    for new in [&by_name, &by_token] {
        add(&store, new.clone()).await;
    }
    let of_bob = [sign_in(&store, &bob, at(1)).await, sign_in(&store, &bob, at(1)).await];
    let kept = sign_in(&store, &bob, at(1)).await;
    let unknown = SessionId::mint(NOW, random(&SystemEntropy));
    let targets = [
        EndTarget::Session(by_name.session.id),
        EndTarget::Session(unknown),
        EndTarget::User { user: bob.id, except: Some(kept.id) },
        EndTarget::Digest(TokenDigest(random(&SystemEntropy))),
        EndTarget::Digest(by_token.digest),
        everything_of(&latchkey::domain::user::User { id: new_user("nobody").id, ..ada.clone() }),
    ];
    let stamp = stamp(at(2));
    let changes = end(&store, &targets, stamp).await;
    assert_eq!(changes.iter().map(|change| change.ended).collect::<Vec<_>>(), [1, 0, 2, 0, 1, 0]);
    let log = log_after(&store, Position::ZERO).await;
    let positions: Vec<_> = log.iter().map(|row| row.position.as_i64()).collect();
    assert_eq!(positions, [1, 2, 3], "in the order of the targets, without a gap");
    assert_eq!(changes.iter().flat_map(|change| change.rows.clone()).collect::<Vec<_>>(), log);
    let positions: Vec<_> = changes.iter().map(|change| change.position.as_i64()).collect();
    assert_eq!(positions, [1, 3, 2, 3, 3, 3], "where there was nothing, the end lies behind the head");
    assert!(log.iter().all(|row| (row.nonce, row.time) == (stamp.nonce, stamp.time)));
    let named: Vec<_> = log.iter().map(|row| (row.kind(), row.user(), row.session())).collect();
    assert_eq!(named[0], (ChangeKind::SessionEnded, Some(ada.id), Some(by_name.session.id)));
    assert_eq!(named[1], (ChangeKind::UserSessionsEnded, Some(bob.id), Some(kept.id)));
    assert_eq!(named[2], (ChangeKind::SessionEnded, Some(ada.id), Some(by_token.session.id)));
    let epoch = user(&store, bob.id).await.credential_epoch;
    assert_eq!((log[1].epoch(), epoch), (Some(epoch), bob.credential_epoch.next()));
    for over in [by_name.session.id, by_token.session.id, of_bob[0].id, of_bob[1].id] {
        assert_eq!(verdict(&store, over, at(3)).await, Err(Death::Revoked));
    }
    assert_eq!(verdict(&store, kept.id, at(3)).await, Ok(()));
    assert_eq!(user(&store, ada.id).await, ada);
}

async fn each_reason_is_kept(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, bob) = (add_user(&store, "ada").await, add_user(&store, "bob").await);
    let (mut endings, mut sessions) = (Vec::new(), Vec::new());
    for number in 1..=6 {
        let reason = EndReason::from_i16(number).expect("a reason");
        let session = sign_in(&store, &ada, at(1)).await;
        endings.push(Ending { target: EndTarget::Session(session.id), reason });
        sessions.push((session.id, reason));
    }
    let session = sign_in(&store, &bob, at(1)).await;
    endings.push(Ending { target: everything_of(&bob), reason: EndReason::BindingMismatch });
    sessions.push((session.id, EndReason::BindingMismatch));
    store.end_sessions_together(&endings, stamp(at(2))).await.expect("an answer");
    for (id, reason) in sessions {
        assert_eq!(record(&store, id).await.session.ended.map(|ended| ended.reason), Some(reason));
    }
}

async fn a_group_without_work_writes_nothing(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let session = sign_in(&store, &ada, at(1)).await;
    end(&store, &[EndTarget::Session(session.id)], stamp(at(2))).await;
    let before = head(&store).await;
    assert_eq!(end(&store, &[], stamp(at(3))).await, []);
    let unknown = EndTarget::Session(SessionId::mint(NOW, random(&SystemEntropy)));
    let changes = end(&store, &[EndTarget::Session(session.id), unknown], stamp(at(3))).await;
    let nothing = Change { ended: 0, position: before, rows: Vec::new() };
    assert_eq!(changes, [nothing.clone(), nothing]);
    assert_eq!(log_after(&store, before).await, []);
}

async fn what_is_named_twice_ends_once(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, bob) = (add_user(&store, "ada").await, add_user(&store, "bob").await);
    let new = new_session(&ada, at(1));
    add(&store, new.clone()).await;
    let of_bob = sign_in(&store, &bob, at(1)).await;
    let targets = [
        EndTarget::Session(new.session.id),
        EndTarget::Digest(new.digest),
        everything_of(&bob),
        EndTarget::Session(of_bob.id),
        EndTarget::Session(new.session.id),
    ];
    let changes = end(&store, &targets, stamp(at(2))).await;
    assert_eq!(changes.iter().map(|change| change.ended).collect::<Vec<_>>(), [1, 0, 1, 0, 0]);
    assert_eq!(changes.iter().map(|change| change.rows.len()).collect::<Vec<_>>(), [1, 0, 1, 0, 0]);
    assert_eq!(log_after(&store, Position::ZERO).await.len(), 2);

    // A session that ends by itself is no longer there to end with all others, or to go on.
    let (first, second) = (sign_in(&store, &ada, at(3)).await, sign_in(&store, &ada, at(3)).await);
    let all_but_first = EndTarget::User { user: ada.id, except: Some(first.id) };
    let changes = end(&store, &[EndTarget::Session(first.id), all_but_first], stamp(at(4))).await;
    assert_eq!(changes.iter().map(|change| change.ended).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(changes[1].rows[0].session(), None, "what is over does not go on");
    for over in [first.id, second.id] {
        assert_eq!(verdict(&store, over, at(5)).await, Err(Death::Revoked));
    }
}

async fn a_user_named_twice_has_two_epochs(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, bob) = (add_user(&store, "ada").await, add_user(&store, "bob").await);
    let (first, second) = (sign_in(&store, &ada, at(1)).await, sign_in(&store, &ada, at(1)).await);
    let of_bob = sign_in(&store, &bob, at(1)).await;
    let but =
        |user: &latchkey::domain::user::User, except| EndTarget::User { user: user.id, except: Some(except) };
    let targets = [but(&ada, first.id), but(&bob, of_bob.id), but(&ada, first.id)];
    let changes = end(&store, &targets, stamp(at(2))).await;
    assert_eq!(changes.iter().map(|change| change.ended).collect::<Vec<_>>(), [1, 0, 0]);
    assert_eq!(user(&store, ada.id).await.credential_epoch, ada.credential_epoch.next().next());
    assert_eq!(user(&store, bob.id).await.credential_epoch, bob.credential_epoch.next());
    assert_eq!(changes[2].rows[0].epoch(), Some(ada.credential_epoch.next().next()));
    for good in [first.id, of_bob.id] {
        assert_eq!(verdict(&store, good, at(3)).await, Ok(()));
    }
    assert_eq!(verdict(&store, second.id, at(3)).await, Err(Death::Revoked));

    // What the first lets go on, the second ends.
    let ada = user(&store, ada.id).await;
    let changes = end(&store, &[but(&ada, first.id), everything_of(&ada)], stamp(at(4))).await;
    assert_eq!(changes.iter().map(|change| change.ended).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(verdict(&store, first.id, at(5)).await, Err(Death::Revoked));
}

async fn everyone_ends_beside_the_others(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let sessions = [sign_in(&store, &ada, at(1)).await, sign_in(&store, &ada, at(1)).await];
    let targets =
        [EndTarget::Session(sessions[0].id), EndTarget::Everyone, EndTarget::Session(sessions[1].id)];
    let changes = end(&store, &targets, stamp(at(2))).await;
    assert_eq!(changes.iter().map(|change| change.ended).collect::<Vec<_>>(), [1, 1, 0]);
    let log = log_after(&store, Position::ZERO).await;
    let kinds: Vec<_> = log.iter().map(latchkey::store::LoggedChange::kind).collect();
    assert_eq!(kinds, [ChangeKind::SessionEnded, ChangeKind::EveryoneEnded]);
    assert_eq!(changes.iter().flat_map(|change| change.rows.clone()).collect::<Vec<_>>(), log);
    assert_eq!(changes[2].position, Position::from_i64(2));
}

async fn a_large_group_is_one_transaction(db: &TestDatabase) {
    const SESSIONS: usize = 620;
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let mut targets = Vec::new();
    for _ in 0..SESSIONS {
        targets.push(EndTarget::Session(sign_in(&store, &ada, at(1)).await.id));
    }
    let changes = end(&store, &targets, stamp(at(2))).await;
    assert!(changes.iter().all(|change| change.ended == 1));
    let log = log_after(&store, Position::ZERO).await;
    assert_eq!(log.len(), SESSIONS);
    for ((change, row), target) in changes.iter().zip(&log).zip(targets) {
        assert_eq!(change.rows, std::slice::from_ref(row));
        assert_eq!(row.session().map(EndTarget::Session), Some(target));
    }
}

async fn groups_that_cross_do_not_fail_each_other(db: &TestDatabase) {
    const GROUPS: usize = 12;
    const ROUNDS: u64 = 6;
    let first = Arc::new(db.open().await);
    let second = if db.engine() == Engine::Sqlite { Arc::clone(&first) } else { Arc::new(db.open().await) };
    let (mut users, mut sessions) = (Vec::new(), Vec::new());
    for number in 0..GROUPS {
        let user = add_user(&*first, &format!("user-{number}")).await;
        for _ in 0..4 {
            sessions.push(sign_in(&*first, &user, at(1)).await.id);
        }
        users.push(user);
    }
    let (mut ending, total) = (JoinSet::new(), sessions.len());
    for group in 0..GROUPS {
        // Each names all, and each in another order.
        let mut targets: Vec<_> = sessions.iter().copied().map(EndTarget::Session).collect();
        targets.extend(users.iter().map(everything_of));
        targets.rotate_left(group * 5);
        if group % 2 == 1 {
            targets.reverse();
        }
        let store: Arc<SqlStore> = Arc::clone(if group % 3 == 0 { &first } else { &second });
        ending.spawn(async move {
            let mut changes = Vec::new();
            for round in 0..ROUNDS {
                changes.extend(end(&*store, &targets, stamp(at(2 + round))).await);
            }
            changes
        });
    }
    let changes = ending.join_all().await.concat();
    let ended: u64 = changes.iter().map(|change| change.ended).sum();
    assert_eq!(ended, total as u64, "each session is counted by whoever ended it");
    let mut rows: Vec<_> = changes.into_iter().flat_map(|change| change.rows).collect();
    rows.sort_by_key(|row| row.position);
    assert_eq!(rows, log_after(&*first, Position::ZERO).await);
}
