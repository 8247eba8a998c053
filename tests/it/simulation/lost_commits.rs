//! Stories of a database that loses commits, or is restored from a backup: numbers are given again with other content, and
//! epochs may be lower than they were.

use latchkey::domain::user::UserState;
use latchkey::fleet::follower::Refused;
use latchkey::fleet::member::Next;
use latchkey::store::coordination::{AckCommit, ServerId};

use super::database::Revocation;
use super::node::Verdict;
use super::people::{self, digest, session_id, user_id};
use super::stage::{LEASE, Stage};

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

/// A node writes lost changes again, and the next server loses some of that before the node has joined. It must notice.
#[test]
fn what_was_written_again_and_lost_again_is_written_again() {
    let mut stage = Stage::new(1);
    for session in 0..3 {
        stage.db.revoke(end(session), stage.now);
    }
    stage.poll(0);
    stage.db.fail_over(3);
    let asked = stage.ask(0);
    let polled = stage.answer(0, asked);
    assert_eq!(stage.hear(0, asked, &polled), Err(Refused::ChainBroken));
    let before = stage.nodes[0].member.leave().expect("it has joined");
    stage.db.leave(before);
    assert!(stage.write_again(0, 2));
    assert!(stage.write_again(0, 2));
    assert!(!stage.write_again(0, 2), "three sessions are two batches");
    assert!(!stage.db.fail_over(1).is_empty(), "the second batch is lost");
    stage.insert(0);
    let asked = stage.ask(0);
    let polled = stage.answer(0, asked);
    assert_eq!(stage.hear(0, asked, &polled), Err(Refused::ChainBroken));
    stage.join(0);
    stage.poll(0);
    for session in 0..3 {
        let read = stage.read(session);
        stage.fill(0, read);
        assert_eq!(stage.look_up(0, session), Verdict::Over, "session {session}");
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
    stage.pass(1_000);
    let asked = stage.ask(0);
    let polled = stage.answer(0, asked);
    assert_eq!(
        stage.hear(0, asked, &polled),
        Ok(Next::Acknowledge(polled.head, AckCommit::Durable(polled.server)))
    );
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
    assert_eq!(stage.look_up(1, 0), Verdict::Miss, "the row of the session says why it is over");
    let read = stage.read(0);
    stage.fill(1, read);
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

/// A standby took over, and the server that it replaced was not fenced: it goes on answering one node. With synchronous
/// replication it can commit nothing any more.
///
/// `LeaseWithoutDurableAck`
#[test]
fn a_replaced_server_that_goes_on_earns_no_lease() {
    let mut stage = Stage::new(2);
    stage.fill_everywhere(0);
    let replaced = stage.db.clone();
    let id = stage.nodes[1].member.node().expect("it has joined");
    let mut barrier = stage.revoke(0, end(0));
    let begun = stage.now;
    while !stage.stands(0, &mut barrier) {
        stage.pass(100);
        assert!(stage.now - begun < 3 * LEASE, "a revocation returns in the end");
        let asked = stage.ask(1);
        let polled = replaced.poll(id, asked.from, stage.page, stage.now);
        let next = stage.hear(1, asked, &polled).expect("it cannot tell");
        let durable = matches!(next, Next::Acknowledge(_, AckCommit::Durable(_)));
        assert!(durable || next == Next::Idle, "{next:?}");
    }
    stage.assert_nobody_accepts(0);
}

/// A node polls a replaced server, and its connection then leads to the new one: a commit there proves nothing about the poll.
///
/// `AckOfAnotherServer`
#[test]
fn an_acknowledgement_on_another_server_earns_no_lease() {
    let mut stage = Stage::new(2);
    stage.fill_everywhere(0);
    let replaced = stage.db.clone();
    stage.db.server = ServerId(2);
    let id = stage.nodes[1].member.node().expect("it has joined");
    let mut barrier = stage.revoke(0, end(0));
    let mut next = Next::Idle;
    while !stage.stands(0, &mut barrier) {
        stage.pass(100);
        let asked = stage.ask(1);
        let polled = replaced.poll(id, asked.from, stage.page, stage.now);
        next = stage.hear(1, asked, &polled).expect("it cannot tell");
    }
    assert!(matches!(next, Next::Acknowledge(_, AckCommit::Durable(_))), "{next:?}");
    stage.acknowledge(1, next);
    stage.assert_nobody_accepts(0);
}

/// The nodes began anew on a server whose standby was behind. It takes over, and knows neither what they ended nor them.
///
/// `RefusedBeforeCompared`
#[test]
fn a_node_whose_row_was_lost_as_well_writes_again_what_it_saw() {
    for is_marked in [false, true] {
        let mut stage = Stage::new(2);
        stage.fill_everywhere(0);
        stage.revoke(0, end(0));
        stage.poll(0);
        let id = stage.nodes[0].member.node().expect("it has joined");
        stage.db.fail_over_without(1, id);
        if is_marked {
            let heartbeat = super::database::time(stage.now);
            stage.db.insert_node(id, stage.now);
            stage.pass(60_000);
            stage.db.mark_evicting(id, heartbeat, stage.now);
        }
        let asked = stage.ask(0);
        let polled = stage.answer(0, asked);
        let refused = stage.hear(0, asked, &polled).expect_err("it has to begin anew");
        assert!(refused.needs_new_start());
        stage.join(0);
        for node in 0..2 {
            if node == 1 {
                stage.join(1);
            }
            stage.poll(node);
            let read = stage.read(0);
            stage.fill(node, read);
            assert_eq!(stage.look_up(node, 0), Verdict::Over, "written again");
        }
    }
}

/// The log was begun anew on a database that lost commits: everyone's sessions are over, and a user whom this node saw
/// disabled must not be able to sign in again.
#[test]
fn a_log_that_was_replaced_keeps_users_disabled() {
    let mut stage = Stage::new(1);
    stage.revoke(0, Revocation::Disable(user_id(0)));
    stage.revoke(0, Revocation::User(user_id(1), None));
    stage.poll(0);
    let epoch = stage.db.credentials(user_id(1)).user.credential_epoch;
    stage.db.fail_over(2);
    stage.db.start_new_log(stage.now);
    let asked = stage.ask(0);
    let polled = stage.answer(0, asked);
    assert_eq!(stage.hear(0, asked, &polled), Err(Refused::LogReplaced));
    stage.join(0);
    assert_eq!(stage.db.credentials(user_id(0)).user.state, UserState::Disabled);
    assert!(
        stage.db.credentials(user_id(1)).user.credential_epoch < epoch,
        "the sessions of the new log go on"
    );
}

/// A node applied row 1, the log lost it, and the list of nodes did not.
///
/// `AckWithoutNonce`
#[test]
fn an_acknowledgement_counts_for_the_row_that_was_applied() {
    let mut stage = Stage::new(2);
    stage.fill_everywhere(0);
    stage.db.revoke(end(1), stage.now);
    stage.poll(1);
    stage.db.fail_over_of_the_log_alone(2);
    let mut barrier = stage.revoke(0, end(0));
    stage.returns(0, &mut barrier, 0);
}
