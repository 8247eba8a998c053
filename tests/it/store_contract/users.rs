//! Adding users, finding them, listing them, removing them.

use futures_util::future::join_all;
use latchkey::domain::id::{Epoch, Position, UserId};
use latchkey::domain::session::{Death, EndReason};
use latchkey::domain::user::{Attributes, DisplayName, Roles, User, UserState};
use latchkey::store::{ChangeKind, CreateUser, NewUser, SessionKey, Store, UserKey};
use uuid::Uuid;

use super::samples::{
    NOW, add_user, at, head, log_after, new_user, only_row, raw_login, record, sign_in, stamp, user,
};
use crate::support::databases::{TestDatabase, on_each_engine};

on_each_engine![
    a_user_reads_back_as_written,
    values_at_their_limits_read_back,
    hostile_texts_read_back,
    login_names_are_compared_byte_for_byte,
    a_taken_login_or_id_is_told_and_nothing_changes,
    of_many_who_want_one_login_one_gets_it,
    the_unknown_is_not_there,
    adding_a_user_is_not_logged,
    pages_of_users_follow_each_other_without_gap_or_double,
    deleting_a_user_ends_every_session,
    a_deleted_users_names_are_free_and_the_old_sessions_stay_dead,
    deleting_nobody_is_not_logged,
];

/// Adds the user and answers what the store made of it.
async fn create(store: &dyn Store, new: NewUser) -> User {
    match store.create_user(new).await.expect("the store answers") {
        CreateUser::Created(user) => *user,
        other => panic!("a fresh user is created, not {other:?}"),
    }
}

/// Fails unless the user is found by both names, just as `expected` says.
async fn assert_reads_back(store: &dyn Store, expected: &User) {
    for key in [UserKey::Id(expected.id), UserKey::Login(&expected.login)] {
        let found = store.user(key).await.expect("the store answers").expect("the user is found");
        assert_eq!(&found, expected);
        let login = (found.login.display(), found.login.key());
        assert_eq!(login, (expected.login.display(), expected.login.key()), "`Debug` hides the names");
        let credentials =
            store.credentials(key).await.expect("the store answers").expect("the user is found");
        assert_eq!(&credentials.user, expected);
    }
}

async fn a_user_reads_back_as_written(db: &TestDatabase) {
    let store = db.open().await;
    let new = new_user("ada");
    let created = create(&store, new.clone()).await;
    let expected = User {
        id: new.id,
        login: new.login.clone(),
        display_name: new.display_name.clone(),
        state: UserState::Active,
        roles: new.roles.clone(),
        attributes: new.attributes.clone(),
        credential_epoch: Epoch::FIRST,
        password_epoch: Epoch::FIRST,
        create_time: NOW,
        update_time: NOW,
        password_time: Some(NOW),
    };
    assert_eq!(created, expected);
    assert_reads_back(&store, &expected).await;

    let robot = create(&store, NewUser { password_hash: None, ..new_user("robot") }).await;
    assert_eq!(robot.password_time, None, "no password, no time of it");
    assert_reads_back(&store, &robot).await;
}

async fn values_at_their_limits_read_back(db: &TestDatabase) {
    let store = db.open().await;
    // U+10FFFD takes four bytes, the most that any code point does.
    let widest = "\u{10fffd}";
    let roles: Vec<String> = (0..64).map(|n| format!("{n:0>64}")).collect();
    let attributes = (0..32).map(|n| (format!("{n:0>64}"), "v".repeat(192)));
    let largest = NewUser {
        login: raw_login(&widest.repeat(128)),
        display_name: DisplayName::parse(&widest.repeat(256)).expect("at the limit"),
        roles: Roles::parse(&roles).expect("at the limit"),
        attributes: Attributes::parse(attributes).expect("at the limit"),
        ..new_user("largest")
    };
    let longest_value = NewUser {
        attributes: Attributes::parse([("k", widest.repeat(128))]).expect("at the limit"),
        ..new_user("longest-value")
    };
    let smallest = NewUser {
        id: UserId::from_uuid(Uuid::nil()),
        login: raw_login("a"),
        display_name: DisplayName::default(),
        roles: Roles::default(),
        attributes: Attributes::parse([("k", "")]).expect("an empty value"),
        ..new_user("smallest")
    };
    let last = NewUser { id: UserId::from_uuid(Uuid::max()), ..new_user("last") };
    for new in [largest, longest_value, smallest, last] {
        let created = create(&store, new).await;
        assert_reads_back(&store, &created).await;
    }
}

