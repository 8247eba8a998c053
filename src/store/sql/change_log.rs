//! The change log: everything that takes validity away, numbered in the order of commit, without gaps.
//!
//! The number comes from `log_head`, whose row stays locked until commit. So writing here is the last statement of a
//! transaction, and a single one: nobody waits for a round trip of somebody else's.

use std::fmt::Write as _;

use sea_orm::{ColumnTrait as _, ConnectionTrait, DbBackend, EntityTrait as _, QueryFilter as _};
use sea_orm::{QueryOrder as _, QueryResult, QuerySelect as _, Statement, Value};

use super::entity::{change_log, sessions};
use super::error::Failure;
use super::facts::headless;
use super::step::{Pool, Transaction};
use crate::domain::id::{Epoch, Nonce, Position, SessionId, UserId};
use crate::domain::session::EndReason;
use crate::domain::time::UnixMillis;
use crate::domain::token::KeyId;
use crate::store::{Change, ChangeKind, LogEntry, LoggedChange, Stamp};

/// Rows of one statement; far below the parameters that any engine takes.
const ROWS_MAX: usize = 500;

/// The entry which records that one session ended.
pub(super) fn session_ended(session: &sessions::Model, reason: EndReason) -> LogEntry {
    let user = UserId::from_uuid(session.user_id);
    let session = SessionId::from_uuid(session.session_id);
    match reason {
        EndReason::BindingMismatch => LogEntry::SessionMisused { user, session },
        _ => LogEntry::SessionEnded { user, session },
    }
}

/// The row as it was written.
fn logged(entry: LogEntry, position: i64, stamp: Stamp) -> LoggedChange {
    LoggedChange { position: Position::from_i64(position), nonce: stamp.nonce, entry, time: stamp.time }
}

/// What a step answers that wrote `rows`, of which there is one at least.
pub(super) fn change(ended: u64, rows: Vec<LoggedChange>) -> Change {
    Change { ended, position: rows.last().map_or(Position::ZERO, |row| row.position), rows }
}

/// What a step answers that wrote nothing.
pub(super) fn no_change(position: Position) -> Change {
    Change { ended: 0, position, rows: Vec::new() }
}

/// Writes rows and answers them. [`ChangeKind::EveryoneEnded`] has its own way, [`append_everyone`].
pub(super) async fn append(
    transaction: &Transaction,
    entries: &[LogEntry],
    stamp: Stamp,
) -> Result<Vec<LoggedChange>, Failure> {
    let mut rows = Vec::with_capacity(entries.len());
    for entries in entries.chunks(ROWS_MAX) {
        rows.extend(append_chunk(transaction, entries, stamp).await?);
    }
    Ok(rows)
}

async fn append_chunk(
    transaction: &Transaction,
    entries: &[LogEntry],
    stamp: Stamp,
) -> Result<Vec<LoggedChange>, Failure> {
    let count = i64::try_from(entries.len()).unwrap_or(i64::MAX);
    let engine = transaction.get_database_backend();
    let (sql, values) = match engine {
        DbBackend::Postgres => {
            let rows = placeholders(entries.len(), 8, 2, engine);
            let sql = format!(
                "WITH head AS (UPDATE log_head SET position = position + $1 WHERE id = 1 RETURNING position) \
                 INSERT INTO change_log ({COLUMNS}) \
                 SELECT head.position - $1 + new.number, new.nonce, new.kind, new.user_id, new.session_id, new.epoch, \
                 new.create_time, new.key_id FROM head, (VALUES {rows}) \
                 AS new (number, nonce, kind, user_id, session_id, epoch, create_time, key_id) RETURNING position"
            );
            (sql, [vec![count.into()], values(entries, 1, stamp)].concat())
        }
        DbBackend::Sqlite => {
            let sql = "UPDATE log_head SET position = position + ? WHERE id = 1 RETURNING position";
            let head = Statement::from_sql_and_values(engine, sql, [count.into()]);
            let row = transaction.query_one_raw(head).await?.ok_or_else(headless)?;
            let first = row.try_get::<i64>("", "position")? - count + 1;
            let rows = placeholders(entries.len(), 8, 1, engine);
            let sql = format!("INSERT INTO change_log ({COLUMNS}) VALUES {rows} RETURNING position");
            (sql, values(entries, first, stamp))
        }
        // The trigger of the table puts the number in the place of the 0, and the head in the variable.
        _ => {
            let row = "(COALESCE(@latchkey_head := NULL, ?), ?, ?, ?, ?, ?, ?, ?)";
            let rows = vec![row; entries.len()].join(", ");
            let sql = format!(
                "INSERT INTO change_log ({COLUMNS}) VALUES {rows} \
                 RETURNING position, CAST(@latchkey_head AS SIGNED) AS head"
            );
            (sql, values(entries, 0, stamp))
        }
    };
    let statement = Statement::from_sql_and_values(engine, sql, values);
    let written = transaction.query_all_raw(statement).await?;
    let positions: Result<Vec<i64>, _> = written.iter().map(|row| row_position(row, engine)).collect();
    let positions = positions?;
    // The lock on the head makes the numbers follow each other.
    let first = positions.iter().copied().min().ok_or_else(headless)?;
    check_numbers(&positions, first, entries.len())?;
    Ok(entries.iter().zip(first..).map(|(entry, position)| logged(*entry, position, stamp)).collect())
}

