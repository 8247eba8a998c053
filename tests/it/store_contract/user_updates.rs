//! Changing what is said of a user, and what disabling does.

use futures_util::future::join_all;
use latchkey::domain::id::Position;
use latchkey::domain::session::Death;
use latchkey::domain::user::{Attributes, DisplayName, Roles, User, UserState};
use latchkey::store::{ChangeKind, Store, UpdateUser, UserChange, UserKey};

use super::samples::{
    add_user, at, head, log_after, new_user, only_row, raw_login, sign_in, stamp, update, user, verdict,
};
use crate::support::databases::{TestDatabase, on_each_engine};

on_each_engine![
    each_field_changes_alone,
    all_fields_change_at_once,
    a_new_login_is_found_and_the_old_one_free,
    a_taken_login_changes_nothing_and_is_not_logged,
    of_many_who_want_one_login_one_gets_it,
    changing_nobody_is_not_logged,
    disabling_ends_every_session,
    disabling_twice_ends_nothing_more,
    enabling_brings_no_session_back,
    disabling_and_renaming_is_one_change,
];

fn disabling() -> UserChange {
    UserChange { state: Some(UserState::Disabled), ..UserChange::default() }
}

async fn each_field_changes_alone(db: &TestDatabase) {
    let store = db.open().await;
    let first = add_user(&store, "ada").await;
    let session = sign_in(&store, &first, at(0)).await;
    let display_name = DisplayName::parse("Countess").expect("a display name");
    let roles = Roles::parse(&["admin"]).expect("roles");
    let attributes = Attributes::parse([("floor", "3")]).expect("attributes");
    let none = UserChange::default();
    let steps = [
        (
            UserChange { login: Some(raw_login("countess")), ..none.clone() },
            User { login: raw_login("countess"), ..first.clone() },
        ),
        (
            UserChange { display_name: Some(display_name.clone()), ..none.clone() },
            User { display_name: display_name.clone(), login: raw_login("countess"), ..first.clone() },
        ),
        (
            UserChange { roles: Some(roles.clone()), ..none.clone() },
            User {
                roles: roles.clone(),
                display_name: display_name.clone(),
                login: raw_login("countess"),
                ..first.clone()
            },
        ),
        (
            UserChange { attributes: Some(attributes.clone()), ..none },
            User { attributes, roles, display_name, login: raw_login("countess"), ..first.clone() },
        ),
    ];
    let mut before = Position::ZERO;
    for (number, (change, expected)) in (1..).zip(steps) {
        let stamp = stamp(at(number));
        let (updated, change) = update(&store, first.id, change, stamp).await;
        assert_eq!(updated, User { update_time: stamp.time, ..expected });
        assert_eq!(user(&store, first.id).await, updated, "the answer is what the database holds");
        assert_eq!(change.ended, 0);
        let row = only_row(&store, before, &change, stamp).await;
        assert_eq!((row.kind(), row.user(), row.session()), (ChangeKind::UserChanged, Some(first.id), None));
        assert_eq!(row.epoch(), Some(first.credential_epoch), "the epoch since then is the old one");
        before = change.position;
    }
    assert_eq!(verdict(&store, session.id, at(9)).await, Ok(()), "none of this takes a session away");
}

async fn all_fields_change_at_once(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let change = UserChange {
        login: Some(raw_login("x")),
        display_name: Some(DisplayName::default()),
        roles: Some(Roles::default()),
        attributes: Some(Attributes::default()),
        state: Some(UserState::Active),
    };
    let (updated, change) = update(&store, ada.id, change, stamp(at(1))).await;
    let expected = User {
        login: raw_login("x"),
        display_name: DisplayName::default(),
        roles: Roles::default(),
        attributes: Attributes::default(),
        update_time: at(1),
        ..ada
    };
    assert_eq!((&updated, change.ended), (&expected, 0));
    assert_eq!(user(&store, expected.id).await, expected);
}

async fn a_new_login_is_found_and_the_old_one_free(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let same = UserChange { login: Some(raw_login("ada")), ..UserChange::default() };
    update(&store, ada.id, same, stamp(at(1))).await;
    let change = UserChange { login: Some(raw_login("ada ")), ..UserChange::default() };
    update(&store, ada.id, change, stamp(at(2))).await;
    assert_eq!(store.user(UserKey::Login(&raw_login("ada"))).await.expect("an answer"), None);
    let found = store.user(UserKey::Login(&raw_login("ada "))).await.expect("an answer");
    assert_eq!(found.map(|user| user.id), Some(ada.id));
    assert_ne!(add_user(&store, "ada").await.id, ada.id);
}

async fn a_taken_login_changes_nothing_and_is_not_logged(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, bob) = (add_user(&store, "ada").await, add_user(&store, "bob").await);
    let session = sign_in(&store, &bob, at(0)).await;
    let change = UserChange {
        login: Some(raw_login("ada")),
        display_name: Some(DisplayName::default()),
        ..disabling()
    };
    let answer = store.update_user(bob.id, change, stamp(at(1))).await.expect("an answer");
    assert_eq!(answer, UpdateUser::LoginTaken);
    assert_eq!(user(&store, bob.id).await, bob);
    assert_eq!(user(&store, ada.id).await, ada);
    assert_eq!(verdict(&store, session.id, at(2)).await, Ok(()));
    assert_eq!(head(&store).await, Position::ZERO);
}

