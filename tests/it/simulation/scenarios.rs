//! Stories with an end that is known: for each rule of the protocol the one in which the rule is needed. The broken
//! variant of the rule, named in front of each, makes its story end badly.

use latchkey::fleet::follower::Refused;
use latchkey::fleet::member::Next;
use latchkey::fleet::membership::{Evictions, Measure};
use latchkey::live::table::{GoodSession, LookUp};
use latchkey::mutation::Mutation;
use latchkey::store::coordination::AckCommit;

use super::clock::Moment;
use super::database::{self, Revocation};
use super::node::Verdict;
use super::people::{self, digest, session_id, user_id};
use super::stage::{LEASE, Stage};

/// The session that is revoked is number 0.
fn end() -> Revocation {
    Revocation::Session(session_id(0))
}

/// A change that touches nobody else's sessions.
fn other() -> Revocation {
    Revocation::Enable(user_id(1))
}

/// `NoWait`
#[test]
fn a_revocation_waits_for_those_who_have_not_applied_it() {
    let mut stage = Stage::new(3);
    stage.fill_everywhere(0);
    let mut barrier = stage.revoke(0, end());
    assert_eq!(stage.look_up(0, 0), Verdict::Over, "it is in force at home at once");
    stage.poll(1);
    assert!(!stage.stands(0, &mut barrier), "not yet on the third node");
    stage.poll(2);
    assert!(stage.stands(0, &mut barrier), "no longer than needed");
    stage.returns(0, &mut barrier, 0);
}

/// `LeaseFromReply`
#[test]
fn a_lease_counts_from_the_question() {
    let mut stage = Stage::new(2);
    stage.fill_everywhere(0);
    let asked = stage.ask(1);
    let polled = stage.answer(1, asked);
    let mut barrier = stage.revoke(0, end());
    stage.pass(1_500);
    stage.hear(1, asked, &polled).expect("the answer is good, and late");
    stage.returns(0, &mut barrier, 0);
}

/// `MonotonicClock`
#[test]
fn a_lease_runs_out_in_a_suspended_machine() {
    let mut stage = Stage::new(2);
    stage.fill_everywhere(0);
    let now = stage.now;
    stage.nodes[1].clock.suspend(5 * LEASE, now);
    let mut barrier = stage.revoke(0, end());
    stage.returns(0, &mut barrier, 0);
    stage.now = now.plus(5 * LEASE);
    stage.assert_nobody_accepts(0);
}

/// `StateBeforeLease`
#[test]
fn the_lease_is_looked_at_before_the_state() {
    let mut stage = Stage::new(1);
    stage.fill_everywhere(0);
    stage.pass(2 * 4_000);
    let (node, now) = (&mut stage.nodes[0], stage.now);
    let (lease, clock) = (std::sync::Arc::clone(&node.lease), node.clock);
    // While the answer is made the session is ended and a poll renews the lease.
    let answer = |_: &GoodSession<'_>| lease.publish(clock.boottime(now.plus(LEASE)));
    let clock = || clock.boottime(now);
    let told = node.table.look_up(&node.lease, clock, &digest(0), |_| database::time(now), answer);
    assert!(!matches!(told, Some(LookUp::Good(()))), "{told:?}");
}

/// `AcknowledgeBeforeApply`
#[test]
fn rows_are_acknowledged_when_they_are_in_memory() {
    let mut stage = Stage::new(2);
    stage.fill_everywhere(0);
    let mut barrier = stage.revoke(0, end());
    let asked = stage.ask(1);
    let polled = stage.answer(1, asked);
    let next = stage.hear(1, asked, &polled).expect("a good log");
    let Next::Acknowledge(position, _) = next else { panic!("{next:?}") };
    let id = stage.nodes[1].member.node().expect("it has joined");
    // It reaches the database; its answer is still on the way.
    let nonce = stage.nodes[1].member.nonce();
    stage.db.acknowledge(id, position, nonce, stage.now);
    assert!(stage.stands(0, &mut barrier));
    stage.assert_nobody_accepts(0);
}

