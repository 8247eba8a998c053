//! Sessions that this node ended by itself, since the database did not say whether it took their end. Memory does not
//! remember them for ever, and once it has forgotten them a database that never took the end would let them in again. So
//! they are ended in the database, session by session, until it says that they are over.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;

use super::driver::pause;
use super::endings::Endings;
use crate::domain::id::SessionId;
use crate::domain::session::{Death, EndReason};
use crate::store::{EndTarget, Ending, Stamp, StoreError};

/// Sessions that are ended together.
const TOGETHER_MAX: usize = 256;
/// How long to wait after an attempt that failed.
const RETRY: Duration = Duration::from_secs(1);

/// What is still to be ended. Bounded by memory: a session comes here when it leaves it.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    sessions: Mutex<HashMap<SessionId, EndReason>>,
    added: Notify,
}

impl Unsettled {
    /// Memory ended these.
    pub(super) fn add(&self, ended: Vec<(SessionId, Death)>) {
        if ended.is_empty() {
            return;
        }
        self.lock().extend(ended.into_iter().map(|(session, death)| (session, reason(death))));
        self.added.notify_one();
    }

    /// How many sessions there are.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Ends them; goes on for ever.
    pub(super) async fn settle(&self, endings: &Endings, stamp: &impl Fn() -> Stamp) {
        loop {
            let some = self.some();
            if some.is_empty() {
                self.added.notified().await;
                continue;
            }
            let attempts = some.into_iter().map(|(session, reason)| {
                let stamp = stamp();
                async move {
                    let ending = Ending { target: EndTarget::Session(session), reason };
                    match endings.end(ending, stamp).await {
                        Ok(_) => Some(session),
                        Err(StoreError::Corrupt(why)) => {
                            tracing::error!(%session, why, "a session cannot be ended; it is ended here");
                            Some(session)
                        }
                        Err(StoreError::Unavailable(_) | StoreError::OutcomeUnknown(_)) => None,
                    }
                }
            });
            let settled = join_all(attempts).await;
            let is_whole = settled.iter().all(Option::is_some);
            self.remove(settled.into_iter().flatten());
            if !is_whole {
                pause(RETRY).await;
            }
        }
    }

    fn some(&self) -> Vec<(SessionId, EndReason)> {
        self.lock().iter().take(TOGETHER_MAX).map(|(id, reason)| (*id, *reason)).collect()
    }

    fn remove(&self, settled: impl Iterator<Item = SessionId>) {
        let mut sessions = self.lock();
        for session in settled {
            sessions.remove(&session);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, EndReason>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reason(death: Death) -> EndReason {
    match death {
        Death::Revoked | Death::Expired => EndReason::Revoked,
        Death::CredentialsChanged => EndReason::CredentialsChanged,
        Death::UserDisabled => EndReason::UserDisabled,
        Death::BindingMismatch => EndReason::BindingMismatch,
    }
}
