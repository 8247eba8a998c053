//! ImportUsers: one result a row, in order; a row that is refused does not stop the rest.

use latchkey::grpc::proto::admin::import_user_result::Result as Row;
use latchkey::grpc::proto::admin::{self, CreateUserRequest, ImportUsersRequest, ImportUsersResponse};
use latchkey::grpc::proto::v1;
use latchkey::grpc::users::IMPORT_ROWS_MAX;
use tonic::{Code, Response, Status};

use crate::support::databases::{Engine, TestDatabase};
use crate::support::interposed_store::Fault;
use crate::support::raw_call::{call_with, field, framed};
use crate::support::refusals::assert_blames;
use crate::support::server::{PASSWORD, TestServer, log_in_request, new_user};

async fn import(
    server: &TestServer,
    rows: Vec<Option<CreateUserRequest>>,
) -> Result<ImportUsersResponse, Status> {
    let rows = futures_util::stream::iter(rows.into_iter().map(|user| ImportUsersRequest { user }));
    server.users().await.import_users(rows).await.map(Response::into_inner)
}

#[expect(clippy::unnecessary_wraps, reason = "rows without a user are rows as well")]
fn row(login: &str) -> Option<CreateUserRequest> {
    Some(new_user(login, ""))
}

/// The reason of each row that was refused, and nothing for each that was added.
fn reasons(response: &ImportUsersResponse) -> Vec<Option<v1::ErrorReason>> {
    let results = response.results.iter().map(|result| result.result.as_ref().expect("a result"));
    let reason = |row: &Row| match row {
        Row::UserId(_) => None,
        Row::Refused(refused) => Some(refused.reason()),
    };
    results.map(reason).collect()
}

#[tokio::test]
async fn each_row_has_its_result_in_its_place() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let id = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    let with_id = |login: &str| Some(CreateUserRequest { user_id: id.to_owned(), ..new_user(login, "") });
    server.add_bare_user("taken").await;
    let bad = Some(CreateUserRequest { display_name: "\0".to_owned(), ..new_user("", "") });
    let rows = vec![
        with_id("ada"),
        row("taken"),
        bad,
        None,
        Some(new_user("eve", "short")),
        Some(new_user("bob", PASSWORD)),
    ];
    let response = import(&server, rows).await.expect("an answer");
    let expected = [
        None,
        Some(v1::ErrorReason::LoginTaken),
        Some(v1::ErrorReason::InvalidField),
        Some(v1::ErrorReason::InvalidField),
        Some(v1::ErrorReason::PasswordRefused),
        None,
    ];
    assert_eq!((reasons(&response), response.created_count), (expected.to_vec(), 2));
    assert_eq!(response.results[0].result, Some(Row::UserId(id.to_owned())));
    let refused = |at: usize| match &response.results[at].result {
        Some(Row::Refused(refused)) => (Code::from(refused.code), refused.message.as_str()),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(1).0, Code::AlreadyExists);
    let (code, message) = refused(2);
    assert!(code == Code::InvalidArgument && message.contains("login") && message.contains("display_name"));
    assert!(refused(3).1.contains("user"));
    assert!(refused(4).1.contains("15"));
    server.auth().await.login(log_in_request("bob", PASSWORD)).await.expect("bob is there");
    let again = import(&server, vec![with_id("ada"), row("bob")]).await.expect("an answer");
    let expected = [Some(v1::ErrorReason::UserIdTaken), Some(v1::ErrorReason::LoginTaken)];
    assert_eq!((reasons(&again), again.created_count), (expected.to_vec(), 0), "a row may be repeated");
}

#[tokio::test]
async fn of_two_rows_with_one_login_one_is_added() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let response = import(&server, vec![row("Ada"), row("ada"), row("ADA")]).await.expect("an answer");
    assert_eq!(response.created_count, 1);
    let taken = reasons(&response).iter().filter(|&&one| one == Some(v1::ErrorReason::LoginTaken)).count();
    assert_eq!(taken, 2);
}

#[tokio::test]
async fn no_rows_are_no_results() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    assert_eq!(import(&server, Vec::new()).await.expect("an answer"), ImportUsersResponse::default());
}

#[tokio::test]
async fn an_outage_in_the_middle_is_told_row_by_row() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    server.faults.set("create_user", Fault::Unavailable);
    let response = import(&server, vec![row("ada"), None]).await.expect("an answer");
    let expected = [Some(v1::ErrorReason::StoreUnavailable), Some(v1::ErrorReason::InvalidField)];
    assert_eq!(reasons(&response), expected);
}

#[tokio::test]
async fn an_import_is_bounded_and_what_came_before_the_bound_is_added() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    // Rows that are refused at once keep this quick; the first one is added.
    let mut rows = vec![None; IMPORT_ROWS_MAX];
    rows[0] = row("ada");
    let response = import(&server, rows.clone()).await.expect("as many as there may be");
    assert_eq!((response.results.len(), response.created_count), (IMPORT_ROWS_MAX, 1));
    rows[0] = row("bob");
    rows.push(None);
    assert_blames(import(&server, rows).await, &["user"]);
    assert_eq!(server.first_page_of_users(0).await.users.len(), 2, "bob is there as well");
}

#[tokio::test]
async fn a_row_that_cannot_be_read_ends_the_import_in_our_words() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let path = "/latchkey.admin.v1.UserService/ImportUsers";
    let bad_login = framed(&field(1, &field(1, b"\xff")));
    let answer = call_with(&server, path, &[], bad_login).await;
    assert_blames(answer.outcome::<()>(), &["user.login"]);
    let huge = framed(&field(1, &field(1, &vec![b'x'; 66_000])));
    assert_blames(call_with(&server, path, &[], huge).await.outcome::<()>(), &["request"]);
}

#[tokio::test]
async fn rows_beyond_those_in_flight_wait_for_their_turn() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let (gate, fault) = crate::support::interposed_store::shut_gate();
    server.faults.set("create_user", fault);
    let rows = (0..20).map(|number| row(&format!("user-{number}"))).collect();
    let opens = async {
        server.faults.asked_for("create_user", 8).await;
        let answered = server.first_page_of_users(0).await;
        assert_eq!(answered.users, [], "others are answered meanwhile");
        assert_eq!(server.faults.calls("create_user"), 8);
        gate.add_permits(20);
    };
    let (response, ()) = tokio::join!(import(&server, rows), opens);
    let response = response.expect("an answer");
    assert_eq!(response.created_count, 20);
    for (number, result) in response.results.iter().enumerate() {
        let Some(Row::UserId(id)) = &result.result else { panic!("{result:?}") };
        let by = Some(admin::get_user_request::By::UserId(id.clone()));
        let user = server.users().await.get_user(admin::GetUserRequest { by }).await.expect("known");
        assert_eq!(user.into_inner().user.expect("a user").login, format!("user-{number}"));
    }
}
