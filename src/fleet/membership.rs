//! Who belongs to the fleet: letting go of nodes that say nothing, in two phases. Without I/O.
//!
//! A silent node is marked first, so that its next poll refuses; its row is removed once a lease that it got before can no
//! longer hold. To remove it at once would be wrong: a revocation would not wait for it while it still answers.

use std::collections::HashMap;
use std::time::Duration;

use crate::domain::id::NodeId;
use crate::domain::time::{BootTime, UnixMillis};
use crate::fleet::follower::wait_for_silent;
use crate::mutation::Mutation;
use crate::store::coordination::{NodeState, Roster};

/// Leases for which a node may say nothing before it is marked. Nodes acknowledge at least once in half a lease.
const SILENT_LEASES_MAX: u32 = 3;

/// What to do about the nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Measure {
    /// Mark the node as evicting, if nothing was heard of it since that moment.
    Mark(NodeId, UnixMillis),
    /// Remove the row of the node.
    Remove(NodeId),
}

/// The nodes that are being let go of, and since when this node has known.
#[derive(Clone, Debug, Default)]
pub struct Evictions {
    marked: HashMap<NodeId, Mark>,
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
        let evicting =
            |id: &NodeId| roster.nodes.iter().any(|node| node.id == *id && node.state == NodeState::Evicting);
        self.marked.retain(|id, _| evicting(id));
        let silent_max = silent_max(roster.lease);
        let heard_before = roster.time.minus(silent_max);
        let mut measures = Vec::new();
        for node in roster.nodes.iter().filter(|node| node.id != me) {
            let silent = node.heard_time < heard_before;
            match node.state {
                NodeState::Live if silent && Mutation::OnePhaseEviction.is_on() => {
                    measures.push(Measure::Remove(node.id));
                }
                NodeState::Live if silent => measures.push(Measure::Mark(node.id, heard_before)),
                NodeState::Live => {}
                NodeState::Evicting => {
                    let mark =
                        self.marked.entry(node.id).or_insert(Mark { made: node.evict_time, seen: now });
                    if mark.made != node.evict_time {
                        *mark = Mark { made: node.evict_time, seen: now };
                    }
                    if now.since(mark.seen) >= wait_for_silent(roster.lease) {
                        measures.push(Measure::Remove(node.id));
                    }
                }
            }
        }
        measures
    }
}

/// How long a node may say nothing before it is let go of.
pub fn silent_max(lease: Duration) -> Duration {
    lease.saturating_mul(SILENT_LEASES_MAX)
}

/// How often a node that has nothing new to say acknowledges all the same.
pub fn heartbeat(lease: Duration) -> Duration {
    lease / 2
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::*;
    use crate::store::coordination::NodeState::{Evicting, Live};

    const HEARD: Duration = Duration::from_secs(12);
    const SILENT: Duration = Duration::from_millis(12_001);

    #[test]
    fn only_others_that_are_silent_are_marked() {
        let roster = roster(&[(1, Live, 1, SILENT), (2, Live, 1, HEARD), (3, Live, 1, SILENT)]);
        let measures = Evictions::default().measures(node(1), &roster, millis(0));
        assert_eq!(measures, [Measure::Mark(node(3), NOW.minus(HEARD))]);
    }

    #[test]
    fn a_mark_is_waited_for_from_when_it_was_seen() {
        let mut evictions = Evictions::default();
        let marked = roster(&[(2, Evicting, 1, SILENT)]);
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
