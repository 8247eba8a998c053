//! Secrets with marks on them go through every RPC, in good calls and bad ones, while everything is listened to: no mark
//! is in a log line, in a status, or in an answer that is not meant to hold it.

use latchkey::grpc::proto::v1::change_password_request::Who;
use latchkey::grpc::proto::v1::revoke_sessions_request::Target;
use latchkey::grpc::proto::{admin, v1};
use prost::Message;
use tonic::Code;

use super::every_rpc::every_rpc;
use crate::support::captured_log;
use crate::support::databases::{Engine, TestDatabase};
use crate::support::interposed_store::Fault;
use crate::support::raw_call::{RawAnswer, call_with, framed};
use crate::support::server::{TestServer, device, log_in_request, new_user};
use crate::support::verdicts::question;

/// The mark. It is in every password, in made-up tokens and hashes, in the key of the caller, and in the login names of
/// failed attempts, which may be passwords in the wrong box.
const MARK: &str = "Mk7Q";
const PASSWORD: &str = "Mk7Q the current password";
const NEW_PASSWORD: &str = "Mk7Q the new password";
const WRONG: &str = "Mk7Q a wrong password";
const MADE_UP_TOKEN: &str = "lk1_Mk7QMk7QMk7QMk7QMk7QMk7QMk7QMk7QMk7QMk7QMk7QMk7QMk7QMk7QMk7QMk7QMk7QMk7QMk7";
const HASH: &str =
    "$argon2id$v=19$m=64,t=1,p=1$Mk7QbWVzYWx0c29tZXNhbHQ$Mk7QAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// What was handed out and must not be told by anybody else.
struct Told {
    server: TestServer,
    tokens: Vec<String>,
}

impl Told {
    /// Makes a call and asserts that nothing of the answer but a token in its place is a secret.
    async fn call(&mut self, path: &str, request: &impl Message) -> RawAnswer {
        let key = [("authorization", "Bearer Mk7Q-the-key-of-the-caller")];
        let answer = call_with(&self.server, path, &key, framed(&request.encode_to_vec())).await;
        let status = &answer.status;
        let shown = format!("{status:?} {} {:?}", status.message(), answer.headers);
        let details = String::from_utf8_lossy(status.details()).into_owned();
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        for text in [&shown, &details, &body] {
            assert!(!text.contains(MARK), "{path}: {text}");
            assert!(!text.contains("$argon2"), "{path}: {text}");
        }
        for token in &self.tokens {
            for text in [&shown, &details, &body] {
                assert!(!text.contains(token.as_str()), "{path} tells an older token: {text}");
            }
        }
        answer
    }

    async fn auth(&mut self, method: &str, request: &impl Message) -> RawAnswer {
        self.call(&format!("/latchkey.v1.AuthService/{method}"), request).await
    }

    async fn users(&mut self, method: &str, request: &impl Message) -> RawAnswer {
        self.call(&format!("/latchkey.admin.v1.UserService/{method}"), request).await
    }

    /// Signs in and remembers the token.
    async fn log_in(&mut self, password: &str) -> String {
        let answer = self.auth("Login", &log_in_request("ada", password)).await;
        let token = answer.outcome::<v1::LoginResponse>().expect("signed in").session_token;
        self.tokens.push(token.clone());
        token
    }
}

fn change(who: Who, current: &str, new: &str) -> v1::ChangePasswordRequest {
    let (current_password, new_password) = (current.to_owned(), new.to_owned());
    v1::ChangePasswordRequest { who: Some(who), current_password, new_password, client: None }
}

fn prove(token: &str, password: &str) -> v1::ReauthenticateRequest {
    let (session_token, password) = (token.to_owned(), password.to_owned());
    v1::ReauthenticateRequest { session_token, password, client: None }
}

/// Everything that goes well and hands secrets in or out.
async fn good_calls(told: &mut Told) -> String {
    let created = told.users("CreateUser", &new_user("ada", PASSWORD)).await;
    let created: admin::CreateUserResponse = created.outcome().expect("added");
    let user_id = created.user.expect("a user").user_id;
    let hashed = admin::CreateUserRequest { password_hash: HASH.to_owned(), ..new_user("eve", "") };
    assert_eq!(told.users("CreateUser", &hashed).await.status.code(), Code::Ok);
    let row = admin::ImportUsersRequest { user: Some(new_user("bob", PASSWORD)) };
    assert_eq!(told.users("ImportUsers", &row).await.status.code(), Code::Ok);

    let token = told.log_in(PASSWORD).await;
    let by_token = v1::LoadUserRequest { by: Some(v1::load_user_request::By::SessionToken(token.clone())) };
    assert_eq!(told.auth("LoadUser", &by_token).await.status.code(), Code::Ok);
    assert_eq!(told.auth("ValidateSession", &question(&token)).await.status.code(), Code::Ok);
    let asked = v1::StreamValidateSessionsRequest { tag: 1, question: Some(question(&token)) };
    assert_eq!(told.auth("StreamValidateSessions", &asked).await.status.code(), Code::Ok);
    let list = v1::ListSessionsRequest { user_id: user_id.clone(), ..Default::default() };
    assert_eq!(told.auth("ListSessions", &list).await.status.code(), Code::Ok);
    let proved = told.auth("Reauthenticate", &prove(&token, PASSWORD)).await;
    let proved = proved.outcome::<v1::ReauthenticateResponse>().expect("proved").session_token;
    told.tokens.push(proved.clone());
    let changed =
        told.auth("ChangePassword", &change(Who::SessionToken(proved), PASSWORD, NEW_PASSWORD)).await;
    let changed = changed.outcome::<v1::ChangePasswordResponse>().expect("changed").session_token;
    told.tokens.push(changed.clone());
    let request = v1::CreateSessionRequest {
        user_id: user_id.clone(),
        methods: vec!["otp".to_owned()],
        ..Default::default()
    };
    let made = told.auth("CreateSession", &request).await;
    told.tokens.push(made.outcome::<v1::CreateSessionResponse>().expect("made").session_token);
    let log_out = v1::RevokeSessionsRequest { target: Some(Target::SessionToken(changed)) };
    assert_eq!(told.auth("RevokeSessions", &log_out).await.status.code(), Code::Ok);
    let set = admin::SetPasswordRequest { user_id: user_id.clone(), password: PASSWORD.to_owned() };
    assert_eq!(told.users("SetPassword", &set).await.status.code(), Code::Ok);
    user_id
}

