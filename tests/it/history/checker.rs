//! What must hold for each session in a history of calls that overlapped, whatever their order was.
//!
//! Calls are placed on a line by two ticks of one counter: `begin` was drawn before the request was sent, `end` after the
//! answer had come. So one call certainly came before another only if it ended before the other began. Three things are
//! forbidden: to accept a session in a call that began after its revocation had returned OK; to refuse one as over before
//! any revocation of it had begun; and to accept one again that was refused before. Not to answer is always allowed.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// One call and what became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    pub begin: u64,
    pub end: u64,
    pub event: Event,
}

/// What a call was about. Sessions and users are known by their ids.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A session was made.
    SignedIn { session: String, user: String },
    /// It was asked whether a session is good.
    Asked { session: String, answer: Answer },
    /// Sessions were ended; refused calls that certainly did nothing are not in a history.
    Revoked { target: Target, outcome: Outcome },
    /// Something else was answered.
    Other,
    /// Nobody knew: UNAVAILABLE, or no answer at all.
    Unavailable,
}

/// What was said of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    Good,
    Over,
}

/// What was ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    Session(String),
    User { user: String, except: Option<String> },
    Everyone,
}

/// Whether it is certain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Done,
    Unknown,
}

/// What a history shows that must not be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Violation {
    /// (i) Accepted in a call that began after a revocation had returned OK.
    AcceptedAfterRevocation { session: String, revoked: u64, asked: u64 },
    /// (ii) Refused as over before any revocation had begun.
    RefusedBeforeRevocation { session: String, refused: u64 },
    /// (iii) Accepted in a call that began after another had refused it as over.
    AcceptedAfterRefusal { session: String, refused: u64, asked: u64 },
}

/// Finds everything that must not be.
pub fn check(history: &[Call]) -> Vec<Violation> {
    let mut sessions: BTreeMap<&str, Life<'_>> = BTreeMap::new();
    for call in history {
        if let Event::SignedIn { session, user } = &call.event {
            sessions.insert(session, Life { user, born: call.end, answers: Vec::new() });
        }
    }
    for call in history {
        if let Event::Asked { session, answer } = &call.event {
            let life =
                sessions.get_mut(session.as_str()).expect("only sessions that were made are asked about");
            life.answers.push((call.begin, call.end, *answer));
        }
    }
    let revocations: Vec<_> = history.iter().filter_map(Revocation::read).collect();
    sessions.iter().flat_map(|(session, life)| life.violations(session, &revocations)).collect()
}

/// What is known of one session.
struct Life<'h> {
    user: &'h str,
    /// When the answer was there that made it.
    born: u64,
    /// Begin, end and what was said.
    answers: Vec<(u64, u64, Answer)>,
}

struct Revocation<'h> {
    begin: u64,
    end: u64,
    target: &'h Target,
    outcome: Outcome,
}

impl<'h> Revocation<'h> {
    fn read(call: &'h Call) -> Option<Self> {
        let Event::Revoked { target, outcome } = &call.event else { return None };
        Some(Self { begin: call.begin, end: call.end, target, outcome: *outcome })
    }

    /// Whether it is about the session at all.
    fn concerns(&self, session: &str, life: &Life<'_>) -> bool {
        match self.target {
            Target::Session(one) => one == session,
            Target::User { user, except } => user == life.user && except.as_deref() != Some(session),
            Target::Everyone => true,
        }
    }

    /// Whether the session was certainly there to be ended, and certainly was.
    fn certainly_ended(&self, life: &Life<'_>) -> bool {
        self.outcome == Outcome::Done && life.born < self.begin
    }
}

impl Life<'_> {
    fn violations(&self, session: &str, revocations: &[Revocation<'_>]) -> Vec<Violation> {
        let concerning = || revocations.iter().filter(|one| one.concerns(session, self));
        let first_begun = concerning().map(|one| one.begin).min().unwrap_or(u64::MAX);
        let revoked =
            concerning().filter(|one| one.certainly_ended(self)).map(|one| one.end).min().unwrap_or(u64::MAX);
        let of = |wanted| self.answers.iter().filter(move |(_, _, answer)| *answer == wanted);
        let refused = of(Answer::Over).map(|(_, end, _)| *end).min().unwrap_or(u64::MAX);
        let mut found = Vec::new();
        for &(_, end, _) in of(Answer::Over).filter(|(_, end, _)| *end < first_begun) {
            found.push(Violation::RefusedBeforeRevocation { session: session.to_owned(), refused: end });
        }
        for &(asked, ..) in of(Answer::Good) {
            let session = || session.to_owned();
            if asked > revoked {
                found.push(Violation::AcceptedAfterRevocation { session: session(), revoked, asked });
            }
            if asked > refused {
                found.push(Violation::AcceptedAfterRefusal { session: session(), refused, asked });
            }
        }
        found
    }
}

/// How much a history holds, for the line that each run prints.
pub struct Summary {
    calls: usize,
    kinds: HashMap<&'static str, usize>,
    violations: usize,
}

