//! The store on SQLite, PostgreSQL and MariaDB.
//!
//! One file an aggregate: `users`, `passwords`, `sessions`, `ending`, `filling`, `upkeep`, `token_keys`, `change_log`,
//! `nodes`. A step there is a function on a connection; here, and in `coordination`, it is given one. `step` says how it
//! runs, `pool`, `places`, `hosts` and `target` how the database is reached, `schema` whether it fits. SeaORM is known nowhere else.

mod change_log;
mod coordination;
mod database_time;
mod end_together;
mod ending;
mod entity;
mod error;
mod facts;
mod file_lock;
mod filling;
mod follow;
mod hints;
mod hosts;
mod in_order;
mod lease;
mod limits;
mod log_upkeep;
mod nodes;
mod passwords;
mod places;
mod pool;
mod pooler;
mod primary;
mod revocations;
mod row_locks;
mod schema;
mod server;
mod session;
mod session_row;
mod session_writes;
mod sessions;
mod set_each;
mod source;
mod standing;
mod step;
mod target;
mod timed;
mod token_keys;
mod upkeep;
mod user_row;
mod users;
mod write_again;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

pub use self::error::OpenError;
use self::facts::UserBy;
use self::file_lock::{FileLock, FileWatch};
use self::hints::Hints;
pub use self::limits::SqlLimits;
use self::places::Places;
use self::row_locks::RowLocks;
pub use self::schema::{Migrated, MigrationStatus, SchemaStatus, migrate_up, schema_status};
use self::step::Steps;
use self::target::Target;
use super::{
    Change, CreateUser, Credentials, EndTarget, Ending, Filling, LoggedChange, NewSession, NewUser,
    PasswordChange, RegisterTokenKeys, Result, SessionKey, SessionRecord, Stamp, Store, StoreError,
    UpdateUser, UserChange, UserKey,
};
use crate::database_url::DatabaseUrl;
use crate::domain::id::{Position, SessionId, UserId};
use crate::domain::password::PasswordHash;
use crate::domain::session::{EndReason, Session};
use crate::domain::time::UnixMillis;
use crate::domain::token::{KeyFingerprint, KeyId, TokenDigest};
use crate::domain::user::User;

/// How often a user is tried to be added while others add and remove the same one.
const CREATE_ATTEMPTS_MAX: u32 = 3;

/// Durable state in a SQL database. Clones share the connections.
#[derive(Clone)]
pub struct SqlStore {
    steps: Steps,
    /// Those by which a node follows the log, on a connection of their own.
    following: Steps,
    row_locks: RowLocks,
    hints: Arc<Hints>,
    /// Held by the one attempt to write lost changes again; its task may outlast its caller.
    writing_again: Arc<tokio::sync::Mutex<()>>,
    is_exclusive: bool,
    place: Arc<str>,
    /// Where the database is a file: what notices that it is not the same one any more, and the connection that this needs.
    files: Option<Arc<FileWatch>>,
    kept_open: Option<Places>,
    file: Arc<Mutex<Option<FileLock>>>,
}

impl SqlStore {
    /// Opens the database that `url` names. A SQLite file is taken for this process and migrated; a server must have been
    /// migrated by `migrate_up`, and is only looked at.
    pub async fn open(url: &DatabaseUrl, limits: SqlLimits) -> std::result::Result<Self, OpenError> {
        let target = Target::new(url)?;
        let file = match &target {
            Target::Sqlite(_, Some(file)) => Some(FileLock::take(file)?),
            _ => None,
        };
        let is_file = file.is_some();
        if is_file {
            schema::migrate(&target, limits).await?;
        }
        let (mut files, mut kept_open) = (None, None);
        if let Target::Sqlite(_, Some(file)) = &target {
            kept_open = Some(Places::Common(pool::keep_open(&target, &limits).await?));
            files = Some(Arc::new(FileWatch::new(&file.path)));
        }
        target.find_host_at_start(limits.connect_timeout).await?;
        schema::in_time(&target, limits, pooler::check(&target, &limits)).await?;
        let source = pool::source(&target, &limits);
        let first = source.current().0.any();
        if matches!(target, Target::Sqlite(_, None)) {
            schema::migrate_in_memory(&target, &first).await?;
        }
        let is_exclusive = matches!(target, Target::Sqlite(..));
        let steps = Steps::new(source, limits, is_exclusive).on_files(files.clone());
        let following = match pool::open_following(&target, &limits) {
            Some((own, limits)) => steps.beside(own, limits),
            None => steps.clone(),
        };
        let store = Self {
            steps,
            following,
            row_locks: RowLocks::new(),
            hints: Arc::new(Hints::new(&target)),
            writing_again: Arc::default(),
            is_exclusive,
            place: target.describe().into(),
            files,
            kept_open,
            file: Arc::new(Mutex::new(file)),
        };
        match schema::check(&target, &first, limits).await {
            Ok(unknown) if unknown.is_empty() => {}
            Ok(unknown) => {
                tracing::warn!(?unknown, "the database schema is newer than this program, and fits it");
            }
            Err(why) => {
                store.close().await;
                return Err(why);
            }
        }
        if let Err(why) = schema::check_server_settings(&target, &first, limits).await {
            store.close().await;
            return Err(why);
        }
        Ok(store)
    }