/// Everything that is refused, for reasons that a careless author would explain with the value.
async fn bad_calls(told: &mut Told, user_id: &str, token: &str) {
    let long = MARK.repeat(1_100);
    for password in [WRONG, "", &long] {
        told.auth("Login", &log_in_request("ada", password)).await;
        told.auth("Login", &log_in_request("Mk7Q-typed-in-the-wrong-box", password)).await;
        told.auth("Login", &log_in_request("Mk7Q typed in the wrong box", password)).await;
        told.auth("Reauthenticate", &prove(token, password)).await;
        told.auth("ChangePassword", &change(Who::Login("ada".to_owned()), password, NEW_PASSWORD)).await;
        told.auth("ChangePassword", &change(Who::SessionToken(token.to_owned()), PASSWORD, password)).await;
        told.auth("ChangePassword", &change(Who::Login("Mk7Q".to_owned()), password, password)).await;
        let (id, password) = (user_id.to_owned(), password.to_owned());
        told.users("SetPassword", &admin::SetPasswordRequest { user_id: id, password }).await;
    }
    told.users("CreateUser", &new_user("new", "Mk7Q short")).await;
    let import = |hash: &str, scheme: &str| admin::CreateUserRequest {
        password_hash: hash.to_owned(),
        password_hash_scheme: scheme.to_owned(),
        ..new_user("new", "")
    };
    let odd = HASH.replace("m=64", "m=4294967295");
    for (hash, scheme) in [("Mk7Q", ""), (HASH, "Mk7Q"), (&odd, ""), (&HASH.replace("id$v", "i$v"), "")] {
        told.users("CreateUser", &import(hash, scheme)).await;
        told.users("ImportUsers", &admin::ImportUsersRequest { user: Some(import(hash, scheme)) }).await;
    }
    for token in [MADE_UP_TOKEN, &long, &format!("{token}{MARK}"), "Mk7Q\0"] {
        told.auth("ValidateSession", &question(token)).await;
        let device = Some(device("Mk7Q", "Mk7Q\n", ""));
        told.auth("ValidateSession", &v1::ValidateSessionRequest { client: device, ..question(token) }).await;
        let asked = v1::StreamValidateSessionsRequest { tag: 1, question: Some(question(token)) };
        told.auth("StreamValidateSessions", &asked).await;
        let by = v1::load_user_request::By::SessionToken(token.to_owned());
        told.auth("LoadUser", &v1::LoadUserRequest { by: Some(by) }).await;
        told.auth("Reauthenticate", &prove(token, WRONG)).await;
        let target = Some(Target::SessionToken(token.to_owned()));
        told.auth("RevokeSessions", &v1::RevokeSessionsRequest { target }).await;
        told.auth("ChangePassword", &change(Who::SessionToken(token.to_owned()), WRONG, NEW_PASSWORD)).await;
    }
}

#[tokio::test]
async fn no_secret_is_ever_told() {
    captured_log::listen();
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let mut told = Told { server, tokens: Vec::new() };
    let user_id = good_calls(&mut told).await;
    let token = told.log_in(PASSWORD).await;
    bad_calls(&mut told, &user_id, &token).await;
    for fault in [Fault::Unavailable, Fault::OutcomeUnknown, Fault::Corrupt] {
        told.server.faults.set("*", fault);
        bad_calls(&mut told, &user_id, &token).await;
        told.auth("Login", &log_in_request("ada", PASSWORD)).await;
        told.auth("ChangePassword", &change(Who::Login("ada".to_owned()), PASSWORD, NEW_PASSWORD)).await;
        told.server.faults.clear();
    }
    // Bytes that are no request hold secrets as well.
    for call in every_rpc(&told.server).await {
        let mut broken = call.request.clone();
        broken.extend(b"\x0a\x7fMk7Q");
        call_with(&told.server, &call.path(), &[], framed(&broken)).await;
    }
    let lines = captured_log::stop();
    assert!(lines.iter().any(|line| line.contains("answered")), "nobody listened");
    assert!(lines.iter().any(|line| line.contains("a fault of the test")), "nobody listened");
    for line in &lines {
        assert!(!line.contains(MARK), "{line}");
        assert!(!line.contains("$argon2"), "{line}");
        for token in &told.tokens {
            assert!(!line.contains(token.as_str()), "{line}");
        }
    }
}
