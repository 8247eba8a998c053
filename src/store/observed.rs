//! A store, and what nodes agree through, that count and time each step of another one.

use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;

use super::coordination::{
    AckCommit, Coordination, Hint, Joined, LeaseDuration, NewNode, Polled, Roster, WrittenAgain,
};
use super::{
    Change, CreateUser, Credentials, EndTarget, Ending, Filling, LoggedChange, NewSession, NewUser,
    PasswordChange, RegisterTokenKeys, Result, SessionKey, SessionRecord, Stamp, Store, StoreError,
    UpdateUser, UserChange, UserKey,
};
use crate::domain::id::{LogId, NodeId, Nonce, Position, SessionId, UserId};
use crate::domain::password::PasswordHash;
use crate::domain::session::{EndReason, Session};
use crate::domain::time::UnixMillis;
use crate::domain::token::{KeyFingerprint, KeyId, TokenDigest};
use crate::domain::user::User;
use crate::host::Clock;
use crate::telemetry::Metrics;

/// Counts and times steps.
#[derive(Clone)]
struct Observer {
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
}

impl Observer {
    async fn observe<T>(
        &self,
        step: &'static str,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let begin = self.clock.boottime();
        let answer = call.await;
        let outcome = match &answer {
            Ok(_) => "ok",
            Err(StoreError::Unavailable(_)) => "unavailable",
            Err(StoreError::OutcomeUnknown(_)) => "outcome_unknown",
            Err(StoreError::Corrupt(_)) => "corrupt",
        };
        self.metrics.observe_store_call(step, outcome, self.clock.boottime().since(begin));
        answer
    }
}

/// Counts and times each step of `inner`.
pub struct ObservedStore {
    inner: Arc<dyn Store>,
    observer: Observer,
}

impl ObservedStore {
    /// Counts into `metrics` by the time of `clock`.
    pub fn new(inner: Arc<dyn Store>, metrics: Arc<Metrics>, clock: Arc<dyn Clock>) -> Self {
        Self { inner, observer: Observer { metrics, clock } }
    }
}

/// Counts and times each step of `inner`, but for the wait for a hint, which is no work.
pub struct ObservedCoordination {
    inner: Arc<dyn Coordination>,
    observer: Observer,
}

impl ObservedCoordination {
    /// Counts into `metrics` by the time of `clock`.
    pub fn new(inner: Arc<dyn Coordination>, metrics: Arc<Metrics>, clock: Arc<dyn Clock>) -> Self {
        Self { inner, observer: Observer { metrics, clock } }
    }
}

/// Delegates each step, observed; what stands behind the steps is put in as it is.
macro_rules! observed {
    ($port:ident for $observed:ident { $($step:ident($($name:ident: $kind:ty),*) -> $answer:ty;)* } $($rest:tt)*) => {
        #[async_trait]
        impl $port for $observed {
            $(async fn $step(&self, $($name: $kind),*) -> Result<$answer> {
                self.observer.observe(stringify!($step), self.inner.$step($($name),*)).await
            })*

            $($rest)*
        }
    };
}

observed! { Store for ObservedStore {
    database_time() -> UnixMillis;
    register_token_keys(keys: &[(KeyId, KeyFingerprint)], stamp: Stamp) -> RegisterTokenKeys;
    forget_token_key(key: KeyId, stamp: Stamp) -> Option<Change>;
    create_user(user: NewUser) -> CreateUser;
    user(key: UserKey<'_>) -> Option<User>;
    credentials(key: UserKey<'_>) -> Option<Credentials>;
    list_users(after: Option<UserId>, limit: u32) -> Vec<User>;
    update_user(id: UserId, change: UserChange, stamp: Stamp) -> UpdateUser;
    set_password(id: UserId, hash: PasswordHash, stamp: Stamp) -> Option<Change>;
    change_password(change: PasswordChange, stamp: Stamp) -> Option<Change>;
    upgrade_password_hash(id: UserId, old: &PasswordHash, new: &PasswordHash) -> bool;
    delete_user(id: UserId, stamp: Stamp) -> Option<Change>;
    create_session(session: NewSession, per_user_max: u32, stamp: Stamp) -> Option<Change>;
    session(key: SessionKey) -> Option<SessionRecord>;
    sessions_by_digest(digests: &[TokenDigest]) -> Filling;
    sessions_by_use(after: Option<(UnixMillis, SessionId)>, limit: u32, now: UnixMillis) -> Filling;
    sessions_of_user(user: UserId, after: Option<SessionId>, limit: u32, now: UnixMillis) -> Vec<Session>;
    end_sessions(target: EndTarget, reason: EndReason, stamp: Stamp) -> Change;
    end_sessions_together(endings: &[Ending], stamp: Stamp) -> Vec<Option<Change>>;
    replace_session(old: SessionId, session: NewSession, stamp: Stamp) -> Option<Change>;
    touch_sessions(seen: &[(SessionId, UnixMillis)]) -> Vec<SessionId>;
    purge_sessions(before: UnixMillis, limit: u32) -> u64;
    changes_after(after: Position, limit: u32) -> Vec<LoggedChange>;
} }

observed! { Coordination for ObservedCoordination {
    join(node: NewNode) -> Joined;
    poll(node: NodeId, from: Position, limit: u32) -> Polled;
    acknowledge(node: NodeId, applied: Position, nonce: Option<Nonce>, commit: AckCommit) -> ();
    leave(node: NodeId) -> ();
    nodes() -> Roster;
    mark_evicting(node: NodeId, heartbeat: UnixMillis) -> bool;
    remove_evicted(node: NodeId) -> ();
    hint() -> ();
    write_again(lost: &[LoggedChange], stamp: Stamp) -> WrittenAgain;
    truncate_log(before: UnixMillis, limit: u32) -> u64;
    start_new_log(stamp: Stamp) -> (LogId, Change);
    change_lease(from: LeaseDuration, to: LeaseDuration) -> bool;
    schema_flaws() -> Vec<String>;
}
    fn is_exclusive(&self) -> bool {
        self.inner.is_exclusive()
    }

    async fn hinted(&self) -> Result<Hint> {
        self.inner.hinted().await
    }
}