    /// Waits for the steps that run, closes all connections and gives the file free. Whatever comes later is refused.
    pub async fn close(&self) {
        tokio::join!(self.hints.close(), self.steps.finish(), self.following.finish());
        let (own, of_follower) = (self.steps.last_places(), self.following.last_places());
        tokio::join!(pool::close(&own), pool::close(&of_follower));
        if let Some(kept_open) = &self.kept_open {
            pool::close(kept_open).await;
        }
        self.file.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Which database this is, for people; never with a password.
    pub fn describe(&self) -> String {
        self.place.to_string()
    }

    /// Adds a user, or says what is taken. Which of the two it was is asked afterwards, since engines name it differently.
    async fn create(&self, user: NewUser) -> Result<CreateUser> {
        let user = Arc::new(user);
        for _ in 0..CREATE_ATTEMPTS_MAX {
            let new = Arc::clone(&user);
            let added = self.steps.write(move |db| Box::pin(users::insert(db, Arc::clone(&new)))).await?;
            if let Some(user) = added {
                return Ok(CreateUser::Created(Box::new(user)));
            }
            let new = Arc::clone(&user);
            let taken = self.steps.read(move |db| Box::pin(users::taken(db, Arc::clone(&new)))).await?;
            if let Some(taken) = taken {
                return Ok(taken);
            }
        }
        Err(StoreError::Unavailable("the same user is added and removed all the time".to_owned()))
    }
}

#[async_trait]
impl Store for SqlStore {
    async fn database_time(&self) -> Result<UnixMillis> {
        self.steps.read(|db| Box::pin(database_time::read(db))).await
    }

    async fn register_token_keys(
        &self,
        keys: &[(KeyId, KeyFingerprint)],
        stamp: Stamp,
    ) -> Result<RegisterTokenKeys> {
        let keys: Arc<[_]> = keys.into();
        self.steps.write(move |db| Box::pin(token_keys::register(db, Arc::clone(&keys), stamp))).await
    }

    async fn forget_token_key(&self, key: KeyId, stamp: Stamp) -> Result<Option<Change>> {
        self.steps.write(move |db| Box::pin(token_keys::forget(db, key, stamp))).await
    }

    async fn create_user(&self, user: NewUser) -> Result<CreateUser> {
        self.create(user).await
    }

    async fn user(&self, key: UserKey<'_>) -> Result<Option<User>> {
        let by = UserBy::from(key);
        self.steps.read(move |db| Box::pin(users::read(db, by.clone()))).await
    }

    async fn credentials(&self, key: UserKey<'_>) -> Result<Option<Credentials>> {
        let by = UserBy::from(key);
        self.steps.read(move |db| Box::pin(users::credentials(db, by.clone()))).await
    }

    async fn list_users(&self, after: Option<UserId>, limit: u32) -> Result<Vec<User>> {
        self.steps.read(move |db| Box::pin(users::list(db, after, limit))).await
    }

    async fn update_user(&self, id: UserId, change: UserChange, stamp: Stamp) -> Result<UpdateUser> {
        let change = Arc::new(change);
        self.steps.write(move |db| Box::pin(users::update(db, id, Arc::clone(&change), stamp))).await
    }

    async fn set_password(&self, id: UserId, hash: PasswordHash, stamp: Stamp) -> Result<Option<Change>> {
        let hash = Arc::new(hash);
        self.steps.write(move |db| Box::pin(passwords::set(db, id, Arc::clone(&hash), stamp))).await
    }

    async fn change_password(&self, change: PasswordChange, stamp: Stamp) -> Result<Option<Change>> {
        let change = Arc::new(change);
        self.steps.write(move |db| Box::pin(passwords::change(db, Arc::clone(&change), stamp))).await
    }

    async fn upgrade_password_hash(
        &self,
        id: UserId,
        old: &PasswordHash,
        new: &PasswordHash,
    ) -> Result<bool> {
        let hashes = Arc::new((old.clone(), new.clone()));
        self.steps.write(move |db| Box::pin(passwords::upgrade(db, id, Arc::clone(&hashes)))).await
    }

    async fn delete_user(&self, id: UserId, stamp: Stamp) -> Result<Option<Change>> {
        self.steps.write(move |db| Box::pin(users::delete(db, id, stamp))).await
    }

    async fn create_session(
        &self,
        session: NewSession,
        per_user_max: u32,
        stamp: Stamp,
    ) -> Result<Option<Change>> {
        let session = Arc::new(session);
        self.steps
            .write(move |db| Box::pin(sessions::create(db, Arc::clone(&session), per_user_max, stamp)))
            .await
    }

    async fn session(&self, key: SessionKey) -> Result<Option<SessionRecord>> {
        self.steps.read(move |db| Box::pin(sessions::read(db, key))).await
    }

    async fn sessions_by_digest(&self, digests: &[TokenDigest]) -> Result<Filling> {
        let digests: Arc<[_]> = digests.into();
        self.steps.read(move |db| Box::pin(filling::by_digest(db, Arc::clone(&digests)))).await
    }

