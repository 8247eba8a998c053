//! Which sessions stand, in SQL: the rule of `domain::session::Session::check` for the sessions of one user. A test holds
//! the two against each other.
//!
//! Where a session is to be ended or kept, its idle limit is left out (`is_unended`): a node writes down uses late, so the
//! database may take a session for idle that a node still answers for. Ending such a session is right, and so is keeping
//! it, since its deadlines are looked at again whenever it is used.

use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{ColumnTrait as _, Condition};

use super::entity::sessions::{Column, Entity, Model};
use super::entity::{log_head, users};
use crate::domain::time::UnixMillis;

/// The sessions of an active `user` that stand.
pub(super) fn standing(user: &users::Model, head: &log_head::Model, now: UnixMillis) -> Condition {
    Condition::all()
        .add(Column::UserId.eq(user.user_id))
        .add(Column::EndTime.is_null())
        .add(Column::UserEpoch.eq(user.credential_epoch))
        // A range of one value, not an equality: nearly all sessions have this epoch, and SQLite, which has no statistics,
        // would take the index of an equality for as good as the one of the user, and read everybody's sessions.
        .add(Column::EveryoneEpoch.between(head.everyone_epoch, head.everyone_epoch))
        .add(Column::ExpireTime.gt(now.as_millis()))
        .add(used_lately(now))
}

/// The subtraction cannot overflow, whatever the limit; the sum could.
pub(super) fn used_lately(now: UnixMillis) -> Expr {
    Expr::col((Entity, Column::LastSeenTime))
        .gt(Expr::val(now.as_millis()).sub(Expr::col((Entity, Column::IdleLimitMs))))
}

impl Model {
    /// Neither ended, nor of an old epoch, nor past its absolute end.
    pub(super) fn is_unended(
        &self,
        user: Option<&users::Model>,
        head: &log_head::Model,
        now: UnixMillis,
    ) -> bool {
        let born_now = |user: &users::Model| user.is_active() && self.user_epoch == user.credential_epoch;
        user.is_some_and(born_now)
            && self.end_time.is_none()
            && self.everyone_epoch == head.everyone_epoch
            && self.expire_time > now.as_millis()
    }

    /// The same as [`used_lately`], of a row that was read.
    pub(super) fn is_used_lately(&self, now: UnixMillis) -> bool {
        self.last_seen_time > now.as_millis().saturating_sub(self.idle_limit_ms)
    }
}

#[cfg(test)]
mod tests {
    use crate::database_url::DatabaseUrl;
    use std::time::Duration;

    use crate::domain::client::Client;
    use crate::domain::id::{Epoch, Nonce, SessionId, UserId};
    use crate::domain::login_name::LoginName;
    use crate::domain::session::{EndReason, Ended, Methods, Session};
    use crate::domain::time::UnixMillis;
    use crate::domain::token::TokenDigest;
    use crate::domain::user::{Attributes, DisplayName, Roles};
    use crate::store::sql::{SqlLimits, SqlStore};
    use crate::store::{NewSession, NewUser, SessionKey, Stamp, Store as _};

    const NOW: UnixMillis = UnixMillis::from_millis(1_000_000_000);

    fn session(number: u8, user_id: UserId) -> Session {
        Session {
            id: SessionId::mint(NOW, [number; 10]),
            user_id,
            user_epoch: Epoch::FIRST,
            everyone_epoch: Epoch::FIRST,
            create_time: NOW,
            authenticate_time: NOW,
            expire_time: NOW.plus(Duration::from_millis(1)),
            last_seen_time: NOW,
            idle_limit: Duration::from_millis(1),
            remembered: false,
            methods: Methods::password(),
            client: Client::default(),
            ended: None,
        }
    }

    /// A session that stands by a millisecond, and every way to miss that.
    fn sessions(user: UserId) -> Vec<Session> {
        let ended = Some(Ended { time: NOW, reason: EndReason::Revoked });
        let idle = Duration::from_millis(1);
        vec![
            session(1, user),
            Session { expire_time: NOW, ..session(2, user) },
            Session { last_seen_time: NOW.minus(idle), ..session(3, user) },
            Session {
                last_seen_time: NOW.minus(idle),
                idle_limit: Duration::from_millis(2),
                ..session(4, user)
            },
            Session { idle_limit: Duration::MAX, ..session(5, user) },
            Session { idle_limit: Duration::ZERO, ..session(6, user) },
            Session { user_epoch: Epoch::FIRST.next(), ..session(7, user) },
            Session { everyone_epoch: Epoch::FIRST.next(), ..session(8, user) },
            Session { ended, ..session(9, user) },
            Session { last_seen_time: NOW.plus(idle), ..session(10, user) },
            Session { expire_time: UnixMillis::from_millis(i64::MAX), ..session(11, user) },
        ]
    }

    #[tokio::test]
    async fn the_rule_in_sql_is_the_rule_of_the_domain() {
        let in_memory = DatabaseUrl::parse("sqlite::memory:").expect("a URL");
        let store = SqlStore::open(&in_memory, SqlLimits::default()).await.expect("a database");
        let user = UserId::mint(NOW, [7; 10]);
        let new = NewUser {
            id: user,
            login: LoginName::parse("ada").expect("a login"),
            display_name: DisplayName::default(),
            roles: Roles::default(),
            attributes: Attributes::default(),
            password_hash: None,
            create_time: NOW,
        };
        store.create_user(new).await.expect("a user");
        let stamp = Stamp { time: NOW, nonce: Nonce([0; 8]) };
        let mut expected = Vec::new();
        for (number, session) in (1..).zip(sessions(user)) {
            let id = session.id;
            let new = NewSession { session, digest: TokenDigest([number; 16]) };
            store.create_session(new, 50, stamp).await.expect("a session");
            let read = store.session(SessionKey::Id(id)).await.expect("an answer").expect("a session");
            let (session, now) = (&read.session, NOW);
            if session.check(read.user.as_ref(), read.everyone_epoch, session.last_seen_time, now).is_ok() {
                expected.push(id);
            }
        }
        let standing = store.sessions_of_user(user, None, 50, NOW).await.expect("an answer");
        let mut standing: Vec<_> = standing.iter().map(|session| session.id).collect();
        standing.reverse();
        assert_eq!(standing.len(), 5);
        assert_eq!(standing, expected);
    }
}
