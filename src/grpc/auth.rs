//! `latchkey.v1.AuthService`: each handler reads the request, calls its use case, and writes the answer.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::page::page_of;
use super::proto::v1::auth_service_server::AuthService;
use super::proto::v1::{self, change_password_request, load_user_request, revoke_sessions_request};
use super::refused_message::refusal_of_message;
use super::status::{code, message, reason, reply, retry_delay, status};
use super::wire::{self, Violations};
use crate::domain::id::SessionId;
use crate::domain::page;
use crate::domain::refusal::Refusal;
use crate::domain::session::{Methods, Session};
use crate::usecases::App;
use crate::usecases::change_password::{Passwords, change_password_by_login, change_password_by_token};
use crate::usecases::create_session::create_session;
use crate::usecases::list_sessions::list_sessions;
use crate::usecases::load_user::{UserKey, load_user, load_user_by_token};
use crate::usecases::log_in::log_in;
use crate::usecases::reauthenticate::reauthenticate;
use crate::usecases::revoke_sessions::{EndTarget, log_out, revoke_sessions};
use crate::usecases::sign_in::Terms;
use crate::usecases::validate_session::{Demands, Validated, validate_session};

/// Questions of one stream that are answered at the same time.
pub(super) const STREAM_QUESTIONS_IN_FLIGHT_MAX: usize = 32;
const SECOND: Duration = Duration::from_secs(1);
const EXACTLY_ONE: &str = "must be set: exactly one of its choices";

/// The service over the use cases.
pub struct Auth {
    app: Arc<App>,
    stop: CancellationToken,
}

impl Auth {
    /// Serves `app`; from `stop` on, streams take no more questions.
    pub fn new(app: Arc<App>, stop: CancellationToken) -> Self {
        Self { app, stop }
    }

    async fn log_in(&self, request: v1::LoginRequest) -> Result<v1::LoginResponse, Refusal> {
        let mut wrong = Violations::default();
        let login = wrong.login("login", &request.login);
        let password = wrong.password("password", &request.password);
        let lifetime = wrong.span("lifetime", request.lifetime, SECOND);
        let client = wire::client(request.client).unwrap_or_default();
        let (login, password) = wrong.finish(login.zip(password))?;
        let terms = Terms { methods: Methods::password(), remember: request.remember, lifetime, client };
        let (session_token, session, user) =
            wire::signed_in(&log_in(&self.app, &login, password, terms).await?);
        Ok(v1::LoginResponse { session_token, session, user })
    }

    async fn load_user(&self, request: v1::LoadUserRequest) -> Result<v1::LoadUserResponse, Refusal> {
        let mut wrong = Violations::default();
        let user = match request.by {
            Some(load_user_request::By::SessionToken(token)) => {
                return load_user_by_token(&self.app, &token, loaded).await;
            }
            Some(load_user_request::By::UserId(id)) => {
                let id = wrong.user_id("user_id", &id);
                load_user(&self.app, UserKey::Id(wrong.finish(id)?)).await?
            }
            Some(load_user_request::By::Login(login)) => {
                let login = wrong.login("login", &login);
                load_user(&self.app, UserKey::Login(&wrong.finish(login)?)).await?
            }
            None => {
                wrong.add("by", EXACTLY_ONE);
                wrong.finish(None)?
            }
        };
        Ok(v1::LoadUserResponse { user: Some(wire::user(&user)), session: None })
    }

    async fn revoke(
        &self,
        request: v1::RevokeSessionsRequest,
    ) -> Result<v1::RevokeSessionsResponse, Refusal> {
        let mut wrong = Violations::default();
        let target = match request.target {
            Some(revoke_sessions_request::Target::SessionToken(token)) => {
                if token.is_empty() {
                    wrong.add("session_token", "must not be empty");
                }
                wrong.finish(Some(()))?;
                let change = log_out(&self.app, &token).await?;
                return Ok(revoked(change.ended, change.position.as_i64()));
            }
            Some(revoke_sessions_request::Target::SessionId(id)) => {
                wrong.session_id("session_id", &id).map(EndTarget::Session)
            }
            Some(revoke_sessions_request::Target::User(sessions)) => {
                let user = wrong.user_id("user.user_id", &sessions.user_id);
                let except = &sessions.except_session_id;
                let except =
                    if except.is_empty() { None } else { wrong.session_id("user.except_session_id", except) };
                user.map(|user| EndTarget::User { user, except })
            }
            Some(revoke_sessions_request::Target::Everyone(v1::Everyone {})) => Some(EndTarget::Everyone),
            None => {
                wrong.add("target", EXACTLY_ONE);
                None
            }
        };
        let change = revoke_sessions(&self.app, wrong.finish(target)?).await?;
        Ok(revoked(change.ended, change.position.as_i64()))
    }

