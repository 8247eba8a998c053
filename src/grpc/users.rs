//! `latchkey.admin.v1.UserService`: each handler reads the request, calls its use case, and writes the answer.

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use super::page::page_of;
use super::proto::admin::user_service_server::UserService;
use super::proto::admin::{self, get_user_request, import_user_result};
use super::proto::v1;
use super::refused_message::refusal_of_message;
use super::status::{code, message, reason, reply, status};
use super::wire::{self, Violations};
use crate::domain::id::UserId;
use crate::domain::invalid::FieldViolation;
use crate::domain::page;
use crate::domain::refusal::Refusal;
use crate::domain::user::{Attributes, DisplayName, Roles, User, UserState};
use crate::usecases::App;
use crate::usecases::create_user::{Profile, Secret, check_scheme, create_user, import};
use crate::usecases::delete_user::delete_user;
use crate::usecases::list_users::list_users;
use crate::usecases::load_user::{UserKey, load_user};
use crate::usecases::set_password::set_password;
use crate::usecases::update_user::{UserChange, update_user};

/// Rows of one import that are worked on at the same time.
const IMPORT_ROWS_IN_FLIGHT_MAX: usize = 8;
/// Rows of one import at most: the results come back in one message.
pub const IMPORT_ROWS_MAX: usize = 5_000;
const USERS: &str = "users";

/// The service over the use cases.
pub struct Users {
    app: Arc<App>,
}

impl Users {
    /// Serves `app`.
    pub fn new(app: Arc<App>) -> Self {
        Self { app }
    }

    async fn get(&self, request: admin::GetUserRequest) -> Result<admin::GetUserResponse, Refusal> {
        let mut wrong = Violations::default();
        let user = match request.by {
            Some(get_user_request::By::UserId(id)) => {
                let id = wrong.user_id("user_id", &id);
                load_user(&self.app, UserKey::Id(wrong.finish(id)?)).await?
            }
            Some(get_user_request::By::Login(login)) => {
                let login = wrong.login("login", &login);
                load_user(&self.app, UserKey::Login(&wrong.finish(login)?)).await?
            }
            None => {
                wrong.add("by", "must be set: exactly one of its choices");
                wrong.finish(None)?
            }
        };
        Ok(admin::GetUserResponse { user: Some(wire::user(&user)) })
    }

    async fn list(&self, request: admin::ListUsersRequest) -> Result<admin::ListUsersResponse, Refusal> {
        let mut wrong = Violations::default();
        let size = wrong.take("page_size", page::page_size(request.page_size));
        let after = wrong.take("page_token", page::after(USERS, &request.page_token));
        let (size, after) = wrong.finish(size.zip(after))?;
        // One entry more than asked for tells whether there is a next page.
        let users = list_users(&self.app, after.map(UserId::from_uuid), size + 1).await?;
        let token = |last: &User| page::page_token(USERS, last.id.as_uuid());
        let (users, next_page_token) = page_of(&users, size, wire::user, token);
        Ok(admin::ListUsersResponse { users, next_page_token })
    }

    async fn update(&self, request: admin::UpdateUserRequest) -> Result<admin::UpdateUserResponse, Refusal> {
        let mut wrong = Violations::default();
        let user = request.user.unwrap_or_default();
        let id = wrong.user_id("user.user_id", &user.user_id);
        let change = read_change(&mut wrong, &user, &request.update_mask.unwrap_or_default().paths);
        let (id, change) = wrong.finish(id.zip(Some(change)))?;
        let (user, change) = update_user(&self.app, id, change).await?;
        let (revoked_count, position) = (wire::count(change.ended), change.position.as_i64());
        Ok(admin::UpdateUserResponse { user: Some(wire::user(&user)), revoked_count, position })
    }

    async fn set_password(
        &self,
        request: admin::SetPasswordRequest,
    ) -> Result<admin::SetPasswordResponse, Refusal> {
        let mut wrong = Violations::default();
        let id = wrong.user_id("user_id", &request.user_id);
        let password = wrong.password("password", &request.password);
        let (id, password) = wrong.finish(id.zip(password))?;
        let change = set_password(&self.app, id, password).await?;
        Ok(admin::SetPasswordResponse {
            revoked_count: wire::count(change.ended),
            position: change.position.as_i64(),
        })
    }

    async fn delete(&self, request: admin::DeleteUserRequest) -> Result<admin::DeleteUserResponse, Refusal> {
        let mut wrong = Violations::default();
        let id = wrong.user_id("user_id", &request.user_id);
        let change = delete_user(&self.app, wrong.finish(id)?).await?;
        Ok(admin::DeleteUserResponse {
            revoked_count: wire::count(change.ended),
            position: change.position.as_i64(),
        })
    }
}

/// Reads what `mask` names of `user`; everything else is left alone.
fn read_change(wrong: &mut Violations, user: &v1::User, mask: &[String]) -> UserChange {
    let mut change = UserChange::default();
    if mask.is_empty() {
        wrong.add("update_mask", "must name at least one of login, display_name, state, roles, attributes");
    }
    for path in mask {
        match path.as_str() {
            "login" => change.login = wrong.login("user.login", &user.login),
            "display_name" => {
                change.display_name = wrong.take("user.display_name", DisplayName::parse(&user.display_name));
            }
            "roles" => change.roles = wrong.take("user.roles", Roles::parse(&user.roles)),
            "attributes" => {
                change.attributes = wrong.take("user.attributes", Attributes::parse(&user.attributes));
            }
            "state" => match v1::UserState::try_from(user.state) {
                Ok(v1::UserState::Active) => change.state = Some(UserState::Active),
                Ok(v1::UserState::Disabled) => change.state = Some(UserState::Disabled),
                Ok(v1::UserState::Unspecified) | Err(_) => {
                    wrong.add("user.state", "must be USER_STATE_ACTIVE or USER_STATE_DISABLED");
                }
            },
            _ => wrong
                .add("update_mask", "must name nothing but login, display_name, state, roles, attributes"),
        }
    }
    change
}