    async fn sessions_by_use(
        &self,
        after: Option<(UnixMillis, SessionId)>,
        limit: u32,
        now: UnixMillis,
    ) -> Result<Filling> {
        self.steps.read(move |db| Box::pin(filling::by_use(db, after, limit, now))).await
    }

    async fn sessions_of_user(
        &self,
        user: UserId,
        after: Option<SessionId>,
        limit: u32,
        now: UnixMillis,
    ) -> Result<Vec<Session>> {
        self.steps.read(move |db| Box::pin(sessions::list(db, user, after, limit, now))).await
    }

    async fn end_sessions(&self, target: EndTarget, reason: EndReason, stamp: Stamp) -> Result<Change> {
        let change = self.end_one(Ending { target, reason }, stamp).await?;
        change.ok_or_else(|| StoreError::Unavailable("an ending was not answered".to_owned()))
    }

    async fn end_sessions_together(&self, endings: &[Ending], stamp: Stamp) -> Result<Vec<Option<Change>>> {
        let mut changes = Vec::with_capacity(endings.len());
        for part in endings.chunk_by(|one, next| !one.is_of_everyone() && !next.is_of_everyone()) {
            match self.end_part(part, stamp).await {
                Ok(more) => changes.extend(more),
                // What stood before everyone is committed.
                Err(StoreError::Unavailable(why)) if !changes.is_empty() => {
                    return Err(StoreError::OutcomeUnknown(why));
                }
                Err(why) => return Err(why),
            }
        }
        Ok(changes)
    }

    async fn replace_session(
        &self,
        old: SessionId,
        session: NewSession,
        stamp: Stamp,
    ) -> Result<Option<Change>> {
        let session = Arc::new(session);
        self.steps.write(move |db| Box::pin(sessions::replace(db, old, Arc::clone(&session), stamp))).await
    }

    async fn touch_sessions(&self, seen: &[(SessionId, UnixMillis)]) -> Result<Vec<SessionId>> {
        let mut locked = Vec::new();
        for batch in upkeep::in_order(seen).chunks(session_writes::BATCH_MAX) {
            let batch: Arc<[_]> = batch.into();
            let locks = self.row_locks.clone();
            let touched = self
                .steps
                .write(move |db| Box::pin(upkeep::touch(db, Arc::clone(&batch), locks.clone())))
                .await?;
            locked.extend(touched);
        }
        Ok(locked)
    }

    async fn purge_sessions(&self, before: UnixMillis, limit: u32) -> Result<u64> {
        let locks = self.row_locks.clone();
        self.steps.write(move |db| Box::pin(upkeep::purge(db, before, limit, locks.clone()))).await
    }

    async fn changes_after(&self, after: Position, limit: u32) -> Result<Vec<LoggedChange>> {
        self.steps.read(move |db| Box::pin(change_log::after(db, after, limit))).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_file_is_made_migrated_taken_and_given_free() {
        let dir = tempfile::tempdir().expect("a directory");
        let url = DatabaseUrl::of_sqlite_file(&dir.path().join("a.db"));
        let limits = SqlLimits::default();
        assert!(
            schema_status(&url, limits).await.expect("no file yet").migrations.iter().all(|one| !one.applied)
        );
        let store = SqlStore::open(&url, limits).await.expect("a new database");
        assert!(
            schema_status(&url, limits).await.expect("a status").migrations.iter().all(|one| one.applied)
        );
        let second = SqlStore::open(&url, limits).await;
        assert!(matches!(second, Err(OpenError::Taken(path)) if path == dir.path().join("a.db")));
        assert!(matches!(migrate_up(&url, limits).await, Err(OpenError::Taken(_))));
        assert!(store.database_time().await.is_ok());
        store.close().await;
        assert!(matches!(store.database_time().await, Err(StoreError::Unavailable(_))));
        assert_eq!(migrate_up(&url, limits).await.expect("free again"), Migrated::default());
        SqlStore::open(&url, limits).await.expect("free again").close().await;
    }

    #[tokio::test]
    async fn what_cannot_be_opened_says_why() {
        let dir = tempfile::tempdir().expect("a directory");
        let limits = SqlLimits { connect_timeout: Duration::from_millis(200), ..SqlLimits::default() };
        let parsed = |url: &str| DatabaseUrl::parse(url).expect("a URL");
        let missing = parsed(&format!("sqlite://{}", dir.path().join("a.db").display()));
        assert!(matches!(SqlStore::open(&missing, limits).await, Err(OpenError::Unreachable(_))));
        // Nobody listens on the discard port of this machine.
        for nobody in [
            "postgres://u:geheim@127.0.0.1:9/a",
            "postgres://u:geheim@127.0.0.1:9,[::1]:9/a",
            "mysql://u:geheim@127.0.0.1:9,127.0.0.2:9/a",
        ] {
            let error = SqlStore::open(&parsed(nobody), limits).await.err().expect("nobody there");
            assert!(matches!(error, OpenError::Unreachable(_)), "{error}");
            assert!(!error.to_string().contains("geheim"), "{error}");
        }
    }
}
