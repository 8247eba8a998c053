//! Every possible order of events, not some random ones: three nodes and one revocation, with time in steps.
//!
//! The first node revokes; the other two poll, acknowledge, fall silent, are marked, removed and join again, in every order.
//! A step of time may pass between any two events, and messages may be lost. The model is coarser than the code, and a
//! mark does not even need silence; what it proves is that the rules suffice.

use std::time::Duration;

use stateright::{Checker as _, Model, Property};

/// Steps that a lease lasts from when it was asked for.
const LEASE: u8 = 2;
/// Steps that a revocation waits for silent nodes: longer than any lease.
const WAIT: u8 = 3;
/// The nodes that do not revoke.
const OTHERS: usize = 2;

/// The rules, or one of them broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rules {
    AsTheyAre,
    NoWait,
    OnePhaseEviction,
    LeaseFromReply,
    AcknowledgeBeforeApply,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct State {
    others: [Other; OTHERS],
    /// Steps since the commit of the revocation; none before.
    committed: Option<u8>,
    returned: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Other {
    row: Row,
    /// What its row says: whether it has applied the revocation.
    acknowledged: bool,
    applied: bool,
    /// Steps that are left of its lease.
    lease: u8,
    poll: Poll,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Row {
    Gone,
    Live,
    /// Marked so many steps ago.
    Evicting(u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Poll {
    None,
    /// Asked so many steps ago.
    Asked(u8),
    Answered {
        age: u8,
        live: bool,
        revoked: bool,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    Tick,
    Commit,
    Return,
    Ask(usize),
    Answer(usize),
    Hear(usize),
    Lose(usize),
    Acknowledge(usize),
    Mark(usize),
    Remove(usize),
    Join(usize),
}

impl Other {
    /// The node as it joins: from the head of the log on, without a lease.
    fn joined(committed: bool) -> Self {
        Self { row: Row::Live, acknowledged: committed, applied: committed, lease: 0, poll: Poll::None }
    }

    /// Whether it would accept a session that the revocation ended.
    fn accepts(self) -> bool {
        self.lease > 0 && !self.applied
    }

    fn tick(&mut self) {
        self.lease = self.lease.saturating_sub(1);
        match &mut self.row {
            Row::Evicting(age) => *age = (*age + 1).min(WAIT),
            Row::Gone | Row::Live => {}
        }
        match &mut self.poll {
            Poll::Asked(age) | Poll::Answered { age, .. } => *age = (*age + 1).min(LEASE),
            Poll::None => {}
        }
    }

    fn hear(&mut self, rules: Rules) {
        if let Poll::Answered { age, live, revoked } = self.poll {
            let from_question = LEASE.saturating_sub(age);
            let lease = if rules == Rules::LeaseFromReply { LEASE } else { from_question };
            self.lease = if live { lease } else { 0 };
            self.applied |= live && revoked;
            self.poll = Poll::None;
        }
    }
}

impl State {
    fn stands(&self) -> bool {
        self.others.iter().all(|other| other.row == Row::Gone || other.acknowledged)
    }
}

impl Model for Rules {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State { others: [Other::joined(false); OTHERS], committed: None, returned: false }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.push(Action::Tick);
        match state.committed {
            None => actions.push(Action::Commit),
            Some(age) if !state.returned => {
                if state.stands() || age >= WAIT || *self == Self::NoWait {
                    actions.push(Action::Return);
                }
            }
            Some(_) => {}
        }
        for (at, other) in state.others.iter().enumerate() {
            match other.poll {
                Poll::None => actions.push(Action::Ask(at)),
                Poll::Asked(_) => actions.extend([Action::Answer(at), Action::Lose(at)]),
                Poll::Answered { .. } => actions.extend([Action::Hear(at), Action::Lose(at)]),
            }
            let told = matches!(other.poll, Poll::Answered { revoked: true, live: true, .. });
            let early = told && *self == Self::AcknowledgeBeforeApply;
            if (other.applied || early) && !other.acknowledged && other.row != Row::Gone {
                actions.push(Action::Acknowledge(at));
            }
            match other.row {
                Row::Live => actions.push(Action::Mark(at)),
                Row::Evicting(age) if age >= WAIT => actions.extend([Action::Remove(at), Action::Join(at)]),
                Row::Evicting(_) | Row::Gone => actions.push(Action::Join(at)),
            }
            if other.row == Row::Live && *self == Self::OnePhaseEviction {
                actions.push(Action::Remove(at));
            }
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        let committed = state.committed.is_some();
        match action {
            Action::Tick => {
                next.others.iter_mut().for_each(Other::tick);
                next.committed = next.committed.map(|age| (age + 1).min(WAIT));
            }
            Action::Commit => next.committed = Some(0),
            Action::Return => next.returned = true,
            Action::Ask(at) => next.others[at].poll = Poll::Asked(0),
            Action::Answer(at) => {
                let other = &mut next.others[at];
                if let Poll::Asked(age) = other.poll {
                    other.poll = Poll::Answered { age, live: other.row == Row::Live, revoked: committed };
                }
            }
            Action::Hear(at) => next.others[at].hear(*self),
            Action::Lose(at) => next.others[at].poll = Poll::None,
            Action::Acknowledge(at) => next.others[at].acknowledged = true,
            Action::Mark(at) => next.others[at].row = Row::Evicting(0),
            Action::Remove(at) => next.others[at].row = Row::Gone,
            Action::Join(at) => next.others[at] = Other::joined(committed),
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("P1", |_, state: &State| {
                !state.returned || state.others.iter().all(|other| !other.accepts())
            }),
            Property::sometimes("a revocation returns at once", |_, state: &State| {
                state.returned && state.committed == Some(0) && state.others.iter().all(|one| one.lease > 0)
            }),
            Property::sometimes("a revocation returns although a node is silent", |_, state: &State| {
                state.returned && !state.stands()
            }),
            Property::sometimes("nodes differ while it has not returned", |_, state: &State| {
                state.others[0].accepts() && state.others[1].lease > 0 && state.others[1].applied
            }),
        ]
    }
}

#[test]
fn the_rules_suffice() {
    let checker = Rules::AsTheyAre.checker().threads(2).timeout(Duration::from_mins(1)).spawn_bfs().join();
    println!("3 nodes: {} states, P1 in all of them", checker.unique_state_count());
    checker.assert_properties();
    assert!(checker.is_done(), "all states were seen");
}

#[test]
fn each_broken_rule_has_a_counterexample() {
    for broken in
        [Rules::NoWait, Rules::OnePhaseEviction, Rules::LeaseFromReply, Rules::AcknowledgeBeforeApply]
    {
        let checker = broken.checker().threads(2).timeout(Duration::from_mins(1)).spawn_bfs().join();
        let found = checker.discovery("P1").unwrap_or_else(|| panic!("{broken:?} breaks nothing"));
        println!("{broken:?}: {:?}", found.into_actions());
    }
}
