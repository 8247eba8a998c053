//! `latchkey.admin.v1.FleetService`: each handler reads the request, calls its use case, and writes the answer.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::page::page_of;
use super::proto::admin;
use super::proto::admin::fleet_service_server::FleetService;
use super::status::reply;
use super::wire::{self, Violations};
use crate::domain::id::NodeId;
use crate::domain::invalid::Invalid;
use crate::domain::page;
use crate::domain::refusal::Refusal;
use crate::domain::token::KeyId;
use crate::usecases::App;
use crate::usecases::list_nodes::{NodeRow, NodeState, list_nodes, schema_flaws};
use crate::usecases::set_lease::{checked, set_lease};
use crate::usecases::start_new_log::start_new_log;
use crate::usecases::token_keys::forget_token_key;

/// What the page tokens of this list are for.
const NODES: &str = "nodes";

/// The service over the use cases.
pub struct FleetAdmin {
    app: Arc<App>,
}

impl FleetAdmin {
    /// Serves `app`.
    pub fn new(app: Arc<App>) -> Self {
        Self { app }
    }

    async fn list(&self, request: admin::ListNodesRequest) -> Result<admin::ListNodesResponse, Refusal> {
        let mut wrong = Violations::default();
        let size = wrong.take("page_size", page::page_size(request.page_size));
        let after = wrong.take("page_token", page::after(NODES, &request.page_token));
        let (size, after) = wrong.finish(size.zip(after))?;
        let roster = list_nodes(&self.app).await?;
        // Later pages belong to the same look.
        let schema_flaws = if after.is_none() { schema_flaws(&self.app).await? } else { Vec::new() };
        let behind = |node: &&NodeRow| after.is_none_or(|after| node.id > NodeId::from_uuid(after));
        // One entry more than asked for tells whether there is a next page.
        let count = usize::try_from(size).unwrap_or(usize::MAX).saturating_add(1);
        let rows: Vec<_> = roster.nodes.iter().filter(behind).take(count).cloned().collect();
        let token = |last: &NodeRow| page::page_token(NODES, last.id.as_uuid());
        let (nodes, next_page_token) = page_of(&rows, size, node, token);
        let (own, lease_left) = (self.app.fleet.node(), self.app.fleet.stats().lease_left);
        Ok(admin::ListNodesResponse {
            nodes,
            next_page_token,
            answering_node_id: own.map(|id| id.to_string()).unwrap_or_default(),
            head_position: roster.head.as_i64(),
            lease_duration: Some(wire::duration(roster.lease.current)),
            lease_left_duration: Some(wire::duration(lease_left)),
            read_time: Some(wire::timestamp(roster.time)),
            schema_flaws,
            longest_lease_duration: Some(wire::duration(roster.lease.longest)),
            target_lease_duration: Some(wire::duration(roster.lease.target)),
        })
    }

    async fn set(&self, request: admin::SetLeaseRequest) -> Result<admin::SetLeaseResponse, Refusal> {
        let mut wrong = Violations::default();
        // What is missing, or no span at all, is as far from the bounds as nothing.
        let span = request.lease_duration.and_then(wire::span);
        let lease = wrong.take("lease_duration", checked(span.unwrap_or_default()));
        let (lease, settle) = set_lease(&self.app, wrong.finish(lease)?).await?;
        Ok(admin::SetLeaseResponse {
            lease_duration: Some(wire::duration(lease.current)),
            longest_lease_duration: Some(wire::duration(lease.longest)),
            target_lease_duration: Some(wire::duration(lease.target)),
            settle_duration: Some(wire::duration(settle)),
        })
    }

    async fn forget_key(
        &self,
        request: admin::ForgetTokenKeyRequest,
    ) -> Result<admin::ForgetTokenKeyResponse, Refusal> {
        let mut wrong = Violations::default();
        let key = wrong.take("key_id", key_id(request.key_id));
        let key = wrong.finish(key)?;
        if let Some(position) = forget_token_key(&self.app, key).await? {
            return Ok(admin::ForgetTokenKeyResponse { position: position.as_i64() });
        }
        let has = "is a key of this node: remove it from the key file of every node, and restart them, first";
        let mut wrong = Violations::default();
        wrong.add("key_id", has);
        wrong.finish(None)
    }

    async fn start_log(&self) -> Result<admin::StartNewLogResponse, Refusal> {
        let (log, change) = start_new_log(&self.app).await?;
        Ok(admin::StartNewLogResponse { log_id: log.to_string(), position: change.position.as_i64() })
    }
}

/// The number of a token key.
fn key_id(number: i32) -> Result<KeyId, Invalid> {
    u8::try_from(number).map(KeyId).map_err(|_| Invalid::new("must be 0 to 255"))
}

fn node(row: &NodeRow) -> admin::Node {
    let state = match row.state {
        NodeState::Live => admin::NodeState::Live,
        NodeState::Evicting => admin::NodeState::Evicting,
    };
    admin::Node {
        node_id: row.id.to_string(),
        name: row.name.clone(),
        state: state.into(),
        applied_position: row.applied.as_i64(),
        join_time: Some(wire::timestamp(row.join_time)),
        heard_time: Some(wire::timestamp(row.heard_time)),
        evict_time: row.evict_time.map(wire::timestamp),
    }
}

#[tonic::async_trait]
impl FleetService for FleetAdmin {
    async fn list_nodes(
        &self,
        request: Request<admin::ListNodesRequest>,
    ) -> Result<Response<admin::ListNodesResponse>, Status> {
        reply(self.list(request.into_inner()).await)
    }

    async fn set_lease(
        &self,
        request: Request<admin::SetLeaseRequest>,
    ) -> Result<Response<admin::SetLeaseResponse>, Status> {
        reply(self.set(request.into_inner()).await)
    }

    async fn forget_token_key(
        &self,
        request: Request<admin::ForgetTokenKeyRequest>,
    ) -> Result<Response<admin::ForgetTokenKeyResponse>, Status> {
        reply(self.forget_key(request.into_inner()).await)
    }

    async fn start_new_log(
        &self,
        _: Request<admin::StartNewLogRequest>,
    ) -> Result<Response<admin::StartNewLogResponse>, Status> {
        reply(self.start_log().await)
    }
}
