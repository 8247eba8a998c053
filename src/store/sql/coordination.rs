//! The store as what nodes agree through.
//!
//! What keeps a lease alive goes over `following`: a connection that nothing else uses, made where it is first needed, so
//! that it may be used from another runtime than all the others.

use std::sync::Arc;

use async_trait::async_trait;

use super::{SqlStore, follow, hints, lease, log_upkeep, nodes, schema, write_again};
use crate::domain::id::{LogId, NodeId, Nonce, Position};
use crate::domain::time::UnixMillis;
use crate::store::coordination::{
    AckCommit, Coordination, Hint, Joined, LeaseDuration, NewNode, Polled, Roster, WrittenAgain,
};
use crate::store::{Change, LoggedChange, Result, Stamp, StoreError};

#[async_trait]
impl Coordination for SqlStore {
    fn is_exclusive(&self) -> bool {
        self.is_exclusive
    }

    async fn join(&self, node: NewNode) -> Result<Joined> {
        let node = Arc::new(node);
        self.following.write(move |db| Box::pin(nodes::insert(db, Arc::clone(&node)))).await?;
        self.following.read(|db| Box::pin(nodes::start(db))).await
    }

    async fn poll(&self, node: NodeId, from: Position, limit: u32) -> Result<Polled> {
        // Another file may be in use by another node already, so the lease is given up at once and does not run out.
        if let Some(files) = &self.files {
            files.check().map_err(StoreError::Corrupt)?;
        }
        let polled = self.following.read(move |db| Box::pin(follow::poll(db, node, from, limit))).await?;
        if !polled.is_primary {
            // The next poll asks whoever is reached then.
            self.following.forget_connections();
        }
        Ok(polled)
    }

    async fn acknowledge(
        &self,
        node: NodeId,
        applied: Position,
        nonce: Option<Nonce>,
        commit: AckCommit,
    ) -> Result<()> {
        self.following
            .write_alone(move |db| Box::pin(nodes::acknowledge(db, node, applied, nonce, commit)))
            .await
    }

    async fn leave(&self, node: NodeId) -> Result<()> {
        self.following.write_alone(move |db| Box::pin(nodes::delete(db, node))).await
    }

    async fn nodes(&self) -> Result<Roster> {
        self.steps.read(|db| Box::pin(nodes::roster(db))).await
    }

    async fn mark_evicting(&self, node: NodeId, heartbeat: UnixMillis) -> Result<bool> {
        self.steps.write(move |db| Box::pin(nodes::mark_evicting(db, node, heartbeat))).await
    }

    async fn remove_evicted(&self, node: NodeId) -> Result<()> {
        self.steps.write(move |db| Box::pin(nodes::remove_evicted(db, node))).await
    }

    async fn hint(&self) -> Result<()> {
        if self.hints.exist() { self.steps.write_alone(|db| Box::pin(hints::give(db))).await } else { Ok(()) }
    }

    async fn hinted(&self) -> Result<Hint> {
        self.hints.next().await
    }

    async fn write_again(&self, lost: &[LoggedChange], stamp: Stamp) -> Result<WrittenAgain> {
        let lost: Arc<[_]> = lost.into();
        // The step owns the turn, so an attempt whose caller gave up keeps it until its transaction has ended.
        let turn = Arc::clone(&self.writing_again).lock_owned().await;
        self.steps
            .write(move |db| {
                let _ = &turn;
                Box::pin(write_again::write_again(db, Arc::clone(&lost), stamp))
            })
            .await
    }

    async fn truncate_log(&self, before: UnixMillis, limit: u32) -> Result<u64> {
        self.steps.write(move |db| Box::pin(log_upkeep::truncate(db, before, limit))).await
    }

    async fn start_new_log(&self, stamp: Stamp) -> Result<(LogId, Change)> {
        let standing = self.count_standing(stamp).await;
        self.steps.write(move |db| Box::pin(log_upkeep::start_new_log(db, standing, stamp))).await
    }

    async fn change_lease(&self, from: LeaseDuration, to: LeaseDuration) -> Result<bool> {
        self.steps.write(move |db| Box::pin(lease::change(db, from, to))).await
    }

    async fn schema_flaws(&self) -> Result<Vec<String>> {
        self.steps.write(|db| Box::pin(schema::flaws(db))).await
    }
}
