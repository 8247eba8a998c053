//! One short call for each thing that a history does, over real gRPC.

use latchkey::grpc::proto::admin::user_service_client::UserServiceClient;
use latchkey::grpc::proto::v1::auth_service_client::AuthServiceClient;
use latchkey::grpc::proto::{admin, v1};
use prost_types::FieldMask;
use tonic::transport::Channel;
use tonic::{Code, Status};
use v1::change_password_request::Who;
use v1::load_user_request::By;
use v1::revoke_sessions_request::Target;

use super::operation::Wish;
use crate::support::refusals::reason_of;
use crate::support::server::span;

/// What the service answered.
#[derive(Debug)]
pub enum Outcome {
    Refused(Code, String),
    UserMade(v1::User),
    SignedIn {
        token: String,
        session: v1::Session,
        user: v1::User,
        ended: Option<Ended>,
    },
    Good(v1::ValidateSessionResponse),
    Loaded(v1::User, v1::Session),
    Ended(Ended),
    UserChanged(v1::User, Ended),
    Listed(Vec<v1::Session>),
    /// Nobody was asked.
    Nothing,
}

/// What a call took away.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    pub count: i64,
    pub position: i64,
}

impl From<Result<Self, Status>> for Outcome {
    fn from(answer: Result<Self, Status>) -> Self {
        answer.unwrap_or_else(|refused| {
            let (code, reason) = reason_of(&refused);
            Self::Refused(code, reason)
        })
    }
}

/// The two services.
#[derive(Clone)]
pub struct Client {
    auth: AuthServiceClient<Channel>,
    users: UserServiceClient<Channel>,
}

type Answer = Result<Outcome, Status>;

impl Client {
    pub fn new(channel: Channel) -> Self {
        Self { auth: AuthServiceClient::new(channel.clone()), users: UserServiceClient::new(channel) }
    }

    pub async fn create_user(&mut self, login: String, user_id: String, password: &str) -> Answer {
        let password = password.to_owned();
        let request = admin::CreateUserRequest { login, user_id, password, ..Default::default() };
        let made = self.users.create_user(request).await?.into_inner();
        Ok(Outcome::UserMade(made.user.expect("a user")))
    }

    /// Adds a user whose password is known by its hash, which takes no time.
    pub async fn import_user(&mut self, login: String, password_hash: &str) -> Answer {
        let password_hash = password_hash.to_owned();
        let request = admin::CreateUserRequest { login, password_hash, ..Default::default() };
        let made = self.users.create_user(request).await?.into_inner();
        Ok(Outcome::UserMade(made.user.expect("a user")))
    }

    pub async fn find_user(&mut self, login: String) -> Result<v1::User, Status> {
        let by = Some(admin::get_user_request::By::Login(login));
        let found = self.users.get_user(admin::GetUserRequest { by }).await?.into_inner();
        Ok(found.user.expect("a user"))
    }

    pub async fn log_in(&mut self, login: String, password: &str, wish: Wish) -> Answer {
        let request = v1::LoginRequest {
            login,
            password: password.to_owned(),
            remember: wish.remember,
            lifetime: wish.lifetime.map(|seconds| span(seconds, 0)),
            client: None,
        };
        let answer = self.auth.login(request).await?.into_inner();
        Ok(signed_in(answer.session_token, answer.session, answer.user, None))
    }

    pub async fn create_session(&mut self, user_id: String, wish: Wish) -> Answer {
        let request = v1::CreateSessionRequest {
            user_id,
            methods: vec!["otp".to_owned()],
            remember: wish.remember,
            lifetime: wish.lifetime.map(|seconds| span(seconds, 0)),
            client: None,
        };
        let answer = self.auth.create_session(request).await?.into_inner();
        Ok(signed_in(answer.session_token, answer.session, answer.user, None))
    }

    pub async fn validate(&mut self, session_token: String, max_auth_age: Option<i64>) -> Answer {
        let max_auth_age = max_auth_age.map(|seconds| span(seconds, 0));
        let request = v1::ValidateSessionRequest { session_token, max_auth_age, client: None };
        Ok(Outcome::Good(self.auth.validate_session(request).await?.into_inner()))
    }

    pub async fn load(&mut self, session_token: String) -> Answer {
        let request = v1::LoadUserRequest { by: Some(By::SessionToken(session_token)) };
        let loaded = self.auth.load_user(request).await?.into_inner();
        Ok(Outcome::Loaded(loaded.user.expect("a user"), loaded.session.expect("a session")))
    }

    pub async fn revoke(&mut self, target: Target) -> Answer {
        let request = v1::RevokeSessionsRequest { target: Some(target) };
        let answer = self.auth.revoke_sessions(request).await?.into_inner();
        Ok(Outcome::Ended(Ended { count: answer.revoked_count, position: answer.position }))
    }

    pub async fn change_password(&mut self, who: Who, current: &str, new: &str) -> Answer {
        let (current_password, new_password) = (current.to_owned(), new.to_owned());
        let request =
            v1::ChangePasswordRequest { who: Some(who), current_password, new_password, client: None };
        let answer = self.auth.change_password(request).await?.into_inner();
        let ended = Ended { count: answer.revoked_count, position: answer.position };
        Ok(signed_in(answer.session_token, answer.session, answer.user, Some(ended)))
    }

    pub async fn set_password(&mut self, user_id: String, password: &str) -> Answer {
        let request = admin::SetPasswordRequest { user_id, password: password.to_owned() };
        let answer = self.users.set_password(request).await?.into_inner();
        Ok(Outcome::Ended(Ended { count: answer.revoked_count, position: answer.position }))
    }

    pub async fn reauthenticate(&mut self, session_token: String, password: &str) -> Answer {
        let request =
            v1::ReauthenticateRequest { session_token, password: password.to_owned(), client: None };
        let answer = self.auth.reauthenticate(request).await?.into_inner();
        Ok(signed_in(answer.session_token, answer.session, answer.user, None))
    }

    pub async fn set_active(&mut self, user_id: String, active: bool) -> Answer {
        let state = if active { v1::UserState::Active } else { v1::UserState::Disabled };
        let request = admin::UpdateUserRequest {
            user: Some(v1::User { user_id, state: state.into(), ..Default::default() }),
            update_mask: Some(FieldMask { paths: vec!["state".to_owned()] }),
        };
        let answer = self.users.update_user(request).await?.into_inner();
        let ended = Ended { count: answer.revoked_count, position: answer.position };
        Ok(Outcome::UserChanged(answer.user.expect("a user"), ended))
    }

    pub async fn delete_user(&mut self, user_id: String) -> Answer {
        let answer = self.users.delete_user(admin::DeleteUserRequest { user_id }).await?.into_inner();
        Ok(Outcome::Ended(Ended { count: answer.revoked_count, position: answer.position }))
    }

    pub async fn list_sessions(&mut self, user_id: String) -> Answer {
        let request = v1::ListSessionsRequest { user_id, ..Default::default() };
        Ok(Outcome::Listed(self.auth.list_sessions(request).await?.into_inner().sessions))
    }
}

fn signed_in(
    token: String,
    session: Option<v1::Session>,
    user: Option<v1::User>,
    ended: Option<Ended>,
) -> Outcome {
    let (session, user) = (session.expect("a session"), user.expect("a user"));
    Outcome::SignedIn { token, session, user, ended }
}
