//! What the service does, one file a feature: the folder listing is the feature list.
//!
//! To add one: 1. a file here with a function over [`App`] that takes parsed values and answers a value or a
//! [`Refusal`]; 2. its RPC in `proto/`; 3. the handler in `grpc/`, which only translates; 4. its tests in `tests/it/`.
//! Nothing here knows gRPC, SQL or the machine's clock.

pub mod change_password;
pub mod create_session;
pub mod create_user;
pub mod delete_user;
pub mod list_nodes;
pub mod list_sessions;
pub mod list_users;
pub mod load_user;
pub mod log_in;
pub mod purge;
pub mod reauthenticate;
pub mod record_last_seen;
pub mod revoke_sessions;
pub mod set_lease;
pub mod set_password;
pub mod sign_in;
pub mod start_new_log;
pub mod token_keys;
pub mod update_user;
pub mod validate_session;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use crate::domain::id::Nonce;
use crate::domain::password::PasswordPolicy;
use crate::domain::refusal::Refusal;
use crate::domain::session::SessionPolicy;
use crate::domain::time::UnixMillis;
use crate::domain::token::KeyRing;
use crate::fleet::{Fleet, NotFilled};
use crate::host::{self, Entropy};
use crate::passwords::pool::{HashingPool, Overloaded};
use crate::passwords::throttle::Throttle;
use crate::store::{Stamp, Store, StoreError};

/// When a full queue of passwords to hash is worth trying again.
const RETRY_HASHING: Duration = Duration::from_secs(1);

/// When somebody is worth another try who was overtaken by other changes of the same user, time and again.
const RETRY_OVERTAKEN: Duration = Duration::from_secs(1);

/// Everything that the use cases work with.
pub struct App {
    /// Durable state.
    pub store: Arc<dyn Store>,
    /// This node's part in the fleet: memory, and what keeps it from being stale.
    pub fleet: Fleet,
    /// Randomness for ids, tokens and nonces.
    pub entropy: Arc<dyn Entropy>,
    /// The keys that sign and verify tokens.
    pub keys: KeyRing,
    /// Where passwords are hashed.
    pub hashing: HashingPool,
    /// The budget of guesses; none where the operator switched it off.
    pub throttle: Option<Throttle>,
    /// How long sessions live.
    pub session_policy: SessionPolicy,
    /// What a new password has to meet.
    pub password_policy: PasswordPolicy,
    /// Writes under way.
    pub tasks: Tasks,
}

impl App {
    /// The database's time.
    pub fn now(&self) -> UnixMillis {
        self.fleet.time().now()
    }

    /// The stamp of a change that is made now.
    fn stamp(&self) -> Stamp {
        Stamp { time: self.now(), nonce: Nonce(host::random(&*self.entropy)) }
    }
}

/// Work that runs to its end even when its caller goes away, and that a drain waits for.
#[derive(Clone, Debug, Default)]
pub struct Tasks(TaskTracker);

impl Tasks {
    /// Runs `work` in a task of its own. Whoever waits for the answer may stop waiting; the work goes on.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.0.spawn(work).await.unwrap_or_else(|failure| {
            tracing::error!(%failure, "a task ended without an answer");
            Err(Refusal::Internal)
        })
    }

    /// Runs `work` without anybody waiting for it.
    pub fn detach(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(work);
    }

    /// Waits until all work is done.
    pub async fn drained(&self) {
        self.0.close();
        self.0.wait().await;
    }
}

impl From<StoreError> for Refusal {
    /// The text of the error goes to the log; the client learns what it can do.
    fn from(error: StoreError) -> Self {
        match error {
            // The loss of the database is told once, by whoever polls it; this is for each call meanwhile.
            StoreError::Unavailable(_) => {
                tracing::debug!(%error, "refused");
                Self::StoreUnavailable
            }
            StoreError::OutcomeUnknown(_) => {
                tracing::warn!(%error, "refused");
                Self::OutcomeUnknown
            }
            StoreError::Corrupt(_) => {
                tracing::error!(%error, "refused");
                Self::Internal
            }
        }
    }
}

/// What is told to somebody who proved it twice and was overtaken twice: nothing is wrong with what they presented.
fn overtaken() -> Refusal {
    Refusal::Overloaded { retry_after: RETRY_OVERTAKEN }
}

impl From<NotFilled> for Refusal {
    fn from(why: NotFilled) -> Self {
        match why {
            // Not OVERLOADED: who asks about a session is to ask again, or another node, as in every other case in which
            // this one cannot know.
            NotFilled::TooMany | NotFilled::StoreUnavailable => Self::StoreUnavailable,
            NotFilled::Corrupt => Self::Internal,
            NotFilled::Stopped => Self::LeaseLost,
        }
    }
}

impl From<Overloaded> for Refusal {
    fn from(Overloaded: Overloaded) -> Self {
        Self::Overloaded { retry_after: RETRY_HASHING }
    }
}
