//! Many calls at a time on few users: no answer can be foretold, but each session's life must make sense.

use std::sync::Arc;

use futures_util::future::join_all;
use latchkey::config::Config;
use latchkey::grpc::proto::v1;
use latchkey::store::Store;
use tonic::Code;
use v1::change_password_request::Who;
use v1::revoke_sessions_request::Target as Wanted;

use super::books::{Books, Known};
use super::checker::{self, Answer, Call, Event, Summary, Target, Violation};
use super::client::{Client, Outcome};
use super::faulty_store::{FaultyStore, Flaw};
use super::operation::{PASSWORDS, Wish};
use super::oracle::{login_of, user_id_of};
use crate::support::databases::{Engine, TestDatabase, on_each_engine};
use crate::support::dice::{Dice, replay, seeds};
use crate::support::server::{TestServer, config, forgetful, key_ring};

/// Callers at a time.
const CALLERS: usize = 12;
/// Users that they share.
const USERS: usize = 4;

on_each_engine!(every_life_of_a_session_makes_sense);

async fn every_life_of_a_session_makes_sense(db: &TestDatabase) {
    let calls = if db.engine() == Engine::Sqlite { 100 } else { 60 };
    for seed in seeds(1) {
        let own = TestDatabase::create(db.engine()).await;
        // Half of the time memory has room for next to nothing: that never changes an answer.
        let config = if seed % 2 == 0 { config() } else { forgetful(config()) };
        let history = play(&own, seed, calls, config, |store| store).await;
        let violations = checker::check(&history);
        let summary = Summary::of(&history, &violations);
        println!("{}: seed {seed}: {summary}", db.engine());
        assert!(violations.is_empty(), "{violations:#?}; {}", replay(seed));
        // How the callers overlap is chance; by far the most of these are met twice over.
        let many = history.len() / 20;
        assert!(summary.count("accepted") > many && summary.count("refused") > many, "too poor: {summary}");
        assert_eq!(summary.count("unavailable"), 0, "nothing was taken away");
        own.discard().await;
    }
}

/// The same on stores that do what they must not; the checker has to see it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_violation_is_noticed() {
    // How the callers overlap is chance, so several histories are played until one shows it.
    let found = async |flaw, which: fn(&Violation) -> bool| {
        for seed in 1..=8 {
            let db = TestDatabase::create(Engine::Sqlite).await;
            let config = forgetful(config());
            let history = play(&db, seed, 40, config, |store| FaultyStore::over(store, flaw)).await;
            if checker::check(&history).iter().any(which) {
                return true;
            }
        }
        false
    };
    let accepted: fn(&Violation) -> bool = |one| matches!(one, Violation::AcceptedAfterRevocation { .. });
    let again: fn(&Violation) -> bool = |one| matches!(one, Violation::AcceptedAfterRefusal { .. });
    assert!(found(Flaw::ForgetsEveryThirdEnding, accepted).await);
    assert!(found(Flaw::CachesSessions, accepted).await);
    assert!(found(Flaw::CachesSessionsNowAndThen, again).await);
}

/// Plays a history of `calls` for each caller, and asks for each session once more at the end.
async fn play(
    db: &TestDatabase,
    seed: u64,
    calls: usize,
    mut config: Config,
    over: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
) -> Vec<Call> {
    config.session.per_user_max = 10_000;
    let server = TestServer::try_start_over(db, &config, Arc::default(), key_ring(), over).await;
    let server = server.expect("the server starts");
    let books = Books::default();
    for number in 0..USERS {
        let mut caller = Caller::new(&books, &server, Dice::new(seed)).await;
        caller.create_user(number).await;
    }
    let callers = (0..CALLERS).map(async |number| {
        let dice = Dice::new(seed ^ (number as u64) << 32);
        let mut caller = Caller::new(&books, &server, dice).await;
        for _ in 0..calls {
            caller.act().await;
        }
    });
    join_all(callers).await;
    let mut last = Caller::new(&books, &server, Dice::new(seed)).await;
    for session in books.sessions() {
        last.ask(&session).await;
    }
    server.stop().await;
    books.history()
}

/// One of many who call.
struct Caller<'w> {
    books: &'w Books,
    client: Client,
    dice: Dice,
}

impl<'w> Caller<'w> {
    /// A caller with a connection of its own.
    async fn new(books: &'w Books, server: &TestServer, dice: Dice) -> Self {
        Self { books, client: Client::new(server.new_channel().await), dice }
    }

    async fn act(&mut self) {
        let user = self.dice.below(USERS);
        let known = self.known();
        match (self.dice.below(200), known) {
            (0..110, Some(session)) => self.ask(&session).await,
            (110..114, Some(session)) => self.reauthenticate(&session).await,
            (114..124, Some(Known { token, id, .. })) => {
                self.revoke(Wanted::SessionToken(token), Target::Session(id)).await;
            }
            (124..130, Some(Known { id, .. })) => {
                self.revoke(Wanted::SessionId(id.clone()), Target::Session(id)).await;
            }
            (130..134, Some(Known { id, user, .. })) => self.revoke_user(user, Some(id)).await,
            (134..136, _) => self.revoke_user(user_id_of(user), None).await,
            (136, _) => self.revoke(Wanted::Everyone(v1::Everyone {}), Target::Everyone).await,
            (137..139, _) => self.change_password(user).await,
            (139, _) => self.set_password(user).await,
            (140..142, _) => self.disable_and_enable(user).await,
            (142..145, _) => {
                self.delete_user(user).await;
                self.create_user(user).await;
            }
            (145..149, _) => {
                let (begin, password) = (self.books.tick(), self.password());
                let answer = self.client.log_in(login_of(user), password, Wish::PLAIN).await;
                self.signed_in(begin, &answer.into(), None);
            }
            _ => {
                let begin = self.books.tick();
                let answer = self.client.create_session(user_id_of(user), Wish::PLAIN).await;
                self.signed_in(begin, &answer.into(), None);
            }
        }
    }

