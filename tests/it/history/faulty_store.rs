//! Stores that do what no store may, to prove that the histories notice.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use latchkey::domain::id::{Position, SessionId, UserId};
use latchkey::domain::password::PasswordHash;
use latchkey::domain::session::{EndReason, Session};
use latchkey::domain::time::UnixMillis;
use latchkey::domain::token::{KeyFingerprint, KeyId, TokenDigest};
use latchkey::domain::user::User;
use latchkey::store::{
    Change, CreateUser, Credentials, EndTarget, Ending, Filling, FoundSession, LoggedChange, NewSession,
    NewUser, PasswordChange, RegisterTokenKeys, Result, SessionKey, SessionRecord, Stamp, Store, UpdateUser,
    UserChange, UserKey,
};

/// What is wrong with a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    /// Each time that its turn comes, it says that sessions were ended, and does nothing.
    ForgetsEveryThirdEnding,
    /// It fills memory from a cache that nobody tells of changes, and says that it is the latest state.
    CachesSessions,
    /// The same, but it looks at the database each second time: what was refused is accepted again.
    CachesSessionsNowAndThen,
}

/// A store with a flaw.
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    flaw: Flaw,
    turn: AtomicU64,
    cached: Mutex<HashMap<TokenDigest, FoundSession>>,
}

impl FaultyStore {
    pub fn over(inner: Arc<dyn Store>, flaw: Flaw) -> Arc<dyn Store> {
        Arc::new(Self { inner, flaw, turn: AtomicU64::new(0), cached: Mutex::default() })
    }

    fn turn(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    fn uses_cache(&self) -> bool {
        match self.flaw {
            Flaw::ForgetsEveryThirdEnding => false,
            Flaw::CachesSessions => true,
            Flaw::CachesSessionsNowAndThen => self.turn().is_multiple_of(2),
        }
    }

    /// What an ending would answer that found nothing to end.
    async fn nothing_ended(&self) -> Result<Change> {
        let rows = self.inner.changes_after(Position::ZERO, u32::MAX).await?;
        let position = rows.last().map_or(Position::ZERO, |row| row.position);
        Ok(Change { ended: 0, position, rows: Vec::new() })
    }
}

macro_rules! faulty {
    ($($step:ident($($name:ident: $kind:ty),*) -> $answer:ty;)*) => {
        #[async_trait]
        impl Store for FaultyStore {
            async fn sessions_by_digest(&self, digests: &[TokenDigest]) -> Result<Filling> {
                let mut filling = self.inner.sessions_by_digest(digests).await?;
                if self.flaw != Flaw::ForgetsEveryThirdEnding {
                    let mut cached = self.cached.lock().unwrap();
                    for found in &mut filling.found {
                        let known = cached.entry(found.digest).or_insert_with(|| found.clone());
                        if self.uses_cache() {
                            *found = known.clone();
                        }
                    }
                }
                Ok(filling)
            }

            async fn create_session(
                &self,
                session: NewSession,
                per_user_max: u32,
                stamp: Stamp,
            ) -> Result<Option<Change>> {
                let digest = session.digest;
                let change = self.inner.create_session(session, per_user_max, stamp).await?;
                self.sessions_by_digest(&[digest]).await?;
                Ok(change)
            }

            async fn end_sessions(&self, target: EndTarget, reason: EndReason, stamp: Stamp) -> Result<Change> {
                match self.flaw {
                    Flaw::ForgetsEveryThirdEnding if self.turn() % 3 == 2 => self.nothing_ended().await,
                    _ => self.inner.end_sessions(target, reason, stamp).await,
                }
            }

            async fn end_sessions_together(&self, endings: &[Ending], stamp: Stamp) -> Result<Vec<Option<Change>>> {
                let mut changes = Vec::new();
                for Ending { target, reason } in endings {
                    changes.push(Some(self.end_sessions(*target, *reason, stamp).await?));
                }
                Ok(changes)
            }

            $(async fn $step(&self, $($name: $kind),*) -> Result<$answer> {
                self.inner.$step($($name),*).await
            })*
        }
    };
}

faulty! {
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
    session(key: SessionKey) -> Option<SessionRecord>;
    sessions_by_use(after: Option<(UnixMillis, SessionId)>, limit: u32, now: UnixMillis) -> Filling;
    sessions_of_user(user: UserId, after: Option<SessionId>, limit: u32, now: UnixMillis) -> Vec<Session>;
    replace_session(old: SessionId, session: NewSession, stamp: Stamp) -> Option<Change>;
    touch_sessions(seen: &[(SessionId, UnixMillis)]) -> Vec<SessionId>;
    purge_sessions(before: UnixMillis, limit: u32) -> u64;
    changes_after(after: Position, limit: u32) -> Vec<LoggedChange>;
}
