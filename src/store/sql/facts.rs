//! What is decided on is read in one statement, so that it belongs together: the head of the log, and beside it a user, or
//! a session and its user.
//!
//! Beside the head stands whether the server is the primary, and a head of another server is refused.
//!
//! The head is what the statement starts from: a database without one is broken, and must never look like one that does
//! not know a session. It is at least as new as what stands beside it; that every change up to it shows there is a promise
//! that needs [`position_before`].

use sea_orm::sea_query::{Expr, ExprTrait as _, Query, SelectStatement};
use sea_orm::{
    ConnectionTrait, DbBackend, EntityTrait, FromQueryResult, IdenStatic as _, Iterable as _, JoinType,
    QueryResult, TryGetable,
};
use uuid::Uuid;

use super::entity::{log_head, sessions, users};
use super::error::Failure;
use super::primary;
use crate::domain::id::Position;
use crate::store::{SessionKey, UserKey};

/// What the names of the columns of the head begin with.
const HEAD: &str = "head_";
/// What the names of the columns of a user begin with.
pub(super) const USER: &str = "user_";
/// What the names of the columns of a node begin with.
pub(super) const NODE: &str = "node_";
/// What the names of the columns of a session begin with.
pub(super) const SESSION: &str = "session_";

/// By what a user is found, without a borrow, since a step outlives its caller.
#[derive(Clone)]
pub(super) enum UserBy {
    Id(Uuid),
    LoginKey(Vec<u8>),
}

impl From<UserKey<'_>> for UserBy {
    fn from(key: UserKey<'_>) -> Self {
        match key {
            UserKey::Id(id) => Self::Id(id.as_uuid()),
            UserKey::Login(login) => Self::LoginKey(login.key().as_bytes().to_vec()),
        }
    }
}

impl UserBy {
    /// The condition on the table of users.
    pub(super) fn condition(self) -> Expr {
        match self {
            Self::Id(id) => Expr::col((users::Entity, users::Column::UserId)).eq(id),
            Self::LoginKey(key) => Expr::col((users::Entity, users::Column::LoginKey)).eq(key),
        }
    }
}

/// The condition on the table of sessions.
pub(super) fn session_by(key: SessionKey) -> Expr {
    match key {
        SessionKey::Id(id) => Expr::col((sessions::Entity, sessions::Column::SessionId)).eq(id.as_uuid()),
        SessionKey::Digest(digest) => {
            Expr::col((sessions::Entity, sessions::Column::Digest)).eq(digest.0.to_vec())
        }
    }
}

/// The head of the log.
pub(super) async fn head<C: ConnectionTrait>(db: &C) -> Result<log_head::Model, Failure> {
    read_head(&one_row(db, &from_head(db.get_database_backend())).await?)
}

/// The position of the log, where it must be read before what is held against it; none where one statement is one moment.
///
/// MariaDB opens a read view by looking at one running transaction after the other: a view may show a change, and with it
/// the head, and not the change before. Whatever was the head in an earlier view shows in a later one, with all before it.
pub(super) async fn position_before<C: ConnectionTrait>(db: &C) -> Result<Option<Position>, Failure> {
    match db.get_database_backend() {
        DbBackend::Postgres | DbBackend::Sqlite => Ok(None),
        _ => Ok(Some(Position::from_i64(head(db).await?.position))),
    }
}

/// The head of the log and a user.
pub(super) async fn head_and_user<C: ConnectionTrait>(
    db: &C,
    by: UserBy,
) -> Result<(log_head::Model, Option<users::Model>), Failure> {
    let mut query = from_head(db.get_database_backend());
    columns::<users::Entity>(&mut query, USER);
    query.join(JoinType::LeftJoin, users::Entity, by.condition());
    let row = one_row(db, &query).await?;
    Ok((read_head(&row)?, read_joined::<users::Entity, Uuid>(&row, USER, "user_id")?))
}

/// The head of the log, a session, and its user if there still is one.
pub(super) async fn head_session_and_user<C: ConnectionTrait>(
    db: &C,
    key: SessionKey,
) -> Result<(log_head::Model, Option<(sessions::Model, Option<users::Model>)>), Failure> {
    let mut query = from_head(db.get_database_backend());
    columns::<sessions::Entity>(&mut query, SESSION);
    columns::<users::Entity>(&mut query, USER);
    let its_user = Expr::col((users::Entity, users::Column::UserId))
        .equals((sessions::Entity, sessions::Column::UserId));
    query.join(JoinType::LeftJoin, sessions::Entity, session_by(key)).join(
        JoinType::LeftJoin,
        users::Entity,
        its_user,
    );
    let row = one_row(db, &query).await?;
    let head = read_head(&row)?;
    let Some(session) = read_joined::<sessions::Entity, Uuid>(&row, SESSION, "session_id")? else {
        return Ok((head, None));
    };
    Ok((head, Some((session, read_joined::<users::Entity, Uuid>(&row, USER, "user_id")?))))
}

fn from_head(engine: DbBackend) -> SelectStatement {
    let mut query = Query::select();
    query.expr_as(Expr::cust(primary::expression(engine)), primary::COLUMN);
    columns::<log_head::Entity>(&mut query, HEAD);
    query.from(log_head::Entity).and_where(Expr::col((log_head::Entity, log_head::Column::Id)).eq(1_i16));
    query
}

fn columns<E: EntityTrait>(query: &mut SelectStatement, prefix: &str) {
    for column in E::Column::iter() {
        query.expr_as(Expr::col((E::default(), column)), format!("{prefix}{}", column.as_str()));
    }
}

/// The columns of a table as text, named as [`read_joined`] and [`read_head`] find them.
pub(super) fn column_list<E: EntityTrait>(prefix: &str) -> String {
    let table = E::default().table_name().to_owned();
    let columns = E::Column::iter().map(|column| column.as_str().to_owned());
    columns.map(|name| format!("{table}.{name} AS {prefix}{name}")).collect::<Vec<_>>().join(", ")
}

async fn one_row<C: ConnectionTrait>(db: &C, query: &SelectStatement) -> Result<QueryResult, Failure> {
    db.query_one(query).await?.ok_or_else(headless)
}

/// What is said of a database whose log has no head.
pub(super) fn headless() -> Failure {
    Failure::Corrupt("table log_head is empty".to_owned())
}

/// The columns of the head of the log as text, and whether the server is the primary.
pub(super) fn head_list(engine: DbBackend) -> String {
    let is_primary = primary::expression(engine);
    format!("{is_primary} AS {}, {}", primary::COLUMN, column_list::<log_head::Entity>(HEAD))
}

/// The head of the log in a row that has its columns; refused where the server is not the primary.
pub(super) fn read_head(row: &QueryResult) -> Result<log_head::Model, Failure> {
    primary::check(row)?;
    read_any_head(row)
}

/// The same of any server.
pub(super) fn read_any_head(row: &QueryResult) -> Result<log_head::Model, Failure> {
    Ok(log_head::Model::from_query_result(row, HEAD)?)
}

/// A joined row that is there is read strictly: one that cannot be read must not look like one that is missing.
pub(super) fn read_joined<E: EntityTrait, K: TryGetable>(
    row: &QueryResult,
    prefix: &str,
    id: &str,
) -> Result<Option<E::Model>, Failure> {
    match row.try_get::<Option<K>>(prefix, id)? {
        Some(_) => Ok(Some(E::Model::from_query_result(row, prefix)?)),
        None => Ok(None),
    }
}
