//! Broken variants of the rules that the promises rest on, so that tests can be shown to notice each of them.
//!
//! They exist only with the cargo feature `mutations`, which no shipped build has; without it every question here is a
//! constant `false` and nothing of a broken variant is compiled in. `scripts/test --mutations` switches on one at a time
//! by the environment variable `LATCHKEY_MUTATION` and expects its test to fail.

/// A rule and the way in which it is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutation {
    /// The number of a change is taken before its transaction, as a sequence would hand it out.
    NumberFromASequence,
    /// A poll asks for what lies behind the last row and does not look whether that row is still the same.
    ExclusivePollWithoutNonce,
    /// A lease is counted from the answer of the poll, not from before it was asked.
    LeaseFromReply,
    /// The clock stands still while the machine is suspended.
    MonotonicClock,
    /// A reader looks at the state first and at the lease afterwards.
    StateBeforeLease,
    /// A node acknowledges rows before they are in memory.
    AcknowledgeBeforeApply,
    /// A silent node is removed at once, without being marked first.
    OnePhaseEviction,
    /// Whatever the database's clock shows is the time.
    DatabaseClockBelieved,
    /// The silence of a node is what the database's clock says.
    SilenceByDatabaseClock,
    /// What was read enters memory whatever has changed since.
    UnversionedFill,
    /// What this node has written itself does not overtake a read.
    FillIgnoresLocal,
    /// A session that was read as over is not remembered.
    DeathNotRemembered,
    /// A call takes the result of a read that began before it.
    OldReadHandedOut,
    /// A sign-in takes the epoch that the user has when the session is written.
    EpochReadAgain,
    /// The wait for a silent node is counted from before the commit.
    WaitFromBeforeCommit,
    /// A revocation returns without waiting.
    NoWait,
    /// A lease is renewed although the head of the log was not reached.
    LeaseBeforeHead,
    /// A lease is renewed by polls alone.
    LeaseWithoutDurableAck,
    /// A commit on one server renews a lease that was polled from another one.
    AckOfAnotherServer,
    /// A node that is told to begin anew does not look first whether the log lost what it saw.
    RefusedBeforeCompared,
    /// An acknowledgement counts by its number, whatever row has that number now.
    AckWithoutNonce,
    /// A connection is used again whose transaction did not end by a COMMIT or ROLLBACK that was answered.
    ReusesUnfinishedConnection,
    /// A node that wrote lost changes again does not look whether the log still has them when it joins.
    WrittenAgainUnchecked,
    /// Nodes take a longer lease as soon as an operator asks for it.
    LongerLeaseAtOnce,
    /// Nobody waits for leases of the old length once an operator has asked for a shorter one.
    ShorterWaitAtOnce,
    /// A change of the lease is ended at the first look.
    LeaseChangeNotAwaited,
    /// A revoker goes by the length of leases that it polled, however long ago.
    StaleLeaseBelieved,
    /// A lease is as long as the latest poll says, whichever poll gave it.
    LeaseOfLaterPoll,
    /// The end of all sessions of a user marks those that were over already.
    EndedIsMarkedAgain,
    /// A read that finds no user counts like one that finds the user disabled.
    AbsenceBars,
    /// A token of a key that only other nodes have counts as forged.
    UnknownKeyIsForged,
    /// A use is written down by and by, also where other nodes are about to take the session for idle.
    LastUseWrittenLate,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 32] = [
        Self::NumberFromASequence,
        Self::ExclusivePollWithoutNonce,
        Self::LeaseFromReply,
        Self::MonotonicClock,
        Self::StateBeforeLease,
        Self::AcknowledgeBeforeApply,
        Self::OnePhaseEviction,
        Self::DatabaseClockBelieved,
        Self::SilenceByDatabaseClock,
        Self::UnversionedFill,
        Self::FillIgnoresLocal,
        Self::DeathNotRemembered,
        Self::OldReadHandedOut,
        Self::EpochReadAgain,
        Self::WaitFromBeforeCommit,
        Self::NoWait,
        Self::LeaseBeforeHead,
        Self::LeaseWithoutDurableAck,
        Self::AckOfAnotherServer,
        Self::RefusedBeforeCompared,
        Self::AckWithoutNonce,
        Self::ReusesUnfinishedConnection,
        Self::WrittenAgainUnchecked,
        Self::LongerLeaseAtOnce,
        Self::ShorterWaitAtOnce,
        Self::LeaseChangeNotAwaited,
        Self::StaleLeaseBelieved,
        Self::LeaseOfLaterPoll,
        Self::EndedIsMarkedAgain,
        Self::AbsenceBars,
        Self::UnknownKeyIsForged,
        Self::LastUseWrittenLate,
    ];

    /// Whether this one is switched on.
    #[cfg(feature = "mutations")]
    pub fn is_on(self) -> bool {
        use std::sync::OnceLock;

        static ON: OnceLock<Option<Mutation>> = OnceLock::new();
        let named = || {
            // The program takes every variable that begins with LATCHKEY_ for a setting.
            let variables = ["LATCHKEY_MUTATION", "MUTATION_OF_LATCHKEY"];
            let name = variables.into_iter().find_map(|variable| std::env::var(variable).ok())?;
            let found = Self::ALL.into_iter().find(|mutation| format!("{mutation:?}") == name);
            Some(found.unwrap_or_else(|| panic!("LATCHKEY_MUTATION names no mutation: {name}")))
        };
        *ON.get_or_init(named) == Some(self)
    }

    /// Whether this one is switched on: never, in this build.
    #[cfg(not(feature = "mutations"))]
    pub const fn is_on(self) -> bool {
        let _ = self;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutation_has_a_test_that_notices_it() {
        let list = include_str!("../tests/mutations.txt");
        let named: Vec<_> = list.lines().filter_map(|line| line.split(' ').next()).collect();
        for mutation in Mutation::ALL {
            assert!(named.contains(&format!("{mutation:?}").as_str()), "{mutation:?} is not in the list");
        }
        let known = |name: &str| Mutation::ALL.iter().any(|mutation| format!("{mutation:?}") == name);
        let unknown: Vec<_> = named.iter().filter(|name| **name != "#" && !known(name)).collect();
        assert!(unknown.is_empty(), "no such mutation: {unknown:?}");
    }

    #[test]
    fn no_mutation_is_on_by_itself() {
        assert!(Mutation::ALL.into_iter().all(|mutation| !mutation.is_on()));
    }
}
