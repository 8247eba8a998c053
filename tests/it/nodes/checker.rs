//! What must hold in the history of a fleet: the rules of `history::checker`, seen from each process by itself.
//!
//! A revocation is in force everywhere when it returns, whichever node took it; but while it is under way two nodes may
//! differ, so that a session which one has refused another may still accept. And a process that starts anew has refused
//! nothing yet.

use std::collections::BTreeSet;

use super::log::{Entry, Process};
use crate::history::checker::{self, Call, Event, Violation};

/// Finds everything that must not be, and at which process.
pub fn check(entries: &[Entry]) -> Vec<(Process, Violation)> {
    let processes: BTreeSet<Process> = entries.iter().map(|entry| entry.process).collect();
    let seen_from = |process: Process| {
        let seen = entries.iter().filter(|entry| entry.process == process || !is_answer(entry));
        let calls: Vec<Call> = seen.map(|entry| entry.call.clone()).collect();
        checker::check(&calls).into_iter().map(move |violation| (process, violation))
    };
    processes.into_iter().flat_map(seen_from).collect()
}

/// How many of them are log-outs that nobody asked for.
pub fn false_log_outs(violations: &[(Process, Violation)]) -> usize {
    let logged_out = |violation: &Violation| matches!(violation, Violation::RefusedBeforeRevocation { .. });
    violations.iter().filter(|(_, violation)| logged_out(violation)).count()
}

fn is_answer(entry: &Entry) -> bool {
    matches!(entry.call.event, Event::Asked { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::checker::{Answer, Outcome, Target};
    use crate::nodes::log::now;

    const ONE: Process = Process { slot: 0, incarnation: 0 };
    const OTHER: Process = Process { slot: 1, incarnation: 0 };
    const ONE_AGAIN: Process = Process { slot: 0, incarnation: 1 };

    fn at(process: Process, begin: u64, end: u64, event: Event) -> Entry {
        Entry { process, call: Call { begin, end, event }, began: now(), ended: now(), why: None }
    }

    fn session() -> String {
        "s".to_owned()
    }

    fn born() -> Entry {
        at(ONE, 1, 2, Event::SignedIn { session: session(), user: "ada".to_owned() })
    }

    fn asked(process: Process, begin: u64, end: u64, answer: Answer) -> Entry {
        at(process, begin, end, Event::Asked { session: session(), answer })
    }

    fn revoked(process: Process, begin: u64, end: u64, outcome: Outcome) -> Entry {
        at(process, begin, end, Event::Revoked { target: Target::Session(session()), outcome })
    }

    #[test]
    fn while_a_revocation_is_under_way_nodes_may_differ() {
        let history = [
            born(),
            revoked(ONE, 3, 10, Outcome::Done),
            asked(ONE, 4, 5, Answer::Over),
            asked(OTHER, 6, 7, Answer::Good),
            asked(OTHER, 8, 9, Answer::Over),
            asked(OTHER, 11, 12, Answer::Over),
        ];
        assert_eq!(check(&history), []);
    }

    #[test]
    fn accepted_on_any_node_after_a_revocation_returned_is_found() {
        for process in [ONE, OTHER, ONE_AGAIN] {
            let history = [born(), revoked(ONE, 3, 4, Outcome::Done), asked(process, 5, 6, Answer::Good)];
            let violation = Violation::AcceptedAfterRevocation { session: session(), revoked: 4, asked: 5 };
            assert_eq!(check(&history), [(process, violation)]);
        }
        let unknown = [born(), revoked(ONE, 3, 4, Outcome::Unknown), asked(OTHER, 5, 6, Answer::Good)];
        assert_eq!(check(&unknown), []);
    }

    #[test]
    fn a_log_out_that_nobody_asked_for_is_found_and_counted() {
        let history = [born(), asked(OTHER, 3, 4, Answer::Over), revoked(ONE, 5, 6, Outcome::Done)];
        let found = check(&history);
        let violation = Violation::RefusedBeforeRevocation { session: session(), refused: 4 };
        assert_eq!(found, [(OTHER, violation)]);
        assert_eq!(false_log_outs(&found), 1);
    }

    #[test]
    fn accepted_by_the_process_that_refused_is_found_and_by_another_is_not() {
        let history = |process| {
            [
                born(),
                revoked(OTHER, 3, 10, Outcome::Unknown),
                asked(ONE, 4, 5, Answer::Over),
                asked(process, 6, 7, Answer::Good),
            ]
        };
        let violation = Violation::AcceptedAfterRefusal { session: session(), refused: 5, asked: 6 };
        assert_eq!(check(&history(ONE)), [(ONE, violation)]);
        assert_eq!(check(&history(OTHER)), []);
        assert_eq!(check(&history(ONE_AGAIN)), [], "the process that refused is gone");
    }

    #[test]
    fn not_to_know_is_never_a_violation() {
        let unknown = |process, begin| at(process, begin, begin + 1, Event::Unavailable);
        let history =
            [born(), unknown(ONE, 3), revoked(ONE, 5, 6, Outcome::Done), unknown(OTHER, 7), unknown(ONE, 9)];
        assert_eq!(check(&history), []);
    }
}
