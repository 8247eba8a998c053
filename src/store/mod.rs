//! The port to durable state: trait [`Store`], each method one atomic step that a use case needs.
//!
//! A transaction never leaves the implementation. "Not found" is an `Option`, "lost the race" is a value, `Err` is for
//! what went wrong. Whatever takes validity away, or changes a user, writes its change-log row in the same transaction.
//! A server that takes no writes is an outage: what a user, a session, a credential or a fill is, and that there was nothing
//! to do, is answered by the primary only.
//! No method reads a clock: `now` is handed in, and it is the database's time.
//!
//! To add a step: 1. the method here, with what it promises; 2. its clause in `tests/it/store_contract/`, failing;
//! 3. the SQL in `store/sql/`; 4. the delegation in `store/observed.rs`.

pub mod coordination;
pub mod observed;
pub mod sql;

use std::time::Duration;

use async_trait::async_trait;

pub use crate::domain::change::{ChangeKind, LogEntry, LoggedChange};
use crate::domain::id::{Epoch, Nonce, Position, SessionId, UserId};
use crate::domain::login_name::LoginName;
use crate::domain::password::PasswordHash;
use crate::domain::session::{EndReason, Session};
use crate::domain::time::UnixMillis;
use crate::domain::token::{KeyFingerprint, KeyId, TokenDigest};
use crate::domain::user::{Attributes, DisplayName, Roles, User, UserState};

/// What every method may answer.
pub type Result<T> = std::result::Result<T, StoreError>;

/// What went wrong, by what the caller can do. The text is for the log, never for a client.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database did not do it, and nothing was changed. Trying again later is safe.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The answer to a commit was lost: the change may or may not be in force.
    #[error("the outcome of a write is unknown: {0}")]
    OutcomeUnknown(String),
    /// A row holds what no version of this program wrote.
    #[error("the database holds something unreadable: {0}")]
    Corrupt(String),
}

/// What every change-log row bears.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// Database time.
    pub time: UnixMillis,
    /// Random; tells two rows of one number apart.
    pub nonce: Nonce,
}

/// After this time every node has heard of a key that was recorded, or holds no lease from before. Far more than any lease
/// lasts.
pub const KEYS_HEARD_AFTER: Duration = Duration::from_mins(10);

/// What became of the registration of token keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RegisterTokenKeys {
    /// All of them are recorded.
    Registered {
        /// The numbers of all keys that the database knows.
        known: Vec<KeyId>,
        /// What the log says of it: once it is in force, every node has heard of the keys of the ring. None where all of
        /// them were recorded long ago ([`KEYS_HEARD_AFTER`]).
        change: Option<Change>,
    },
    /// The key of this number is known with another fingerprint.
    Mismatch(KeyId),
}