async fn hostile_texts_read_back(db: &TestDatabase) {
    let store = db.open().await;
    let texts = [
        "'; DROP TABLE users; --",
        "\\",
        "\\'",
        "\"%_?$1:name{}",
        "\u{1f1e9}\u{1f1ea} \u{1f469}\u{200d}\u{1f680}",
        "e\u{301}",
        "\u{202e}right to left",
        " both ends ",
        "null",
    ];
    for text in texts {
        let new = NewUser {
            login: raw_login(text),
            display_name: DisplayName::parse(text).expect("one line"),
            attributes: Attributes::parse([("text", text), ("lines", "a\r\n\tb\u{1}")]).expect("attributes"),
            ..new_user("hostile")
        };
        let created = create(&store, new).await;
        assert_eq!(created.display_name.as_str(), text);
        assert_reads_back(&store, &created).await;
    }
}

async fn login_names_are_compared_byte_for_byte(db: &TestDatabase) {
    let store = db.open().await;
    // Each of these is taken for its neighbour by some collation of some database.
    let names = [
        "bob",
        "bob ",
        " bob",
        "Bob",
        "BOB",
        "bo",
        "bob\t",
        "b\u{f6}b",
        "bo\u{308}b",
        "\u{ff42}ob",
        "\u{df}",
        "ss",
        "\u{17f}s",
        "\u{e9}",
        "e\u{301}",
        "e",
        "\u{130}",
        "i",
        "\u{131}",
        "I",
        "\u{1f363}",
        "\u{1f37a}",
        "\u{3a3}",
        "\u{3c3}",
        "\u{3c2}",
        "bob%",
        "b_b",
        "bob\\",
        "1",
        "01",
        "1.0",
    ];
    let mut added = Vec::new();
    for name in names {
        added.push(add_user(&store, name).await);
    }
    for (name, user) in names.iter().zip(&added) {
        let login = raw_login(name);
        let found = store.user(UserKey::Login(&login)).await.expect("the store answers").expect("found");
        assert_eq!(found.id, user.id, "{name:?} found somebody else");
        let again = store.create_user(new_user(name)).await.expect("the store answers");
        assert_eq!(again, CreateUser::LoginTaken, "{name:?} twice");
    }
    for absent in ["", "bob  ", "bOb", "b%b", "E\u{301}", "%", "bob\u{200b}"] {
        let login = raw_login(absent);
        assert_eq!(store.user(UserKey::Login(&login)).await.expect("the store answers"), None, "{absent:?}");
    }
}

async fn a_taken_login_or_id_is_told_and_nothing_changes(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let same_login = NewUser { display_name: DisplayName::default(), ..new_user("ada") };
    assert_eq!(store.create_user(same_login.clone()).await.expect("an answer"), CreateUser::LoginTaken);
    let same_id = NewUser { id: ada.id, display_name: DisplayName::default(), ..new_user("bob") };
    assert_eq!(store.create_user(same_id.clone()).await.expect("an answer"), CreateUser::IdTaken);
    let same_both = NewUser { id: ada.id, ..same_login.clone() };
    let answer = store.create_user(same_both).await.expect("an answer");
    assert!(matches!(answer, CreateUser::LoginTaken | CreateUser::IdTaken), "{answer:?}");
    assert_reads_back(&store, &ada).await;
    let nobody = (UserKey::Id(same_login.id), UserKey::Login(&same_id.login));
    assert_eq!(store.user(nobody.0).await.expect("an answer"), None);
    assert_eq!(store.user(nobody.1).await.expect("an answer"), None);
}

async fn of_many_who_want_one_login_one_gets_it(db: &TestDatabase) {
    let store = db.open().await;
    let answers = join_all((0..12).map(|_| store.create_user(new_user("wanted")))).await;
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.expect("a race is not an error")).collect();
    let created: Vec<_> = answers
        .iter()
        .filter_map(|a| if let CreateUser::Created(user) = a { Some(user) } else { None })
        .collect();
    assert_eq!(created.len(), 1);
    assert_eq!(answers.iter().filter(|a| **a == CreateUser::LoginTaken).count(), 11);
    assert_reads_back(&store, created[0]).await;
}

async fn the_unknown_is_not_there(db: &TestDatabase) {
    let store = db.open().await;
    add_user(&store, "ada").await;
    let (unknown, login) = (new_user("nobody"), raw_login("nobody"));
    for key in [UserKey::Id(unknown.id), UserKey::Login(&login)] {
        assert_eq!(store.user(key).await.expect("an answer"), None);
        assert!(store.credentials(key).await.expect("an answer").is_none());
    }
}

async fn adding_a_user_is_not_logged(db: &TestDatabase) {
    let store = db.open().await;
    add_user(&store, "ada").await;
    assert_eq!(head(&store).await, Position::ZERO, "nobody's memory can hold somebody who was not there");
}

