//! What nodes agree through, between a node and its database: a test sets the database's time and makes steps fail.

use std::sync::Arc;

use async_trait::async_trait;
use latchkey::domain::id::{LogId, NodeId, Nonce, Position};
use latchkey::domain::time::UnixMillis;
use latchkey::host::ManualClock;
use latchkey::store::coordination::{
    AckCommit, Coordination, Hint, Joined, LeaseDuration, NewNode, Polled, Roster, WrittenAgain,
};
use latchkey::store::{Change, LoggedChange, Result, Stamp};

use super::interposed_store::Faults;

/// Passes steps on to `inner`, but for faults and the time.
pub struct InterposedCoordination {
    /// The database.
    pub inner: Arc<dyn Coordination>,
    /// What the database's time follows.
    pub clock: Arc<ManualClock>,
    /// What happens to steps.
    pub faults: Faults,
}

macro_rules! interposed {
    ($($step:ident($($name:ident: $kind:ty),*) -> $answer:ty;)*) => {
        #[async_trait]
        impl Coordination for InterposedCoordination {
            fn is_exclusive(&self) -> bool {
                self.inner.is_exclusive()
            }

            async fn poll(&self, node: NodeId, from: Position, limit: u32) -> Result<Polled> {
                let polled = self.faults.pass("poll", self.inner.poll(node, from, limit)).await?;
                Ok(Polled { time: self.faults.time_of(&self.clock), ..polled })
            }

            async fn nodes(&self) -> Result<Roster> {
                let roster = self.faults.pass("nodes", self.inner.nodes()).await?;
                Ok(Roster { time: self.faults.time_of(&self.clock), ..roster })
            }

            $(async fn $step(&self, $($name: $kind),*) -> Result<$answer> {
                self.faults.pass(stringify!($step), self.inner.$step($($name),*)).await
            })*
        }
    };
}

interposed! {
    join(node: NewNode) -> Joined;
    acknowledge(node: NodeId, applied: Position, nonce: Option<Nonce>, commit: AckCommit) -> ();
    leave(node: NodeId) -> ();
    mark_evicting(node: NodeId, heartbeat: UnixMillis) -> bool;
    remove_evicted(node: NodeId) -> ();
    hint() -> ();
    hinted() -> Hint;
    write_again(lost: &[LoggedChange], stamp: Stamp) -> WrittenAgain;
    truncate_log(before: UnixMillis, limit: u32) -> u64;
    start_new_log(stamp: Stamp) -> (LogId, Change);
    change_lease(from: LeaseDuration, to: LeaseDuration) -> bool;
    schema_flaws() -> Vec<String>;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use latchkey::host::{SystemEntropy, random};
    use latchkey::store::StoreError;
    use latchkey::store::sql::{SqlLimits, SqlStore};

    use super::super::databases::url_of;
    use super::super::interposed_store::{Fault, START, time_of};
    use super::*;

    #[tokio::test]
    async fn the_time_is_the_manual_clocks_and_a_step_fails_as_it_is_told() {
        let store =
            SqlStore::open(&url_of("sqlite::memory:"), SqlLimits::default()).await.expect("a database");
        let between = InterposedCoordination {
            inner: Arc::new(store),
            clock: Arc::new(ManualClock::default()),
            faults: Faults::default(),
        };
        let minute = Duration::from_mins(1);
        let started = time_of(&between.clock);
        between.clock.advance(minute);
        let id = NodeId::mint(START, random(&SystemEntropy));
        between.join(NewNode { id, name: "a".to_owned() }).await.expect("joined");
        let polled = between.poll(id, Position::ZERO, 10).await.expect("an answer");
        assert_eq!(polled.time, started.plus(minute));
        assert_eq!(between.nodes().await.expect("an answer").time, started.plus(minute));
        between.faults.set("poll", Fault::Unavailable);
        let refused = between.poll(id, Position::ZERO, 10).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        assert_eq!(between.faults.calls("poll"), 2);
    }
}
