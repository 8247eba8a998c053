//! Stories of a database that loses commits, or is restored from a backup: numbers are given again with other content, and
//! epochs may be lower than they were.

use latchkey::fleet::follower::Refused;
use latchkey::fleet::member::Next;

use super::database::Revocation;
use super::node::Verdict;
use super::people::{self, digest, session_id, user_id};
use super::stage::Stage;

fn end(session: usize) -> Revocation {
    Revocation::Session(session_id(session))
}

/// A node hears of row 1, the database loses it, and the acknowledgement reaches the one that took over. Whoever gave the
/// number to another change must not take it for an acknowledgement of that.
#[test]
fn an_acknowledgement_of_a_lost_row_counts_for_nothing() {
    let mut stage = Stage::new(2);
    stage.fill_everywhere(0);
    stage.db.revoke(end(1), stage.now);
    let asked = stage.ask(1);
    let polled = stage.answer(1, asked);
    let next = stage.hear(1, asked, &polled).expect("a good log");
    assert_eq!(stage.db.fail_over(1).len(), 1);
    let mut barrier = stage.revoke(0, end(0));
    stage.acknowledge(1, next);
    stage.returns(0, &mut barrier, 0);
}

/// A node revokes, the database loses it, and another change has its number before the node comes there.
#[test]
fn a_node_notices_that_its_own_change_was_lost() {
    let mut stage = Stage::new(2);
    stage.revoke(0, end(0));
    stage.db.fail_over(1);
    stage.revoke(1, end(1));
    let asked = stage.ask(0);
    let polled = stage.answer(0, asked);
    assert_eq!(stage.hear(0, asked, &polled), Err(Refused::ChainBroken));
    stage.join(0);
    stage.poll(0);
    stage.poll(1);
    for node in 0..2 {
        for session in 0..2 {
            let read = stage.read(session);
            stage.fill(node, read);
            assert_eq!(stage.look_up(node, session), Verdict::Over, "written again");
        }
    }
}

/// A read counts in the numbers of a log that was lost, and comes back when they have been given again.
#[test]
fn a_read_from_before_a_new_start_is_not_taken_in() {
    let mut stage = Stage::new(2);
    stage.db.revoke(Revocation::Enable(user_id(1)), stage.now);
    stage.db.revoke(Revocation::Enable(user_id(1)), stage.now);
    let (reader, late) = (stage.nodes[1].member.node(), stage.read(0));
    let asked = stage.ask(1);
    let polled = stage.answer(1, asked);
    stage.hear(1, asked, &polled).expect("a good log");
    stage.db.fail_over(2);
    let asked = stage.ask(1);
    let polled = stage.answer(1, asked);
    assert_eq!(stage.hear(1, asked, &polled), Err(Refused::ChainBroken));
    stage.join(1);
    let mut barrier = stage.revoke(0, end(0));
    stage.poll(1);
    let now = stage.now;
    stage.nodes[1].fill(reader, late, now);
    stage.returns(0, &mut barrier, 0);
}

/// What was read shows that a change was committed, also where the log had not told of it yet.
#[test]
fn a_head_behind_what_was_read_is_a_broken_chain() {
    let mut stage = Stage::new(1);
    stage.db.revoke(Revocation::Enable(user_id(1)), stage.now);
    let read = stage.read(0);
    stage.fill(0, read);
    stage.db.fail_over(1);
    let asked = stage.ask(0);
    let polled = stage.answer(0, asked);
    assert_eq!(stage.hear(0, asked, &polled), Err(Refused::ChainBroken));
}

/// After a restore everyone signs in anew, by epochs that are lower than those that memory knows of the log before.
#[test]
fn a_restored_database_can_be_signed_in_to() {
    let mut stage = Stage::new(2);
    stage.fill_everywhere(0);
    stage.fill_everywhere(1);
    for _ in 0..3 {
        stage.db.revoke(Revocation::Everyone, stage.now);
        stage.db.revoke(Revocation::User(user_id(0), None), stage.now);
    }
    stage.db.revoke(end(1), stage.now);
    stage.poll(0);
    stage.poll(1);
    stage.db.start_new_log(stage.now);
    let credentials = stage.db.credentials(user_id(0));
    stage.db.create_session(digest(5), people::session(5, &credentials));
    for node in 0..2 {
        let asked = stage.ask(node);
        let polled = stage.answer(node, asked);
        assert_eq!(stage.hear(node, asked, &polled), Err(Refused::LogChanged));
        stage.join(node);
        stage.poll(node);
        for (session, verdict) in [(5, Verdict::Good), (0, Verdict::Over), (1, Verdict::Over)] {
            let read = stage.read(session);
            stage.fill(node, read);
            assert_eq!(stage.look_up(node, session), verdict, "session {session} on node {node}");
        }
    }
}

/// Nothing is acknowledged twice without need, and a node that has nothing new to say is heard of all the same.
#[test]
fn a_quiet_node_is_heard_of() {
    let mut stage = Stage::new(1);
    let asked = stage.ask(0);
    let polled = stage.answer(0, asked);
    assert_eq!(stage.hear(0, asked, &polled), Ok(Next::Idle));
    stage.pass(2_000);
    let asked = stage.ask(0);
    let polled = stage.answer(0, asked);
    assert_eq!(stage.hear(0, asked, &polled), Ok(Next::Acknowledge(polled.head)));
}

/// That a user is disabled was read ahead of the log, and was lost: who was refused by that stays refused.
#[test]
fn who_was_refused_by_a_read_stays_refused() {
    let mut stage = Stage::new(2);
    let credentials = stage.db.credentials(user_id(0));
    stage.db.create_session(digest(3), people::session(3, &credentials));
    stage.fill_everywhere(0);
    stage.db.revoke(Revocation::Disable(user_id(0)), stage.now);
    let sibling = stage.read(3);
    stage.fill(1, sibling);
    assert_eq!(stage.look_up(1, 0), Verdict::Over);
    stage.db.fail_over(1);
    let asked = stage.ask(1);
    let polled = stage.answer(1, asked);
    assert_eq!(stage.hear(1, asked, &polled), Err(Refused::ChainBroken));
    stage.join(1);
    stage.poll(1);
    let read = stage.read(0);
    stage.fill(1, read);
    assert_eq!(stage.look_up(1, 0), Verdict::Over);
}
