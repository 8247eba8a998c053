//! Those who call until the node is gone. Each works on a user of its own, so that it knows what that user's state must be.

use latchkey::grpc::proto::v1;
use tonic::transport::Channel;
use v1::change_password_request::Who;
use v1::revoke_sessions_request::Target as Wanted;

use super::ledger::{Ledger, answered};
use super::{PASSWORD, PASSWORD_HASH};
use crate::history::books::Known;
use crate::history::checker::Target;
use crate::history::client::Client;
use crate::history::operation::Wish;
use crate::support::dice::Dice;

/// What a caller does all the time.
#[derive(Clone, Copy, Debug)]
pub enum Trade {
    SignsIn,
    ChangesPasswords,
    EndsSessions,
    AddsUsers,
}

/// One of many.
pub struct Caller<'l> {
    ledger: &'l Ledger,
    client: Client,
    dice: Dice,
    login: String,
    user: String,
}

/// The node is gone.
struct Gone;

impl<'l> Caller<'l> {
    /// A caller whose user is there, or is added.
    pub async fn new(ledger: &'l Ledger, channel: Channel, login: String, dice: Dice) -> Self {
        let mut client = Client::new(channel);
        let person = if let Some(person) = ledger.person(&login) {
            person
        } else {
            let made = client.import_user(login.clone(), PASSWORD_HASH).await.expect("the user is added");
            ledger.made(&made, Some(PASSWORD))
        };
        Self { ledger, client, dice, login, user: person.id }
    }

    /// Calls until nobody answers.
    pub async fn work(mut self, trade: Trade) {
        loop {
            let done = match trade {
                Trade::SignsIn => self.sign_in().await.map(drop),
                Trade::ChangesPasswords => self.change_password().await,
                Trade::EndsSessions => self.end_sessions().await,
                Trade::AddsUsers => self.add_user().await,
            };
            if let Err(Gone) = done {
                return;
            }
        }
    }

    async fn sign_in(&mut self) -> Result<Known, Gone> {
        let begin = self.ledger.books.tick();
        let answer = if self.dice.chance(25) {
            self.client.log_in(self.login.clone(), PASSWORD, Wish::PLAIN).await
        } else {
            self.client.create_session(self.user.clone(), Wish::PLAIN).await
        };
        let outcome = answered(answer).ok_or(Gone)?;
        Ok(self.ledger.signed_in(begin, &outcome, None))
    }

    async fn open_session(&mut self) -> Result<Known, Gone> {
        let begin = self.ledger.books.tick();
        let answer = self.client.create_session(self.user.clone(), Wish::PLAIN).await;
        let outcome = answered(answer).ok_or(Gone)?;
        Ok(self.ledger.signed_in(begin, &outcome, None))
    }

    async fn change_password(&mut self) -> Result<(), Gone> {
        self.open_session().await?;
        let person = self.ledger.person(&self.login).expect("the caller's own user");
        let current = person.passwords.last().expect("a password").clone();
        let new = format!("password of {} number {}", self.login, person.passwords.len());
        let (begin, all) = (self.ledger.books.tick(), Target::User { user: self.user.clone(), except: None });
        let answer = self.client.change_password(Who::Login(self.login.clone()), &current, &new).await;
        let Some(outcome) = answered(answer) else {
            self.ledger.perhaps_ended(begin, all);
            self.ledger.update(&self.login, |person| person.perhaps = Some(new));
            return Err(Gone);
        };
        self.ledger.signed_in(begin, &outcome, Some(all));
        self.ledger.update(&self.login, |person| person.passwords.push(new));
        Ok(())
    }

    async fn end_sessions(&mut self) -> Result<(), Gone> {
        let (one, other) = (self.open_session().await?, self.open_session().await?);
        let user = self.user.clone();
        let of_user = |except: Option<String>| {
            let except_session_id = except.clone().unwrap_or_default();
            let wanted = v1::UserSessions { user_id: user.clone(), except_session_id };
            (Wanted::User(wanted), Target::User { user: user.clone(), except })
        };
        let (wanted, target) = match self.dice.below(4) {
            0 => (Wanted::SessionToken(one.token), Target::Session(one.id)),
            1 => (Wanted::SessionId(one.id.clone()), Target::Session(one.id)),
            2 => of_user(Some(other.id)),
            _ => of_user(None),
        };
        let begin = self.ledger.books.tick();
        if answered(self.client.revoke(wanted).await).is_none() {
            self.ledger.perhaps_ended(begin, target);
            return Err(Gone);
        }
        self.ledger.ended(begin, target);
        Ok(())
    }

    async fn add_user(&mut self) -> Result<(), Gone> {
        let login = format!("{}-made-{:016x}", self.login, self.dice.number());
        let with_password = self.dice.chance(50);
        let answer = if with_password {
            self.client.import_user(login.clone(), PASSWORD_HASH).await
        } else {
            self.client.create_user(login.clone(), String::new(), "").await
        };
        let Some(outcome) = answered(answer) else {
            self.ledger.perhaps_made(login);
            return Err(Gone);
        };
        self.ledger.made(&outcome, with_password.then_some(PASSWORD));
        Ok(())
    }
}
