//! Rows, polls and nodes for the tests of this part.

use std::time::Duration;

use uuid::Uuid;

use crate::domain::change::{LogEntry, LoggedChange};
use crate::domain::id::{Epoch, LogId, NodeId, Nonce, Position};
use crate::domain::time::{BootTime, UnixMillis};
use crate::store::coordination::{Joined, LeaseDuration, NodeRow, NodeState, Polled, Roster, ServerId};

pub(super) const LEASE: Duration = Duration::from_secs(4);
pub(super) const NOW: UnixMillis = UnixMillis::from_millis(1_000_000);

pub(super) fn at(position: i64) -> Position {
    Position::from_i64(position)
}

/// A moment so many milliseconds after the boot.
pub(super) fn millis(millis: u64) -> BootTime {
    BootTime::from_span(Duration::from_millis(millis))
}

pub(super) fn node(number: u128) -> NodeId {
    NodeId::from_uuid(Uuid::from_u128(number))
}

pub(super) fn log(number: u128) -> LogId {
    LogId::from_uuid(Uuid::from_u128(number))
}

pub(super) fn nonce(position: i64) -> Nonce {
    Nonce(position.to_le_bytes())
}

pub(super) fn row(position: i64) -> LoggedChange {
    LoggedChange {
        position: at(position),
        nonce: nonce(position),
        entry: LogEntry::EveryoneEnded { epoch: Epoch::from_i64(position) },
        time: NOW,
    }
}

pub(super) fn joined(position: i64) -> Joined {
    let nonce = (position > 0).then(|| nonce(position));
    Joined { log: log(1), position: at(position), nonce }
}

/// The server that answers.
pub(super) const SERVER: ServerId = ServerId(1);

/// An answer that is good, with these rows.
pub(super) fn polled(head: i64, rows: impl IntoIterator<Item = i64>) -> Polled {
    Polled {
        log: log(1),
        head: at(head),
        lease: LeaseDuration::settled(LEASE),
        node: Some(NodeState::Live),
        is_primary: true,
        server: SERVER,
        time: NOW,
        rows: rows.into_iter().map(row).collect(),
    }
}

/// Nodes, each with what it has applied and how long ago it was heard of.
pub(super) fn roster(nodes: &[(u128, NodeState, i64, Duration)]) -> Roster {
    let row = |&(number, state, applied, silent): &(u128, NodeState, i64, Duration)| NodeRow {
        id: node(number),
        name: String::new(),
        state,
        applied: at(applied),
        nonce: Some(nonce(applied)),
        is_logged: true,
        join_time: NOW,
        heard_time: NOW.minus(silent),
        evict_time: None,
    };
    Roster {
        time: NOW,
        head: at(9),
        lease: LeaseDuration::settled(LEASE),
        nodes: nodes.iter().map(row).collect(),
    }
}
