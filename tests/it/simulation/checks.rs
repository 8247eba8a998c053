//! What must hold in every history of the simulated world, whatever happened in it.
//!
//! Calls lie on a line of ticks. Forbidden are: (P1) to accept a session in a call that began after its revocation had
//! returned; (P2) to accept it in a process that had refused it as over; and to refuse it as over before any revocation of
//! it had begun. Not to answer is always allowed, and counted.
//!
//! A fail-over may lose commits that were acknowledged. No protocol above the database can keep P1 for those while nobody
//! knows of them, so a revocation that was lost promises nothing here; P2 holds all the same, and so does P1 for each
//! revocation that was not lost.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use latchkey::domain::id::Nonce;

use super::database::Revocation;
use super::people;

/// What was asked and said of a session.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub session: usize,
    /// Which process was asked; a restart makes another one of it.
    pub process: usize,
    pub begin: u64,
    pub end: u64,
    pub answer: Answer,
}

/// What was said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    Good,
    Over,
    Unavailable,
}

/// A session that somebody got a token of.
#[derive(Clone, Copy, Debug)]
pub struct Born {
    pub user: usize,
    pub end: u64,
}

/// A revocation, returned or not.
#[derive(Clone, Copy, Debug)]
pub struct Revoked {
    pub what: Revocation,
    pub begin: u64,
    /// When it returned OK; none where it did not.
    pub returned: Option<u64>,
    /// The row that it wrote.
    pub nonce: Option<Nonce>,
}

/// What happened.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub asked: Vec<Asked>,
    pub born: BTreeMap<usize, Born>,
    pub revoked: Vec<Revoked>,
    /// Rows that fail-overs lost.
    pub lost: HashSet<Nonce>,
    pub lost_sessions: HashSet<usize>,
    pub fail_overs: usize,
}

impl Revoked {
    fn concerns(&self, session: usize, user: usize) -> bool {
        let (id, owner) = (people::session_id(session), people::user_id(user));
        match self.what {
            Revocation::Session(one) => one == id,
            Revocation::User(one, except) | Revocation::Password(one, except) => {
                one == owner && except != Some(id)
            }
            Revocation::Disable(one) => one == owner,
            Revocation::Enable(_) => false,
            Revocation::Everyone => true,
        }
    }
}

impl History {
    /// Everything that must not be, in words.
    pub fn violations(&self) -> Vec<String> {
        let told = |(session, why): (usize, String)| format!("{why}\n{}", self.tell(session));
        self.breaches().into_iter().map(told).collect()
    }

    fn breaches(&self) -> Vec<(usize, String)> {
        let mut lives: HashMap<usize, (u64, u64)> = HashMap::new();
        let mut refused: HashMap<(usize, usize), u64> = HashMap::new();
        for asked in self.asked.iter().filter(|asked| asked.answer == Answer::Over) {
            let first = refused.entry((asked.process, asked.session)).or_insert(asked.end);
            *first = asked.end.min(*first);
        }
        let mut found = Vec::new();
        for asked in &self.asked {
            let (begun, revoked) =
                *lives.entry(asked.session).or_insert_with(|| self.revoked_between(asked.session));
            let refused = refused.get(&(asked.process, asked.session)).copied().unwrap_or(u64::MAX);
            let lost = self.lost_sessions.contains(&asked.session);
            match asked.answer {
                Answer::Good if asked.begin > revoked => {
                    found.push((asked.session, format!("P1: accepted after tick {revoked}: {asked:?}")));
                }
                Answer::Good if asked.begin > refused => {
                    let why = format!("P2: accepted after it was refused at {refused}: {asked:?}");
                    found.push((asked.session, why));
                }
                Answer::Over if asked.end < begun && !lost => {
                    let why = format!("refused before its revocation began at {begun}: {asked:?}");
                    found.push((asked.session, why));
                }
                Answer::Good | Answer::Over | Answer::Unavailable => {}
            }
        }
        found
    }

    /// What happened to a session, for people.
    fn tell(&self, session: usize) -> String {
        let user = self.born[&session].user;
        let revoked = self.revoked.iter().filter(|one| one.concerns(session, user));
        let asked = self.asked.iter().filter(|one| one.session == session);
        let told = revoked.map(|one| format!("{one:?}")).chain(asked.map(|one| format!("{one:?}")));
        told.collect::<Vec<_>>().join("\n")
    }