/// Raises the epoch of everyone and writes the row that says so, all under one lock.
pub(super) async fn append_everyone(
    transaction: &Transaction,
    stamp: Stamp,
) -> Result<LoggedChange, Failure> {
    let engine = transaction.get_database_backend();
    let (time, nonce, kind) = (stamp.time.as_millis(), nonce(stamp), ChangeKind::EveryoneEnded.as_i16());
    let statement = match engine {
        DbBackend::Postgres => {
            let sql = format!(
                "WITH head AS ({RAISE_EVERYONE}, everyone_time = $1 WHERE id = 1 RETURNING position, everyone_epoch) \
                 INSERT INTO change_log (position, epoch, create_time, nonce, kind) \
                 SELECT position, everyone_epoch, $1, $2, $3 FROM head RETURNING position, epoch"
            );
            Statement::from_sql_and_values(engine, sql, [time.into(), nonce.into(), kind.into()])
        }
        DbBackend::Sqlite => {
            let sql = format!(
                "{RAISE_EVERYONE}, everyone_time = ? WHERE id = 1 RETURNING position, everyone_epoch"
            );
            let head = Statement::from_sql_and_values(engine, sql, [time.into()]);
            let row = transaction.query_one_raw(head).await?.ok_or_else(headless)?;
            let (position, epoch): (i64, i64) =
                (row.try_get("", "position")?, row.try_get("", "everyone_epoch")?);
            let sql = "INSERT INTO change_log (position, epoch, create_time, nonce, kind) VALUES (?, ?, ?, ?, ?) \
                       RETURNING position, epoch";
            let values = [position.into(), epoch.into(), time.into(), nonce.into(), kind.into()];
            Statement::from_sql_and_values(engine, sql, values)
        }
        // The trigger of the table raises the epoch and writes it into the row and the variable.
        _ => {
            let sql = "INSERT INTO change_log (position, epoch, create_time, nonce, kind) \
                       VALUES (COALESCE(@latchkey_head := NULL, 0), (@latchkey_epoch := NULL), ?, ?, ?) \
                       RETURNING position, epoch, CAST(@latchkey_head AS SIGNED) AS head, \
                       CAST(@latchkey_epoch AS SIGNED) AS head_epoch";
            Statement::from_sql_and_values(engine, sql, [time.into(), nonce.into(), kind.into()])
        }
    };
    let row = transaction.query_one_raw(statement).await?.ok_or_else(headless)?;
    let (position, epoch) = (row_position(&row, engine)?, row.try_get::<Option<i64>>("", "epoch")?);
    check_numbers(&[position], position, 1)?;
    if engine == DbBackend::MySql && row.try_get::<Option<i64>>("", "head_epoch")? != epoch {
        return Err(unnumbered());
    }
    let epoch = Epoch::from_i64(epoch.ok_or_else(unnumbered)?);
    Ok(logged(LogEntry::EveryoneEnded { epoch }, position, stamp))
}

/// The number of a row that was written. On MariaDB it is the trigger's, which must have moved the head to that number:
/// a trigger that was changed may number rows and leave the head as it was, and followers read up to the head only.
fn row_position(row: &QueryResult, engine: DbBackend) -> Result<i64, Failure> {
    let position = row.try_get("", "position")?;
    if engine == DbBackend::MySql && row.try_get::<Option<i64>>("", "head")? != Some(position) {
        return Err(unnumbered());
    }
    Ok(position)
}

/// Refuses, before COMMIT, numbers that no follower would read: an OK must be able to rely on them. MariaDB's rows are
/// inserted as number 0, so any other number is the trigger's.
fn check_numbers(positions: &[i64], first: i64, count: usize) -> Result<(), Failure> {
    let last = first.saturating_add(i64::try_from(count).unwrap_or(i64::MAX) - 1);
    let mut sorted = positions.to_vec();
    sorted.sort_unstable();
    let follow_each_other = sorted.len() == count && sorted.iter().copied().eq(first..=last);
    if first > 0 && follow_each_other { Ok(()) } else { Err(unnumbered()) }
}

fn unnumbered() -> Failure {
    Failure::Refused(
        "the change log does not number its rows: its trigger is missing or changed; run `latchkey migrate up`".to_owned(),
    )
}

/// The nonce of the row at `position`, if the log has one there.
pub(super) async fn nonce_at(
    transaction: &Transaction,
    position: Position,
) -> Result<Option<Nonce>, Failure> {
    let row = change_log::Entity::find_by_id(position.as_i64()).one(transaction).await?;
    Ok(row.as_ref().map(read).transpose()?.map(|row| row.nonce))
}

