//! `fleet status`.

use std::fmt::Write as _;

use clap::Args;
use prost_types::{Duration, Timestamp};
use serde_json::{Value, json};

use crate::cli::connection::Connection;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::output;
use crate::grpc::proto::admin::{ListNodesRequest, ListNodesResponse, Node, NodeState};

const PAGE_SIZE: i32 = 1_000;

/// Show the nodes, how far each has applied the change log, and when it was last heard of.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  latchkey fleet status\n\n\
    BEHIND is how many rows of the change log are not in the node's memory yet. A node that works is heard of at least \
    once in half a lease; one that is not for three leases is let go of. LEASE LEFT is known of the node that answers; \
    another one can hold a lease for so long at most. Exit code 69 says that the schema of the database is damaged.")]
pub(in crate::cli) struct Status {
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

impl Status {
    pub(in crate::cli) fn run(self) -> Outcome {
        self.connection.run(async move |server| {
            let mut request = ListNodesRequest { page_size: PAGE_SIZE, page_token: String::new() };
            let (mut nodes, mut page): (Vec<Node>, ListNodesResponse);
            nodes = Vec::new();
            let mut flaws = Vec::new();
            loop {
                page = server.fleet().list_nodes(request.clone()).await?.into_inner();
                nodes.append(&mut page.nodes);
                flaws.append(&mut page.schema_flaws);
                if page.next_page_token.is_empty() {
                    break;
                }
                request.page_token.clone_from(&page.next_page_token);
            }
            if self.json {
                output::print_json(&document(&nodes, &page, &flaws))?;
                return whole(&flaws);
            }
            let mut text = output::table(HEADINGS, nodes.iter().map(|node| row(node, &page)));
            let _ = writeln!(
                text,
                "head of the change log {}, {}, {}",
                page.head_position,
                lease(&page),
                output::count(i64::try_from(nodes.len()).unwrap_or(i64::MAX), "node"),
            );
            output::print(&text)?;
            whole(&flaws)
        })
    }
}

/// Fails where the schema of the database is damaged.
fn whole(flaws: &[String]) -> Outcome {
    if flaws.is_empty() {
        return Ok(());
    }
    let message = format!("the database schema is damaged: {}", flaws.join("; "));
    Err(Failure::new(Exit::Unavailable, message)
        .hint("run `latchkey migrate up`, which puts back what it can"))
}

/// How long leases are.
fn lease(page: &ListNodesResponse) -> String {
    let [current, longest, target] =
        [&page.lease_duration, &page.longest_lease_duration, &page.target_lease_duration]
            .map(|span| millis(span.as_ref()));
    let now = format!("lease {} s", seconds(current));
    if current == target && current == longest {
        return now;
    }
    let (target, longest) = (seconds(target), seconds(longest));
    format!("{now} (it becomes {target} s; until then revocations wait for leases of {longest} s)")
}

const HEADINGS: [&str; 7] = ["NODE ID", "NAME", "STATE", "APPLIED", "BEHIND", "HEARD", "LEASE LEFT"];

fn row(node: &Node, page: &ListNodesResponse) -> [String; 7] {
    let answers = node.node_id == page.answering_node_id;
    let left = lease_left(node, page);
    [
        node.node_id.clone(),
        node.name.clone(),
        state(node).to_owned(),
        node.applied_position.to_string(),
        page.head_position.saturating_sub(node.applied_position).max(0).to_string(),
        format!("{} s ago", seconds(silent(node, page))),
        if answers { format!("{} s (answers)", seconds(left)) } else { format!("<= {} s", seconds(left)) },
    ]
}

fn document(nodes: &[Node], page: &ListNodesResponse, flaws: &[String]) -> Value {
    let node = |node: &Node| {
        json!({
            "node_id": node.node_id,
            "name": node.name,
            "state": state(node),
            "applied_position": node.applied_position,
            "join_time": output::rfc_3339(node.join_time.as_ref()),
            "heard_time": output::rfc_3339(node.heard_time.as_ref()),
            "evict_time": output::rfc_3339(node.evict_time.as_ref()),
            "lease_left_ms_max": lease_left(node, page),
        })
    };
    json!({
        "nodes": nodes.iter().map(node).collect::<Vec<_>>(),
        "answering_node_id": page.answering_node_id,
        "head_position": page.head_position,
        "lease_ms": millis(page.lease_duration.as_ref()),
        "longest_lease_ms": millis(page.longest_lease_duration.as_ref()),
        "target_lease_ms": millis(page.target_lease_duration.as_ref()),
        "read_time": output::rfc_3339(page.read_time.as_ref()),
        "schema_flaws": flaws,
    })
}

fn state(node: &Node) -> &'static str {
    match node.state() {
        NodeState::Live => "live",
        NodeState::Evicting => "evicting",
        NodeState::Unspecified => "unknown",
    }
}

