//! Who belongs to the fleet: the failure detector, and the eviction of silent nodes in two phases. Without I/O.
//!
//! A silent node is marked first, so that its next poll refuses; its row is removed once a lease that it got before can no
//! longer hold. To remove it at once would be wrong: a revocation would not wait for it while it still answers.

use std::collections::HashMap;
use std::time::Duration;

use crate::domain::id::NodeId;
use crate::domain::time::{BootTime, UnixMillis};
use crate::fleet::follower::wait_for_silent;
use crate::mutation::Mutation;
use crate::store::coordination::{NodeRow, NodeState, Roster};

/// Leases for which a node may miss its heartbeats before it is marked. Nodes acknowledge at least once in a quarter of a lease.
const SILENT_LEASES_MAX: u32 = 3;

/// What to do about the nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Measure {
    /// Mark the node as evicting, if this is still its last heartbeat.
    Mark(NodeId, UnixMillis),
    /// Remove the row of the node.
    Remove(NodeId),
}

/// The failure detector of one node: when each other node was last heard of, and which ones are being evicted.
///
/// Silence is measured by the observer's own clock, from one read of the list to the next: a node is heard of when its
/// heartbeat is another one than before. What the heartbeat says does not matter, so no jump of the database's clock makes
/// a node silent.
#[derive(Clone, Debug, Default)]
pub struct Evictions {
    heard: HashMap<NodeId, Heard>,
    marked: HashMap<NodeId, Mark>,
    /// When the list was read before.
    read: Option<BootTime>,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    heartbeat: UnixMillis,
    /// For how long the heartbeat has been the same.
    silent: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    /// When it was made, database time. A mark that was lost and made anew is another one.
    made: Option<UnixMillis>,
    seen: BootTime,
}

impl Evictions {
    /// What to do about the nodes of `roster`, which had come by `now`. The wait is counted by this node's clock, and from
    /// when it first saw the mark, whoever made it.
    pub fn measures(&mut self, me: NodeId, roster: &Roster, now: BootTime) -> Vec<Measure> {
        let is_listed = |id: &NodeId| roster.nodes.iter().any(|node| node.id == *id);
        let evicting =
            |id: &NodeId| roster.nodes.iter().any(|node| node.id == *id && node.state == NodeState::Evicting);
        self.heard.retain(|id, _| is_listed(id));
        self.marked.retain(|id, _| evicting(id));
        // While the list could not be read, the nodes could not write their heartbeats either. Such a gap counts for one
        // lease at most, so that nobody is evicted at the first look after an outage.
        let gap = self.read.map_or(Duration::ZERO, |read| now.since(read)).min(roster.lease.longest);
        self.read = Some(now);
        let mut measures = Vec::new();
        for node in roster.nodes.iter().filter(|node| node.id != me) {
            let silent = self.is_silent(node, roster, gap);
            match node.state {
                NodeState::Live if silent && Mutation::OnePhaseEviction.is_on() => {
                    measures.push(Measure::Remove(node.id));
                }
                NodeState::Live if silent => measures.push(Measure::Mark(node.id, node.heard_time)),
                NodeState::Live => {}
                NodeState::Evicting => {
                    let mark =
                        self.marked.entry(node.id).or_insert(Mark { made: node.evict_time, seen: now });
                    if mark.made != node.evict_time {
                        *mark = Mark { made: node.evict_time, seen: now };
                    }
                    if now.since(mark.seen) >= wait_for_silent(roster.lease.longest) {
                        measures.push(Measure::Remove(node.id));
                    }
                }
            }
        }
        measures
    }

    /// Whether a node has missed its heartbeats for too long, `gap` after the list was read before. The first sight of a
    /// node counts as a heartbeat.
    fn is_silent(&mut self, node: &NodeRow, roster: &Roster, gap: Duration) -> bool {
        if Mutation::SilenceByDatabaseClock.is_on() {
            return node.heard_time < roster.time.minus(silent_max(roster.lease.longest));
        }
        let fresh = Heard { heartbeat: node.heard_time, silent: Duration::ZERO };
        let heard = self.heard.entry(node.id).or_insert(fresh);
        if heard.heartbeat == node.heard_time {
            heard.silent = heard.silent.saturating_add(gap);
        } else {
            *heard = fresh;
        }
        heard.silent > silent_max(roster.lease.longest)
    }
}

