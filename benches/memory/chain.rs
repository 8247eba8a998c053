//! What memory itself takes: reads of which each says where the next one is, so that none can begin before the last has
//! ended. A check makes three such reads behind one another, whatever else it does: the map's place, the session, the user.

use std::hint::black_box;

use super::numbers::scattered;

/// Bytes a session in what a check reads, each of which has to be waited for: the map's places, the sessions, the users.
pub const BYTES_READ: [usize; 3] = [19, 80, 64];

/// A cache line, with the number of the next one.
type Line = [usize; 8];

/// A way through all lines of some memory, in random order.
pub struct Chain {
    lines: Vec<Line>,
    at: usize,
}

impl Chain {
    /// Through so many bytes.
    pub fn of(bytes: usize) -> Self {
        let count = (bytes / size_of::<Line>()).max(2);
        let mut lines: Vec<Line> = (0..count).map(|number| [number; 8]).collect();
        // Sattolo's shuffle leaves one single cycle.
        for last in (1..count).rev() {
            let other = usize::try_from(scattered(last as u64) % last as u64).expect("below a usize");
            lines.swap(last, other);
        }
        Self { lines, at: 0 }
    }

    /// Goes on for `steps`.
    pub fn follow(&mut self, steps: usize) {
        for _ in 0..steps {
            self.at = black_box(self.lines[self.at][0]);
        }
    }
}