/// Durable state, shared by all nodes.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The database's own time. Also the cheapest proof that the database answers.
    async fn database_time(&self) -> Result<UnixMillis>;

    /// Records the fingerprint of each key not known yet, and says so in the log, unless there was no key before: then no
    /// other node is there. Nothing is recorded where a key is known with another fingerprint.
    async fn register_token_keys(
        &self,
        keys: &[(KeyId, KeyFingerprint)],
        stamp: Stamp,
    ) -> Result<RegisterTokenKeys>;

    /// Forgets the fingerprint of a key that no node has any more, and says so in the log. None where it is not known.
    async fn forget_token_key(&self, key: KeyId, stamp: Stamp) -> Result<Option<Change>>;

    /// Adds a user. Login and id are unique for all time of the row, compared byte for byte.
    async fn create_user(&self, user: NewUser) -> Result<CreateUser>;

    /// Reads a user.
    async fn user(&self, key: UserKey<'_>) -> Result<Option<User>>;

    /// Reads, in one statement, everything that a sign-in decides on: the hash and the epochs it goes with.
    async fn credentials(&self, key: UserKey<'_>) -> Result<Option<Credentials>>;

    /// Users in the order of their ids, those behind `after`, at most `limit`.
    async fn list_users(&self, after: Option<UserId>, limit: u32) -> Result<Vec<User>>;

    /// Changes what `change` names. Disabling an active user raises the credential epoch and ends every session.
    async fn update_user(&self, id: UserId, change: UserChange, stamp: Stamp) -> Result<UpdateUser>;

    /// Sets the password whatever it was, raises both epochs and ends every session. None for an unknown user.
    async fn set_password(&self, id: UserId, hash: PasswordHash, stamp: Stamp) -> Result<Option<Change>>;

    /// Sets the password if the user is active and still has the epoch it was verified with, raises both epochs, ends
    /// every session, and adds `session` at the new epoch, all at once. None where the race was lost.
    async fn change_password(&self, change: PasswordChange, stamp: Stamp) -> Result<Option<Change>>;

    /// Puts a better hash of the same password in the place of `old`; no epoch changes, nothing is logged. False when
    /// the hash is another by now.
    async fn upgrade_password_hash(&self, id: UserId, old: &PasswordHash, new: &PasswordHash)
    -> Result<bool>;

    /// Removes the user and ends every session. None for an unknown user.
    async fn delete_user(&self, id: UserId, stamp: Stamp) -> Result<Option<Change>>;

    /// Adds a session with the epochs it brings, never read again: if they are old, it is dead on arrival. While the
    /// user then has more than `per_user_max` standing sessions, the oldest is ended as [`EndReason::Capped`], through
    /// the log; only then is the log touched, and a change answered.
    async fn create_session(
        &self,
        session: NewSession,
        per_user_max: u32,
        stamp: Stamp,
    ) -> Result<Option<Change>>;

    /// Reads a session, its user, the epoch of everyone and the position of the log in one statement.
    async fn session(&self, key: SessionKey) -> Result<Option<SessionRecord>>;

    /// Reads sessions by the digests of their tokens, with their users, for memory. Those not found are left out.
    async fn sessions_by_digest(&self, digests: &[TokenDigest]) -> Result<Filling>;

    /// Reads unended sessions of active users, the most recently used first, those behind `after`, at most `limit`, for
    /// a memory that is empty. `after` is the last use and the id of the last one of the page before.
    async fn sessions_by_use(
        &self,
        after: Option<(UnixMillis, SessionId)>,
        limit: u32,
        now: UnixMillis,
    ) -> Result<Filling>;

    /// The standing sessions of a user, newest first, those older than `after`, at most `limit`.
    async fn sessions_of_user(
        &self,
        user: UserId,
        after: Option<SessionId>,
        limit: u32,
        now: UnixMillis,
    ) -> Result<Vec<Session>>;

    /// Ends what `target` names. A user or session that is unknown, or a session that is over already, counts 0, writes
    /// nothing, and is answered with the current position of the log, behind which its end lies. A user who is known and has
    /// no sessions, and everyone, count 0 too, but the epoch goes up and the log says so: a sign-in may be under way. A
    /// session that merely seems idle is ended too, and counts 0: a use of it may not have been written down yet. For
    /// everyone the number is 0 also where counting takes too long.
    async fn end_sessions(&self, target: EndTarget, reason: EndReason, stamp: Stamp) -> Result<Change>;

    /// The same for several targets in one transaction, whose log rows are taken together and last. Returns a change for
    /// each target, in their order; none, and nothing changed, for a target that needs a row which another transaction has
    /// locked: it is skipped, not waited for. What two targets name ends by the first of them; the second finds it over.
    /// The end of everyone is a transaction of its own, also here; so it had better come alone.
    async fn end_sessions_together(&self, endings: &[Ending], stamp: Stamp) -> Result<Vec<Option<Change>>>;

    /// Ends session `old` as [`EndReason::Replaced`] and adds `session` in its place, at once. None when `old` is over
    /// already, or the epochs that `session` brings are old, so that it would be dead on arrival: the race was lost, and
    /// nothing was changed. That `old` seems idle does not count: a use may not have been written down yet.
    async fn replace_session(
        &self,
        old: SessionId,
        session: NewSession,
        stamp: Stamp,
    ) -> Result<Option<Change>>;

    /// Moves the last use of sessions forward, never back; unknown ones are passed over. Returns the sessions whose row
    /// another transaction has locked: they are skipped, and their use is still to be written.
    async fn touch_sessions(&self, seen: &[(SessionId, UnixMillis)]) -> Result<Vec<SessionId>>;

    /// Deletes at most `limit` sessions whose end, of whatever kind, lies before `before`, and answers how many it were.
    /// Rows that another transaction has locked are skipped.
    async fn purge_sessions(&self, before: UnixMillis, limit: u32) -> Result<u64>;

    /// The rows of the change log behind `after` in order, at most `limit`. Never one behind a row that does not show yet:
    /// the next read has both.
    async fn changes_after(&self, after: Position, limit: u32) -> Result<Vec<LoggedChange>>;
}

/// By what a user is found.
#[derive(Clone, Copy, Debug)]
pub enum UserKey<'a> {
    /// By id.
    Id(UserId),
    /// By the key of the login name.
    Login(&'a LoginName),
}

/// By what a session is found.
#[derive(Clone, Copy, Debug)]
pub enum SessionKey {
    /// By its public name.
    Id(SessionId),
    /// By the digest of its token.
    Digest(TokenDigest),
}

/// A user to add. Its epochs are above all that a deleted user of the same id ever had.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// The id, minted or chosen by the caller.
    pub id: UserId,
    /// The login name.
    pub login: LoginName,
    /// What to call the user.
    pub display_name: DisplayName,
    /// Roles.
    pub roles: Roles,
    /// Attributes.
    pub attributes: Attributes,
    /// The password, if there is one.
    pub password_hash: Option<PasswordHash>,
    /// Database time.
    pub create_time: UnixMillis,
}

