//! Calls that set the scene of a test: each succeeds, or the test has nothing to say.

use latchkey::grpc::proto::v1::revoke_sessions_request::Target;
use latchkey::grpc::proto::{admin, v1};
use prost_types::FieldMask;
use tonic::{Response, Status};

use super::server::{PASSWORD, TestServer, log_in_request, new_user, open_request};

impl TestServer {
    /// Changes something about the user, so that memory has to read the user anew before it answers for a session.
    pub async fn make_stale(&self, user: &v1::User) {
        let update_mask = Some(FieldMask { paths: vec!["display_name".to_owned()] });
        let user = Some(v1::User { display_name: "Changed before".to_owned(), ..user.clone() });
        let request = admin::UpdateUserRequest { user, update_mask };
        self.users().await.update_user(request).await.expect("the user is there");
    }

    /// Adds a user with [`PASSWORD`].
    pub async fn add_user(&self, login: &str) -> v1::User {
        self.create_user(new_user(login, PASSWORD)).await
    }

    /// Adds a user without a password, which takes no time.
    pub async fn add_bare_user(&self, login: &str) -> v1::User {
        self.create_user(new_user(login, "")).await
    }

    /// Adds a user as asked.
    pub async fn create_user(&self, request: admin::CreateUserRequest) -> v1::User {
        let response = self.users().await.create_user(request).await.expect("the user is added");
        response.into_inner().user.expect("an answer holds the user")
    }

    /// Signs in with [`PASSWORD`].
    pub async fn log_in(&self, login: &str) -> v1::LoginResponse {
        let request = log_in_request(login, PASSWORD);
        self.auth().await.login(request).await.expect("the sign-in succeeds").into_inner()
    }

    /// Signs a user in without a password, which takes no time.
    pub async fn open_session(&self, user: &v1::User) -> v1::CreateSessionResponse {
        self.create_session(open_request(user)).await
    }

    /// Signs a user in as asked.
    pub async fn create_session(&self, request: v1::CreateSessionRequest) -> v1::CreateSessionResponse {
        self.auth().await.create_session(request).await.expect("the session is made").into_inner()
    }

    /// Disables a user.
    pub async fn disable(&self, user: &v1::User) -> admin::UpdateUserResponse {
        let user = v1::User { state: v1::UserState::Disabled.into(), ..user.clone() };
        self.update_user(user, &["state"]).await.expect("the user is disabled")
    }

    /// Changes what `paths` name of a user.
    pub async fn update_user(
        &self,
        user: v1::User,
        paths: &[&str],
    ) -> Result<admin::UpdateUserResponse, Status> {
        let paths = paths.iter().map(|&path| path.to_owned()).collect();
        let request = admin::UpdateUserRequest { user: Some(user), update_mask: Some(FieldMask { paths }) };
        self.users().await.update_user(request).await.map(Response::into_inner)
    }

    /// Logs out.
    pub async fn log_out(&self, token: &str) -> v1::RevokeSessionsResponse {
        self.revoke(Target::SessionToken(token.to_owned())).await.expect("logged out")
    }

    /// Ends sessions.
    pub async fn revoke(&self, target: Target) -> Result<v1::RevokeSessionsResponse, Status> {
        let request = v1::RevokeSessionsRequest { target: Some(target) };
        self.auth().await.revoke_sessions(request).await.map(Response::into_inner)
    }

    /// Deletes a user.
    pub async fn delete(&self, user: &v1::User) -> admin::DeleteUserResponse {
        let request = admin::DeleteUserRequest { user_id: user.user_id.clone() };
        self.users().await.delete_user(request).await.expect("the user is deleted").into_inner()
    }

    /// The first page of all users.
    pub async fn first_page_of_users(&self, page_size: i32) -> admin::ListUsersResponse {
        let request = admin::ListUsersRequest { page_size, page_token: String::new() };
        self.users().await.list_users(request).await.expect("a list").into_inner()
    }

    /// The first page of the sessions of a user.
    pub async fn sessions(&self, user_id: &str) -> Vec<v1::Session> {
        let request = v1::ListSessionsRequest { user_id: user_id.to_owned(), ..Default::default() };
        self.auth().await.list_sessions(request).await.expect("a list").into_inner().sessions
    }
}
