//! ListSessions: the standing sessions of a user, newest first, page by page.

use std::time::Duration;

use latchkey::grpc::proto::v1;
use tonic::Code;

use crate::support::databases::{Engine, TestDatabase};
use crate::support::refusals::{assert_blames, assert_refused};
use crate::support::server::{TestServer, device, moment, open_request};

async fn page(
    server: &TestServer,
    user_id: &str,
    page_size: i32,
    page_token: &str,
) -> Result<v1::ListSessionsResponse, tonic::Status> {
    let (user_id, page_token) = (user_id.to_owned(), page_token.to_owned());
    let request = v1::ListSessionsRequest { user_id, page_size, page_token };
    server.auth().await.list_sessions(request).await.map(tonic::Response::into_inner)
}

/// Signs in `count` times, a second apart, and gives the ids, newest first.
async fn sign_in_often(server: &TestServer, user: &v1::User, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..count {
        server.advance(Duration::from_secs(1)).await;
        ids.push(server.open_session(user).await.session.expect("a session").session_id);
    }
    ids.reverse();
    ids
}

fn ids(page: &v1::ListSessionsResponse) -> Vec<String> {
    page.sessions.iter().map(|session| session.session_id.clone()).collect()
}

#[tokio::test]
async fn an_entry_is_the_session_as_it_was_made() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let request = v1::CreateSessionRequest {
        methods: vec!["hwk".to_owned(), "fed".to_owned()],
        remember: true,
        client: Some(device("192.0.2.7", "Browser", "the red one")),
        ..open_request(&ada)
    };
    let made = server.create_session(request).await;
    let list = page(&server, &ada.user_id, 0, "").await.expect("a list");
    assert_eq!((list.sessions, list.next_page_token.as_str()), (vec![made.session.expect("a session")], ""));

    server.advance(Duration::from_secs(30)).await;
    server.assert_good(&made.session_token).await;
    let list = page(&server, &ada.user_id, 0, "").await.expect("a list");
    assert_eq!(list.sessions[0].last_seen_time, moment(Duration::from_secs(30)), "a use counts at once");
}

#[tokio::test]
async fn only_what_stands_is_listed_newest_first() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let (ada, bob) = (server.add_bare_user("ada").await, server.add_bare_user("bob").await);
    assert_eq!(server.sessions(&ada.user_id).await, [], "a user without sessions is no error");
    let of_ada = sign_in_often(&server, &ada, 3).await;
    sign_in_often(&server, &bob, 1).await;
    assert_eq!(ids(&page(&server, &ada.user_id, 0, "").await.expect("a list")), of_ada);

    let ended = v1::revoke_sessions_request::Target::SessionId(of_ada[1].clone());
    server.revoke(ended).await.expect("ended");
    let left = [of_ada[0].clone(), of_ada[2].clone()];
    assert_eq!(ids(&page(&server, &ada.user_id, 0, "").await.expect("a list")), left);
    server.disable(&ada).await;
    assert_eq!(server.sessions(&ada.user_id).await, []);
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_repetition() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start_with(&database, |config| config.session.per_user_max = 100).await;
    let ada = server.add_bare_user("ada").await;
    let all = sign_in_often(&server, &ada, 53).await;

    let first = page(&server, &ada.user_id, 0, "").await.expect("a page");
    assert_eq!(ids(&first), all[..50], "50 when the caller does not say");
    let last = page(&server, &ada.user_id, 0, &first.next_page_token).await.expect("a page");
    assert_eq!((ids(&last).as_slice(), last.next_page_token.as_str()), (&all[50..], ""));

    for size in [1, 52, 53, 1_000, 1_001, i32::MAX] {
        let (mut walked, mut token, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let next = page(&server, &ada.user_id, size, &token).await.expect("a page");
            walked.extend(ids(&next));
            pages += 1;
            if next.next_page_token.is_empty() {
                break;
            }
            token = next.next_page_token;
        }
        assert_eq!(walked, all, "pages of {size}");
        assert_eq!(pages, 53_usize.div_ceil(usize::try_from(size).expect("positive")), "pages of {size}");
    }
}

#[tokio::test]
async fn an_entry_that_ends_between_two_pages_moves_no_other() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let all = sign_in_often(&server, &ada, 4).await;
    let first = page(&server, &ada.user_id, 2, "").await.expect("a page");
    let last_of_it = v1::revoke_sessions_request::Target::SessionId(all[1].clone());
    server.revoke(last_of_it).await.expect("ended");
    let second = page(&server, &ada.user_id, 2, &first.next_page_token).await.expect("a page");
    assert_eq!(ids(&second), all[2..]);
}

#[tokio::test]
async fn a_page_token_belongs_to_its_list() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let (ada, bob) = (server.add_bare_user("ada").await, server.add_bare_user("bob").await);
    let all = sign_in_often(&server, &ada, 2).await;
    sign_in_often(&server, &bob, 2).await;
    let token = page(&server, &ada.user_id, 1, "").await.expect("a page").next_page_token;
    let of_users = server.first_page_of_users(1).await.next_page_token;
    assert!(!token.is_empty() && !of_users.is_empty());
    assert_blames(page(&server, &bob.user_id, 1, &token).await, &["page_token"]);
    for bad in [of_users.as_str(), "x", &token[1..], &token.repeat(2), &all[0], "\0", &"A".repeat(9_000)] {
        assert_blames(page(&server, &ada.user_id, 1, bad).await, &["page_token"]);
    }
    // The id is the same whatever the case of its digits; so is its list.
    let upper = page(&server, &ada.user_id.to_uppercase(), 1, &token).await.expect("a page");
    assert_eq!(ids(&upper), all[1..]);
}

#[tokio::test]
async fn who_is_unknown_is_not_found_and_what_is_out_of_bounds_is_blamed() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let nobody = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    assert_refused(page(&server, nobody, 0, "").await, Code::NotFound, "USER_NOT_FOUND");
    server.delete(&ada).await;
    assert_refused(page(&server, &ada.user_id, 0, "").await, Code::NotFound, "USER_NOT_FOUND");
    assert_blames(page(&server, nobody, -1, "").await, &["page_size"]);
    assert_blames(page(&server, nobody, i32::MIN, "").await, &["page_size"]);
    assert_blames(page(&server, "", 0, "").await, &["user_id"]);
    assert_blames(page(&server, "ada", -1, "x").await, &["user_id", "page_size", "page_token"]);
}