/// How adding a user ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CreateUser {
    /// Added.
    Created(Box<User>),
    /// Another user has the login.
    LoginTaken,
    /// Another user has the id.
    IdTaken,
}

/// A change of a user; what is none stays.
#[derive(Clone, Debug, Default)]
pub struct UserChange {
    /// Another login name.
    pub login: Option<LoginName>,
    /// Another display name.
    pub display_name: Option<DisplayName>,
    /// Other roles, in place of all.
    pub roles: Option<Roles>,
    /// Other attributes, in place of all.
    pub attributes: Option<Attributes>,
    /// Another state.
    pub state: Option<UserState>,
}

/// How changing a user ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UpdateUser {
    /// Changed; the user as of the change.
    Updated(Box<User>, Change),
    /// No such user.
    NotFound,
    /// Another user has the wished login.
    LoginTaken,
}

/// What a sign-in decides on, as of one read.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The user.
    pub user: User,
    /// The password, if there is one.
    pub password_hash: Option<PasswordHash>,
    /// The epoch of everyone.
    pub everyone_epoch: Epoch,
    /// The head of the log.
    pub position: Position,
}

/// A session to add, and the digest by which its token will find it. `session.ended` is none.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// The session.
    pub session: Session,
    /// The digest of its token.
    pub digest: TokenDigest,
}

/// A change of a password by its owner.
#[derive(Clone, Debug)]
pub struct PasswordChange {
    /// The epoch read together with the hash that was verified.
    pub verified_epoch: Epoch,
    /// The new hash.
    pub hash: PasswordHash,
    /// The session that goes on; its `user_epoch` is `verified_epoch.next()`.
    pub session: NewSession,
}

/// A session and what decides on it, as of one read.
#[derive(Clone, Debug)]
pub struct SessionRecord {
    /// The session, also one that is over.
    pub session: Session,
    /// Its user; none when the user is gone.
    pub user: Option<User>,
    /// The epoch of everyone.
    pub everyone_epoch: Epoch,
    /// The head of the log.
    pub position: Position,
}

/// What to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndTarget {
    /// One session by name.
    Session(SessionId),
    /// One session by token.
    Digest(TokenDigest),
    /// All of a user's: the credential epoch goes up, and the excepted session, if it stands, is re-stamped with it.
    User {
        /// Whose.
        user: UserId,
        /// Which one goes on.
        except: Option<SessionId>,
    },
    /// All of all users: the epoch of everyone goes up.
    Everyone,
}

/// What a write took away, and where the log says so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Standing sessions that ended.
    pub ended: u64,
    /// The position of the last log row; where nothing was written, the head of the log.
    pub position: Position,
    /// The log rows that were written, in order: what the node that wrote them applies to its own memory at once.
    pub rows: Vec<LoggedChange>,
}

/// What memory takes in: sessions by their digests, as of one moment.
#[derive(Clone, Debug)]
pub struct Filling {
    /// The head of the log: the row of every change up to here is in what was read. Read before the rest, in a statement
    /// of its own, on an engine whose statements are not one moment (MariaDB).
    pub position: Position,
    /// The epoch of everyone.
    pub everyone_epoch: Epoch,
    /// The sessions that were found, also those that are over, each with its user; none when the user is gone.
    pub found: Vec<FoundSession>,
}

/// A session that was read for memory.
#[derive(Clone, Debug)]
pub struct FoundSession {
    /// The digest of its token.
    pub digest: TokenDigest,
    /// The session.
    pub session: Session,
    /// Its user; none when the user is gone.
    pub user: Option<User>,
}

/// One thing to end, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ending {
    /// What.
    pub target: EndTarget,
    /// Why.
    pub reason: EndReason,
}

impl Ending {
    /// Whether it ends everyone's sessions.
    pub fn is_of_everyone(&self) -> bool {
        self.target == EndTarget::Everyone
    }
}