async fn pages_of_users_follow_each_other_without_gap_or_double(db: &TestDatabase) {
    let store = db.open().await;
    // Ids whose order differs when a database compares them as signed numbers, or as text.
    let firsts = [0x00_u8, 0x01, 0x09, 0x0a, 0x10, 0x7f, 0x80, 0x81, 0xa0, 0xf0, 0xff];
    let mut expected = Vec::new();
    for first in firsts {
        for last in [0xff_u8, 0x80, 0x7f, 0x00] {
            let mut bytes = [0x55; 16];
            (bytes[0], bytes[15]) = (first, last);
            let id = UserId::from_uuid(Uuid::from_bytes(bytes));
            create(&store, NewUser { id, ..new_user(&id.to_string()) }).await;
            expected.push(id);
        }
    }
    expected.sort_unstable();
    for limit in [1, 7, 44, 1_000] {
        let mut seen: Vec<UserId> = Vec::new();
        loop {
            let page = store.list_users(seen.last().copied(), limit).await.expect("a page");
            assert!(page.len() <= limit as usize);
            assert!(seen.len() + page.len() <= expected.len(), "an entry comes twice");
            if page.is_empty() {
                break;
            }
            seen.extend(page.iter().map(|user| user.id));
        }
        assert_eq!(seen, expected, "pages of {limit}");
    }
    let between = UserId::from_uuid(Uuid::from_bytes([0x60; 16]));
    let page = store.list_users(Some(between), 1).await.expect("a page");
    assert_eq!(page[0].id.as_uuid().as_bytes()[0], 0x7f, "a page may begin behind an id that is gone");
    assert_eq!(page[0], user(&store, page[0].id).await, "a page shows whole users");
}

async fn deleting_a_user_ends_every_session(db: &TestDatabase) {
    let store = db.open().await;
    let (ada, bob) = (add_user(&store, "ada").await, add_user(&store, "bob").await);
    let sessions = [sign_in(&store, &ada, at(1)).await, sign_in(&store, &ada, at(2)).await];
    let bystander = sign_in(&store, &bob, at(3)).await;
    let stamp = stamp(at(4));
    let change = store.delete_user(ada.id, stamp).await.expect("an answer").expect("a change");
    assert_eq!(change.ended, 2);
    let row = only_row(&store, Position::ZERO, &change, stamp).await;
    assert_eq!((row.kind(), row.user(), row.session()), (ChangeKind::UserDeleted, Some(ada.id), None));
    assert_eq!(row.epoch(), Some(ada.credential_epoch.next()), "a memory raises its own to this");
    for key in [UserKey::Id(ada.id), UserKey::Login(&ada.login)] {
        assert_eq!(store.user(key).await.expect("an answer"), None);
    }
    for session in &sessions {
        let record = record(&store, session.id).await;
        assert_eq!(record.user, None);
        let verdict = record.session.check(None, record.everyone_epoch, session.last_seen_time, at(5));
        assert_eq!(verdict, Err(Death::UserDisabled));
        assert_eq!(record.session.ended.map(|ended| ended.reason), Some(EndReason::UserDisabled));
    }
    assert_eq!(store.sessions_of_user(ada.id, None, 10, at(5)).await.expect("an answer"), []);
    assert_eq!(super::samples::verdict(&store, bystander.id, at(5)).await, Ok(()));
}

async fn a_deleted_users_names_are_free_and_the_old_sessions_stay_dead(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let session = super::samples::new_session(&ada, at(1));
    let digest = session.digest;
    super::samples::add(&store, session.clone()).await;
    store.delete_user(ada.id, stamp(at(2))).await.expect("an answer").expect("a change");
    let heir = create(&store, NewUser { id: ada.id, create_time: at(3), ..new_user("ada") }).await;
    assert_reads_back(&store, &heir).await;
    for key in [SessionKey::Id(session.session.id), SessionKey::Digest(digest)] {
        let record = store.session(key).await.expect("an answer").expect("the session is kept a while");
        let heir = record.user.as_ref();
        let verdict = record.session.check(heir, record.everyone_epoch, record.session.last_seen_time, at(4));
        assert!(verdict.is_err(), "a session of the deleted user lives on in the heir");
    }
    assert_eq!(store.sessions_of_user(ada.id, None, 10, at(4)).await.expect("an answer"), []);
}

async fn deleting_nobody_is_not_logged(db: &TestDatabase) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    store.delete_user(ada.id, stamp(at(1))).await.expect("an answer").expect("a change");
    let before = head(&store).await;
    for id in [ada.id, new_user("nobody").id] {
        assert_eq!(store.delete_user(id, stamp(at(2))).await.expect("an answer"), None);
    }
    assert_eq!(log_after(&store, before).await, []);
}
