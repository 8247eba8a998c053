//! `user`: the people and robots that can sign in. Every command calls `latchkey.admin.v1.UserService`.

mod create;
mod delete;
mod get;
mod import;
mod list;
mod set_password;
mod state;

use clap::Subcommand;
use tonic::Code;

use super::connection::Server;
use super::failure::{Exit, Failure, Outcome};
use crate::domain::id::UserId;
use crate::grpc::proto::admin::GetUserRequest;
use crate::grpc::proto::admin::get_user_request::By;
use crate::grpc::proto::v1;

/// Manage the people and robots that can sign in.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    Create(create::Create),
    Get(get::Get),
    List(list::List),
    SetPassword(set_password::SetPassword),
    Disable(state::Disable),
    Enable(state::Enable),
    Delete(delete::Delete),
    Import(import::Import),
}

impl Command {
    pub(in crate::cli) fn run(self) -> Outcome {
        match self {
            Self::Create(command) => command.run(),
            Self::Get(command) => command.run(),
            Self::List(command) => command.run(),
            Self::SetPassword(command) => command.run(),
            Self::Disable(command) => command.run(),
            Self::Enable(command) => command.run(),
            Self::Delete(command) => command.run(),
            Self::Import(command) => command.run(),
        }
    }
}

/// Finds a user by what the person typed: an id, or else a login name.
pub(in crate::cli) async fn find(server: &Server, user: &str) -> Result<v1::User, Failure> {
    if UserId::parse(user).is_ok() {
        // A login name may look like an id.
        if let Some(user) = get(server, By::UserId(user.to_owned())).await? {
            return Ok(user);
        }
    }
    let found = get(server, By::Login(user.to_owned())).await?;
    found.ok_or_else(|| Failure::new(Exit::Refused, "no such user [USER_NOT_FOUND]"))
}

async fn get(server: &Server, by: By) -> Result<Option<v1::User>, Failure> {
    match server.users().get_user(GetUserRequest { by: Some(by) }).await {
        Ok(answer) => Ok(answer.into_inner().user),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status.into()),
    }
}
