//! UserService: adding, reading, listing, changing and removing users. What a new user may be like is asserted in
//! `create_user`, that sessions end with a user in `ending`.

use std::collections::HashMap;
use std::time::Duration;

use latchkey::grpc::proto::admin::get_user_request::By;
use latchkey::grpc::proto::{admin, v1};
use tonic::{Code, Response, Status};

use crate::support::databases::{Engine, TestDatabase};
use crate::support::refusals::{assert_blames, assert_refused};
use crate::support::server::{OTHER_PASSWORD, PASSWORD, TestServer, log_in_request, moment, new_user};

const ID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

/// What a path of the mask makes of a user.
type Change = fn(&mut v1::User);

async fn create(server: &TestServer, request: admin::CreateUserRequest) -> Result<v1::User, Status> {
    let created = server.users().await.create_user(request).await.map(Response::into_inner);
    created.map(|response| response.user.expect("a user"))
}

async fn get(server: &TestServer, by: By) -> Result<v1::User, Status> {
    let request = admin::GetUserRequest { by: Some(by) };
    let found = server.users().await.get_user(request).await.map(Response::into_inner);
    found.map(|response| response.user.expect("a user"))
}

#[tokio::test]
async fn a_user_is_answered_as_asked_and_read_back_the_same() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    server.advance(Duration::from_millis(1_500)).await;
    let request = admin::CreateUserRequest {
        display_name: "Ada Lovelace, née Byron".to_owned(),
        roles: vec!["b".to_owned(), "a".to_owned(), "b".to_owned()],
        attributes: HashMap::from([
            ("team".to_owned(), "blue\nsky".to_owned()),
            ("k".to_owned(), String::new()),
        ]),
        ..new_user("Ada@Example.org", PASSWORD)
    };
    let user = create(&server, request.clone()).await.expect("added");
    assert_eq!(uuid::Uuid::parse_str(&user.user_id).expect("a UUID").get_version_num(), 7);
    let now = moment(Duration::from_millis(1_500));
    let expected = v1::User {
        user_id: user.user_id.clone(),
        login: "Ada@Example.org".to_owned(),
        display_name: request.display_name,
        state: v1::UserState::Active.into(),
        roles: vec!["a".to_owned(), "b".to_owned()],
        attributes: request.attributes,
        create_time: now,
        update_time: now,
        password_time: now,
    };
    assert_eq!(user, expected);
    for by in [By::UserId(user.user_id.clone()), By::Login("ADA@example.ORG".to_owned())] {
        assert_eq!(get(&server, by).await.expect("known"), expected);
    }
    let server = server.restart(&database).await;
    assert_eq!(get(&server, By::UserId(user.user_id)).await.expect("known"), expected);
}

#[tokio::test]
async fn an_id_from_elsewhere_is_kept_and_taken_once() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let with_id =
        |login: &str, id: &str| admin::CreateUserRequest { user_id: id.to_owned(), ..new_user(login, "") };
    let user = create(&server, with_id("ada", ID)).await.expect("added");
    assert_eq!((user.user_id.as_str(), user.password_time), (ID, None));
    let taken = create(&server, with_id("bob", &ID.to_uppercase())).await;
    assert_refused(taken, Code::AlreadyExists, "USER_ID_TAKEN");
    let nil = create(&server, with_id("nil", &uuid::Uuid::nil().to_string())).await;
    nil.expect("any UUID is an id");
}

#[tokio::test]
async fn a_login_is_taken_however_it_is_written() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    server.add_bare_user("Zoë").await;
    let ada = server.add_bare_user("ada").await;
    for login in ["Zoë", "ZOË", "zoe\u{308}", "ｚoë"] {
        assert_refused(create(&server, new_user(login, "")).await, Code::AlreadyExists, "LOGIN_TAKEN");
        let renamed = v1::User { login: login.to_owned(), ..ada.clone() };
        assert_refused(server.update_user(renamed, &["login"]).await, Code::AlreadyExists, "LOGIN_TAKEN");
    }
    for other in ["zoe", "zoé", "Zoë2"] {
        create(&server, new_user(other, "")).await.expect("another login");
    }
    // Who changes only how the own name is written takes nobody's.
    let same = v1::User { login: "ADA".to_owned(), ..ada.clone() };
    let updated = server.update_user(same, &["login"]).await.expect("the own login").user.expect("a user");
    assert_eq!(updated.login, "ADA");
    server.delete(&ada).await;
    create(&server, new_user("ada", "")).await.expect("free again");
}

