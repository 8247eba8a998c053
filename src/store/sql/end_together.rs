//! Ending what several callers named, in one transaction: one session is the smallest group.
//!
//! Users are locked first, then sessions, each in the order of their ids; all that is decided on is read behind the locks;
//! and the rows of the log are written last and together. So groups of several nodes never wait for each other in a ring.
//! A group that does not wait for locks leaves out the parts that need a row which another transaction has locked: one
//! user's lock must not delay the endings of others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QuerySelect as _};
use uuid::Uuid;

use super::change_log;
use super::ending::{divide, open_of};
use super::entity::{log_head, sessions, users};
use super::error::Failure;
use super::facts;
use super::row_locks::OnLocked;
use super::session_writes::{self, BATCH_MAX};
use super::step::{Transaction, Verdict};
use super::users::lock_all;
use crate::domain::id::{Epoch, Position, SessionId, UserId};
use crate::domain::session::EndReason;
use crate::domain::time::UnixMillis;
use crate::domain::token::TokenDigest;
use crate::store::{Change, EndTarget, Ending, LogEntry, Stamp};

/// Ends what `endings` name, but for everyone, whose end has its own way, and returns a change for each; none for what
/// needs a row that another transaction has locked, unless the group waits for it.
pub(super) async fn end(
    transaction: &Transaction,
    endings: Arc<[Ending]>,
    stamp: Stamp,
    on_locked: OnLocked,
) -> Result<Verdict<Vec<Option<Change>>>, Failure> {
    let mut group = Group::lock(transaction, &endings, stamp.time, on_locked).await?;
    let parts: Vec<Part> = endings.iter().map(|ending| group.end(ending, stamp.time)).collect();
    if group.entries.is_empty() {
        let head = Position::from_i64(group.head.position);
        let unchanged = |part: &Part| match part {
            Part::Locked => None,
            Part::Nothing | Part::Ended(_) => Some(change_log::no_change(head)),
        };
        return Ok(Verdict::Nothing(parts.iter().map(unchanged).collect()));
    }
    group.write(transaction, stamp).await?;
    let rows = change_log::append(transaction, &group.entries, stamp).await?;
    // What was over already may have been ended by another part, so its end lies behind the last row.
    let last = rows.last().map_or(Position::ZERO, |row| row.position);
    let mut rows = rows.into_iter();
    let change = |part: &Part| match part {
        Part::Locked => None,
        Part::Nothing => Some(change_log::no_change(last)),
        Part::Ended(ended) => Some(change_log::change(*ended, rows.by_ref().take(1).collect())),
    };
    Ok(Verdict::Commit(parts.iter().map(change).collect()))
}

/// How one ending of the group went.
enum Part {
    /// A row that it needs is locked by another transaction.
    Locked,
    /// There was nothing to end.
    Nothing,
    /// So many standing sessions ended, and one row of the log says so.
    Ended(u64),
}

/// What is locked and known, and what is to be written.
struct Group {
    digests: BTreeMap<Vec<u8>, Uuid>,
    /// Users all of whose sessions end; locked.
    users: BTreeMap<Uuid, users::Model>,
    /// The users of other sessions.
    owners: BTreeMap<Uuid, users::Model>,
    /// Sessions that are not ended; locked.
    open: BTreeMap<Uuid, sessions::Model>,
    /// Users and sessions that another transaction has locked, and the users of such sessions.
    locked: BTreeSet<Uuid>,
    head: log_head::Model,
    marks: Vec<(EndReason, Uuid)>,
    kept: BTreeMap<Uuid, i64>,
    /// By how much the epochs of users go up.
    raised: BTreeMap<Uuid, i64>,
    entries: Vec<LogEntry>,
}

