//! One call of each RPC that would succeed, as data: by it, what holds for every RPC alike is asked of every RPC.

use std::time::Duration;

use latchkey::grpc::proto::v1::stream_validate_sessions_response::Answer;
use latchkey::grpc::proto::{admin, v1};
use prost::Message;
use prost_types::FieldMask;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::contract::Contract;
use crate::support::raw_call::{RawAnswer, call_with, framed};
use crate::support::refusals::reason_of;
use crate::support::server::{OTHER_PASSWORD, PASSWORD, TestServer, log_in_request, new_user, open_request};
use crate::support::verdicts::question;

/// A call that succeeds, once.
pub struct Call {
    /// `Service/Method` without the package.
    pub name: &'static str,
    /// The message.
    pub request: Vec<u8>,
    /// The step of the store that writes, if one does.
    pub write: Option<&'static str>,
}

/// Why a call was refused, also where the refusal is an answer of a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// The code.
    pub code: Code,
    /// The reason.
    pub reason: String,
    /// For people.
    pub message: String,
    /// When to try again, where that is said.
    pub retry_delay: Option<Duration>,
}

impl Call {
    /// The path to post to.
    pub fn path(&self) -> String {
        let package = if self.name.starts_with("Auth") { "latchkey.v1" } else { "latchkey.admin.v1" };
        format!("/{package}.{}", self.name)
    }

    /// Makes the call.
    pub async fn make(&self, server: &TestServer) -> Result<(), Refused> {
        self.make_with(server, &[]).await
    }

    /// Makes the call with further headers.
    pub async fn make_with(&self, server: &TestServer, headers: &[(&str, &str)]) -> Result<(), Refused> {
        self.read(&call_with(server, &self.path(), headers, framed(&self.request)).await)
    }

    /// Reads how the call, or the one question in it, ended.
    fn read(&self, answer: &RawAnswer) -> Result<(), Refused> {
        if answer.status.code() != Code::Ok {
            let (code, reason) = reason_of(&answer.status);
            let retry_delay =
                answer.status.get_error_details().retry_info().and_then(|info| info.retry_delay);
            return Err(Refused { code, reason, message: answer.status.message().to_owned(), retry_delay });
        }
        let name =
            |reason: v1::ErrorReason| reason.as_str_name().trim_start_matches("ERROR_REASON_").to_owned();
        match self.name {
            "AuthService/StreamValidateSessions" => {
                let answer: v1::StreamValidateSessionsResponse = answer.outcome().expect("an answer");
                let Some(Answer::Refused(refused)) = answer.answer else { return Ok(()) };
                let retry_delay = refused.retry_delay.map(|delay| delay.try_into().expect("a span"));
                let (code, reason) = (refused.code.into(), name(refused.reason()));
                Err(Refused { code, reason, message: refused.message, retry_delay })
            }
            "UserService/ImportUsers" => {
                let answer: admin::ImportUsersResponse = answer.outcome().expect("an answer");
                let result = answer.results[0].result.clone();
                let Some(admin::import_user_result::Result::Refused(refused)) = result else { return Ok(()) };
                let (code, reason) = (refused.code.into(), name(refused.reason()));
                Err(Refused { code, reason, message: refused.message, retry_delay: None })
            }
            _ => Ok(()),
        }
    }

    /// Whether a refusal of this RPC can say when to try again.
    pub fn says_when_to_retry(&self) -> bool {
        self.name != "UserService/ImportUsers"
    }
}

/// One call of each RPC; each has a user of its own, so that they do not disturb each other. Each needs the database, also
/// those that memory answers.
pub async fn every_rpc(server: &TestServer) -> Vec<Call> {
    let mut calls = of_auth_service(server).await;
    calls.extend(of_user_service(server).await);
    calls.extend(of_fleet_service());
    calls
}

