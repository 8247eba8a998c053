//! What callers were told before the node died, and what may have happened without their being told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use tonic::Status;
use tonic_types::StatusExt as _;

use crate::history::books::{Books, Known};
use crate::history::checker::{self, Event, Target};
use crate::history::client::Outcome;

/// All that is known.
#[derive(Default)]
pub struct Ledger {
    /// Sign-ins and revocations.
    pub books: Books,
    /// By login name.
    people: Mutex<BTreeMap<String, Person>>,
    /// Login names of users who were being added when the node died.
    perhaps_made: Mutex<Vec<String>>,
    /// Endings of several sessions that were under way when the node died.
    perhaps_ended: Mutex<Vec<(String, Option<String>)>>,
    acknowledged: AtomicUsize,
    changes: AtomicUsize,
}

/// A user who certainly is there.
#[derive(Clone, Debug)]
pub struct Person {
    pub id: String,
    /// Those that were, oldest first, the one that is last. None where there is no password.
    pub passwords: Vec<String>,
    /// The one that was being set when the node died.
    pub perhaps: Option<String>,
}

/// Reads an answer; none where the node died before it said anything. No call of these histories can be refused while the
/// node and its database live.
pub fn answered(answer: Result<Outcome, Status>) -> Option<Outcome> {
    let status = match answer {
        Ok(outcome) => return Some(outcome),
        Err(status) => status,
    };
    assert!(status.get_details_error_info().is_none(), "a node that lives refused: {status:?}");
    None
}

impl Ledger {
    /// How many calls were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// How many of them changed a password.
    pub fn changes(&self) -> usize {
        self.changes.load(Ordering::SeqCst)
    }

    /// Somebody signed in, in a call that perhaps ended other sessions of the user.
    pub fn signed_in(&self, begin: u64, outcome: &Outcome, ended: Option<Target>) -> Known {
        let Outcome::SignedIn { token, session, .. } = outcome else { panic!("no sign-in: {outcome:?}") };
        let (id, user) = (session.session_id.clone(), session.user_id.clone());
        let known = Known { id: id.clone(), token: token.clone(), user: user.clone() };
        self.changes.fetch_add(usize::from(ended.is_some()), Ordering::SeqCst);
        let ended = ended.map(|target| Event::Revoked { target, outcome: checker::Outcome::Done });
        self.books.record(begin, ended.into_iter().chain([Event::SignedIn { session: id, user }]));
        self.books.know(known.clone());
        self.acknowledged.fetch_add(1, Ordering::SeqCst);
        known
    }

    /// Sessions ended.
    pub fn ended(&self, begin: u64, target: Target) {
        self.books.record(begin, [Event::Revoked { target, outcome: checker::Outcome::Done }]);
        self.acknowledged.fetch_add(1, Ordering::SeqCst);
    }

    /// Sessions may have ended.
    pub fn perhaps_ended(&self, begin: u64, target: Target) {
        if let Target::User { user, except } = &target {
            lock(&self.perhaps_ended).push((user.clone(), except.clone()));
        }
        self.books.record(begin, [Event::Revoked { target, outcome: checker::Outcome::Unknown }]);
    }

    /// A user is there.
    pub fn made(&self, outcome: &Outcome, password: Option<&str>) -> Person {
        let Outcome::UserMade(user) = outcome else { panic!("no user: {outcome:?}") };
        let passwords = password.map(str::to_owned).into_iter().collect();
        let person = Person { id: user.user_id.clone(), passwords, perhaps: None };
        lock(&self.people).insert(user.login.clone(), person.clone());
        self.acknowledged.fetch_add(1, Ordering::SeqCst);
        person
    }

    /// A user may be there.
    pub fn perhaps_made(&self, login: String) {
        lock(&self.perhaps_made).push(login);
    }

    /// Changes what is known of a user.
    pub fn update(&self, login: &str, change: impl FnOnce(&mut Person)) {
        change(lock(&self.people).get_mut(login).expect("a user who is there"));
    }

    /// What is known of a user.
    pub fn person(&self, login: &str) -> Option<Person> {
        lock(&self.people).get(login).cloned()
    }

    /// Everybody who certainly is there.
    pub fn people(&self) -> BTreeMap<String, Person> {
        lock(&self.people).clone()
    }

    /// Takes the names of those who may be there.
    pub fn take_perhaps_made(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.perhaps_made))
    }

    /// Takes the endings of several sessions that may have happened.
    pub fn take_perhaps_ended(&self) -> Vec<(String, Option<String>)> {
        std::mem::take(&mut *lock(&self.perhaps_ended))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no caller panicked")
}
