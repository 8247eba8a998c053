//! Reauthenticate and ChangePassword while somebody else changes the same user: whoever is overtaken is told the truth,
//! and goes through where nothing that matters to them changed.

use latchkey::grpc::proto::v1;
use latchkey::grpc::proto::v1::change_password_request::Who;
use latchkey::grpc::proto::v1::revoke_sessions_request::Target;
use tonic::{Code, Status};

use crate::support::databases::{Engine, TestDatabase};
use crate::support::interposed_store::shut_gate;
use crate::support::refusals::assert_refused;
use crate::support::server::{OTHER_PASSWORD, PASSWORD, TestServer};

/// Makes `call`, and lets `meanwhile` happen each time it is about to write by `step`, `rounds` times.
async fn overtaken<T>(
    server: &TestServer,
    step: &'static str,
    rounds: u64,
    call: impl Future<Output = T>,
    meanwhile: impl AsyncFn(),
) -> T {
    let (gate, fault) = shut_gate();
    let before = server.faults.calls(step);
    server.faults.set(step, fault);
    let meanwhile = async {
        for round in 1..=rounds {
            server.faults.asked_for(step, before + round).await;
            meanwhile().await;
            if round == rounds {
                server.faults.clear();
            }
            gate.add_permits(1);
        }
    };
    let (outcome, ()) = tokio::join!(call, meanwhile);
    outcome
}

/// A user with one session.
struct Ada {
    user: v1::User,
    session_id: String,
    token: String,
}

impl Ada {
    async fn sign_in(server: &TestServer) -> Self {
        let user = server.add_user("ada").await;
        let signed_in = server.log_in("ada").await;
        let session_id = signed_in.session.expect("a session").session_id;
        Self { user, session_id, token: signed_in.session_token }
    }

    /// Ends all her sessions but, perhaps, the first.
    async fn end_sessions(&self, server: &TestServer, spare: bool) {
        let except_session_id = if spare { self.session_id.clone() } else { String::new() };
        let all = v1::UserSessions { user_id: self.user.user_id.clone(), except_session_id };
        server.revoke(Target::User(all)).await.expect("ended");
    }

    async fn reauthenticate(&self, server: &TestServer) -> Result<String, Status> {
        let (session_token, password) = (self.token.clone(), PASSWORD.to_owned());
        let request = v1::ReauthenticateRequest { session_token, password, client: None };
        server.auth().await.reauthenticate(request).await.map(|answer| answer.into_inner().session_token)
    }

    fn by_token(&self) -> Who {
        Who::SessionToken(self.token.clone())
    }
}

fn by_login() -> Who {
    Who::Login("ada".to_owned())
}

async fn change_password(server: &TestServer, who: Who, new: &str) -> Result<String, Status> {
    let request = v1::ChangePasswordRequest {
        who: Some(who),
        current_password: PASSWORD.to_owned(),
        new_password: new.to_owned(),
        client: None,
    };
    server.auth().await.change_password(request).await.map(|answer| answer.into_inner().session_token)
}

#[tokio::test]
async fn a_session_that_was_spared_is_replaced_by_a_good_one() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = Ada::sign_in(&server).await;
    let spare = async || ada.end_sessions(&server, true).await;
    let token = overtaken(&server, "replace_session", 1, ada.reauthenticate(&server), spare).await;
    server.assert_good(&token.expect("the password is right, and the session stands")).await;
    server.assert_dead(&ada.token, "SESSION_REVOKED").await;
    assert_eq!(server.sessions(&ada.user.user_id).await.len(), 1);
}

#[tokio::test]
async fn a_session_that_ended_meanwhile_is_refused_with_the_reason_of_its_end() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = Ada::sign_in(&server).await;
    let change = async || {
        change_password(&server, by_login(), OTHER_PASSWORD).await.expect("changed");
    };
    let outcome = overtaken(&server, "replace_session", 1, ada.reauthenticate(&server), change).await;
    assert_refused(outcome, Code::Unauthenticated, "CREDENTIALS_CHANGED");

    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = Ada::sign_in(&server).await;
    let disable = async || {
        server.disable(&ada.user).await;
    };
    let call = change_password(&server, ada.by_token(), OTHER_PASSWORD);
    let outcome = overtaken(&server, "change_password", 1, call, disable).await;
    assert_refused(outcome, Code::Unauthenticated, "USER_DISABLED");

    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = Ada::sign_in(&server).await;
    let end = async || ada.end_sessions(&server, false).await;
    let call = change_password(&server, ada.by_token(), OTHER_PASSWORD);
    let outcome = overtaken(&server, "change_password", 1, call, end).await;
    assert_refused(outcome, Code::Unauthenticated, "SESSION_REVOKED");
    server.log_in("ada").await;
}

#[tokio::test]
async fn a_change_whose_password_is_still_right_goes_through() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = Ada::sign_in(&server).await;
    let spare = async || ada.end_sessions(&server, true).await;
    let call = change_password(&server, ada.by_token(), OTHER_PASSWORD);
    let token = overtaken(&server, "change_password", 1, call, spare).await.expect("changed");
    server.assert_good(&token).await;

    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = Ada::sign_in(&server).await;
    let end = async || ada.end_sessions(&server, false).await;
    let call = change_password(&server, by_login(), OTHER_PASSWORD);
    let token = overtaken(&server, "change_password", 1, call, end).await.expect("changed");
    server.assert_good(&token).await;
}

#[tokio::test]
async fn who_is_overtaken_again_and_again_is_asked_to_come_back() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = Ada::sign_in(&server).await;
    let spare = async || ada.end_sessions(&server, true).await;
    let outcome = overtaken(&server, "replace_session", 2, ada.reauthenticate(&server), &spare).await;
    assert_refused(outcome, Code::ResourceExhausted, "OVERLOADED");
    for who in [ada.by_token(), by_login()] {
        let call = change_password(&server, who, OTHER_PASSWORD);
        let outcome = overtaken(&server, "change_password", 2, call, &spare).await;
        assert_refused(outcome, Code::ResourceExhausted, "OVERLOADED");
    }
    server.assert_good(&ada.token).await;
    server.log_in("ada").await;
}
