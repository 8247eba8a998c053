//! ListSessions: on which devices a user is signed in.

use super::App;
use crate::domain::id::{SessionId, UserId};
use crate::domain::refusal::Refusal;
use crate::domain::session::Session;
use crate::store::UserKey;

/// Standing sessions of a user, newest first, those older than `after`, at most `limit`.
pub async fn list_sessions(
    app: &App,
    user: UserId,
    after: Option<SessionId>,
    limit: u32,
) -> Result<Vec<Session>, Refusal> {
    let now = app.now();
    let mut sessions = app.store.sessions_of_user(user, after, limit, now).await?;
    if sessions.is_empty() && app.store.user(UserKey::Id(user)).await?.is_none() {
        return Err(Refusal::UserNotFound);
    }
    for session in &mut sessions {
        let known_here = app.fleet.table().unwritten_use(session.id).unwrap_or(session.last_seen_time);
        session.last_seen_time = session.last_seen_time.max(known_here);
    }
    Ok(sessions)
}