#[tokio::test]
async fn only_what_the_mask_names_changes() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let request = admin::CreateUserRequest {
        display_name: "Ada".to_owned(),
        roles: vec!["admin".to_owned()],
        attributes: HashMap::from([("k".to_owned(), "v".to_owned())]),
        ..new_user("ada", PASSWORD)
    };
    let mut known = create(&server, request).await.expect("added");
    let other = v1::User {
        user_id: known.user_id.clone(),
        login: "countess".to_owned(),
        display_name: String::new(),
        state: v1::UserState::Active.into(),
        roles: vec!["b".to_owned(), "a".to_owned()],
        attributes: HashMap::new(),
        ..v1::User::default()
    };
    let paths: [(&str, Change); 5] = [
        ("display_name", |user| user.display_name = String::new()),
        ("roles", |user| user.roles = vec!["a".to_owned(), "b".to_owned()]),
        ("attributes", |user| user.attributes = HashMap::new()),
        ("login", |user| "countess".clone_into(&mut user.login)),
        ("state", |_| ()),
    ];
    for (turn, (path, change)) in (1..).zip(paths) {
        server.advance(Duration::from_secs(1)).await;
        let updated = server.update_user(other.clone(), &[path]).await.expect(path);
        change(&mut known);
        known.update_time = moment(Duration::from_secs(turn));
        assert_eq!((updated.user.as_ref(), updated.revoked_count), (Some(&known), 0), "{path}");
        assert!(updated.position > 0);
        assert_eq!(get(&server, By::UserId(known.user_id.clone())).await.expect("known"), known, "{path}");
    }
    let twice = server.update_user(other, &["roles", "roles", "login"]).await.expect("named twice");
    assert_eq!(twice.user.expect("a user").roles, ["a", "b"]);
    server.auth().await.login(log_in_request("countess", PASSWORD)).await.expect("the password stays");
}

#[tokio::test]
async fn a_change_that_cannot_be_made_is_blamed_or_not_found() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let bad_state = |state: i32| v1::User { state, ..ada.clone() };
    let no_login = v1::User { login: String::new(), ..ada.clone() };
    let no_id = v1::User { user_id: String::new(), ..ada.clone() };
    for (user, paths, fields) in [
        (ada.clone(), &[][..], vec!["update_mask"]),
        (ada.clone(), &["password"], vec!["update_mask"]),
        (ada.clone(), &["user_id"], vec!["update_mask"]),
        (ada.clone(), &["user.login"], vec!["update_mask"]),
        (ada.clone(), &["*"], vec!["update_mask"]),
        (ada.clone(), &["login", ""], vec!["update_mask"]),
        (bad_state(0), &["state"], vec!["user.state"]),
        (bad_state(99), &["state"], vec!["user.state"]),
        (bad_state(-1), &["state"], vec!["user.state"]),
        (no_login, &["login"], vec!["user.login"]),
        (no_id, &["login"], vec!["user.user_id"]),
        (v1::User { roles: vec![String::new()], ..ada.clone() }, &["roles"], vec!["user.roles"]),
        (
            v1::User { display_name: "\0".to_owned(), ..ada.clone() },
            &["display_name"],
            vec!["user.display_name"],
        ),
    ] {
        assert_blames(server.update_user(user, paths).await, &fields);
    }
    // What the mask does not name is not read, however odd.
    let odd = v1::User { state: 99, roles: vec![String::new()], ..ada.clone() };
    server.update_user(odd, &["login"]).await.expect("only the login is read");
    let nobody = v1::User { user_id: ID.to_owned(), ..ada.clone() };
    assert_refused(server.update_user(nobody, &["login"]).await, Code::NotFound, "USER_NOT_FOUND");
    let nothing = admin::UpdateUserRequest { user: None, update_mask: None };
    let outcome = server.users().await.update_user(nothing).await;
    assert_blames(outcome, &["user.user_id", "update_mask"]);
}

