//! What each call must answer in the world of the oracle, and what it then changes there.

use latchkey::grpc::proto::v1;
use prost_types::Timestamp;
use tonic::Code;

use super::client::{Ended, Outcome};
use super::operation::{Ending, Operation, Owner, PASSWORDS, Presented, Wish};
use super::oracle::{Oracle, Signed, login_of, moment, user_id_of};

/// What was expected, where it did not come.
pub type Checked = Result<(), String>;

impl Oracle {
    /// Compares an answer with what this world says, and lets the world follow.
    pub fn check(&mut self, operation: Operation, outcome: &Outcome) -> Checked {
        match operation {
            Operation::CreateUser { login, id, password } => self.create_user(login, id, password, outcome),
            Operation::LogIn { login, password, wish } => self.log_in(login, password, wish, outcome),
            Operation::CreateSession { id, wish } => self.create_session(&user_id_of(id), wish, outcome),
            Operation::Validate { who, max_auth_age } => self.validate(who, max_auth_age, outcome),
            Operation::Load { who } => self.load(who, outcome),
            Operation::Revoke(ending) => self.revoke(ending, outcome),
            Operation::ChangePassword { owner, current, new } => {
                self.change_password(owner, current, new, outcome)
            }
            Operation::SetPassword { id, new } => self.set_password(&user_id_of(id), new, outcome),
            Operation::Reauthenticate { who, password } => self.reauthenticate(who, password, outcome),
            Operation::SetActive { id, active } => self.set_active(&user_id_of(id), active, outcome),
            Operation::DeleteUser { id } => self.delete_user(&user_id_of(id), outcome),
            Operation::ListSessions { id } => self.list_sessions(&user_id_of(id), outcome),
            Operation::Advance { .. } | Operation::Restart => Ok(()),
        }
    }

    fn create_user(&mut self, login: usize, id: usize, password: Option<usize>, got: &Outcome) -> Checked {
        let (id, login) = (user_id_of(id), login_of(login));
        if password.is_some_and(breaks_the_rules) {
            return refused(got, &["PASSWORD_REFUSED"]);
        }
        let mut taken = Vec::new();
        taken.extend(self.people.contains_key(&id).then_some("USER_ID_TAKEN"));
        taken.extend(self.by_login(&login).map(|_| "LOGIN_TAKEN"));
        if !taken.is_empty() {
            return refused(got, &taken);
        }
        let Outcome::UserMade(user) = got else { return expected("a new user") };
        same("the user", &(&user.user_id, &user.login), &(&id, &login))?;
        same("the state", &user.state(), &v1::UserState::Active)?;
        self.people.insert(id, super::oracle::Person { login, password, active: true });
        Ok(())
    }

    fn log_in(&mut self, login: usize, password: usize, wish: Wish, got: &Outcome) -> Checked {
        match self.owner_of(&login_of(login), password) {
            Some(user) => self.signed_in(&user, wish, got).map(drop),
            None => refused(got, &["INVALID_CREDENTIALS"]),
        }
    }

    fn create_session(&mut self, user: &str, wish: Wish, got: &Outcome) -> Checked {
        match self.people.get(user).map(|person| person.active) {
            None => refused(got, &["USER_NOT_FOUND"]),
            Some(false) => refused(got, &["USER_DISABLED"]),
            Some(true) => self.signed_in(user, wish, got).map(drop),
        }
    }

    fn validate(&mut self, who: Presented, max_auth_age: Option<i64>, got: &Outcome) -> Checked {
        let id = match self.verdict(who) {
            Ok(id) => id,
            Err(reasons) => return refused(got, &reasons),
        };
        let signed = &self.sessions[&id];
        if max_auth_age.is_some_and(|most| self.now - signed.proved > most) {
            return refused(got, &["REAUTHENTICATION_REQUIRED"]);
        }
        let Outcome::Good(good) = got else { return expected("a good session") };
        same("the session", &good.session_id, &id)?;
        same("the user", &good.user_id, &signed.user)?;
        same("the login", &good.login, &self.people[&signed.user].login)?;
        same("the end", &good.expire_time, &Some(timestamp(signed.expires)))?;
        same("the proof", &good.authenticate_time, &Some(timestamp(signed.proved)))?;
        let flags = (self.is_fresh(signed), signed.remembered);
        same("fresh and remembered", &(good.fresh, good.remembered), &flags)?;
        self.used(&id);
        Ok(())
    }

