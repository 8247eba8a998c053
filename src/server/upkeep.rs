//! What a node does by itself: it says whether it holds a lease, looks after the list of nodes, writes last uses, and
//! deletes what ended long ago.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::health::Health;
use crate::config;
use crate::domain::token::KeyId;
use crate::fleet::lease_change::ChangeWatch;
use crate::fleet::membership::Evictions;
use crate::supervise::Supervisor;
use crate::telemetry::Metrics;
use crate::usecases::purge::{purge, truncate_log};
use crate::usecases::record_last_seen::record_due;
use crate::usecases::token_keys::register_token_keys;
use crate::usecases::{App, Tasks};

/// How often a node looks whether it still holds its lease.
const LEASE_LOOK: Duration = Duration::from_millis(50);
/// How often a node looks whether it is alive, and at how many looks in a row the follower may stand still. It turns once
/// a second.
const LIVENESS_LOOK: Duration = Duration::from_secs(1);
const FOLLOWER_STILL_MAX: u32 = 30;
/// How often the list of nodes is looked after.
const NODES_LOOK: Duration = Duration::from_secs(1);
/// Rows of the change log that are deleted at a time.
const LOG_BATCH: u32 = 1_000;

/// The work, and how often it is done.
pub(super) struct Upkeep {
    app: Arc<App>,
    health: Health,
    metrics: Arc<Metrics>,
    supervisor: Supervisor,
    flush: Duration,
    purge: Duration,
    retain: Duration,
    log_retain: Duration,
    purge_batch: u32,
}

impl Upkeep {
    pub(super) fn new(
        app: Arc<App>,
        health: Health,
        metrics: Arc<Metrics>,
        supervisor: Supervisor,
        config: &config::Maintenance,
    ) -> Self {
        Self {
            app,
            health,
            metrics,
            supervisor,
            flush: Duration::from_millis(config.last_seen_flush_ms),
            purge: Duration::from_secs(config.purge_interval_s),
            retain: Duration::from_secs(config.retain_s),
            log_retain: Duration::from_secs(config.log_retain_s),
            purge_batch: config.purge_batch,
        }
    }

    /// Starts all of it in `side`, until `stop`.
    pub(super) fn start(self, side: &Tasks, stop: &CancellationToken) {
        let this = Arc::new(self);
        macro_rules! start {
            ($name:literal, $task:ident, $period:expr) => {
                let (period, this, stop) = ($period, Arc::clone(&this), stop.clone());
                side.detach(async move {
                    let turns = || Turns::new(period, &stop);
                    this.supervisor.run($name, || Arc::clone(&this).$task(turns())).await;
                });
            };
        }
        start!("lease-watch", watch_lease, LEASE_LOOK);
        start!("liveness-watch", watch_liveness, LIVENESS_LOOK);
        start!("nodes-upkeep", look_after_nodes, NODES_LOOK);
        start!("last-uses", write_last_uses, this.flush);
        start!("purge", delete_ended, this.purge);
    }

    /// Says that the node is not alive where a task is gone for good, or the follower's thread stands still. A database that
    /// does not answer is neither.
    async fn watch_liveness(self: Arc<Self>, mut turns: Turns) {
        let mut stillness = Stillness { turns: self.app.fleet.follower_turns(), looks: 0 };
        loop {
            let goes_on = tokio::select! {
                goes_on = turns.next() => goes_on,
                () = self.supervisor.failed(), if self.health.defect().is_none() => true,
            };
            if !goes_on {
                return;
            }
            let failed = self.supervisor.failed_task().map(|task| format!("{task} panics again and again"));
            let stuck = stillness
                .is_too_long(self.app.fleet.follower_turns())
                .then(|| "the follower stands still".to_owned());
            self.health.set_defect(failed.or(stuck)).await;
        }
    }

    async fn watch_lease(self: Arc<Self>, mut turns: Turns) {
        let mut held = true;
        while turns.next().await {
            let holds = self.app.fleet.is_leased();
            if holds {
                self.health.lease_back().await;
            } else {
                self.health.lease_lost().await;
            }
            if holds != held {
                held = holds;
                if holds {
                    tracing::info!("this node knows the latest state again");
                } else {
                    tracing::error!("this node cannot know the latest state; it is not ready");
                }
            }
        }
    }

    async fn look_after_nodes(self: Arc<Self>, mut turns: Turns) {
        let (mut evictions, mut changes) = (Evictions::default(), ChangeWatch::default());
        while turns.next().await {
            self.look_after_token_keys().await;
            if let Err(error) = self.app.fleet.look_after(&mut evictions, &mut changes).await {
                tracing::debug!(%error, "the list of nodes was not looked after; it is tried again");
            }
        }
    }

    /// Where this node joined again, others may have begun to sign with keys of which it has not heard.
    async fn look_after_token_keys(&self) {
        if self.app.fleet.table().token_keys().is_whole() {
            return;
        }
        match register_token_keys(&self.app).await {
            Ok(None) => {}
            Ok(Some(KeyId(key))) => tracing::error!(
                key,
                "another node recorded another token key of this number: give all nodes the same key file"
            ),
            Err(error) => tracing::debug!(%error, "the token keys were not recorded; it is tried again"),
        }
    }

    async fn write_last_uses(self: Arc<Self>, mut turns: Turns) {
        while turns.next().await {
            if let Err(refusal) = record_due(&self.app).await {
                tracing::warn!(?refusal, "the last uses of sessions were not written; they are tried again");
            }
        }
    }

    async fn delete_ended(self: Arc<Self>, mut turns: Turns) {
        while turns.next().await {
            match purge(&self.app, self.retain, self.purge_batch).await {
                Ok(count) => _ = self.metrics.sessions_purged.inc_by(count),
                Err(refusal) => {
                    tracing::warn!(?refusal, "ended sessions were not deleted; they are tried again");
                }
            }
            if let Err(refusal) = truncate_log(&self.app, self.log_retain, LOG_BATCH).await {
                tracing::warn!(?refusal, "the change log was not shortened; it is tried again");
            }
        }
    }
}

/// How long the follower's thread has stood still.
#[derive(Debug)]
struct Stillness {
    turns: u64,
    /// Looks in a row at which nothing had turned.
    looks: u32,
}

impl Stillness {
    /// Whether it stands still for too long, where it has made so many turns by now.
    fn is_too_long(&mut self, turns: u64) -> bool {
        self.looks = if turns == self.turns { self.looks.saturating_add(1) } else { 0 };
        self.turns = turns;
        self.looks >= FOLLOWER_STILL_MAX
    }
}

/// One turn each period, until told to stop; late turns are not made up for.
struct Turns {
    ticks: Interval,
    stop: CancellationToken,
}

impl Turns {
    fn new(period: Duration, stop: &CancellationToken) -> Self {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ticks, stop: stop.clone() }
    }

    /// Waits for the next turn; false when there is none any more.
    async fn next(&mut self) -> bool {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            _ = self.ticks.tick() => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_that_stands_still_is_seen_and_one_that_goes_on_again_too() {
        let mut stillness = Stillness { turns: 7, looks: 0 };
        let seen = (1..=FOLLOWER_STILL_MAX).filter(|_| stillness.is_too_long(7)).count();
        assert_eq!(seen, 1, "at the last look only");
        assert!(!stillness.is_too_long(8));
        assert!((1..=100).all(|turns| !stillness.is_too_long(turns)));
    }
}