/// Milliseconds since the node was heard of.
fn silent(node: &Node, page: &ListNodesResponse) -> i64 {
    moment(page.read_time.as_ref()).saturating_sub(moment(node.heard_time.as_ref())).max(0)
}

/// Milliseconds for which the node can hold a lease at most. It may have polled until half a lease after it was heard of.
fn lease_left(node: &Node, page: &ListNodesResponse) -> i64 {
    if node.node_id == page.answering_node_id {
        return millis(page.lease_left_duration.as_ref());
    }
    let lease = millis(page.longest_lease_duration.as_ref());
    lease.saturating_sub(silent(node, page).saturating_sub(lease / 2).max(0)).max(0)
}

fn moment(time: Option<&Timestamp>) -> i64 {
    time.map_or(0, |time| {
        time.seconds.saturating_mul(1_000).saturating_add(i64::from(time.nanos) / 1_000_000)
    })
}

pub(super) fn millis(span: Option<&Duration>) -> i64 {
    span.map_or(0, |span| {
        span.seconds.saturating_mul(1_000).saturating_add(i64::from(span.nanos) / 1_000_000)
    })
}

pub(super) fn seconds(millis: i64) -> String {
    format!("{}.{}", millis / 1_000, millis % 1_000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_says_nothing_has_less_and_less_of_its_lease() {
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let page = ListNodesResponse {
            answering_node_id: "me".to_owned(),
            head_position: 12,
            longest_lease_duration: Some(Duration { seconds: 5, nanos: 0 }),
            lease_left_duration: Some(Duration { seconds: 4, nanos: 200_000_000 }),
            read_time: at(100),
            ..ListNodesResponse::default()
        };
        let node = |id: &str, heard| Node {
            node_id: id.to_owned(),
            applied_position: 10,
            state: NodeState::Live.into(),
            heard_time: at(heard),
            ..Node::default()
        };
        assert_eq!(row(&node("me", 99), &page)[6], "4.2 s (answers)");
        let left = |heard| lease_left(&node("other", heard), &page);
        assert_eq!([left(100), left(98), left(96), left(90)], [5_000, 5_000, 3_500, 0]);
        assert_eq!(row(&node("other", 96), &page)[4..], ["2", "4.0 s ago", "<= 3.5 s"]);
    }

    #[test]
    fn a_change_of_the_lease_shows_until_it_is_in_force() {
        let page = |current, longest, target| {
            let span = |seconds| Some(Duration { seconds, nanos: 0 });
            ListNodesResponse {
                lease_duration: span(current),
                longest_lease_duration: span(longest),
                target_lease_duration: span(target),
                ..ListNodesResponse::default()
            }
        };
        assert_eq!(lease(&page(5, 5, 5)), "lease 5.0 s");
        assert_eq!(
            lease(&page(2, 5, 2)),
            "lease 2.0 s (it becomes 2.0 s; until then revocations wait for leases of 5.0 s)"
        );
    }
}
