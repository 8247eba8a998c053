//! Plays a step of a history on a real server, and keeps server and oracle in step: time moves for both at once.

use std::time::Duration;

use latchkey::grpc::proto::v1;
use latchkey::store::{SessionKey, Store as _};
use v1::change_password_request::Who;
use v1::revoke_sessions_request::Target;

use super::client::{Client, Outcome};
use super::operation::{Ending, Operation, Owner, PASSWORDS};
use super::oracle::{Oracle, login_of, user_id_of};
use crate::support::databases::TestDatabase;
use crate::support::server::TestServer;
use crate::support::waiting::eventually;

/// A server and the database that it can be started on again.
pub struct Player<'d> {
    database: &'d TestDatabase,
    server: TestServer,
}

impl<'d> Player<'d> {
    /// Plays on a server.
    pub const fn new(database: &'d TestDatabase, server: TestServer) -> Self {
        Self { database, server }
    }

    /// Moves the clock.
    pub async fn advance(&self, span: Duration, oracle: &mut Oracle) {
        self.server.advance(span).await;
        oracle.advance(span);
        self.settle(oracle).await;
    }

    /// Waits until each use of a session that is due is in the database. From then on whatever is decided there (how many
    /// sessions ended, which are listed) follows from what was asked, and not from when.
    pub async fn settle(&self, oracle: &mut Oracle) {
        for (id, seen) in oracle.uses_due() {
            eventually("a use is written down", async || {
                let record = self.server.store.session(SessionKey::Id(id)).await;
                let record = record.expect("the database answers");
                record.is_none_or(|record| record.session.last_seen_time >= seen)
            })
            .await;
            oracle.use_is_written(id);
        }
    }

    /// Plays a step, and says what came back.
    pub async fn play(self, operation: Operation, oracle: &mut Oracle) -> (Self, Outcome) {
        match operation {
            Operation::Advance { seconds } => {
                self.advance(Duration::from_secs(seconds), oracle).await;
                (self, Outcome::Nothing)
            }
            Operation::Restart => {
                let server = self.server.restart(self.database).await;
                oracle.all_uses_are_written();
                (Self { server, ..self }, Outcome::Nothing)
            }
            _ => {
                let mut client = Client::new(self.server.channel().await);
                let outcome = ask(&mut client, operation, oracle).await;
                (self, outcome)
            }
        }
    }

    pub async fn stop(self) {
        self.server.stop().await;
    }
}

async fn ask(client: &mut Client, operation: Operation, oracle: &Oracle) -> Outcome {
    let answer = match operation {
        Operation::CreateUser { login, id, password } => {
            let password = password.map_or("", |number| PASSWORDS[number]);
            client.create_user(login_of(login), user_id_of(id), password).await
        }
        Operation::LogIn { login, password, wish } => {
            client.log_in(login_of(login), PASSWORDS[password], wish).await
        }
        Operation::CreateSession { id, wish } => client.create_session(user_id_of(id), wish).await,
        Operation::Validate { who, max_auth_age } => client.validate(oracle.token(who), max_auth_age).await,
        Operation::Load { who } => client.load(oracle.token(who)).await,
        Operation::Revoke(ending) => client.revoke(target(ending, oracle)).await,
        Operation::ChangePassword { owner, current, new } => {
            let who = match owner {
                Owner::Session(who) => Who::SessionToken(oracle.token(who)),
                Owner::Login(login) => Who::Login(login_of(login)),
            };
            client.change_password(who, PASSWORDS[current], PASSWORDS[new]).await
        }
        Operation::SetPassword { id, new } => client.set_password(user_id_of(id), PASSWORDS[new]).await,
        Operation::Reauthenticate { who, password } => {
            client.reauthenticate(oracle.token(who), PASSWORDS[password]).await
        }
        Operation::SetActive { id, active } => client.set_active(user_id_of(id), active).await,
        Operation::DeleteUser { id } => client.delete_user(user_id_of(id)).await,
        Operation::ListSessions { id } => client.list_sessions(user_id_of(id)).await,
        Operation::Advance { .. } | Operation::Restart => Ok(Outcome::Nothing),
    };
    answer.into()
}

fn target(ending: Ending, oracle: &Oracle) -> Target {
    match ending {
        Ending::Token(who) => Target::SessionToken(oracle.token(who)),
        Ending::Session(number) => Target::SessionId(oracle.session_id(number)),
        Ending::User(id, except) => {
            let except = except.map(|number| oracle.session_id(number)).unwrap_or_default();
            Target::User(v1::UserSessions { user_id: user_id_of(id), except_session_id: except })
        }
        Ending::Everyone => Target::Everyone(v1::Everyone {}),
    }
}
