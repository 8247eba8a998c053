//! The timer of keepalive. hyper reads its clock with each frame that comes, to know whether a connection is quiet; intervals
//! are seconds, so the last tick of the machine is exact enough.

use std::pin::Pin;
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use hyper_util::rt::TokioTimer;

use crate::host::TickClock;

/// tokio's timer, with a clock that costs little.
#[derive(Clone, Debug, Default)]
pub struct KeepaliveTimer {
    clock: TickClock,
    timer: TokioTimer,
}

impl Timer for KeepaliveTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.timer.sleep(duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.timer.sleep_until(deadline)
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, new_deadline: Instant) {
        self.timer.reset(sleep, new_deadline);
    }
}