/// `LeaseBeforeHead`
#[test]
fn a_lease_is_earned_at_the_head() {
    let mut stage = Stage::new(2);
    stage.fill_everywhere(0);
    stage.page = 2;
    for _ in 0..4 {
        stage.revoke(0, other());
    }
    let mut barrier = stage.revoke(0, end());
    stage.pass(4_900);
    // The first page comes late, and no other.
    stage.poll(1);
    stage.returns(0, &mut barrier, 0);
}

/// `WaitFromBeforeCommit`
#[test]
fn the_wait_counts_from_the_commit() {
    let mut stage = Stage::new(2);
    stage.fill_everywhere(0);
    let (begun, transaction) = (stage.now, stage.db.begin(end()));
    stage.pass(1_500);
    stage.poll(1);
    let change = stage.db.commit(transaction, stage.now);
    let now = stage.now;
    let mut barrier = stage.nodes[0].committed(&change.rows, change.position, begun, now);
    stage.returns(0, &mut barrier, 0);
}

/// `NumberFromASequence`
#[test]
fn numbers_are_in_the_order_of_commits() {
    let mut stage = Stage::new(2);
    let slow = stage.db.begin(end());
    stage.revoke(0, other());
    stage.join(1);
    stage.poll(1);
    stage.fill_everywhere(0);
    let (now, change) = (stage.now, stage.db.commit(slow, stage.now));
    let mut barrier = stage.nodes[0].committed(&change.rows, change.position, now, now);
    if !stage.stands(0, &mut barrier) {
        stage.poll(1);
    }
    stage.returns(0, &mut barrier, 0);
}

/// `ExclusivePollWithoutNonce`
#[test]
fn a_number_that_was_given_again_is_noticed() {
    let mut stage = Stage::new(2);
    stage.fill_everywhere(0);
    stage.revoke(0, other());
    stage.poll(0);
    stage.poll(1);
    // The second node sees the end of session 1, and the database loses it.
    stage.db.revoke(Revocation::Session(session_id(1)), stage.now);
    let asked = stage.ask(1);
    let polled = stage.answer(1, asked);
    assert_eq!(stage.hear(1, asked, &polled), Ok(Next::Acknowledge(polled.head, AckCommit::Quick)));
    assert_eq!(stage.db.fail_over(1).len(), 1);
    // Its number is given to the end of session 0.
    let mut barrier = stage.revoke(0, end());
    let asked = stage.ask(1);
    let polled = stage.answer(1, asked);
    match stage.hear(1, asked, &polled) {
        Ok(next) => stage.acknowledge(1, next),
        Err(refused) => assert_eq!(refused, Refused::ChainBroken),
    }
    stage.returns(0, &mut barrier, 0);
    // What the second node knows is written again when it joins.
    stage.join(1);
    stage.poll(1);
    stage.poll(0);
    for node in 0..2 {
        let read = stage.read(1);
        stage.fill(node, read);
        assert_eq!(stage.look_up(node, 1), Verdict::Over);
    }
}

/// `OnePhaseEviction`
#[test]
fn a_silent_node_is_marked_before_it_is_let_go_of() {
    let mut stage = Stage::new(2);
    stage.fill_everywhere(0);
    let (mut evictions, mut measures) = (Evictions::default(), Vec::new());
    for _ in 0..14 {
        stage.pass(1_000);
        stage.poll(0);
        measures = stage.look_after_nodes(0, &mut evictions);
    }
    // Before any of them is taken, the node comes back; that it did is not acknowledged yet.
    let asked = stage.ask(1);
    let polled = stage.answer(1, asked);
    stage.hear(1, asked, &polled).expect("it is still live");
    assert_eq!(measures.len(), 1);
    for measure in measures {
        match measure {
            Measure::Mark(node, heartbeat) => stage.db.mark_evicting(node, heartbeat, stage.now),
            Measure::Remove(node) if Mutation::OnePhaseEviction.is_on() => stage.db.leave(node),
            Measure::Remove(node) => stage.db.remove_evicted(node),
        }
    }
    let mut barrier = stage.revoke(0, end());
    stage.returns(0, &mut barrier, 0);
    let asked = stage.ask(1);
    let polled = stage.answer(1, asked);
    assert_eq!(stage.hear(1, asked, &polled), Err(Refused::Evicting));
}

