//! Ending all sessions of a user, or of everyone.
//!
//! All of a user's end by the credential epoch, which also catches a sign-in that is under way. The rows are marked
//! besides, so that the reason can be told. Everyone's end by the epoch of everyone alone.

use sea_orm::sea_query::{Expr, ExprTrait as _, Query};
use sea_orm::{ColumnTrait as _, ConnectionTrait as _, EntityTrait as _, JoinType};
use sea_orm::{QueryFilter as _, QuerySelect as _};
use uuid::Uuid;

use super::change_log;
use super::entity::{log_head, sessions, users};
use super::error::Failure;
use super::facts;
use super::session_writes::{self, BATCH_MAX};
use super::standing::used_lately;
use super::step::{Pool, Transaction, Verdict};
use super::user_row::state_number;
use crate::domain::session::EndReason;
use crate::domain::time::UnixMillis;
use crate::domain::user::UserState;
use crate::mutation::Mutation;
use crate::store::{Change, Stamp};

/// Ends all sessions of all users. `standing` was counted before, without a lock.
pub(super) async fn end_everyone(
    transaction: &Transaction,
    standing: u64,
    stamp: Stamp,
) -> Result<Verdict<Change>, Failure> {
    let row = change_log::append_everyone(transaction, stamp).await?;
    Ok(Verdict::Commit(change_log::change(standing, vec![row])))
}

/// Counts the standing sessions of all users.
pub(super) async fn count_standing(db: &Pool, stamp: Stamp) -> Result<u64, Failure> {
    let head = facts::head(db).await?;
    let its_active_user = Expr::col((users::Entity, users::Column::UserId))
        .equals((sessions::Entity, sessions::Column::UserId))
        .and(
            Expr::col((users::Entity, users::Column::CredentialEpoch))
                .equals((sessions::Entity, sessions::Column::UserEpoch)),
        )
        .and(Expr::col((users::Entity, users::Column::State)).eq(state_number(UserState::Active)));
    let session = |column| Expr::col((sessions::Entity, column));
    let mut query = Query::select();
    query
        .expr_as(session(sessions::Column::SessionId).count(), "standing")
        .from(sessions::Entity)
        .join(JoinType::InnerJoin, users::Entity, its_active_user)
        .and_where(session(sessions::Column::EndTime).is_null())
        .and_where(session(sessions::Column::EveryoneEpoch).eq(head.everyone_epoch))
        .and_where(session(sessions::Column::ExpireTime).gt(stamp.time.as_millis()))
        .and_where(used_lately(stamp.time));
    let row = db.query_one(&query).await?;
    let standing: i64 = row.map_or(Ok(0), |row| row.try_get("", "standing"))?;
    Ok(u64::try_from(standing).unwrap_or(0))
}

/// What ends, and why.
pub(super) struct EndAll<'u> {
    /// Whose, as of before; the row is locked.
    pub(super) user: &'u users::Model,
    /// The credential epoch from now on.
    pub(super) epoch: i64,
    /// Which one goes on.
    pub(super) except: Option<Uuid>,
    /// Why the others end.
    pub(super) reason: EndReason,
}

/// Marks the sessions of a user as ended and stamps the one that goes on with the new epoch. The caller writes the epoch
/// into the user and the row into the log. Returns how many of the sessions stood.
pub(super) async fn end_all(
    transaction: &Transaction,
    all: EndAll<'_>,
    stamp: Stamp,
) -> Result<u64, Failure> {
    let head = facts::head(transaction).await?;
    let found = open_of(transaction, &[all.user.user_id], stamp.time).await?;
    let open = session_writes::lock(transaction, found).await?;
    let division = divide(all.user, open.iter(), all.except, &head, stamp.time);
    session_writes::mark(transaction, &division.ending, all.reason, stamp).await?;
    if let Some(kept) = division.kept {
        session_writes::stamp(transaction, kept, all.epoch).await?;
    }
    Ok(division.stood)
}

/// The sessions of users that have neither ended nor run out. What has run out needs no mark, and there may be very much
/// of it.
pub(super) async fn open_of(
    transaction: &Transaction,
    users: &[Uuid],
    now: UnixMillis,
) -> Result<Vec<Uuid>, Failure> {
    let mut open = Vec::new();
    for users in users.chunks(BATCH_MAX) {
        let found = sessions::Entity::find()
            .select_only()
            .column(sessions::Column::SessionId)
            .filter(sessions::Column::UserId.is_in(users.iter().copied()))
            .filter(sessions::Column::EndTime.is_null())
            .filter(sessions::Column::ExpireTime.gt(now.as_millis()));
        open.extend(found.into_tuple::<Uuid>().all(transaction).await?);
    }
    Ok(open)
}

/// What becomes of the sessions of a user when all but one end.
pub(super) struct Division {
    /// The one that goes on.
    pub(super) kept: Option<Uuid>,
    /// Those that are marked as ended.
    pub(super) ending: Vec<Uuid>,
    /// How many of these stood.
    pub(super) stood: u64,
}

/// Decides on the `open` sessions of `user`, who is as of before. What is to go on must not be over, and what is over
/// already, as by the epoch of everyone, is not marked: it keeps its reason.
pub(super) fn divide<'s>(
    user: &users::Model,
    open: impl Iterator<Item = &'s sessions::Model>,
    except: Option<Uuid>,
    head: &log_head::Model,
    now: UnixMillis,
) -> Division {
    let mut division = Division { kept: None, ending: Vec::new(), stood: 0 };
    for session in open {
        if !session.is_unended(Some(user), head, now) && !Mutation::EndedIsMarkedAgain.is_on() {
            continue;
        }
        if Some(session.session_id) == except {
            division.kept = except;
        } else {
            division.ending.push(session.session_id);
            division.stood += u64::from(session.is_used_lately(now));
        }
    }
    division
}
