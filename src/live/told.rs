//! What the keeper is told and tells: what was read, what to end, how much it may hold and how much it holds.

use crate::domain::id::{Epoch, Position, SessionId, UserId};
use crate::domain::session::{Death, Session};
use crate::domain::token::TokenDigest;
use crate::domain::user::User;

/// How much memory may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryLimits {
    /// Sessions; one more evicts one that was not used lately.
    pub sessions_max: usize,
    /// Sessions that are remembered as over, and tokens as unknown.
    pub dead_max: usize,
    /// Changes that are remembered, so that reads which they overtook are told.
    pub changes_max: usize,
}

/// What was read for memory.
#[derive(Clone, Debug)]
pub struct Fill {
    /// Every change up to here is in what was read.
    pub position: Position,
    /// The epoch of everyone.
    pub everyone_epoch: Epoch,
    /// Digests that were asked for: one without a session belongs to none.
    pub asked: Vec<TokenDigest>,
    /// What was found.
    pub found: Vec<Filled>,
}

/// A session that was read.
#[derive(Clone, Debug)]
pub struct Filled {
    /// The digest of its token.
    pub digest: TokenDigest,
    /// The session.
    pub session: Session,
    /// Its user; none when the user is gone.
    pub user: Option<User>,
}

/// What to end of what memory holds, where the database did not say whether it took the change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndKnown {
    /// One session by name.
    Session(SessionId),
    /// One session by token.
    Digest(TokenDigest),
    /// All of a user's but one, perhaps, and why.
    User(UserId, Option<SessionId>, Death),
    /// All.
    Everyone,
    /// Nothing: the change takes no validity away, or nobody knows what from.
    Nothing,
}

/// How much memory holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Holding {
    /// Sessions, over or not.
    pub sessions: usize,
    /// What is remembered as over or unknown.
    pub dead: usize,
    /// Users.
    pub users: usize,
    /// Sessions evicted so far.
    pub evicted: u64,
    /// Sessions read so far that a change had overtaken, and that were not taken in.
    pub overtaken: u64,
}
