//! How long leases are: columns of the head of the log. The rules of a change are those of `fleet/`.

use std::time::Duration;

use sea_orm::{ConnectionTrait as _, DbBackend, Statement, Value};

use super::change_log::placeholder;
use super::entity::log_head;
use super::error::Failure;
use super::step::{Transaction, Verdict};
use crate::domain::id::Nonce;
use crate::store::coordination::LeaseDuration;

/// How long leases are, as the head of the log says it. A target of 0 is the lease itself, and the longest lease is at least as
/// long as the others: an operator may have written the lease by hand.
pub(super) fn read_lease(head: &log_head::Model) -> Result<LeaseDuration, Failure> {
    let corrupt = |column| Failure::Corrupt(format!("table log_head: {column}"));
    let span =
        |millis: i64, column| u64::try_from(millis).map(Duration::from_millis).map_err(|_| corrupt(column));
    let current = span(head.lease_ms, "lease_ms")?;
    let target = span(head.lease_target_ms, "lease_target_ms")?;
    let target = if target.is_zero() { current } else { target };
    let longest = span(head.lease_longest_ms, "lease_longest_ms")?.max(current).max(target);
    let change = (head.lease_change != 0).then(|| Nonce(head.lease_change.to_le_bytes()));
    Ok(LeaseDuration { current, longest, target, change })
}

/// Writes `to` if `from` is still there: the number of the change names a state while it lasts,
/// and the lease itself a settled one.
///
/// It is committed durably: were it lost with the server, a node could hold a longer lease than others wait for.
pub(super) async fn change(
    transaction: &Transaction,
    from: LeaseDuration,
    to: LeaseDuration,
) -> Result<Verdict<bool>, Failure> {
    let engine = transaction.get_database_backend();
    if engine == DbBackend::Postgres {
        transaction.execute_unprepared("SET LOCAL synchronous_commit TO on").await?;
    }
    let during_change = |span: Duration| if to.is_settled() { 0 } else { millis(span) };
    let values: [Value; 6] = [
        millis(to.current).into(),
        during_change(to.target).into(),
        during_change(to.longest).into(),
        number(to.change).into(),
        millis(from.current).into(),
        number(from.change).into(),
    ];
    let [current, target, longest, change, from, from_change] =
        [1, 2, 3, 4, 5, 6].map(|number| placeholder(number, engine));
    let sql = format!(
        "UPDATE log_head SET lease_ms = {current}, lease_target_ms = {target}, lease_longest_ms = {longest}, \
         lease_change = {change} WHERE id = 1 AND lease_ms = {from} AND lease_change = {from_change}"
    );
    let done = transaction.execute_raw(Statement::from_sql_and_values(engine, sql, values)).await?;
    Ok(if done.rows_affected() == 1 { Verdict::Commit(true) } else { Verdict::Nothing(false) })
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// How the nonce of a change is written; 0 where nothing changes.
fn number(change: Option<Nonce>) -> i64 {
    change.map_or(0, |nonce| i64::from_le_bytes(nonce.0))
}
