//! A session that is used within its idle limit, on whichever node, is idle on none of them.
//!
//! Two memories over one number, the last use that the database knows. Uses, questions and writings come at random; each
//! memory writes its uses down by the rules of the program, as late as these allow.

use std::collections::BTreeMap;
use std::time::Duration;

use latchkey::config::{Config, contradictions, uses_lead};
use latchkey::domain::id::Epoch;
use latchkey::domain::session::{Death, Session};
use latchkey::domain::time::UnixMillis;
use latchkey::live::keeper::Keeper;
use latchkey::live::table::LookUp;

use super::samples::{BEGIN, LIFETIME, Memory, digest, fill, session, user};
use crate::support::dice::{Dice, replay, seeds};

/// How often uses are written down, and the shortest idle limit that goes with it.
const FLUSH_MS: u64 = 1_000;
const IDLE_LIMIT: Duration = Duration::from_mins(2);
/// How long the writing may take.
const WRITING_MS: i64 = 2_000;
const STEPS: usize = 400;

/// What a memory answers a use.
#[derive(PartialEq, Eq, Debug)]
enum Told {
    Good,
    Idle,
}

struct Node {
    memory: Memory,
    keeper: Keeper,
    /// When the writing of uses that it took out of its book reaches the database.
    writing: BTreeMap<i64, Vec<UnixMillis>>,
    next_flush: i64,
}

struct World {
    nodes: [Node; 2],
    written: UnixMillis,
    now: i64,
}

fn moment(now: i64) -> UnixMillis {
    UnixMillis::from_millis(BEGIN.as_millis() + now)
}

impl World {
    fn new(lead: Duration) -> Self {
        let node = || {
            let (memory, mut keeper) = Memory::beside_others(10, lead);
            memory.lease.publish(latchkey::domain::time::BootTime::from_nanos(u64::MAX));
            keeper.fill(fill(0, vec![(digest(1), Self::row(BEGIN), user(1, Epoch::FIRST))]), BEGIN);
            Node { memory, keeper, writing: BTreeMap::new(), next_flush: 0 }
        };
        Self { nodes: [node(), node()], written: BEGIN, now: 0 }
    }

    fn row(seen: UnixMillis) -> Session {
        Session { last_seen_time: seen, idle_limit: IDLE_LIMIT, ..session(1, 1, Epoch::FIRST) }
    }

    /// Time passes, and what is due meanwhile is written.
    fn advance(&mut self, span: i64, dice: &mut Dice) {
        let until = self.now + span;
        while let Some((at, number)) = self.next_event().filter(|(at, _)| *at <= until) {
            self.now = at;
            let node = &mut self.nodes[number];
            if let Some(uses) = node.writing.remove(&at) {
                self.written = uses.iter().copied().fold(self.written, UnixMillis::max);
                let written: Vec<_> =
                    uses.iter().map(|used| (session(1, 1, Epoch::FIRST).id, *used)).collect();
                node.memory.table.uses_written(&written);
            } else {
                let due = node.memory.table.uses_due(moment(at));
                if !due.is_empty() {
                    let takes = i64::try_from(dice.below(usize::try_from(WRITING_MS).expect("small")))
                        .expect("small");
                    node.writing.insert(at + takes, due.iter().map(|(_, used)| *used).collect());
                }
                node.next_flush = at + i64::try_from(FLUSH_MS).expect("small");
            }
        }
        self.now = until;
    }

    fn next_event(&self) -> Option<(i64, usize)> {
        let of_node = |(number, node): (usize, &Node)| {
            let written = node.writing.keys().next().copied();
            Some((written.map_or(node.next_flush, |at| at.min(node.next_flush)), number))
        };
        self.nodes.iter().enumerate().filter_map(of_node).min()
    }

    /// The session is used on a node.
    fn ask(&mut self, number: usize) -> Told {
        let now = moment(self.now);
        for _ in 0..5 {
            let node = &mut self.nodes[number];
            let told = node.memory.table.look_up(
                &node.memory.lease,
                || node.memory.now(),
                &digest(1),
                |_| now,
                |good| {
                    let first = good.is_to_be_written_first(now);
                    if !first {
                        good.note_use(now);
                    }
                    first
                },
            );
            match told.expect("the lease holds") {
                LookUp::Good(false) => return Told::Good,
                LookUp::Good(true) => {
                    self.written = self.written.max(now);
                    node.memory.table.use_written(&digest(1), now);
                }
                LookUp::Over(Death::Expired) => return Told::Idle,
                LookUp::Miss => {
                    let read = fill(0, vec![(digest(1), Self::row(self.written), user(1, Epoch::FIRST))]);
                    node.keeper.fill(read, now);
                }
                other => panic!("{other:?}"),
            }
        }
        panic!("asked again and again");
    }
}

/// Whether a session was told to be idle that was used within its limit; and how often it was told so rightly.
fn play(seed: u64, lead: Duration) -> (bool, usize) {
    let (mut dice, mut world, mut used, mut idle) = (Dice::new(seed), World::new(lead), 0, 0);
    let limit = i64::try_from(IDLE_LIMIT.as_millis()).expect("small");
    for _ in 0..STEPS {
        // Most pauses end close to a limit: that of the last use, or that of the last use that is written.
        let near = |base: i64, dice: &mut Dice| {
            let around = i64::try_from(dice.below(8_000)).expect("small") - 6_000;
            (base + limit + around - world.now).max(1)
        };
        let written = world.written.as_millis() - BEGIN.as_millis();
        let span = match dice.below(4) {
            0 => i64::try_from(dice.below(60_000)).expect("small") + 1,
            1 => near(used, &mut dice),
            _ => near(written, &mut dice),
        };
        world.advance(span, &mut dice);
        if world.now > i64::try_from(LIFETIME.as_millis()).expect("small") - 1_000 {
            break;
        }
        let is_used = world.now - used < limit;
        match world.ask(dice.below(2)) {
            Told::Good => used = world.now,
            Told::Idle if is_used => return (true, idle),
            Told::Idle => {
                idle += 1;
                // It is over; another one begins.
                world = World::new(lead);
                used = 0;
            }
        }
    }
    (false, idle)
}

#[test]
fn a_session_that_is_used_within_the_limit_is_idle_on_no_node() {
    let mut config = Config::default();
    config.session.idle_limit_s = IDLE_LIMIT.as_secs();
    config.maintenance.last_seen_flush_ms = FLUSH_MS;
    assert_eq!(contradictions(&config), []);
    let mut idle = 0;
    for seed in seeds(200) {
        let (wrong, rightly) = play(seed, uses_lead(FLUSH_MS));
        assert!(!wrong, "{}", replay(seed));
        idle += rightly;
    }
    assert!(idle > 0, "none of them was ever idle");
}

/// The same where uses are written down by and by alone.
#[test]
fn a_use_that_is_written_too_late_is_noticed() {
    let noticed = (1..=200).filter(|seed| play(*seed, Duration::ZERO).0).count();
    assert!(noticed > 10, "{noticed}");
}