    async fn list(&self, request: v1::ListSessionsRequest) -> Result<v1::ListSessionsResponse, Refusal> {
        let mut wrong = Violations::default();
        let user = wrong.user_id("user_id", &request.user_id);
        let size = wrong.take("page_size", page::page_size(request.page_size));
        // Named by the id as we write it: in which case its digits were asked for makes no other list.
        let list = user.map(|user| format!("sessions of {user}")).unwrap_or_default();
        let after = wrong.take("page_token", page::after(&list, &request.page_token));
        let (user, (size, after)) = wrong.finish(user.zip(size.zip(after)))?;
        // One entry more than asked for tells whether there is a next page.
        let sessions = list_sessions(&self.app, user, after.map(SessionId::from_uuid), size + 1).await?;
        let (now, window) = (self.app.now(), self.app.session_policy.fresh_window);
        let message = |session: &Session| wire::session(session, session.is_fresh(window, now));
        let token = |last: &Session| page::page_token(&list, last.id.as_uuid());
        let (sessions, next_page_token) = page_of(&sessions, size, message, token);
        Ok(v1::ListSessionsResponse { sessions, next_page_token })
    }

    async fn reauthenticate(
        &self,
        request: v1::ReauthenticateRequest,
    ) -> Result<v1::ReauthenticateResponse, Refusal> {
        let mut wrong = Violations::default();
        let password = wrong.password("password", &request.password);
        let client = wire::client(request.client);
        let password = wrong.finish(password)?;
        let signed_in = reauthenticate(&self.app, &request.session_token, password, client).await?;
        let (session_token, session, user) = wire::signed_in(&signed_in);
        Ok(v1::ReauthenticateResponse { session_token, session, user })
    }

    async fn change_password(
        &self,
        request: v1::ChangePasswordRequest,
    ) -> Result<v1::ChangePasswordResponse, Refusal> {
        let mut wrong = Violations::default();
        let current = wrong.password("current_password", &request.current_password);
        let new = wrong.password("new_password", &request.new_password);
        let client = wire::client(request.client);
        let login = match &request.who {
            Some(change_password_request::Who::Login(login)) => wrong.login("login", login),
            Some(change_password_request::Who::SessionToken(_)) => None,
            None => {
                wrong.add("who", EXACTLY_ONE);
                None
            }
        };
        let (current, new) = wrong.finish(current.zip(new))?;
        let passwords = Passwords { current, new };
        let (signed_in, change) = match (request.who, login) {
            (_, Some(login)) => change_password_by_login(&self.app, &login, passwords, client).await?,
            (Some(change_password_request::Who::SessionToken(token)), None) => {
                change_password_by_token(&self.app, &token, passwords, client).await?
            }
            _ => return Err(Refusal::Internal),
        };
        let (session_token, session, user) = wire::signed_in(&signed_in);
        let (revoked_count, position) = (wire::count(change.ended), change.position.as_i64());
        Ok(v1::ChangePasswordResponse { session_token, session, user, revoked_count, position })
    }

    async fn create_session(
        &self,
        request: v1::CreateSessionRequest,
    ) -> Result<v1::CreateSessionResponse, Refusal> {
        let mut wrong = Violations::default();
        let user = wrong.user_id("user_id", &request.user_id);
        let methods = wrong.take("methods", Methods::parse(&request.methods));
        let lifetime = wrong.span("lifetime", request.lifetime, SECOND);
        let client = wire::client(request.client).unwrap_or_default();
        let (user, methods) = wrong.finish(user.zip(methods))?;
        let terms = Terms { methods, remember: request.remember, lifetime, client };
        let (session_token, session, user) = wire::signed_in(&create_session(&self.app, user, terms).await?);
        Ok(v1::CreateSessionResponse { session_token, session, user })
    }
}

/// Answers one question, whether it came alone or in a stream.
async fn validate(
    app: &Arc<App>,
    request: v1::ValidateSessionRequest,
) -> Result<v1::ValidateSessionResponse, Refusal> {
    let mut wrong = Violations::default();
    let max_auth_age = wrong.span("max_auth_age", request.max_auth_age, Duration::ZERO);
    let client = wire::client(request.client);
    wrong.finish(Some(()))?;
    validate_session(app, &request.session_token, &Demands { client, max_auth_age }, validated).await
}

