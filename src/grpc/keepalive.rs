//! The timer of keepalive. hyper reads its clock with each frame that comes, to know whether a connection is quiet; intervals
//! are seconds, so the last tick of the machine is exact enough.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use hyper_util::rt::TokioTimer;

use crate::host::Ticks;

/// tokio's timer, with a clock that costs little.
#[derive(Clone)]
pub struct KeepaliveTimer {
    ticks: Arc<dyn Ticks>,
    timer: TokioTimer,
}

impl KeepaliveTimer {
    /// By the clock of `ticks`.
    pub fn new(ticks: Arc<dyn Ticks>) -> Self {
        Self { ticks, timer: TokioTimer::new() }
    }
}

impl Timer for KeepaliveTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.timer.sleep(duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.timer.sleep_until(deadline)
    }

    fn now(&self) -> Instant {
        self.ticks.last()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, new_deadline: Instant) {
        self.timer.reset(sleep, new_deadline);
    }
}
