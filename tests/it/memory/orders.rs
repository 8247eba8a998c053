//! The two orders that readers and the writer of memory rely on, as models in which loom tries every interleaving that
//! the memory model allows.
//!
//! Loom sees neither the map nor the pointers of production, so each model repeats the lines that matter, with one atomic
//! number for each of them and the same orderings; the lines are named. What the models leave out, `stress` asks of the
//! real thing.

use std::ops::Deref;

use latchkey::mutation::Mutation;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use loom::thread;

/// The span of a lease, and how long a revocation waits for a silent node, which is longer.
const LEASE: u64 = 10;
const WAIT: u64 = 20;

/// In which order a reader looks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    LeaseClockState,
    StateLeaseClock,
    ClockLeaseState,
}

/// A node and its database.
struct Node {
    /// `Lease::end`.
    lease_end: AtomicU64,
    /// Whether the session is over in memory: what `Table::find` reads.
    over: AtomicBool,
    /// Whether the log holds the revocation.
    committed: AtomicBool,
    /// The clock of all machines.
    clock: AtomicU64,
    /// Whether the revocation has returned.
    returned: AtomicBool,
}

impl Node {
    fn new() -> Self {
        Self {
            lease_end: AtomicU64::new(LEASE),
            over: AtomicBool::new(false),
            committed: AtomicBool::new(false),
            clock: AtomicU64::new(0),
            returned: AtomicBool::new(false),
        }
    }

    /// `Lease::ask`.
    fn is_leased(&self) -> bool {
        let end = self.lease_end.load(Ordering::Acquire);
        let now = self.clock.load(Ordering::SeqCst);
        now < end
    }

    /// `Table::look_up`: whether the session is told to be good.
    fn is_good(&self, reading: Reading) -> bool {
        match reading {
            Reading::LeaseClockState => self.is_leased() && !self.over.load(Ordering::Acquire),
            Reading::StateLeaseClock => {
                let over = self.over.load(Ordering::Acquire);
                self.is_leased() && !over
            }
            Reading::ClockLeaseState => {
                let now = self.clock.load(Ordering::SeqCst);
                let end = self.lease_end.load(Ordering::Acquire);
                now < end && !self.over.load(Ordering::Acquire)
            }
        }
    }

    /// `Follower::ask`, a poll, `Member::apply`: what was asked for is in memory before the lease is published.
    fn poll(&self) {
        let asked_at = self.clock.load(Ordering::SeqCst);
        if self.committed.load(Ordering::SeqCst) {
            self.over.store(true, Ordering::Release);
        }
        self.lease_end.store(asked_at + LEASE, Ordering::Release);
    }

    /// `Fleet::settle` where the node stays silent until the wait is over.
    fn revoke(&self) {
        self.committed.store(true, Ordering::SeqCst);
        self.clock.store(WAIT, Ordering::SeqCst);
        self.returned.store(true, Ordering::Release);
    }
}

/// A node that wakes up, a revocation that has waited for it in vain, and a call that begins when that has returned.
fn revoked_while_silent(reading: Reading) {
    loom::model(move || {
        let node = Arc::new(Node::new());
        let (follower, revoker) = (Arc::clone(&node), Arc::clone(&node));
        let follower = thread::spawn(move || follower.poll());
        let revoker = thread::spawn(move || revoker.revoke());
        if node.returned.load(Ordering::Acquire) {
            assert!(!node.is_good(reading), "good after the revocation returned");
        }
        follower.join().expect("it polls");
        revoker.join().expect("it revokes");
    });
}

#[test]
fn no_lease_blesses_a_state_from_before_it() {
    // As `Table::look_up` does.
    let broken = Mutation::StateBeforeLease.is_on();
    revoked_while_silent(if broken { Reading::StateLeaseClock } else { Reading::LeaseClockState });
}

#[test]
#[should_panic(expected = "good after the revocation returned")]
fn a_state_read_before_the_lease_is_noticed() {
    revoked_while_silent(Reading::StateLeaseClock);
}