/// `SilenceByDatabaseClock`
#[test]
fn a_jump_of_the_databases_clock_evicts_nobody() {
    for ahead in [60_000, -60_000, 172_800_000] {
        let mut stage = Stage::new(2);
        let mut evictions = Evictions::default();
        for second in 0..40 {
            // It jumps after this node has read its heartbeat, and before the other one writes the next.
            stage.db.clock.ahead = if (10..25).contains(&second) { ahead } else { 0 };
            stage.poll(0);
            let measures = stage.look_after_nodes(0, &mut evictions);
            assert_eq!(measures, [], "{second} s, ahead by {ahead} ms");
            if second % 2 == 0 {
                stage.poll(1);
            }
            stage.pass(1_000);
        }
        // Who says nothing is found all the same, while the clock stands still.
        let found = (0..14_i64).any(|second| {
            stage.pass(1_000);
            stage.db.clock.ahead -= 1_000 * second.min(1);
            stage.poll(0);
            !stage.look_after_nodes(0, &mut evictions).is_empty()
        });
        assert!(found || Mutation::SilenceByDatabaseClock.is_on());
    }
}

/// `UnversionedFill`
#[test]
fn a_read_that_was_overtaken_does_not_bring_a_session_back() {
    let mut stage = Stage::new(2);
    let late = stage.read(0);
    let mut barrier = stage.revoke(0, end());
    stage.poll(1);
    stage.fill(1, late);
    stage.returns(0, &mut barrier, 0);
    assert_eq!(stage.look_up(1, 0), Verdict::Miss);
    let read = stage.read(0);
    stage.fill(1, read);
    assert_eq!(stage.look_up(1, 0), Verdict::Over);
}

/// `FillIgnoresLocal`
#[test]
fn what_a_node_wrote_itself_overtakes_its_reads() {
    let mut stage = Stage::new(1);
    let late = stage.read(0);
    let mut barrier = stage.revoke(0, end());
    assert!(stage.stands(0, &mut barrier), "there is nobody to wait for");
    stage.fill(0, late);
    stage.assert_nobody_accepts(0);
}

/// `DeathNotRemembered`
#[test]
fn a_session_that_was_read_as_over_stays_over() {
    let mut stage = Stage::new(2);
    let alive = stage.read(0);
    stage.revoke(0, end());
    let dead = stage.read(0);
    // The second node has not heard of it by the log.
    stage.fill(1, dead);
    assert_eq!(stage.look_up(1, 0), Verdict::Over);
    stage.fill(1, alive);
    assert_eq!(stage.look_up(1, 0), Verdict::Over);
    stage.poll(1);
    assert_eq!(stage.look_up(1, 0), Verdict::Over);
}

/// The moments of a stage are those of the world.
#[test]
fn a_story_begins_with_leases_for_all() {
    let stage = Stage::new(3);
    assert_eq!(stage.now, Moment::default());
    assert!(stage.nodes.iter().all(|node| node.is_leased(stage.now)));
}

/// A read that is ahead of the log tells that the siblings of a session ended, but not that it goes on.
#[test]
fn the_session_that_goes_on_never_looks_dead() {
    let mut stage = Stage::new(2);
    for session in [3, 4] {
        let credentials = stage.db.credentials(user_id(0));
        stage.db.create_session(digest(session), people::session(session, &credentials));
        stage.fill_everywhere(session);
    }
    stage.revoke(0, Revocation::Password(user_id(0), Some(session_id(3))));
    let sibling = stage.read(4);
    stage.fill(1, sibling);
    assert_eq!(stage.look_up(1, 4), Verdict::Over);
    assert_eq!(stage.look_up(1, 3), Verdict::Miss, "in doubt until it is read");
    let read = stage.read(3);
    stage.fill(1, read);
    assert_eq!(stage.look_up(1, 3), Verdict::Good);
    stage.poll(1);
    assert_eq!((stage.look_up(1, 3), stage.look_up(1, 4)), (Verdict::Good, Verdict::Over));
}
