//! What goes wrong: machines that stop, are suspended or begin anew, clocks that change their rate, messages that are lost
//! or late in one direction, and a database that is slow, away, read-only for a while or fails over.

use std::time::Duration;

use super::clock::Moment;
use super::people;
use super::world::{Event, UNDISTURBED_MAX, World};

/// What is wrong with the database and the network.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fault {
    /// Nothing is disturbed any more.
    healed: bool,
    slow_until: Moment,
    down_until: Moment,
    read_only_until: Moment,
}

/// What is wrong with one node, and until when.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble {
    stopped: Moment,
    unheard: Moment,
    deaf: Moment,
}

impl Fault {
    /// Whether the database cannot be reached.
    pub fn is_down(&self, now: Moment) -> bool {
        now < self.down_until
    }
}

impl Trouble {
    /// How long the process does not run.
    pub fn stopped_for(&self, now: Moment) -> Option<Duration> {
        (now < self.stopped).then(|| self.stopped - now)
    }

    /// Whether nothing it says gets through.
    pub fn is_unheard(&self, now: Moment) -> bool {
        now < self.unheard
    }

    /// Whether no answer gets through to it.
    pub fn hears_nothing(&self, now: Moment) -> bool {
        now < self.deaf
    }
}

impl World {
    /// Something goes wrong, and the next thing some time later.
    pub fn go_wrong(&mut self) {
        if self.fault.healed {
            return;
        }
        let span = self.about(self.plan.fault_pace);
        self.after(span, Event::Fault);
        let node = self.dice.below(self.plan.nodes);
        let end = Moment::default().plus(self.plan.faulty);
        let until = self.now.plus(self.trouble_span()).min(end);
        let now = self.now;
        match self.dice.below(100) {
            0..16 => self.processes[node].trouble.stopped = until,
            16..28 => {
                self.processes[node].trouble.stopped = until;
                self.processes[node].node.clock.suspend(until - now, now);
            }
            28..38 => self.restart(node),
            38..50 => self.processes[node].trouble.unheard = until,
            50..62 => self.processes[node].trouble.deaf = until,
            62..70 => {
                let rate = self.any_rate();
                self.processes[node].node.clock.set_rate(rate, now);
            }
            70..78 => self.fault.slow_until = until,
            78..84 => self.fault.down_until = until,
            84..88 => {
                self.fault.read_only_until = until;
                self.db.is_primary = false;
            }
            _ if self.plan.fails_over => self.fail_over(),
            _ => self.processes[node].trouble.deaf = until,
        }
        self.db.is_primary = now >= self.fault.read_only_until;
    }

    /// Everything is well again.
    pub fn heal(&mut self) {
        self.fault = Fault { healed: true, ..Fault::default() };
        self.db.is_primary = true;
        for process in &mut self.processes {
            process.trouble = Trouble::default();
        }
    }

    /// How long a message is on its way.
    pub fn delay(&mut self) -> Duration {
        let most = u64::try_from(UNDISTURBED_MAX.as_micros()).expect("small");
        let usual = Duration::from_micros(100 + self.dice.number() % 3_000);
        if self.fault.healed {
            return Duration::from_micros(100 + self.dice.number() % (most - 100));
        }
        let slow = self.now < self.fault.slow_until;
        match self.dice.below(1_000) {
            0..4 => Duration::from_millis(self.dice.number() % 5_000),
            4..30 => Duration::from_millis(self.dice.number() % 1_200),
            _ if slow => Duration::from_millis(self.dice.number() % 900),
            _ => usual,
        }
    }

    /// How long a transaction waits for its locks.
    pub fn lock_wait(&mut self) -> Duration {
        let slow = !self.fault.healed && self.dice.chance(10);
        Duration::from_millis(if slow { self.dice.number() % 2_500 } else { self.dice.number() % 3 })
    }

    /// Whether a message is lost.
    pub fn is_lost(&mut self) -> bool {
        !self.fault.healed && self.dice.below(1_000) < 8
    }

    fn trouble_span(&mut self) -> Duration {
        // The longest ones are enough to be let go of.
        let millis = self.dice.pick(&[200, 1_000, 2_500, 5_000, 9_000]);
        Duration::from_millis(millis / 2 + self.dice.number() % millis)
    }

    fn restart(&mut self, node: usize) {
        self.processes[node] = self.new_process();
        self.begin_process(node);
    }

    fn fail_over(&mut self) {
        self.history.fail_overs += 1;
        let lost = self.dice.below(9);
        let nonces = self.db.fail_over(lost);
        self.history.lost.extend(nonces);
        let (db, born) = (&self.db, &self.history.born);
        let gone = born.keys().copied().filter(|number| !db.knows(people::session_id(*number)));
        self.history.lost_sessions.extend(gone);
    }
}