async fn of_many_who_want_one_login_one_gets_it(db: &TestDatabase) {
    let store = db.open().await;
    let mut users = Vec::new();
    for number in 0..8 {
        users.push(add_user(&store, &format!("user-{number}")).await);
    }
    let change = UserChange { login: Some(raw_login("wanted")), ..UserChange::default() };
    let answers =
        join_all(users.iter().map(|user| store.update_user(user.id, change.clone(), stamp(at(1))))).await;
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.expect("a race is not an error")).collect();
    assert_eq!(answers.iter().filter(|a| matches!(a, UpdateUser::Updated(..))).count(), 1);
    assert_eq!(answers.iter().filter(|a| **a == UpdateUser::LoginTaken).count(), 7);
    assert_eq!(log_after(&store, Position::ZERO).await.len(), 1, "who lost wrote nothing");
}

async fn changing_nobody_is_not_logged(db: &TestDatabase) {
    let store = db.open().await;
    let taken = UserChange { login: Some(raw_login("ada")), ..UserChange::default() };
    add_user(&store, "ada").await;
    for change in [UserChange::default(), disabling(), taken] {
        let answer = store.update_user(new_user("nobody").id, change, stamp(at(1))).await.expect("an answer");
        assert_eq!(answer, UpdateUser::NotFound);
    }
    assert_eq!(head(&store).await, Position::ZERO);
}

async fn disabling_ends_every_session(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, bob) = (add_user(&store, "ada").await, add_user(&store, "bob").await);
    let sessions = [sign_in(&store, &ada, at(1)).await, sign_in(&store, &ada, at(2)).await];
    let bystander = sign_in(&store, &bob, at(3)).await;
    let stamp = stamp(at(4));
    let (disabled, change) = update(&store, ada.id, disabling(), stamp).await;
    let expected = User {
        state: UserState::Disabled,
        credential_epoch: ada.credential_epoch.next(),
        update_time: at(4),
        ..ada.clone()
    };
    assert_eq!(disabled, expected, "only a new password raises the password's epoch");
    assert_eq!(user(&store, ada.id).await, expected);
    assert_eq!(change.ended, 2);
    let row = only_row(&store, Position::ZERO, &change, stamp).await;
    assert_eq!((row.kind(), row.user(), row.session()), (ChangeKind::UserDisabled, Some(ada.id), None));
    assert_eq!(row.epoch(), Some(disabled.credential_epoch));
    for session in &sessions {
        assert_eq!(verdict(&store, session.id, at(5)).await, Err(Death::UserDisabled));
    }
    assert_eq!(verdict(&store, bystander.id, at(5)).await, Ok(()));
}

async fn disabling_twice_ends_nothing_more(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    sign_in(&store, &ada, at(1)).await;
    let (once, first) = update(&store, ada.id, disabling(), stamp(at(2))).await;
    let again = stamp(at(3));
    let (twice, second) = update(&store, ada.id, disabling(), again).await;
    assert_eq!((first.ended, second.ended), (1, 0));
    assert_eq!(twice.credential_epoch, once.credential_epoch, "nobody is left to sign out");
    let row = only_row(&store, first.position, &second, again).await;
    assert_eq!((row.kind(), row.user()), (ChangeKind::UserChanged, Some(ada.id)));
}

async fn enabling_brings_no_session_back(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let session = sign_in(&store, &ada, at(1)).await;
    let (disabled, change) = update(&store, ada.id, disabling(), stamp(at(2))).await;
    let enabling = UserChange { state: Some(UserState::Active), ..UserChange::default() };
    let (enabled, change) = {
        let enabled_at = stamp(at(3));
        let (enabled, enable) = update(&store, ada.id, enabling, enabled_at).await;
        let row = only_row(&store, change.position, &enable, enabled_at).await;
        assert_eq!(row.kind(), ChangeKind::UserChanged);
        (enabled, enable)
    };
    assert_eq!((enabled.state, change.ended), (UserState::Active, 0));
    assert_eq!(enabled.credential_epoch, disabled.credential_epoch);
    assert!(verdict(&store, session.id, at(4)).await.is_err(), "what was ended stays ended");
    let fresh = sign_in(&store, &enabled, at(4)).await;
    assert_eq!(verdict(&store, fresh.id, at(5)).await, Ok(()));
}

async fn disabling_and_renaming_is_one_change(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    sign_in(&store, &ada, at(1)).await;
    let stamp = stamp(at(2));
    let change = UserChange { login: Some(raw_login("gone")), ..disabling() };
    let (updated, change) = update(&store, ada.id, change, stamp).await;
    assert_eq!((updated.login.key(), updated.state, change.ended), ("gone", UserState::Disabled, 1));
    let row = only_row(&store, Position::ZERO, &change, stamp).await;
    assert_eq!(row.kind(), ChangeKind::UserDisabled, "the row says the worse of the two");
}