impl Group {
    async fn lock(
        transaction: &Transaction,
        endings: &[Ending],
        now: UnixMillis,
        on_locked: OnLocked,
    ) -> Result<Self, Failure> {
        let (mut ids, mut of_users, mut digests) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        for ending in endings {
            match ending.target {
                EndTarget::Session(id) => drop(ids.insert(id.as_uuid())),
                EndTarget::Digest(digest) => digests.push(digest),
                EndTarget::User { user, .. } => drop(of_users.insert(user.as_uuid())),
                EndTarget::Everyone => {}
            }
        }
        let users = lock_all(transaction, &of_users, on_locked).await?;
        let digests = ids_of(transaction, &digests).await?;
        ids.extend(digests.values());
        let locked: Vec<_> = users.keys().copied().collect();
        ids.extend(open_of(transaction, &locked, now).await?);
        let open = session_writes::lock_any(transaction, ids.iter().copied().collect(), on_locked).await?;
        let mut open: BTreeMap<_, _> =
            open.into_iter().map(|session| (session.session_id, session)).collect();
        let mut locked = BTreeSet::new();
        if on_locked == OnLocked::Skip {
            // What was left out and is there all the same is locked by somebody else.
            let skipped = of_users.into_iter().filter(|id| !users.contains_key(id)).collect();
            locked.extend(read_users(transaction, skipped).await?.into_keys());
            ids.retain(|id| !open.contains_key(id));
            let skipped: Vec<_> = ids.into_iter().collect();
            for session in session_writes::read(transaction, &skipped).await? {
                if session.end_time.is_none() {
                    locked.extend([session.session_id, session.user_id]);
                }
            }
        }
        open.retain(|_, session| session.end_time.is_none());
        let strangers = open.values().map(|session| session.user_id).filter(|id| !users.contains_key(id));
        let owners = read_users(transaction, strangers.collect()).await?;
        // Read behind all of this: whoever ended something before has committed, and its number is not above this head.
        let head = facts::head(transaction).await?;
        let (marks, kept, raised, entries) = Default::default();
        Ok(Self { digests, users, owners, open, locked, head, marks, kept, raised, entries })
    }

    fn end(&mut self, ending: &Ending, now: UnixMillis) -> Part {
        match ending.target {
            EndTarget::Session(id) => self.end_one(id.as_uuid(), ending.reason, now),
            EndTarget::Digest(digest) => match self.digests.get(digest.0.as_slice()) {
                Some(id) => self.end_one(*id, ending.reason, now),
                None => Part::Nothing,
            },
            EndTarget::User { user, except } => self.end_user(user, except, ending.reason, now),
            EndTarget::Everyone => Part::Nothing,
        }
    }

    /// Ends one session, unless it certainly is over.
    fn end_one(&mut self, id: Uuid, reason: EndReason, now: UnixMillis) -> Part {
        if self.locked.contains(&id) {
            return Part::Locked;
        }
        let Some(session) = self.open.get(&id) else { return Part::Nothing };
        let user = self.users.get(&session.user_id).or_else(|| self.owners.get(&session.user_id));
        if !session.is_unended(user, &self.head, now) {
            return Part::Nothing;
        }
        let Some(session) = self.take(id, reason) else { return Part::Nothing };
        self.entries.push(change_log::session_ended(&session, reason));
        Part::Ended(u64::from(session.is_used_lately(now)))
    }

    /// Ends all sessions of a user but, perhaps, one.
    fn end_user(
        &mut self,
        user: UserId,
        except: Option<SessionId>,
        reason: EndReason,
        now: UnixMillis,
    ) -> Part {
        if self.locked.contains(&user.as_uuid()) {
            return Part::Locked;
        }
        let Some(user) = self.users.get_mut(&user.as_uuid()) else { return Part::Nothing };
        let (id, epoch) = (user.user_id, user.next_epoch());
        let own = self.open.values();
        let own = own.filter(|session| session.user_id == id && session.expire_time > now.as_millis());
        let division = divide(user, own, except.map(SessionId::as_uuid), &self.head, now);
        user.credential_epoch = epoch;
        *self.raised.entry(id).or_default() += 1;
        for ending in division.ending {
            self.take(ending, reason);
        }
        if let Some(kept) = division.kept.and_then(|kept| self.open.get_mut(&kept)) {
            kept.user_epoch = epoch;
            self.kept.insert(kept.session_id, epoch);
        }
        self.entries.push(LogEntry::UserSessionsEnded {
            user: UserId::from_uuid(id),
            epoch: Epoch::from_i64(epoch),
            kept: division.kept.map(SessionId::from_uuid),
        });
        Part::Ended(division.stood)
    }

