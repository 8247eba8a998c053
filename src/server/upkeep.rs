//! What a node does by itself: it says whether it holds a lease, looks after the list of nodes, writes last uses, and
//! deletes what ended long ago.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::health::Health;
use crate::config;
use crate::fleet::membership::Evictions;
use crate::telemetry::Metrics;
use crate::usecases::purge::{purge, truncate_log};
use crate::usecases::record_last_seen::record_due;
use crate::usecases::{App, Tasks};

/// How often a node looks whether it still holds its lease.
const LEASE_LOOK: Duration = Duration::from_millis(50);
/// How often the list of nodes is looked after.
const NODES_LOOK: Duration = Duration::from_secs(1);
/// Rows of the change log that are deleted at a time.
const LOG_BATCH: u32 = 1_000;

/// The work, and how often it is done.
pub(super) struct Upkeep {
    app: Arc<App>,
    health: Health,
    metrics: Arc<Metrics>,
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
        config: &config::Maintenance,
    ) -> Self {
        Self {
            app,
            health,
            metrics,
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
        side.detach(Arc::clone(&this).watch_lease(Turns::new(LEASE_LOOK, stop)));
        side.detach(Arc::clone(&this).look_after_nodes(Turns::new(NODES_LOOK, stop)));
        side.detach(Arc::clone(&this).write_last_uses(Turns::new(this.flush, stop)));
        side.detach(Arc::clone(&this).delete_ended(Turns::new(this.purge, stop)));
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
        let mut evictions = Evictions::default();
        while turns.next().await {
            if let Err(error) = self.app.fleet.look_after_nodes(&mut evictions).await {
                tracing::debug!(%error, "the list of nodes was not looked after; it is tried again");
            }
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
