//! Whether a pooler between this node and its database keeps a session for each connection.
//!
//! A pooler in transaction or statement mode hands each statement to any connection to the server. What a session has set
//! would hold for others or for nobody, prepared statements would be missing, and notifications lost. So two connections are
//! asked in turn which session of the server answers: each must always have the same one, of its own.

use sea_orm::sqlx::{self, Row as _};
use sea_orm::{DatabaseConnection, DbBackend, DbErr, RuntimeErr, SqlxError};

use super::error::OpenError;
use super::limits::SqlLimits;
use super::places::Places;
use super::pool;
use super::target::Target;

/// How often both are asked. A pooler takes the server connection that was used last, or the next one in turn.
const ROUNDS: usize = 3;

/// Refuses a pooler that does not keep sessions.
pub(super) async fn check(target: &Target, limits: &SqlLimits) -> Result<(), OpenError> {
    if matches!(target, Target::Sqlite(..)) {
        return Ok(());
    }
    let limits = SqlLimits { connections_max: 1, acquire_timeout: limits.connect_timeout, ..*limits };
    let (one, other) = (pool::open(target, &limits), pool::open(target, &limits));
    let sessions = sessions(&one, &other).await;
    let (one, other) = (Places::Common(one), Places::Common(other));
    tokio::join!(pool::close(&one), pool::close(&other));
    let sessions = sessions.map_err(|error| {
        super::schema::unreachable(target, &DbErr::Conn(RuntimeErr::SqlxError(error.into())))
    })?;
    if keep_sessions(&sessions) {
        return Ok(());
    }
    let why = "a pooler moves the statements of one connection between sessions of the server (transaction or statement mode): \
               let it pool sessions (PgBouncer: pool_mode = session), or connect to the server itself";
    Err(OpenError::Unsupported(why.to_owned()))
}

/// What both answered, round by round.
async fn sessions(
    one: &DatabaseConnection,
    other: &DatabaseConnection,
) -> Result<Vec<[String; 2]>, SqlxError> {
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        rounds.push([session(one).await?, session(other).await?]);
    }
    Ok(rounds)
}

/// The server's name of the session. Not prepared: that is what such a pooler breaks first.
async fn session(pool: &DatabaseConnection) -> Result<String, SqlxError> {
    if pool.get_database_backend() == DbBackend::Postgres {
        let asked = sqlx::raw_sql("SELECT pg_backend_pid()::text");
        asked.fetch_one(pool.get_postgres_connection_pool()).await?.try_get(0)
    } else {
        let asked = sqlx::raw_sql("SELECT CAST(CONNECTION_ID() AS CHAR)");
        asked.fetch_one(pool.get_mysql_connection_pool()).await?.try_get(0)
    }
}

fn keep_sessions(rounds: &[[String; 2]]) -> bool {
    let is_shared = rounds.iter().any(|[one, other]| one == other);
    !is_shared && rounds.windows(2).all(|two| two[0] == two[1])
}

#[cfg(test)]
mod tests {
    use super::keep_sessions;

    #[test]
    fn a_session_that_is_shared_or_changes_is_seen() {
        let keep = |rounds: &[[&str; 2]]| {
            keep_sessions(&rounds.iter().map(|round| round.map(str::to_owned)).collect::<Vec<_>>())
        };
        assert!(keep(&[["1", "2"], ["1", "2"], ["1", "2"]]));
        // The connection that was used last serves both; or each in turn; or one of them is served by a third.
        assert!(!keep(&[["1", "1"], ["1", "1"], ["1", "1"]]));
        assert!(!keep(&[["1", "2"], ["2", "1"], ["1", "2"]]));
        assert!(!keep(&[["1", "2"], ["1", "2"], ["1", "3"]]));
    }
}
