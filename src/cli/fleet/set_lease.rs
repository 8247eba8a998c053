//! `fleet set-lease`.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::status::{millis, seconds};
use crate::cli::connection::{Connection, Server};
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::output;
use crate::grpc::proto::admin::{ListNodesRequest, ListNodesResponse, SetLeaseRequest};

/// Between two looks whether the change is in force.
const LOOK: Duration = Duration::from_millis(500);
/// For how much longer than it should take the command waits.
const LATE_MAX: Duration = Duration::from_secs(30);

/// Change how long a lease is, on all nodes while they run; returns when that is in force.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  latchkey fleet set-lease 4s\n  latchkey fleet set-lease 1500ms\n\n\
    A node that dies makes revocations wait 1.25 leases + 50 ms. A node that loses the database answers for one lease more. \
    The command takes about 1.25 of the longer lease + 50 ms. The nodes end the change by themselves when the command \
    is interrupted; `latchkey fleet status` shows it. Repeating is safe. All nodes must be of a version that has this command.")]
pub(in crate::cli) struct SetLease {
    /// The lease, from 1500ms to 60s.
    #[arg(value_name = "LEASE", value_parser = span)]
    lease: Duration,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

impl SetLease {
    pub(in crate::cli) fn run(self) -> Outcome {
        self.connection.run(async move |server| {
            let lease_duration = prost_types::Duration::try_from(self.lease).ok();
            let begun = server.fleet().set_lease(SetLeaseRequest { lease_duration }).await?.into_inner();
            let settle = u64::try_from(millis(begun.settle_duration.as_ref())).unwrap_or_default();
            let lease = i64::try_from(self.lease.as_millis()).unwrap_or(i64::MAX);
            wait(&server, lease, Duration::from_millis(settle) + LATE_MAX).await?;
            if self.json {
                return output::print_json(&json!({ "lease_ms": lease }));
            }
            output::print(&format!("the lease is {} s now, on all nodes\n", seconds(lease)))
        })
    }
}

/// Waits until the lease is so many milliseconds on all nodes.
async fn wait(server: &Server, lease: i64, most: Duration) -> Outcome {
    let looks = most.as_millis() / LOOK.as_millis();
    for _ in 0..looks {
        let request = ListNodesRequest { page_size: 1, page_token: String::new() };
        let page = server.fleet().list_nodes(request).await?.into_inner();
        if is_in_force(&page, lease)? {
            return Ok(());
        }
        pause().await;
    }
    Err(Failure::new(Exit::Unavailable, "the change has begun, and is not in force yet")
        .hint("`latchkey fleet status` shows when it is; nodes that reach the database end it"))
}

fn is_in_force(page: &ListNodesResponse, lease: i64) -> Result<bool, Failure> {
    let [current, longest, target] =
        [&page.lease_duration, &page.longest_lease_duration, &page.target_lease_duration]
            .map(|span| millis(span.as_ref()));
    if target != lease {
        let message = format!("somebody else changed the lease meanwhile: it becomes {} s", seconds(target));
        return Err(Failure::new(Exit::Refused, message));
    }
    Ok(current == lease && longest == lease)
}

/// Reads a number with its unit.
fn span(text: &str) -> Result<Duration, String> {
    let number = |digits: &str, unit: fn(u64) -> Duration| digits.parse().ok().map(unit);
    let text = text.trim();
    let span = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(digits), _) => number(digits, Duration::from_millis),
        (None, Some(digits)) => number(digits, Duration::from_secs),
        (None, None) => None,
    };
    span.ok_or_else(|| "must be a whole number with its unit, such as 4s or 1500ms".to_owned())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the command looks again and again until the change is in force"
)]
async fn pause() {
    tokio::time::sleep(LOOK).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_has_a_unit() {
        assert_eq!(span("4s"), Ok(Duration::from_secs(4)));
        assert_eq!(span(" 1500ms\n"), Ok(Duration::from_millis(1_500)));
        for wrong in ["", "4", "s", "4 s", "-4s", "2.5s", "4m", "99999999999999999999s"] {
            assert!(span(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_change_is_in_force_when_nobody_waits_for_another_length() {
        let page = |current, longest, target| {
            let span = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
            ListNodesResponse {
                lease_duration: span(current),
                longest_lease_duration: span(longest),
                target_lease_duration: span(target),
                ..ListNodesResponse::default()
            }
        };
        let is_in_force = |page| is_in_force(&page, 4_000).map_err(|_| ());
        assert_eq!(is_in_force(page(4, 5, 4)), Ok(false));
        assert_eq!(is_in_force(page(3, 4, 4)), Ok(false));
        assert_eq!(is_in_force(page(4, 4, 4)), Ok(true));
        assert_eq!(is_in_force(page(3, 4, 3)), Err(()), "somebody else asked for 3 s");
    }
}
