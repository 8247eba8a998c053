//! How many connections the store may open, and how long anything it does may take.

use std::time::Duration;

/// The bounds of the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SqlLimits {
    /// Connections of this node to the database.
    pub connections_max: u32,
    /// How long a node that starts waits for the first answer.
    pub connect_timeout: Duration,
    /// How long a step waits for a free connection.
    pub acquire_timeout: Duration,
    /// How long one statement may take, in the server and on the way.
    pub statement_timeout: Duration,
    /// How long one statement waits for a lock, in the server.
    pub lock_timeout: Duration,
}

impl Default for SqlLimits {
    fn default() -> Self {
        Self {
            connections_max: 16,
            connect_timeout: Duration::from_secs(5),
            acquire_timeout: Duration::from_secs(3),
            statement_timeout: Duration::from_secs(5),
            lock_timeout: Duration::from_secs(4),
        }
    }
}

/// What the server's own time-out is given before this side stops to wait for it.
const ON_THE_WAY: Duration = Duration::from_millis(500);

impl SqlLimits {
    /// How long the server lets a transaction wait for its node. Shorter than others wait for the lock that it holds, so
    /// that a node which hangs at a bad moment delays the others instead of failing them.
    pub(super) fn idle_timeout(&self) -> Duration {
        self.lock_timeout / 2
    }

    /// How long this side waits for the answer to one statement; the server gives up first.
    pub(super) fn answer_timeout(&self) -> Duration {
        self.statement_timeout.saturating_add(ON_THE_WAY)
    }

    /// How long a whole step may keep its caller waiting, retries included.
    pub(super) fn step_timeout(&self) -> Duration {
        self.acquire_timeout.saturating_add(self.statement_timeout.saturating_mul(2))
    }
}