fn validated(Validated { good, fresh }: Validated<'_>) -> v1::ValidateSessionResponse {
    v1::ValidateSessionResponse {
        session_id: good.id().to_string(),
        expire_time: Some(wire::timestamp(good.expire_time())),
        authenticate_time: Some(wire::timestamp(good.authenticate_time())),
        fresh,
        remembered: good.is_remembered(),
        ..wire::decode_principal(good.user_id(), good.user_encoded().principal())
    }
}

fn loaded(Validated { good, fresh }: Validated<'_>) -> v1::LoadUserResponse {
    let user = wire::decode_user(good.user_id(), good.user_encoded().whole());
    v1::LoadUserResponse { user: Some(user), session: Some(wire::session(&good.to_session(), fresh)) }
}

/// Answers one question of a stream; a refusal is an answer too.
pub(super) async fn answer(
    app: Arc<App>,
    question: v1::StreamValidateSessionsRequest,
) -> v1::StreamValidateSessionsResponse {
    use v1::stream_validate_sessions_response::Answer;
    let answer = match validate(&app, question.question.unwrap_or_default()).await {
        Ok(good) => Answer::Good(good),
        Err(refusal) => Answer::Refused(refused(&refusal)),
    };
    v1::StreamValidateSessionsResponse { tag: question.tag, answer: Some(answer) }
}

/// What an answer of a stream says of a question that is refused.
pub(super) fn refused(refusal: &Refusal) -> v1::QuestionRefused {
    v1::QuestionRefused {
        code: code(refusal) as i32,
        reason: reason(refusal).into(),
        message: message(refusal),
        retry_delay: retry_delay(refusal).map(wire::duration),
    }
}

fn revoked(ended: u64, position: i64) -> v1::RevokeSessionsResponse {
    v1::RevokeSessionsResponse { revoked_count: wire::count(ended), position }
}

#[tonic::async_trait]
impl AuthService for Auth {
    async fn login(&self, request: Request<v1::LoginRequest>) -> Result<Response<v1::LoginResponse>, Status> {
        reply(self.log_in(request.into_inner()).await)
    }

    async fn load_user(
        &self,
        request: Request<v1::LoadUserRequest>,
    ) -> Result<Response<v1::LoadUserResponse>, Status> {
        reply(self.load_user(request.into_inner()).await)
    }

    async fn validate_session(
        &self,
        request: Request<v1::ValidateSessionRequest>,
    ) -> Result<Response<v1::ValidateSessionResponse>, Status> {
        reply(validate(&self.app, request.into_inner()).await)
    }

    type StreamValidateSessionsStream =
        Pin<Box<dyn Stream<Item = Result<v1::StreamValidateSessionsResponse, Status>> + Send>>;

    async fn stream_validate_sessions(
        &self,
        request: Request<Streaming<v1::StreamValidateSessionsRequest>>,
    ) -> Result<Response<Self::StreamValidateSessionsStream>, Status> {
        let app = Arc::clone(&self.app);
        // A gateway holds its stream for ever, and a drain cannot wait for that: what was asked is answered, then it ends.
        let questions = request.into_inner().take_until(self.stop.clone().cancelled_owned());
        let answers = questions.map(move |question| {
            let app = Arc::clone(&app);
            async move {
                match question {
                    Ok(question) => Ok(answer(app, question).await),
                    Err(broken) => Err(status(&refusal_of_message(&broken))),
                }
            }
        });
        Ok(Response::new(Box::pin(answers.buffered(STREAM_QUESTIONS_IN_FLIGHT_MAX))))
    }

    async fn revoke_sessions(
        &self,
        request: Request<v1::RevokeSessionsRequest>,
    ) -> Result<Response<v1::RevokeSessionsResponse>, Status> {
        reply(self.revoke(request.into_inner()).await)
    }

    async fn list_sessions(
        &self,
        request: Request<v1::ListSessionsRequest>,
    ) -> Result<Response<v1::ListSessionsResponse>, Status> {
        reply(self.list(request.into_inner()).await)
    }

    async fn reauthenticate(
        &self,
        request: Request<v1::ReauthenticateRequest>,
    ) -> Result<Response<v1::ReauthenticateResponse>, Status> {
        reply(self.reauthenticate(request.into_inner()).await)
    }

    async fn change_password(
        &self,
        request: Request<v1::ChangePasswordRequest>,
    ) -> Result<Response<v1::ChangePasswordResponse>, Status> {
        reply(self.change_password(request.into_inner()).await)
    }

    async fn create_session(
        &self,
        request: Request<v1::CreateSessionRequest>,
    ) -> Result<Response<v1::CreateSessionResponse>, Status> {
        reply(self.create_session(request.into_inner()).await)
    }
}
