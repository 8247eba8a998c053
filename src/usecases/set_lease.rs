//! SetLease: how long leases are, changed while the fleet runs.

use std::sync::Arc;
use std::time::Duration;

use super::{App, overtaken};
use crate::domain::id::Nonce;
use crate::domain::refusal::Refusal;
use crate::fleet::follower::wait_for_silent;
pub use crate::fleet::lease_change::checked;
use crate::host;
use crate::store::coordination::LeaseDuration;

/// Nodes look twice, once a second, until they end a change.
const LOOKS: Duration = Duration::from_secs(2);

/// Begins to change how long leases are. Returns how long they are until the change is in force, and how long that takes.
pub async fn set_lease(app: &Arc<App>, lease: Duration) -> Result<(LeaseDuration, Duration), Refusal> {
    let writer = Arc::clone(app);
    app.tasks
        .run(async move {
            let nonce = || Nonce(host::random(&*writer.entropy));
            let lease = writer.fleet.set_lease(lease, nonce).await?.ok_or_else(overtaken)?;
            let settle =
                if lease.is_settled() { Duration::ZERO } else { wait_for_silent(lease.longest) + LOOKS };
            Ok((lease, settle))
        })
        .await
}
