//! What memory is filled from: sessions with their users, and the position up to which every change is in them.

use std::cmp::Reverse;
use std::sync::Arc;

use sea_orm::{ConnectionTrait as _, DbBackend, QueryResult, Statement, Value};

use super::change_log::{placeholder, placeholders};
use super::entity::{sessions, users};
use super::error::Failure;
use super::facts::{self, SESSION, USER, column_list, head_list, headless, read_head};
use super::in_order;
use super::session_row::to_session;
use super::session_writes::BATCH_MAX;
use super::step::Pool;
use super::user_row::{state_number, to_user};
use crate::domain::id::{Epoch, Position, SessionId};
use crate::domain::time::UnixMillis;
use crate::domain::token::TokenDigest;
use crate::domain::user::UserState;
use crate::store::{Filling, FoundSession};

/// Reads the sessions of tokens. Of several statements the first one's position counts.
pub(super) async fn by_digest(db: &Pool, digests: Arc<[TokenDigest]>) -> Result<Filling, Failure> {
    let engine = db.get_database_backend();
    let mut chunks = digests.chunks(BATCH_MAX);
    let mut filling = read(db, digests_statement(engine, chunks.next().unwrap_or_default())).await?;
    for chunk in chunks {
        let more = read(db, digests_statement(engine, chunk)).await?;
        filling.everyone_epoch = filling.everyone_epoch.max(more.everyone_epoch);
        filling.found.extend(more.found);
    }
    Ok(filling)
}

/// Reads unended sessions of active users, the most recently used first.
pub(super) async fn by_use(
    db: &Pool,
    after: Option<(UnixMillis, SessionId)>,
    limit: u32,
    now: UnixMillis,
) -> Result<Filling, Failure> {
    let statement = by_use_statement(db.get_database_backend(), after, limit, now);
    let mut filling = read(db, statement).await?;
    // The page holds the right ones; in which order a join tells them is its own affair.
    filling.found.sort_unstable_by_key(|found| Reverse((found.session.last_seen_time, found.session.id)));
    Ok(filling)
}

/// Rows are read as they come: where there are many, the engine finds the rest meanwhile.
async fn read(db: &Pool, statement: Statement) -> Result<Filling, Failure> {
    let before = facts::position_before(db).await?;
    let mut head = None;
    let found = db.read_rows(statement, |row| {
        if head.is_none() {
            head = Some(read_head(row)?);
        }
        read_found(row)
    });
    let found = found.await?.into_iter().filter_map(Result::transpose).collect::<Result<_, _>>()?;
    let head = head.ok_or_else(headless)?;
    Ok(Filling {
        position: before.unwrap_or(Position::from_i64(head.position)),
        everyone_epoch: Epoch::from_i64(head.everyone_epoch),
        found,
    })
}

fn read_found(row: &QueryResult) -> Result<Option<FoundSession>, Failure> {
    let Some((session, user)) = in_order::session_and_user(row)? else {
        return Ok(None);
    };
    let corrupt = |_| Failure::Corrupt(format!("table sessions, session_id {}: digest", session.session_id));
    let digest = TokenDigest(session.digest.as_slice().try_into().map_err(corrupt)?);
    let user = user.map(to_user).transpose()?;
    Ok(Some(FoundSession { digest, session: to_session(&session)?, user }))
}

fn digests_statement(engine: DbBackend, digests: &[TokenDigest]) -> Statement {
    let [head, session, user] = column_lists(engine);
    let force = if engine == DbBackend::MySql { "FORCE INDEX (digest)" } else { "" };
    let these = if digests.is_empty() {
        "1 = 0".to_owned()
    } else {
        format!("sessions.digest IN {}", placeholders(1, digests.len(), 1, engine))
    };
    let sql = format!(
        "SELECT {head}, {session}, {user} FROM log_head LEFT JOIN sessions {force} ON {these} \
         LEFT JOIN users ON users.user_id = sessions.user_id WHERE log_head.id = 1"
    );
    Statement::from_sql_and_values(engine, sql, digests.iter().map(|digest| digest.0.to_vec().into()))
}

/// The page is found along its index, session by session: an engine must not begin with the users, nor sort all sessions.
fn by_use_statement(
    engine: DbBackend,
    after: Option<(UnixMillis, SessionId)>,
    limit: u32,
    now: UnixMillis,
) -> Statement {
    let [head, session, user] = column_lists(engine);
    let mut values: Vec<Value> = vec![now.as_millis().into(), state_number(UserState::Active).into()];
    let mut mark = |value: Value| {
        values.push(value);
        placeholder(values.len(), engine)
    };
    let behind = after.map(|(time, id)| (time.as_millis(), id.as_uuid()));
    let behind = match (behind, engine) {
        (None, _) => String::new(),
        (Some((time, id)), DbBackend::Postgres | DbBackend::Sqlite) => {
            let (time, id) = (mark(time.into()), mark(id.into()));
            format!("AND (sessions.last_seen_time, sessions.session_id) < ({time}, {id})")
        }
        // MariaDB knows no range of pairs, but two ranges of one index.
        (Some((time, id)), _) => {
            let (earlier, same, id) = (mark(time.into()), mark(time.into()), mark(id.into()));
            format!(
                "AND (sessions.last_seen_time < {earlier} \
                 OR (sessions.last_seen_time = {same} AND sessions.session_id < {id}))"
            )
        }
    };
    let limit = mark(i64::from(limit).into());
    let (from, join) = match engine {
        DbBackend::Postgres => ("sessions", "JOIN"),
        DbBackend::Sqlite => ("sessions", "CROSS JOIN"),
        _ => ("sessions FORCE INDEX (sessions_by_use)", "STRAIGHT_JOIN"),
    };
    let [now_mark, active] = [1, 2].map(|number| placeholder(number, engine));
    let sql = format!(
        "SELECT {head}, page.* FROM log_head LEFT JOIN (\
         SELECT {session}, {user} FROM {from} {join} users ON users.user_id = sessions.user_id \
         WHERE sessions.end_time IS NULL AND sessions.expire_time > {now_mark} AND users.state = {active} {behind} \
         ORDER BY sessions.last_seen_time DESC, sessions.session_id DESC LIMIT {limit}) AS page ON 1 = 1 \
         WHERE log_head.id = 1"
    );
    Statement::from_sql_and_values(engine, sql, values)
}

fn column_lists(engine: DbBackend) -> [String; 3] {
    [head_list(engine), column_list::<sessions::Entity>(SESSION), column_list::<users::Entity>(USER)]
}