#[tokio::test]
async fn lists_are_in_the_order_of_ids_and_paged() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let empty = server.first_page_of_users(0).await;
    assert_eq!((empty.users, empty.next_page_token.as_str()), (Vec::new(), ""));
    let mut all = Vec::new();
    for number in 0..53 {
        all.push(server.add_bare_user(&format!("user-{number}")).await);
    }
    all.sort_unstable_by(|one, other| one.user_id.cmp(&other.user_id));
    let page = async |page_size, page_token: &str| {
        let request = admin::ListUsersRequest { page_size, page_token: page_token.to_owned() };
        server.users().await.list_users(request).await.map(Response::into_inner)
    };
    for size in [0, 1, 20, 53, 1_000, i32::MAX] {
        let (mut walked, mut token) = (Vec::new(), String::new());
        loop {
            let next = page(size, &token).await.expect("a page");
            assert!(
                next.users.len() <= if size == 0 { 50 } else { usize::try_from(size).expect("positive") }
            );
            walked.extend(next.users);
            if next.next_page_token.is_empty() {
                break;
            }
            token = next.next_page_token;
        }
        assert_eq!(walked, all, "pages of {size}");
    }
    for (size, token, fields) in [
        (-1, "", vec!["page_size"]),
        (i32::MIN, "x", vec!["page_size", "page_token"]),
        (1, "nonsense", vec!["page_token"]),
        (1, ID, vec!["page_token"]),
    ] {
        assert_blames(page(size, token).await, &fields);
    }
}

#[tokio::test]
async fn who_is_not_there_cannot_be_read_given_a_password_or_removed() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    for by in [By::UserId(ID.to_owned()), By::Login("nobody".to_owned())] {
        assert_refused(get(&server, by).await, Code::NotFound, "USER_NOT_FOUND");
    }
    let set = async |user_id: &str, password: &str| {
        let (user_id, password) = (user_id.to_owned(), password.to_owned());
        server.users().await.set_password(admin::SetPasswordRequest { user_id, password }).await
    };
    let delete = async |user_id: &str| {
        let request = admin::DeleteUserRequest { user_id: user_id.to_owned() };
        server.users().await.delete_user(request).await
    };
    assert_refused(set(ID, PASSWORD).await, Code::NotFound, "USER_NOT_FOUND");
    assert_refused(delete(ID).await, Code::NotFound, "USER_NOT_FOUND");
    assert_blames(server.users().await.get_user(admin::GetUserRequest { by: None }).await, &["by"]);
    assert_blames(get(&server, By::UserId("x".to_owned())).await, &["user_id"]);
    assert_blames(get(&server, By::Login("a b".to_owned())).await, &["login"]);
    assert_blames(set("x", "").await, &["user_id", "password"]);
    assert_blames(delete("").await, &["user_id"]);
    assert_refused(set(ID, "short").await, Code::InvalidArgument, "PASSWORD_REFUSED");

    let ada = server.add_bare_user("ada").await;
    set(&ada.user_id, PASSWORD).await.expect("a first password");
    server.log_in("ada").await;
    set(&ada.user_id, OTHER_PASSWORD).await.expect("another one");
    let old = server.auth().await.login(log_in_request("ada", PASSWORD)).await;
    assert_refused(old, Code::Unauthenticated, "INVALID_CREDENTIALS");
    delete(&ada.user_id).await.expect("removed");
    assert_refused(delete(&ada.user_id).await, Code::NotFound, "USER_NOT_FOUND");
}