/// The rows behind `after`, in order and without a hole.
///
/// MariaDB opens a read view by looking at one running transaction after the other, so a change may show while the one
/// before it does not yet. What lies behind such a hole is left to the next read. Where already the first row is not the
/// next one, either the rows before it were deleted long ago, or they do not show yet; a second read, in which everything
/// before that row does show, tells which.
pub(super) async fn after(db: &Pool, after: Position, limit: u32) -> Result<Vec<LoggedChange>, Failure> {
    let next = after.max(Position::ZERO).as_i64().saturating_add(1);
    let mut rows = rows_from(db, next, limit).await?;
    if rows.first().is_some_and(|row| row.position != next) {
        rows = rows_from(db, next, limit).await?;
    }
    let first = rows.first().map_or(next, |row| row.position);
    let whole = rows.iter().zip(first..).take_while(|(row, expected)| row.position == *expected);
    whole.map(|(row, _)| read(row)).collect()
}

async fn rows_from(db: &Pool, first: i64, limit: u32) -> Result<Vec<change_log::Model>, Failure> {
    let rows = change_log::Entity::find()
        .filter(change_log::Column::Position.gte(first))
        .order_by_asc(change_log::Column::Position)
        .limit(u64::from(limit));
    Ok(rows.all(db).await?)
}

const COLUMNS: &str = "position, nonce, kind, user_id, session_id, epoch, create_time, key_id";
const RAISE_EVERYONE: &str =
    "UPDATE log_head SET position = position + 1, everyone_epoch = everyone_epoch + 1";

/// The values of the rows, numbered from `first`.
fn values(entries: &[LogEntry], first: i64, stamp: Stamp) -> Vec<Value> {
    let numbered = entries.iter().zip(first..);
    let row = |(entry, number): (&LogEntry, i64)| -> [Value; 8] {
        [
            number.into(),
            nonce(stamp).into(),
            entry.kind().as_i16().into(),
            entry.user().map(UserId::as_uuid).into(),
            entry.session().map(SessionId::as_uuid).into(),
            entry.epoch().map(Epoch::as_i64).into(),
            stamp.time.as_millis().into(),
            entry.key().map(|key| i16::from(key.0)).into(),
        ]
    };
    numbered.flat_map(row).collect()
}

fn nonce(stamp: Stamp) -> Vec<u8> {
    stamp.nonce.0.to_vec()
}

/// The placeholder of one value; PostgreSQL numbers them.
pub(super) fn placeholder(number: usize, engine: DbBackend) -> String {
    if engine == DbBackend::Postgres { format!("${number}") } else { "?".to_owned() }
}

/// `(?, ?), (?, ?)` for rows of `width` values; PostgreSQL counts its placeholders from `first`.
pub(super) fn placeholders(rows: usize, width: usize, first: usize, engine: DbBackend) -> String {
    let mut text = String::new();
    for row in 0..rows {
        text.push_str(if row == 0 { "(" } else { "), (" });
        for column in 0..width {
            let comma = if column == 0 { "" } else { ", " };
            let written = match engine {
                DbBackend::Postgres => write!(text, "{comma}${}", first + row * width + column),
                _ => write!(text, "{comma}?"),
            };
            written.expect("a string takes any text");
        }
    }
    text.push(')');
    text
}

fn key_id(number: i16) -> Result<KeyId, std::num::TryFromIntError> {
    u8::try_from(number).map(KeyId)
}

/// Reads a row. One that does not say what its kind needs is corrupt: it must not be passed over as if it said nothing.
pub(super) fn read(row: &change_log::Model) -> Result<LoggedChange, Failure> {
    let corrupt = |what: &dyn std::fmt::Display| {
        Failure::Corrupt(format!("table change_log, position {}: {what}", row.position))
    };
    let entry = LogEntry::from_columns(
        row.kind,
        row.user_id.map(UserId::from_uuid),
        row.session_id.map(SessionId::from_uuid),
        row.epoch.map(Epoch::from_i64),
        row.key_id.map(key_id).transpose().map_err(|_| corrupt(&"key_id is not 0 to 255"))?,
    );
    Ok(LoggedChange {
        position: Position::from_i64(row.position),
        nonce: Nonce(row.nonce.as_slice().try_into().map_err(|_| corrupt(&"nonce is not 8 bytes long"))?),
        entry: entry.map_err(|error| corrupt(&error))?,
        time: UnixMillis::from_millis(row.create_time),
    })
}

#[cfg(test)]
mod tests {
    use super::check_numbers;

    #[test]
    fn only_numbers_that_follow_the_head_are_taken() {
        let takes = |positions: &[i64], count| {
            let first = positions.iter().copied().min().unwrap_or_default();
            check_numbers(positions, first, count).is_ok()
        };
        assert!(takes(&[7], 1) && takes(&[9, 8, 7], 3));
        assert!(!takes(&[0], 1), "without a number");
        assert!(!takes(&[-1], 1) && !takes(&[], 0));
        assert!(!takes(&[7, 9], 2) && !takes(&[7, 7], 2) && !takes(&[7], 2));
    }
}