    /// When the first revocation of a session began, and when the first returned that certainly holds.
    fn revoked_between(&self, session: usize) -> (u64, u64) {
        let born = self.born[&session];
        let holds = |one: &&Revoked| {
            let lost = one.nonce.map_or(self.fail_overs > 0, |nonce| self.lost.contains(&nonce));
            born.end < one.begin && !lost
        };
        let concerning = || self.revoked.iter().filter(|one| one.concerns(session, born.user));
        let begun = concerning().map(|one| one.begin).min();
        let returned = concerning().filter(holds).filter_map(|one| one.returned).min();
        (begun.unwrap_or(u64::MAX), returned.unwrap_or(u64::MAX))
    }
}

/// How much happened, over all worlds of a test.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    pub worlds: usize,
    good: usize,
    over: usize,
    unavailable: usize,
    sign_ins: usize,
    revocations: usize,
    returned: usize,
    fail_overs: usize,
    lost: usize,
    pub violations: usize,
}

impl Summary {
    /// Adds the history of one more world.
    pub fn add(&mut self, history: &History, violations: usize) {
        let count = |answer| history.asked.iter().filter(|asked| asked.answer == answer).count();
        self.worlds += 1;
        self.good += count(Answer::Good);
        self.over += count(Answer::Over);
        self.unavailable += count(Answer::Unavailable);
        self.sign_ins += history.born.len();
        self.revocations += history.revoked.len();
        self.returned += history.revoked.iter().filter(|one| one.returned.is_some()).count();
        self.fail_overs += history.fail_overs;
        self.lost += history.lost.len();
        self.violations += violations;
    }

    /// Whether all that matters happened at all.
    pub fn is_telling(&self) -> bool {
        self.good > 0 && self.over > 0 && self.returned > 0
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked = self.good + self.over + self.unavailable;
        let operations = asked + self.sign_ins + self.revocations;
        let share = 100 * self.unavailable / asked.max(1);
        write!(
            f,
            "{} worlds, {operations} operations, {} violations, {share} % unavailable: {} accepted, {} refused, \
             {} sign-ins, {} revocations ({} returned), {} fail-overs ({} changes lost)",
            self.worlds,
            self.violations,
            self.good,
            self.over,
            self.sign_ins,
            self.revocations,
            self.returned,
            self.fail_overs,
            self.lost,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(answers: &[(u64, usize, Answer)], revoked: &[(u64, Option<u64>)]) -> History {
        let asked = |&(begin, process, answer)| Asked { session: 0, process, begin, end: begin + 1, answer };
        let what = Revocation::User(people::user_id(0), None);
        let end = |&(begin, returned)| Revoked { what, begin, returned, nonce: Some(Nonce([0; 8])) };
        History {
            asked: answers.iter().map(asked).collect(),
            born: [(0, Born { user: 0, end: 1 })].into(),
            revoked: revoked.iter().map(end).collect(),
            ..History::default()
        }
    }

    #[test]
    fn an_orderly_life_is_no_violation() {
        let answers =
            [(2, 0, Answer::Good), (11, 0, Answer::Over), (12, 1, Answer::Good), (21, 1, Answer::Over)];
        let history = history(&answers, &[(10, Some(20))]);
        assert_eq!(history.violations(), Vec::<String>::new());
    }

    #[test]
    fn each_violation_is_found() {
        for (answers, revoked) in [
            (vec![(21, 0, Answer::Good)], vec![(10, Some(20))]),
            (vec![(11, 0, Answer::Over), (13, 0, Answer::Good)], vec![(10, None)]),
            (vec![(5, 0, Answer::Over)], vec![(10, Some(20))]),
        ] {
            assert_eq!(history(&answers, &revoked).violations().len(), 1, "{answers:?}");
        }
    }

    #[test]
    fn a_lost_revocation_promises_nothing_to_those_who_never_knew() {
        let mut history = history(&[(21, 0, Answer::Good)], &[(10, Some(20))]);
        history.lost.insert(Nonce([0; 8]));
        assert_eq!(history.violations(), Vec::<String>::new());
    }
}