    fn load(&mut self, who: Presented, got: &Outcome) -> Checked {
        let id = match self.verdict(who) {
            Ok(id) => id,
            Err(reasons) => return refused(got, &reasons),
        };
        let Outcome::Loaded(user, session) = got else { return expected("a user and a session") };
        self.used(&id);
        same("the session", &session.session_id, &id)?;
        let signed = &self.sessions[&id];
        same("the user", &(&user.user_id, &session.user_id), &(&signed.user, &signed.user))?;
        same("the login", &user.login, &self.people[&signed.user].login)?;
        self.same_session(&id, session)
    }

    fn revoke(&mut self, ending: Ending, got: &Outcome) -> Checked {
        let Outcome::Ended(ended) = got else { return expected("sessions that ended") };
        let one = |oracle: &mut Self, number| {
            let Some(id) = oracle.id_of(number).cloned() else { return 0 };
            let good = oracle.stands(&oracle.sessions[&id]);
            oracle.end(&id, "SESSION_REVOKED");
            usize::from(good)
        };
        let count = match ending {
            // What is no token of ours names nothing, so the log has nothing to say about it.
            Ending::Token(Presented::Altered(_)) => return same("the count", &ended.count, &0),
            Ending::Token(Presented::Token(number)) | Ending::Session(number) => one(self, number),
            Ending::User(id, except) => {
                let except = except.and_then(|number| self.id_of(number).cloned());
                self.end_all_of(&user_id_of(id), except.as_deref(), "SESSION_REVOKED")
            }
            Ending::Everyone => self.end_everyone(),
        };
        let made_up = matches!(ending, Ending::Token(_)) && self.sessions.is_empty();
        if made_up { same("the count", &ended.count, &0) } else { self.took_away(count, *ended) }
    }

    fn change_password(&mut self, owner: Owner, current: usize, new: usize, got: &Outcome) -> Checked {
        if breaks_the_rules(new) {
            return refused(got, &["PASSWORD_REFUSED"]);
        }
        let (login, wish) = match owner {
            Owner::Login(login) => (login_of(login), Wish::PLAIN),
            Owner::Session(who) => match self.verdict(who) {
                Ok(id) => {
                    self.used(&id);
                    let signed = &self.sessions[&id];
                    (self.people[&signed.user].login.clone(), like(signed))
                }
                Err(reasons) => return refused(got, &reasons),
            },
        };
        let Some(user) = self.owner_of(&login, current) else {
            return refused(got, &["INVALID_CREDENTIALS"]);
        };
        let count = self.end_all_of(&user, None, "CREDENTIALS_CHANGED");
        self.person(&user).password = Some(new);
        let ended = self.signed_in(&user, wish, got)?;
        self.took_away(count, ended.ok_or("expected a count of ended sessions")?)
    }

    fn set_password(&mut self, user: &str, new: usize, got: &Outcome) -> Checked {
        if breaks_the_rules(new) {
            return refused(got, &["PASSWORD_REFUSED"]);
        }
        if !self.people.contains_key(user) {
            return refused(got, &["USER_NOT_FOUND"]);
        }
        let Outcome::Ended(ended) = got else { return expected("a password that is set") };
        self.person(user).password = Some(new);
        let count = self.end_all_of(user, None, "CREDENTIALS_CHANGED");
        self.took_away(count, *ended)
    }

    fn reauthenticate(&mut self, who: Presented, password: usize, got: &Outcome) -> Checked {
        let id = match self.verdict(who) {
            Ok(id) => id,
            Err(reasons) => return refused(got, &reasons),
        };
        self.used(&id);
        let (user, wish) = (self.sessions[&id].user.clone(), like(&self.sessions[&id]));
        if self.people[&user].password != Some(password) {
            return refused(got, &["INVALID_CREDENTIALS"]);
        }
        self.end(&id, "SESSION_REVOKED");
        self.signed_in(&user, wish, got).map(drop)
    }

    fn set_active(&mut self, user: &str, active: bool, got: &Outcome) -> Checked {
        if !self.people.contains_key(user) {
            return refused(got, &["USER_NOT_FOUND"]);
        }
        let Outcome::UserChanged(changed, ended) = got else { return expected("a changed user") };
        let state = if active { v1::UserState::Active } else { v1::UserState::Disabled };
        same("the state", &changed.state(), &state)?;
        let count = if active { 0 } else { self.end_all_of(user, None, "USER_DISABLED") };
        self.person(user).active = active;
        self.took_away(count, *ended)
    }