async fn of_auth_service(server: &TestServer) -> Vec<Call> {
    use v1::change_password_request::Who;
    use v1::load_user_request::By;
    use v1::revoke_sessions_request::Target;
    server.add_user("login").await;
    let load = server.add_bare_user("load").await;
    let user = server.add_bare_user("sessions").await;
    let (token, ended) = (server.open_session(&user).await.session_token, server.open_session(&user).await);
    let again = server.add_user("reauthenticate").await;
    let reauthenticate = server.open_session(&again).await;
    server.make_stale(&again).await;
    server.add_user("change").await;
    server.make_stale(&user).await;
    let load = v1::LoadUserRequest { by: Some(By::UserId(load.user_id)) };
    let list = v1::ListSessionsRequest { user_id: user.user_id.clone(), ..Default::default() };
    let target = Some(Target::SessionId(ended.session.expect("a session").session_id));
    let reauthenticate = v1::ReauthenticateRequest {
        session_token: reauthenticate.session_token,
        password: PASSWORD.to_owned(),
        client: None,
    };
    let change = v1::ChangePasswordRequest {
        who: Some(Who::Login("change".to_owned())),
        current_password: PASSWORD.to_owned(),
        new_password: OTHER_PASSWORD.to_owned(),
        client: None,
    };
    let asked = v1::StreamValidateSessionsRequest { tag: 1, question: Some(question(&token)) };
    vec![
        call("AuthService/Login", &log_in_request("login", PASSWORD), Some("create_session")),
        call("AuthService/LoadUser", &load, None),
        call("AuthService/ValidateSession", &question(&token), None),
        call("AuthService/StreamValidateSessions", &asked, None),
        call(
            "AuthService/RevokeSessions",
            &v1::RevokeSessionsRequest { target },
            Some("end_sessions_together"),
        ),
        call("AuthService/ListSessions", &list, None),
        call("AuthService/Reauthenticate", &reauthenticate, Some("replace_session")),
        call("AuthService/ChangePassword", &change, Some("change_password")),
        call("AuthService/CreateSession", &open_request(&user), Some("create_session")),
    ]
}

/// In the last one all sessions end.
fn of_fleet_service() -> [Call; 4] {
    let call = |name, request, write| Call { name, request, write };
    let lease_duration = Some(prost_types::Duration { seconds: 4, nanos: 0 });
    let lease = admin::SetLeaseRequest { lease_duration };
    [
        call("FleetService/ListNodes", admin::ListNodesRequest::default().encode_to_vec(), None),
        call("FleetService/SetLease", lease.encode_to_vec(), Some("change_lease")),
        call(
            "FleetService/ForgetTokenKey",
            admin::ForgetTokenKeyRequest { key_id: 255 }.encode_to_vec(),
            Some("forget_token_key"),
        ),
        call("FleetService/StartNewLog", admin::StartNewLogRequest {}.encode_to_vec(), Some("start_new_log")),
    ]
}

async fn of_user_service(server: &TestServer) -> Vec<Call> {
    use admin::get_user_request::By;
    let get = server.add_bare_user("get").await;
    let update = server.add_bare_user("update").await;
    let set = server.add_bare_user("set").await.user_id;
    let delete = server.add_bare_user("delete").await;
    let get = admin::GetUserRequest { by: Some(By::UserId(get.user_id)) };
    let update_mask = Some(FieldMask { paths: vec!["display_name".to_owned()] });
    let user = Some(v1::User { display_name: "Changed".to_owned(), ..update });
    let set = admin::SetPasswordRequest { user_id: set, password: PASSWORD.to_owned() };
    let import = admin::ImportUsersRequest { user: Some(new_user("imported", "")) };
    let update = admin::UpdateUserRequest { user, update_mask };
    let delete = admin::DeleteUserRequest { user_id: delete.user_id };
    vec![
        call("UserService/CreateUser", &new_user("created", ""), Some("create_user")),
        call("UserService/GetUser", &get, None),
        call("UserService/ListUsers", &admin::ListUsersRequest::default(), None),
        call("UserService/UpdateUser", &update, Some("update_user")),
        call("UserService/SetPassword", &set, Some("set_password")),
        call("UserService/DeleteUser", &delete, Some("delete_user")),
        call("UserService/ImportUsers", &import, Some("create_user")),
    ]
}

fn call(name: &'static str, request: &impl Message, write: Option<&'static str>) -> Call {
    Call { name, request: request.encode_to_vec(), write }
}

#[tokio::test]
async fn the_table_holds_every_rpc_and_each_call_succeeds() {
    use crate::support::databases::{Engine, TestDatabase};
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let calls = every_rpc(&server).await;
    let mut in_table: Vec<_> = calls.iter().map(|call| call.path()[1..].to_owned()).collect();
    let mut in_contract: Vec<_> = Contract::read().methods().into_iter().map(|(name, _)| name).collect();
    in_table.sort_unstable();
    in_contract.sort_unstable();
    assert_eq!(in_table, in_contract);
    for call in calls {
        assert_eq!(call.make(&server).await, Ok(()), "{}", call.name);
    }
}