    /// A session, mostly a late one.
    fn known(&mut self) -> Option<Known> {
        let sessions = self.books.sessions();
        let far = if self.dice.chance(70) { 8 } else { 200 };
        let back = self.dice.below(far);
        let count = sessions.len();
        (count > 0).then(|| sessions[count - 1 - back % count].clone())
    }

    /// Mostly the same one, so that it mostly is the right one.
    fn password(&mut self) -> &'static str {
        PASSWORDS[usize::from(self.dice.chance(20))]
    }

    async fn ask(&mut self, session: &Known) {
        let begin = self.books.tick();
        let outcome: Outcome = if self.dice.chance(80) {
            self.client.validate(session.token.clone(), None).await.into()
        } else {
            self.client.load(session.token.clone()).await.into()
        };
        let answered = |answer| Event::Asked { session: session.id.clone(), answer };
        let event = match &outcome {
            Outcome::Good(_) | Outcome::Loaded(..) => answered(Answer::Good),
            Outcome::Refused(Code::Unauthenticated, _) => answered(Answer::Over),
            refused => nothing_done(refused),
        };
        self.books.record(begin, [event]);
    }

    async fn reauthenticate(&mut self, session: &Known) {
        let (begin, password) = (self.books.tick(), self.password());
        let answer = self.client.reauthenticate(session.token.clone(), password).await;
        self.signed_in(begin, &answer.into(), Some(Target::Session(session.id.clone())));
    }

    async fn change_password(&mut self, user: usize) {
        let (begin, current, new) = (self.books.tick(), self.password(), self.password());
        let who = Who::Login(login_of(user));
        let answer = self.client.change_password(who, current, new).await;
        self.signed_in(begin, &answer.into(), Some(all_of(user_id_of(user))));
    }

    /// Writes down how a call ended that makes a session and perhaps ends others.
    fn signed_in(&mut self, begin: u64, outcome: &Outcome, ended: Option<Target>) {
        let Outcome::SignedIn { token, session, .. } = outcome else {
            return self.books.record(begin, [taken_away(outcome, ended)]);
        };
        let (id, user) = (session.session_id.clone(), session.user_id.clone());
        let known = Known { id: id.clone(), token: token.clone(), user: user.clone() };
        let ended = ended.map(|target| Event::Revoked { target, outcome: checker::Outcome::Done });
        self.books.record(begin, ended.into_iter().chain([Event::SignedIn { session: id, user }]));
        self.books.know(known);
    }

    async fn revoke_user(&mut self, user: String, except: Option<String>) {
        let except_session_id = except.clone().unwrap_or_default();
        let wanted = Wanted::User(v1::UserSessions { user_id: user.clone(), except_session_id });
        self.revoke(wanted, Target::User { user, except }).await;
    }

    async fn revoke(&mut self, wanted: Wanted, target: Target) {
        let begin = self.books.tick();
        let outcome = self.client.revoke(wanted).await.into();
        self.books.record(begin, [taken_away(&outcome, Some(target))]);
    }

    async fn set_password(&mut self, user: usize) {
        let (begin, new) = (self.books.tick(), self.password());
        let outcome = self.client.set_password(user_id_of(user), new).await.into();
        self.books.record(begin, [taken_away(&outcome, Some(all_of(user_id_of(user))))]);
    }

    async fn disable_and_enable(&mut self, user: usize) {
        for active in [false, true] {
            let begin = self.books.tick();
            let outcome = self.client.set_active(user_id_of(user), active).await.into();
            let ended = (!active).then(|| all_of(user_id_of(user)));
            self.books.record(begin, [taken_away(&outcome, ended)]);
        }
    }

    async fn delete_user(&mut self, user: usize) {
        let begin = self.books.tick();
        let outcome = self.client.delete_user(user_id_of(user)).await.into();
        self.books.record(begin, [taken_away(&outcome, Some(all_of(user_id_of(user))))]);
    }

    async fn create_user(&mut self, user: usize) {
        let (begin, login) = (self.books.tick(), login_of(user));
        let outcome = self.client.create_user(login, user_id_of(user), PASSWORDS[0]).await.into();
        self.books.record(begin, [taken_away(&outcome, None)]);
    }
}

fn all_of(user: String) -> Target {
    Target::User { user, except: None }
}

/// What a call did that ends `target`, as far as its answer tells.
fn taken_away(outcome: &Outcome, target: Option<Target>) -> Event {
    let revoked = |outcome| target.map_or(Event::Other, |target| Event::Revoked { target, outcome });
    match outcome {
        Outcome::Refused(Code::Unavailable, reason) if reason == "OUTCOME_UNKNOWN" => {
            revoked(checker::Outcome::Unknown)
        }
        Outcome::Refused(..) => nothing_done(outcome),
        _ => revoked(checker::Outcome::Done),
    }
}

/// A refusal that changed nothing.
fn nothing_done(outcome: &Outcome) -> Event {
    match outcome {
        Outcome::Refused(Code::NotFound | Code::AlreadyExists | Code::Unauthenticated, _) => Event::Other,
        // Others were quicker, twice.
        Outcome::Refused(Code::ResourceExhausted, reason) if reason == "OVERLOADED" => Event::Other,
        Outcome::Refused(Code::Unavailable, _) => Event::Unavailable,
        unforeseen => panic!("no such answer was foreseen: {unforeseen:?}"),
    }
}