/// What must come before the state is the lease. A clock that is read before both shows a moment at which the call had
/// begun already, so a revocation that returned before the call had run out the leases from before it by then.
#[test]
fn a_clock_read_before_the_lease_is_no_danger_to_a_revocation() {
    revoked_while_silent(Reading::ClockLeaseState);
}

/// Several questions of a stream are answered by one reading of lease and clock, as `Fleet::moment` has it. The last of
/// them comes before that reading, or behind it.
fn revoked_between_questions(all_came_before: bool) {
    loom::model(move || {
        let node = Arc::new(Node::new());
        let (follower, revoker) = (Arc::clone(&node), Arc::clone(&node));
        let follower = thread::spawn(move || follower.poll());
        let revoker = thread::spawn(move || revoker.revoke());
        let begins_after = || node.returned.load(Ordering::Acquire);
        let came_before = begins_after();
        let leased = node.is_leased();
        let came_late = if all_came_before { came_before } else { begins_after() };
        for begins_after in [came_before, came_late] {
            let good = leased && !node.over.load(Ordering::Acquire);
            assert!(!(begins_after && good), "good after the revocation returned");
        }
        follower.join().expect("it polls");
        revoker.join().expect("it revokes");
    });
}

#[test]
fn one_reading_of_the_lease_is_enough_for_all_that_came_before() {
    revoked_between_questions(true);
}

#[test]
#[should_panic(expected = "good after the revocation returned")]
fn a_question_that_came_behind_the_reading_is_noticed() {
    revoked_between_questions(false);
}

/// A session that goes on while its siblings end, and its user.
struct Kept {
    /// `HeldSession::user_epoch`.
    stamp: AtomicI64,
    /// `Epochs::ended`, behind `Head::since`, which is swapped with `SeqCst`.
    epoch: AtomicI64,
    /// Whether `First::read_epoch` says that the user has changed.
    changed: AtomicBool,
}

/// Both sides do two steps, in the order of production or the other way round.
fn kept_while_siblings_end(stamp_first: bool, facts_first: bool) {
    loom::model(move || {
        let (stamp, epoch, changed) = (AtomicI64::new(1), AtomicI64::new(0), AtomicBool::new(false));
        let kept = Arc::new(Kept { stamp, epoch, changed });
        let keeper = Arc::clone(&kept);
        let keeper = thread::spawn(move || keeper.deref().end_siblings(stamp_first));
        assert!(kept.is_spared(facts_first), "the session that goes on was refused");
        keeper.join().expect("it ends the siblings");
    });
}

impl Kept {
    /// `Keeper::end_before`.
    fn end_siblings(&self, stamp_first: bool) {
        let stamp = || self.stamp.fetch_max(2, Ordering::Release);
        if stamp_first {
            stamp();
        }
        self.epoch.store(2, Ordering::SeqCst);
        self.changed.store(true, Ordering::Release);
        if !stamp_first {
            stamp();
        }
    }

    /// `HeldUser::facts` and `FactsNow::epochs`.
    fn epoch(&self) -> i64 {
        if !self.changed.load(Ordering::Acquire) {
            return 1;
        }
        let epoch = self.epoch.load(Ordering::Acquire);
        assert_ne!(epoch, 0, "whoever does not find the first facts finds those that replaced them");
        epoch
    }

    /// `Table::find` and `verdict_on`.
    fn is_spared(&self, facts_first: bool) -> bool {
        let stamp = || self.stamp.load(Ordering::Acquire);
        if facts_first {
            let epoch = self.epoch();
            stamp() >= epoch
        } else {
            let stamp = stamp();
            stamp >= self.epoch()
        }
    }
}

#[test]
fn a_session_that_goes_on_is_never_behind_its_user() {
    kept_while_siblings_end(true, true);
}

#[test]
#[should_panic(expected = "the session that goes on was refused")]
fn a_user_raised_before_the_stamp_is_noticed() {
    kept_while_siblings_end(false, true);
}

#[test]
#[should_panic(expected = "the session that goes on was refused")]
fn a_stamp_read_before_the_user_is_noticed() {
    kept_while_siblings_end(true, false);
}
