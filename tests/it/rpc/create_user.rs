//! CreateUser: what a new user may be like, to the last character, and what a password may be like.

use std::collections::HashMap;

use latchkey::grpc::proto::{admin, v1};
use tonic::{Code, Response, Status};

use crate::support::databases::{Engine, TestDatabase};
use crate::support::raw_call::{call_with, field, framed};
use crate::support::refusals::{assert_blames, assert_refused, metadata};
use crate::support::server::{PASSWORD, TestServer, new_user};

const ID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

async fn create(server: &TestServer, request: admin::CreateUserRequest) -> Result<v1::User, Status> {
    let created = server.users().await.create_user(request).await.map(Response::into_inner);
    created.map(|response| response.user.expect("a user"))
}

#[tokio::test]
async fn limits_are_kept_to_the_last_character() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let strings = |count: usize| (0..count).map(|n| format!("role-{n}")).collect::<Vec<_>>();
    let pairs = |count: usize, size: usize| {
        (0..count).map(|n| (format!("k{n:02}"), "v".repeat(size))).collect::<HashMap<_, _>>()
    };
    let named = |display_name: String| admin::CreateUserRequest { display_name, ..new_user("x", "") };
    let roles = |roles| admin::CreateUserRequest { roles, ..new_user("x", "") };
    let attributes = |attributes| admin::CreateUserRequest { attributes, ..new_user("x", "") };
    let id = |id: &str| admin::CreateUserRequest { user_id: id.to_owned(), ..new_user("x", "") };
    for (request, field) in [
        (new_user("", ""), "login"),
        (new_user(&"x".repeat(129), ""), "login"),
        (new_user("a b", ""), "login"),
        (new_user("\0", ""), "login"),
        (new_user("x", &"p".repeat(4_097)), "password"),
        (named("x".repeat(257)), "display_name"),
        (named("a\nb".to_owned()), "display_name"),
        (named("a\0b".to_owned()), "display_name"),
        (roles(strings(65)), "roles"),
        (roles(vec![String::new()]), "roles"),
        (roles(vec!["r".repeat(65)]), "roles"),
        (roles(vec!["a b".to_owned()]), "roles"),
        (attributes(pairs(33, 1)), "attributes"),
        (attributes(pairs(1, 513)), "attributes"),
        (attributes(pairs(17, 500)), "attributes"),
        (attributes(HashMap::from([(String::new(), String::new())])), "attributes"),
        (attributes(HashMap::from([("k".to_owned(), "a\0b".to_owned())])), "attributes"),
        (id("ada"), "user_id"),
        (id("67e5504410b1426f9247bb680e5fe0c8"), "user_id"),
    ] {
        assert_blames(create(&server, request).await, &[field]);
    }
    assert!(server.faults.steps_of_calls().is_empty(), "nothing was asked of the database");

    let at_the_limit = admin::CreateUserRequest {
        login: "x".repeat(128),
        display_name: "ü".repeat(256),
        roles: strings(64),
        attributes: pairs(16, 509),
        user_id: ID.to_owned(),
        ..new_user("", &"p".repeat(256))
    };
    let user = create(&server, at_the_limit.clone()).await.expect("added");
    assert_eq!((user.roles.len(), user.attributes), (64, at_the_limit.attributes), "8192 bytes");
    let few_names = admin::CreateUserRequest { roles: vec!["r".repeat(64)], ..new_user("y", "") };
    create(&server, few_names).await.expect("64 characters");
    create(&server, admin::CreateUserRequest { attributes: pairs(32, 1), ..new_user("z", "") })
        .await
        .expect("32 entries");
    let key_that_is_no_text = field(7, &field(1, b"\xff"));
    let path = "/latchkey.admin.v1.UserService/CreateUser";
    let answer = call_with(&server, path, &[], framed(&key_that_is_no_text)).await;
    assert_blames(answer.outcome::<()>(), &["attributes"]);
}

#[tokio::test]
async fn new_passwords_keep_the_rules_and_imported_hashes_say_what_they_are() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    for (password, rule) in [("p".repeat(14), "TOO_SHORT"), ("p".repeat(257), "TOO_LONG")] {
        let outcome = create(&server, new_user("ada", &password)).await;
        let status = assert_refused(outcome, Code::InvalidArgument, "PASSWORD_REFUSED");
        assert_eq!(metadata(&status, "rule").as_deref(), Some(rule));
    }
    let hashed = |hash: &str, scheme: &str| admin::CreateUserRequest {
        password_hash: hash.to_owned(),
        password_hash_scheme: scheme.to_owned(),
        ..new_user("ada", "")
    };
    let phc =
        "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for (hash, scheme) in [
        ("x", ""),
        ("5f4dcc3b5aa765d61d8327deb882cf99", ""),
        ("$2b$12$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234", ""),
        (&phc.replace("v=19", "v=16"), ""),
        (&phc.replace("m=64", "m=4294967295"), ""),
        (&phc.repeat(20), ""),
    ] {
        assert_blames(create(&server, hashed(hash, scheme)).await, &["password_hash"]);
    }
    for scheme in ["rot13", "md5"] {
        assert_blames(create(&server, hashed(phc, scheme)).await, &["password_hash_scheme"]);
    }
    assert_blames(create(&server, hashed("", "argon2id")).await, &["password_hash_scheme"]);
    let both = admin::CreateUserRequest { password: PASSWORD.to_owned(), ..hashed(phc, "") };
    assert_blames(create(&server, both).await, &["password_hash"]);
    create(&server, hashed(phc, "argon2id")).await.expect("added");
}