    /// Takes a session out of the open ones, to be marked as ended.
    fn take(&mut self, id: Uuid, reason: EndReason) -> Option<sessions::Model> {
        self.kept.remove(&id);
        self.marks.push((reason, id));
        self.open.remove(&id)
    }

    /// Writes all but the log.
    async fn write(&mut self, transaction: &Transaction, stamp: Stamp) -> Result<(), Failure> {
        self.marks.sort_unstable_by_key(|(reason, id)| (reason.as_i16(), *id));
        for marks in self.marks.chunk_by(|(one, _), (other, _)| one == other) {
            let ids: Vec<_> = marks.iter().map(|(_, id)| *id).collect();
            session_writes::mark(transaction, &ids, marks[0].0, stamp).await?;
        }
        for (id, epoch) in &self.kept {
            session_writes::stamp(transaction, *id, *epoch).await?;
        }
        let mut raised: Vec<_> = self.raised.iter().collect();
        raised.sort_unstable_by_key(|(_, by)| **by);
        for raised in raised.chunk_by(|(_, one), (_, other)| one == other) {
            let ids: Vec<_> = raised.iter().map(|(id, _)| **id).collect();
            raise(transaction, &ids, *raised[0].1, stamp).await?;
        }
        Ok(())
    }
}

/// Raises the credential epochs of locked users.
async fn raise(transaction: &Transaction, users: &[Uuid], by: i64, stamp: Stamp) -> Result<(), Failure> {
    for users in users.chunks(BATCH_MAX) {
        users::Entity::update_many()
            .col_expr(users::Column::CredentialEpoch, Expr::col(users::Column::CredentialEpoch).add(by))
            .col_expr(users::Column::UpdateTime, Expr::val(stamp.time.as_millis()))
            .filter(users::Column::UserId.is_in(users.iter().copied()))
            .exec(transaction)
            .await?;
    }
    Ok(())
}

/// The sessions of tokens, without a lock: neither of the two ever changes.
async fn ids_of(
    transaction: &Transaction,
    digests: &[TokenDigest],
) -> Result<BTreeMap<Vec<u8>, Uuid>, Failure> {
    let mut found = BTreeMap::new();
    for digests in digests.chunks(BATCH_MAX) {
        let digests = digests.iter().map(|digest| digest.0.to_vec());
        let query = sessions::Entity::find()
            .select_only()
            .columns([sessions::Column::Digest, sessions::Column::SessionId])
            .filter(sessions::Column::Digest.is_in(digests));
        found.extend(query.into_tuple::<(Vec<u8>, Uuid)>().all(transaction).await?);
    }
    Ok(found)
}

/// Reads users without a lock: while their sessions are locked, nobody ends these.
async fn read_users(
    transaction: &Transaction,
    ids: BTreeSet<Uuid>,
) -> Result<BTreeMap<Uuid, users::Model>, Failure> {
    let ids: Vec<_> = ids.into_iter().collect();
    let mut found = BTreeMap::new();
    for ids in ids.chunks(BATCH_MAX) {
        let query = users::Entity::find().filter(users::Column::UserId.is_in(ids.iter().copied()));
        found.extend(query.all(transaction).await?.into_iter().map(|user| (user.user_id, user)));
    }
    Ok(found)
}