    fn delete_user(&mut self, user: &str, got: &Outcome) -> Checked {
        if !self.people.contains_key(user) {
            return refused(got, &["USER_NOT_FOUND"]);
        }
        let Outcome::Ended(ended) = got else { return expected("a deleted user") };
        let count = self.end_all_of(user, None, "USER_DISABLED");
        self.people.remove(user);
        self.took_away(count, *ended)
    }

    fn list_sessions(&mut self, user: &str, got: &Outcome) -> Checked {
        if !self.people.contains_key(user) {
            return refused(got, &["USER_NOT_FOUND"]);
        }
        let Outcome::Listed(sessions) = got else { return expected("a list of sessions") };
        let listed: Vec<_> = sessions.iter().map(|session| session.session_id.clone()).collect();
        same("the list", &listed, &self.standing_of(user))?;
        sessions.iter().try_for_each(|session| self.same_session(&session.session_id, session))
    }

    /// Compares an answer that signs somebody in, lets the session be, and gives what else the call took away.
    fn signed_in(&mut self, user: &str, wish: Wish, got: &Outcome) -> Result<Option<Ended>, String> {
        let Outcome::SignedIn { token, session, user: who, ended } = got else {
            return Err("expected a new session".to_owned());
        };
        same("the user", &(&who.user_id, &session.user_id), &(&user.to_owned(), &user.to_owned()))?;
        self.sign_in(session.session_id.clone(), token.clone(), user, wish);
        same("fresh", &session.fresh, &true)?;
        self.same_session(&session.session_id, session)?;
        Ok(*ended)
    }

    /// Compares what a session is said to be like.
    fn same_session(&self, id: &str, got: &v1::Session) -> Checked {
        let signed = &self.sessions[id];
        let flags = (self.is_fresh(signed), signed.remembered);
        same("fresh and remembered", &(got.fresh, got.remembered), &flags)?;
        same("the end", &got.expire_time, &Some(timestamp(signed.expires)))?;
        same("the proof", &got.authenticate_time, &Some(timestamp(signed.proved)))?;
        same("the last use", &got.last_seen_time, &Some(timestamp(signed.seen)))?;
        let idle_end = (signed.seen + signed.idle).min(signed.expires);
        same("the idle end", &got.idle_expire_time, &Some(timestamp(idle_end)))
    }

    /// Compares what a call says it took away: the count exactly, the position by its order.
    fn took_away(&mut self, count: usize, got: Ended) -> Checked {
        same("the count", &got.count, &i64::try_from(count).expect("a small count"))?;
        if got.position < self.position || (count > 0 && got.position == self.position) {
            return Err(format!("expected a position behind {}", self.position));
        }
        self.position = got.position;
        Ok(())
    }

    /// The active user of a login name whose password this is.
    fn owner_of(&self, login: &str, password: usize) -> Option<String> {
        self.by_login(login).filter(|id| {
            let person = &self.people[id];
            person.active && person.password == Some(password)
        })
    }

    fn person(&mut self, id: &str) -> &mut super::oracle::Person {
        self.people.get_mut(id).expect("a user of this history")
    }
}

fn breaks_the_rules(password: usize) -> bool {
    password == PASSWORDS.len() - 1
}

fn timestamp(seconds: i64) -> Timestamp {
    Timestamp { seconds: moment(seconds).as_secs(), nanos: 0 }
}

fn expected<T>(what: &str) -> Result<T, String> {
    Err(format!("expected {what}"))
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: &T, wanted: &T) -> Checked {
    if got == wanted { Ok(()) } else { Err(format!("expected {what} to be {wanted:?}, not {got:?}")) }
}

/// What takes the place of a session is remembered like it, and lives as long as it was given.
fn like(signed: &Signed) -> Wish {
    Wish { remember: signed.remembered, lifetime: Some(signed.lifetime) }
}

/// The refusals that fit, each with the code that the contract gives it.
fn refused(got: &Outcome, reasons: &[&str]) -> Checked {
    match got {
        Outcome::Refused(code, reason) if reasons.contains(&reason.as_str()) && *code == code_of(reason) => {
            Ok(())
        }
        _ => Err(format!("expected a refusal with {reasons:?}")),
    }
}

fn code_of(reason: &str) -> Code {
    match reason {
        "PASSWORD_REFUSED" => Code::InvalidArgument,
        "LOGIN_TAKEN" | "USER_ID_TAKEN" => Code::AlreadyExists,
        "USER_NOT_FOUND" => Code::NotFound,
        "REAUTHENTICATION_REQUIRED" => Code::FailedPrecondition,
        _ => Code::Unauthenticated,
    }
}