/// Reads a request to add a user, whether it came alone or in an import.
async fn create(app: &Arc<App>, request: admin::CreateUserRequest) -> Result<v1::User, Refusal> {
    let mut wrong = Violations::default();
    let secret = read_secret(&mut wrong, &request);
    let id = if request.user_id.is_empty() { None } else { wrong.user_id("user_id", &request.user_id) };
    let login = wrong.login("login", &request.login);
    let display_name = wrong.take("display_name", DisplayName::parse(&request.display_name));
    let roles = wrong.take("roles", Roles::parse(&request.roles));
    let attributes = wrong.take("attributes", Attributes::parse(&request.attributes));
    let ((login, display_name), (roles, attributes)) =
        wrong.finish(login.zip(display_name).zip(roles.zip(attributes)))?;
    let profile = Profile { id, login, display_name, roles, attributes };
    Ok(wire::user(&create_user(app, profile, secret).await?))
}

fn read_secret(wrong: &mut Violations, request: &admin::CreateUserRequest) -> Secret {
    let (password, hash, scheme) = (&request.password, &request.password_hash, &request.password_hash_scheme);
    if hash.is_empty() && !scheme.is_empty() {
        wrong.add("password_hash_scheme", "must be empty where there is no password_hash");
    }
    match (password.is_empty(), hash.is_empty()) {
        (true, true) => Secret::None,
        (false, true) => wrong.password("password", password).map_or(Secret::None, Secret::Password),
        (true, false) => {
            let known = wrong.take("password_hash_scheme", check_scheme(scheme));
            let taken = known.and_then(|()| wrong.take("password_hash", import(hash, scheme)));
            taken.map_or(Secret::None, Secret::Imported)
        }
        (false, false) => {
            wrong.add("password_hash", "must be empty where there is a password");
            Secret::None
        }
    }
}

/// Adds one row of an import; a refusal is a result too.
async fn import_row(app: &Arc<App>, row: admin::ImportUsersRequest) -> admin::ImportUserResult {
    let created = match row.user {
        Some(user) => create(app, user).await,
        None => Err(Refusal::field(FieldViolation::new("user", "must be set"))),
    };
    let result = match created {
        Ok(user) => import_user_result::Result::UserId(user.user_id),
        Err(refusal) => import_user_result::Result::Refused(admin::ImportRefused {
            code: code(&refusal) as i32,
            reason: reason(&refusal).into(),
            message: message(&refusal),
        }),
    };
    admin::ImportUserResult { result: Some(result) }
}

#[tonic::async_trait]
impl UserService for Users {
    async fn create_user(
        &self,
        request: Request<admin::CreateUserRequest>,
    ) -> Result<Response<admin::CreateUserResponse>, Status> {
        let created = create(&self.app, request.into_inner()).await;
        reply(created.map(|user| admin::CreateUserResponse { user: Some(user) }))
    }

    async fn get_user(
        &self,
        request: Request<admin::GetUserRequest>,
    ) -> Result<Response<admin::GetUserResponse>, Status> {
        reply(self.get(request.into_inner()).await)
    }

    async fn list_users(
        &self,
        request: Request<admin::ListUsersRequest>,
    ) -> Result<Response<admin::ListUsersResponse>, Status> {
        reply(self.list(request.into_inner()).await)
    }

    async fn update_user(
        &self,
        request: Request<admin::UpdateUserRequest>,
    ) -> Result<Response<admin::UpdateUserResponse>, Status> {
        reply(self.update(request.into_inner()).await)
    }

    async fn set_password(
        &self,
        request: Request<admin::SetPasswordRequest>,
    ) -> Result<Response<admin::SetPasswordResponse>, Status> {
        reply(self.set_password(request.into_inner()).await)
    }

    async fn delete_user(
        &self,
        request: Request<admin::DeleteUserRequest>,
    ) -> Result<Response<admin::DeleteUserResponse>, Status> {
        reply(self.delete(request.into_inner()).await)
    }

    async fn import_users(
        &self,
        request: Request<Streaming<admin::ImportUsersRequest>>,
    ) -> Result<Response<admin::ImportUsersResponse>, Status> {
        let rows = request.into_inner().take(IMPORT_ROWS_MAX + 1);
        let app = Arc::clone(&self.app);
        let results = rows.enumerate().map(move |(at, row)| {
            let app = Arc::clone(&app);
            async move {
                if at >= IMPORT_ROWS_MAX {
                    let limit = format!(
                        "must be at most {IMPORT_ROWS_MAX} in one import; those before this one are added"
                    );
                    return Err(status(&Refusal::field(FieldViolation::new("user", limit))));
                }
                let row = row.map_err(|broken| status(&refusal_of_message(&broken)))?;
                Ok(import_row(&app, row).await)
            }
        });
        let results: Vec<_> = results.buffered(IMPORT_ROWS_IN_FLIGHT_MAX).try_collect().await?;
        let created = |result: &&admin::ImportUserResult| {
            matches!(result.result, Some(import_user_result::Result::UserId(_)))
        };
        let created_count = wire::count(results.iter().filter(created).count() as u64);
        Ok(Response::new(admin::ImportUsersResponse { results, created_count }))
    }
}
