//! Reads many rows by the places of their columns, which stand in the order of the entity. To find each by its name takes
//! more time than all else that is done with a row, and a node that starts reads a million of them.

use sea_orm::{DbErr, Iterable as _, QueryResult, TryGetable};
use uuid::Uuid;

use super::entity::{log_head, sessions, users};
use super::error::Failure;
use super::facts::{SESSION, USER, read_joined};

/// The session and the user of a row that begins with [`head_list`](super::facts::head_list), and goes on with the columns
/// of both. One that cannot be read is read once more by the names, which says what is wrong with it.
pub(super) fn session_and_user(
    row: &QueryResult,
) -> Result<Option<(sessions::Model, Option<users::Model>)>, Failure> {
    // The head's columns, and whether the server is the primary.
    let mut columns = Columns { row, at: 1 + log_head::Column::iter().count() };
    let Ok(session) = columns.session() else {
        return by_name(row);
    };
    let Some(session) = session else { return Ok(None) };
    match columns.user() {
        Ok(user) => Ok(Some((session, user))),
        Err(_) => by_name(row),
    }
}

fn by_name(row: &QueryResult) -> Result<Option<(sessions::Model, Option<users::Model>)>, Failure> {
    let Some(session) = read_joined::<sessions::Entity, Uuid>(row, SESSION, "session_id")? else {
        return Ok(None);
    };
    Ok(Some((session, read_joined::<users::Entity, Uuid>(row, USER, "user_id")?)))
}

/// The columns of a row from one of them on.
struct Columns<'r> {
    row: &'r QueryResult,
    at: usize,
}

impl Columns<'_> {
    fn next<T: TryGetable>(&mut self) -> Result<T, DbErr> {
        self.at += 1;
        self.row.try_get_by_index(self.at - 1)
    }

    fn session(&mut self) -> Result<Option<sessions::Model>, DbErr> {
        let Some(session_id) = self.next()? else { return Ok(None) };
        Ok(Some(sessions::Model {
            session_id,
            digest: self.next()?,
            user_id: self.next()?,
            user_epoch: self.next()?,
            everyone_epoch: self.next()?,
            create_time: self.next()?,
            authenticate_time: self.next()?,
            expire_time: self.next()?,
            last_seen_time: self.next()?,
            idle_limit_ms: self.next()?,
            over_time: self.next()?,
            remembered: self.next()?,
            methods: self.next()?,
            client_ip: self.next()?,
            client_user_agent: self.next()?,
            client_device_name: self.next()?,
            end_time: self.next()?,
            end_reason: self.next()?,
        }))
    }

    fn user(&mut self) -> Result<Option<users::Model>, DbErr> {
        let Some(user_id) = self.next()? else { return Ok(None) };
        Ok(Some(users::Model {
            user_id,
            login_key: self.next()?,
            login_display: self.next()?,
            display_name: self.next()?,
            state: self.next()?,
            roles: self.next()?,
            attributes: self.next()?,
            password_hash: self.next()?,
            credential_epoch: self.next()?,
            password_epoch: self.next()?,
            create_time: self.next()?,
            update_time: self.next()?,
            password_time: self.next()?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::IdenStatic as _;

    use super::*;

    #[test]
    fn the_columns_stand_in_the_order_in_which_they_are_read() {
        let sessions: Vec<_> = sessions::Column::iter().map(|column| column.as_str().to_owned()).collect();
        let users: Vec<_> = users::Column::iter().map(|column| column.as_str().to_owned()).collect();
        assert_eq!(
            sessions.join(" "),
            "session_id digest user_id user_epoch everyone_epoch create_time authenticate_time expire_time \
             last_seen_time idle_limit_ms over_time remembered methods client_ip client_user_agent \
             client_device_name end_time end_reason"
        );
        assert_eq!(
            users.join(" "),
            "user_id login_key login_display display_name state roles attributes password_hash credential_epoch \
             password_epoch create_time update_time password_time"
        );
    }
}
