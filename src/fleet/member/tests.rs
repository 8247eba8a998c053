//! What a member holds its lease by, and what it does when the log lost something.

use super::super::samples::*;
use super::*;
use crate::domain::change::LogEntry;
use crate::domain::id::{Epoch, UserId};
use crate::live::keeper::MemoryLimits;
use crate::live::table::Table;

fn member() -> (Member, Arc<Lease>) {
    let limits = MemoryLimits { sessions_max: 9, dead_max: 9, changes_max: 9 };
    let lease = Arc::<Lease>::default();
    let mut member = Member::new(Keeper::new(Table::new(1), limits), Arc::clone(&lease));
    member.joined(node(1), joined(3), millis(0));
    (member, lease)
}

fn hear(member: &mut Member, at: u64, polled: &Polled) -> Result<Next, Refused> {
    let asked = member.ask(millis(at)).expect("it has joined");
    member.hear(asked, polled, millis(at + 5))
}

#[test]
fn news_is_acknowledged_at_once_and_silence_durably() {
    let (mut member, lease) = member();
    assert_eq!(hear(&mut member, 0, &polled(3, [3])), Ok(Next::Idle), "the row of the node says so already");
    assert_eq!(hear(&mut member, 500, &polled(4, 3..=4)), Ok(Next::Acknowledge(at(4), AckCommit::Quick)));
    member.acknowledged(at(4), AckCommit::Quick, millis(505), millis(505));
    assert_eq!(hear(&mut member, 900, &polled(4, [4])), Ok(Next::Idle));
    assert_eq!(
        hear(&mut member, 1_000, &polled(5, 4..=5)),
        Ok(Next::Acknowledge(at(5), AckCommit::Durable(SERVER)))
    );
    member.acknowledged(at(5), AckCommit::Durable(SERVER), millis(1_005), millis(1_005));
    assert_eq!(hear(&mut member, 1_100, &polled(5, [5])), Ok(Next::Idle));
    assert_eq!((lease.end(), member.nonce()), (Some(millis(5_005)), Some(nonce(5))));
}

/// An old primary was polled, and the connection then led to the new one: neither proves anything about the other.
#[test]
fn a_commit_on_another_server_renews_no_lease() {
    let (mut member, lease) = member();
    assert_eq!(hear(&mut member, 0, &polled(3, [3])), Ok(Next::Idle));
    assert_eq!(
        hear(&mut member, 3_000, &polled(3, [3])),
        Ok(Next::Acknowledge(at(3), AckCommit::Durable(SERVER)))
    );
    let end = lease.end();
    let other = ServerId(2);
    member.acknowledged(at(3), AckCommit::Durable(other), millis(3_100), millis(3_100));
    assert_eq!(lease.end(), end, "committed by another server than the polled one");
    let elsewhere = Polled { server: other, ..polled(3, [3]) };
    assert_eq!(
        hear(&mut member, 3_200, &elsewhere),
        Ok(Next::Acknowledge(at(3), AckCommit::Durable(other))),
        "at once"
    );
    assert_eq!(lease.end(), end, "polled by another server than the committed one");
    member.acknowledged(at(3), AckCommit::Durable(other), millis(3_300), millis(3_300));
    assert!(lease.end() > end, "the control: both by the same server");
}

/// The lease counts from the older of the two: what was polled, and what was committed durably.
#[test]
fn without_a_durable_commit_a_lease_is_not_renewed() {
    let (mut member, lease) = member();
    for at in [0, 500, 1_500, 2_500, 3_900] {
        hear(&mut member, at, &polled(3, [3])).expect("a good log");
        member.not_acknowledged(AckCommit::Durable(SERVER), millis(at));
        member.acknowledged(self::at(3), AckCommit::Quick, millis(at), millis(at));
        assert_eq!(lease.end(), Some(millis(4_000)), "it joined at 0");
    }
    member.acknowledged(at(3), AckCommit::Durable(SERVER), millis(3_910), millis(3_910));
    assert_eq!(lease.end(), Some(millis(7_900)), "the poll is the older one now");
    assert_eq!(hear(&mut member, 4_000, &polled(3, [3])), Ok(Next::Idle));
    assert_eq!(lease.end(), Some(millis(7_910)));
}

#[test]
fn a_refusal_takes_the_lease_at_once() {
    let (mut member, lease) = member();
    assert!(hear(&mut member, 0, &polled(3, [3])).is_ok());
    assert!(lease.end().is_some());
    let replica = Polled { is_primary: false, ..polled(3, [3]) };
    assert_eq!(hear(&mut member, 100, &replica), Err(Refused::NotPrimary));
    assert_eq!((lease.end(), member.to_write_again(9)), (None, None));
    assert_eq!((member.leave(), member.ask(millis(0))), (Some(node(1)), None));
}

#[test]
fn what_was_seen_is_written_again_until_it_is() {
    let (mut member, _) = member();
    let changed = |position, user| LoggedChange {
        entry: LogEntry::UserChanged {
            user: UserId::from_uuid(uuid::Uuid::from_u128(user)),
            epoch: Epoch::FIRST,
        },
        ..row(position)
    };
    member.apply_own(&[changed(5, 1)], millis(0));
    let mut seen = polled(7, 3..=4);
    seen.rows.extend([changed(5, 1), changed(6, 2), changed(7, 1)]);
    assert!(hear(&mut member, 0, &seen).is_ok());
    assert_eq!(member.to_write_again(9), None, "nothing is lost");
    assert_eq!(hear(&mut member, 9, &polled(3, [3])), Err(Refused::ChainBroken));
    let lost = [row(4), changed(6, 2), changed(7, 1)];
    let batch = member.to_write_again(9).expect("some are lost");
    assert_eq!(batch.changes, lost, "one change of each user");
    member.leave();
    assert_eq!(member.to_write_again(9).map(|batch| batch.changes), Some(lost.to_vec()), "it may fail");
    let first = member.to_write_again(2).expect("a batch");
    member.wrote_again(&first, Some((at(4), nonce(4))));
    let rest = member.to_write_again(2).expect("what is left");
    assert_eq!(rest.changes, lost[2..], "progress is kept");
    member.wrote_again(&rest, Some((at(5), nonce(5))));
    assert_eq!(member.to_write_again(2), None);
    member.joined(node(2), joined(9), millis(0));
    assert_eq!((member.applied(), member.nonce()), (at(5), Some(nonce(5))), "it is checked again");
    let other = Polled { rows: vec![LoggedChange { nonce: nonce(77), ..row(5) }], ..polled(9, []) };
    assert_eq!(hear(&mut member, 20, &other), Err(Refused::ChainBroken));
    let all = member.to_write_again(9).map(|batch| batch.changes);
    assert_eq!(all, Some(lost.to_vec()), "what was written again was lost again");
}

#[test]
fn only_reads_of_this_member_are_taken_in() {
    let (mut member, _) = member();
    let read = |position| Fill {
        position: at(position),
        everyone_epoch: Epoch::FIRST,
        asked: vec![crate::domain::token::TokenDigest([1; 16])],
        found: Vec::new(),
    };
    for stranger in [None, Some(node(2))] {
        member.fill(stranger, read(9), NOW);
        assert_eq!(member.holding().dead, 0);
    }
    member.fill(Some(node(1)), read(9), NOW);
    assert_eq!(member.holding().dead, 1);
    assert_eq!(hear(&mut member, 0, &polled(8, 3..=8)), Err(Refused::ChainBroken), "9 was committed");
}