/// How long a node may say nothing before it is let go of, where `lease` is the longest that a node may hold.
pub fn silent_max(lease: Duration) -> Duration {
    lease.saturating_mul(SILENT_LEASES_MAX)
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::*;
    use crate::store::coordination::NodeState::{Evicting, Live};

    const HEARD: Duration = Duration::ZERO;
    const BEFORE: Duration = Duration::from_secs(1);

    /// Looks at the same list once a second, from `from` to `to`, and says what came of the last look.
    fn look_on(evictions: &mut Evictions, roster: &Roster, from: u64, to: u64) -> Vec<Measure> {
        (from..=to)
            .map(|second| evictions.measures(node(1), roster, millis(second * 1_000)))
            .last()
            .unwrap_or_default()
    }

    #[test]
    fn only_others_whose_heartbeat_stays_the_same_are_marked() {
        let mut evictions = Evictions::default();
        let before = roster(&[(1, Live, 1, BEFORE), (2, Live, 1, BEFORE), (3, Live, 1, BEFORE)]);
        assert_eq!(look_on(&mut evictions, &before, 0, 12), [], "three leases exactly");
        let heard = roster(&[(1, Live, 1, BEFORE), (2, Live, 1, HEARD), (3, Live, 1, BEFORE)]);
        assert_eq!(look_on(&mut evictions, &heard, 13, 13), [Measure::Mark(node(3), NOW.minus(BEFORE))]);
        assert_eq!(look_on(&mut evictions, &heard, 14, 25).len(), 1, "the other one was heard of at 13");
        assert_eq!(look_on(&mut evictions, &heard, 26, 26).len(), 2);
    }

    #[test]
    fn what_the_databases_clock_says_silences_nobody() {
        let mut evictions = Evictions::default();
        for second in 0..100 {
            // Each heartbeat is another one, by a clock that jumps to and fro.
            let jumped = Duration::from_secs(if second % 2 == 0 { 0 } else { 9_000 } + second);
            let ahead = Roster { time: NOW.plus(Duration::from_hours(1)), ..roster(&[(2, Live, 1, jumped)]) };
            assert_eq!(evictions.measures(node(1), &ahead, millis(second * 2_000)), []);
        }
    }

    #[test]
    fn nobody_is_evicted_at_the_first_look_after_an_outage() {
        let mut evictions = Evictions::default();
        let silent = roster(&[(2, Live, 1, BEFORE)]);
        assert_eq!(look_on(&mut evictions, &silent, 0, 2), []);
        assert_eq!(evictions.measures(node(1), &silent, millis(600_000)), [], "nobody could say anything");
        assert_eq!(look_on(&mut evictions, &silent, 601, 606), [], "2 s, a lease for the outage, and 6 s");
        assert_eq!(look_on(&mut evictions, &silent, 607, 607).len(), 1);
    }

    #[test]
    fn a_mark_is_waited_for_from_when_it_was_seen() {
        let mut evictions = Evictions::default();
        let marked = roster(&[(2, Evicting, 1, BEFORE)]);
        let mut look = |roster: &Roster, at| evictions.measures(node(1), roster, millis(at));
        assert_eq!(look(&marked, 1_000), []);
        assert_eq!(look(&marked, 1_000 + 5_049), []);
        assert_eq!(look(&marked, 1_000 + 5_050), [Measure::Remove(node(2))]);
        let mut made_anew = marked.clone();
        made_anew.nodes[0].evict_time = Some(NOW);
        assert_eq!(look(&made_anew, 9_000), [], "the mark before was lost");
        assert_eq!(look(&made_anew, 9_000 + 5_050), [Measure::Remove(node(2))]);
        assert_eq!(look(&roster(&[(2, Live, 1, HEARD)]), 20_000), []);
        assert_eq!(look(&made_anew, 21_000), [], "it counts anew after the node was live");
    }
}