impl Summary {
    pub fn of(history: &[Call], violations: &[Violation]) -> Self {
        let mut kinds = HashMap::new();
        for call in history {
            let kind = match &call.event {
                Event::SignedIn { .. } => "sign-ins",
                Event::Asked { answer: Answer::Good, .. } => "accepted",
                Event::Asked { answer: Answer::Over, .. } => "refused",
                Event::Revoked { .. } => "revocations",
                Event::Other => "others",
                Event::Unavailable => "unavailable",
            };
            *kinds.entry(kind).or_default() += 1;
        }
        Self { calls: history.len(), kinds, violations: violations.len() }
    }

    /// How many calls were of a kind.
    pub fn count(&self, kind: &str) -> usize {
        self.kinds.get(kind).copied().unwrap_or(0)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = 100 * self.count("unavailable") / self.calls.max(1);
        write!(f, "{} operations, {} violations, {share} % unavailable", self.calls, self.violations)?;
        ["sign-ins", "accepted", "refused", "revocations", "others"]
            .iter()
            .try_for_each(|kind| write!(f, ", {} {kind}", self.count(kind)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(begin: u64, end: u64, event: Event) -> Call {
        Call { begin, end, event }
    }

    fn born(begin: u64, end: u64) -> Call {
        call(begin, end, Event::SignedIn { session: "s".to_owned(), user: "ada".to_owned() })
    }

    fn asked(begin: u64, end: u64, answer: Answer) -> Call {
        call(begin, end, Event::Asked { session: "s".to_owned(), answer })
    }

    fn revoked(begin: u64, end: u64, target: Target, outcome: Outcome) -> Call {
        call(begin, end, Event::Revoked { target, outcome })
    }

    fn session() -> Target {
        Target::Session("s".to_owned())
    }

    fn user(except: Option<&str>) -> Target {
        Target::User { user: "ada".to_owned(), except: except.map(str::to_owned) }
    }

    #[test]
    fn an_orderly_life_is_no_violation() {
        for target in [session(), user(None), user(Some("other")), Target::Everyone] {
            let history = [
                born(1, 2),
                asked(3, 4, Answer::Good),
                revoked(5, 8, target, Outcome::Done),
                asked(6, 7, Answer::Good),
                asked(9, 10, Answer::Over),
                call(11, 12, Event::Unavailable),
            ];
            assert_eq!(check(&history), []);
        }
    }

    #[test]
    fn accepted_after_a_revocation_returned_is_found() {
        for target in [session(), user(None), Target::Everyone] {
            let history = [born(1, 2), revoked(3, 4, target, Outcome::Done), asked(5, 6, Answer::Good)];
            let session = "s".to_owned();
            assert_eq!(
                check(&history),
                [Violation::AcceptedAfterRevocation { session, revoked: 4, asked: 5 }]
            );
        }
    }

    #[test]
    fn what_overlaps_or_is_unknown_or_about_others_proves_nothing() {
        let good = || asked(7, 9, Answer::Good);
        for innocent in [
            revoked(6, 8, session(), Outcome::Done),
            revoked(3, 4, session(), Outcome::Unknown),
            revoked(3, 4, user(Some("s")), Outcome::Done),
            revoked(3, 4, Target::Session("other".to_owned()), Outcome::Done),
        ] {
            assert_eq!(check(&[born(1, 2), innocent, good()]), []);
        }
        let while_signing_in = [born(1, 4), revoked(2, 3, user(None), Outcome::Done), good()];
        assert_eq!(check(&while_signing_in), []);
    }

    #[test]
    fn refused_before_any_revocation_began_is_found() {
        let false_logout = Violation::RefusedBeforeRevocation { session: "s".to_owned(), refused: 4 };
        let later = revoked(5, 6, session(), Outcome::Done);
        for history in [vec![], vec![later]] {
            let history = [vec![born(1, 2), asked(3, 4, Answer::Over)], history].concat();
            assert_eq!(check(&history), std::slice::from_ref(&false_logout));
        }
        let unknown = revoked(3, 6, session(), Outcome::Unknown);
        assert_eq!(check(&[born(1, 2), asked(4, 5, Answer::Over), unknown]), []);
    }

    #[test]
    fn accepted_after_a_refusal_is_found() {
        let history = [
            born(1, 2),
            revoked(3, 10, session(), Outcome::Done),
            asked(4, 5, Answer::Over),
            asked(6, 7, Answer::Good),
        ];
        let session = "s".to_owned();
        assert_eq!(check(&history), [Violation::AcceptedAfterRefusal { session, refused: 5, asked: 6 }]);
    }

    #[test]
    fn the_summary_counts_what_nobody_knew() {
        let history = [born(1, 2), asked(3, 4, Answer::Good), call(5, 6, Event::Unavailable), born(7, 8)];
        let text = Summary::of(&history, &[]).to_string();
        assert!(
            text.starts_with("4 operations, 0 violations, 25 % unavailable, 2 sign-ins, 1 accepted"),
            "{text}"
        );
    }
}
