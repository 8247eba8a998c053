//! A store between the server and its database, by which a test sets the database's time and makes steps fail.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use latchkey::domain::id::{Position, SessionId, UserId};
use latchkey::domain::password::PasswordHash;
use latchkey::domain::session::{EndReason, Session};
use latchkey::domain::time::{BootTime, UnixMillis};
use latchkey::domain::token::{KeyFingerprint, KeyId, TokenDigest};
use latchkey::domain::user::User;
use latchkey::host::{Clock, ManualClock};
use latchkey::store::{
    Change, CreateUser, Credentials, EndTarget, Ending, Filling, LoggedChange, NewSession, NewUser,
    PasswordChange, RegisterTokenKeys, Result, SessionKey, SessionRecord, Stamp, Store, StoreError,
    UpdateUser, UserChange, UserKey,
};
use tokio::sync::Semaphore;

use super::waiting::eventually;

/// The database's time when the manual clock stands at its start: 2026-01-01T00:00:00Z.
pub const START: UnixMillis = ManualClock::WALL_AT_BOOT;
/// What every fault says; it must never reach a client.
pub const FAULT: &str = "a fault of the test";

/// Steps that the server takes by itself, without a call.
const BY_ITSELF: [&str; 15] = [
    "database_time",
    "register_token_keys",
    "touch_sessions",
    "purge_sessions",
    "sessions_by_use",
    "join",
    "poll",
    "acknowledge",
    "leave",
    "nodes",
    "mark_evicting",
    "remove_evicted",
    "hint",
    "hinted",
    "truncate_log",
];

/// What happens to a step instead of, or before, being done.
#[derive(Clone)]
pub enum Fault {
    /// Nothing.
    Pass,
    /// It is not done, and answered as unavailable.
    Unavailable,
    /// It is done, but answered as unknown.
    OutcomeUnknown,
    /// It is not done, but answered as unknown.
    UndoneUnknown,
    /// It is not done, and answered as unreadable.
    Corrupt,
    /// It is not done, and panics.
    Panic,
    /// It waits for a permit of the gate before it is done.
    Gate(Arc<Semaphore>),
    /// It is done, but its answer waits for a permit of the gate.
    GateBehind(Arc<Semaphore>),
}

/// A gate that is shut, and the fault that holds steps before it.
pub fn shut_gate() -> (Arc<Semaphore>, Fault) {
    let gate = Arc::new(Semaphore::new(0));
    (Arc::clone(&gate), Fault::Gate(gate))
}

/// Steps and what happens to them, until the test says otherwise; and how often each was asked for.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    faults: HashMap<&'static str, VecDeque<Fault>>,
    calls: HashMap<&'static str, u64>,
    /// Milliseconds by which the database's clock is ahead of the manual one.
    ahead: i64,
}

impl Faults {
    /// From now on `fault` happens to each `step`; the name is that of the method of `Store`, or `*` for all.
    pub fn set(&self, step: &'static str, fault: Fault) {
        self.set_in_turn(step, [fault]);
    }

    /// The next calls of `step` get one of `faults` each, in this order; all further ones get the last.
    pub fn set_in_turn(&self, step: &'static str, faults: impl IntoIterator<Item = Fault>) {
        self.lock().faults.insert(step, faults.into_iter().collect());
    }

    /// From now on the database's clock is so many milliseconds ahead of the manual one.
    pub fn shift_database_clock(&self, ahead: i64) {
        self.lock().ahead = ahead;
    }

    /// What the database's clock shows, which follows `clock`.
    pub fn time_of(&self, clock: &ManualClock) -> UnixMillis {
        UnixMillis::from_millis(time_of(clock).as_millis() + self.lock().ahead)
    }

    /// Whether anything happens to `step`.
    pub fn touch(&self, step: &'static str) -> bool {
        let state = self.lock();
        state.faults.contains_key(step) || state.faults.contains_key("*")
    }

    /// Nothing happens any more.
    pub fn clear(&self) {
        self.lock().faults.clear();
    }

    /// How often `step` was asked for.
    pub fn calls(&self, step: &'static str) -> u64 {
        self.lock().calls.get(step).copied().unwrap_or(0)
    }

    /// The steps that calls asked for, and how often; without those that the server takes by itself.
    pub fn steps_of_calls(&self) -> HashMap<&'static str, u64> {
        let state = self.lock();
        let of_calls = state.calls.iter().filter(|(step, _)| !BY_ITSELF.contains(step));
        of_calls.map(|(step, count)| (*step, *count)).collect()
    }

    /// Waits until `step` was asked for `count` times.
    pub async fn asked_for(&self, step: &'static str, count: u64) {
        eventually(step, async || self.calls(step) >= count).await;
    }

    /// Takes the step, or does what happens to it instead.
    pub async fn pass<T>(
        &self,
        step: &'static str,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        match self.begin(step) {
            None | Some(Fault::Pass) => call.await,
            Some(Fault::Unavailable) => Err(StoreError::Unavailable(FAULT.to_owned())),
            Some(Fault::Corrupt) => Err(StoreError::Corrupt(FAULT.to_owned())),
            Some(Fault::Panic) => panic!("the test asked for a panic in {step}"),
            Some(Fault::UndoneUnknown) => Err(StoreError::OutcomeUnknown(FAULT.to_owned())),
            Some(Fault::OutcomeUnknown) => {
                call.await?;
                Err(StoreError::OutcomeUnknown(FAULT.to_owned()))
            }
            Some(Fault::Gate(gate)) => {
                gate.acquire().await.expect("the gate stays").forget();
                call.await
            }
            Some(Fault::GateBehind(gate)) => {
                let answer = call.await;
                gate.acquire().await.expect("the gate stays").forget();
                answer
            }
        }
    }

    fn begin(&self, step: &'static str) -> Option<Fault> {
        let mut state = self.lock();
        *state.calls.entry(step).or_default() += 1;
        let key = if state.faults.contains_key(step) { step } else { "*" };
        let faults = state.faults.get_mut(key)?;
        if faults.len() > 1 { faults.pop_front() } else { faults.front().cloned() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics in here")
    }
}

/// The database's time, as a manual clock has it.
pub fn time_of(clock: &ManualClock) -> UnixMillis {
    START.plus(clock.boottime().since(BootTime::default()))
}

/// Passes steps on to `inner`, but for faults and the time.
pub struct InterposedStore {
    /// The database.
    pub inner: Arc<dyn Store>,
    /// What the database's time follows.
    pub clock: Arc<ManualClock>,
    /// What happens to steps.
    pub faults: Faults,
}

macro_rules! interposed {
    ($($step:ident($($name:ident: $kind:ty),*) -> $answer:ty;)*) => {
        #[async_trait]
        impl Store for InterposedStore {
            async fn database_time(&self) -> Result<UnixMillis> {
                let time = self.faults.time_of(&self.clock);
                self.faults.pass("database_time", async move { Ok(time) }).await
            }

            $(async fn $step(&self, $($name: $kind),*) -> Result<$answer> {
                self.faults.pass(stringify!($step), self.inner.$step($($name),*)).await
            })*
        }
    };
}

interposed! {
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
}
