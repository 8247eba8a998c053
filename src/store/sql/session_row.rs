//! A row of `sessions` as a domain value and back. Whatever cannot be read is said with table, id and column.

use std::time::Duration;

use sea_orm::Set;
use serde_json::{from_str, to_string};

use super::entity::sessions;
use super::error::Failure;
use crate::domain::client::Client;
use crate::domain::id::{Epoch, SessionId, UserId};
use crate::domain::session::{EndReason, Ended, Methods, Session};
use crate::domain::time::UnixMillis;
use crate::store::NewSession;

/// Reads a row.
pub(super) fn to_session(row: &sessions::Model) -> Result<Session, Failure> {
    let id = row.session_id;
    let corrupt = |column: &str| Failure::Corrupt(format!("table sessions, session_id {id}: {column}"));
    let methods: Vec<String> = from_str(&row.methods).map_err(|_| corrupt("methods"))?;
    let ip = row.client_ip.as_deref().unwrap_or("");
    let ended = match (row.end_time, row.end_reason) {
        (None, None) => None,
        (Some(time), Some(reason)) => Some(Ended {
            time: UnixMillis::from_millis(time),
            reason: EndReason::from_i16(reason).ok_or_else(|| corrupt("end_reason"))?,
        }),
        _ => return Err(corrupt("end_time and end_reason")),
    };
    Ok(Session {
        id: SessionId::from_uuid(id),
        user_id: UserId::from_uuid(row.user_id),
        user_epoch: Epoch::from_i64(row.user_epoch),
        everyone_epoch: Epoch::from_i64(row.everyone_epoch),
        create_time: UnixMillis::from_millis(row.create_time),
        authenticate_time: UnixMillis::from_millis(row.authenticate_time),
        expire_time: UnixMillis::from_millis(row.expire_time),
        last_seen_time: UnixMillis::from_millis(row.last_seen_time),
        idle_limit: u64::try_from(row.idle_limit_ms)
            .map(Duration::from_millis)
            .map_err(|_| corrupt("idle_limit_ms"))?,
        remembered: row.remembered,
        methods: Methods::parse(&methods).map_err(|_| corrupt("methods"))?,
        client: Client::parse(ip, &row.client_user_agent, &row.client_device_name)
            .map_err(|why| corrupt(&format!("client_{}", why.field)))?,
        ended,
    })
}

/// Writes a row.
pub(super) fn to_row(new: &NewSession) -> sessions::ActiveModel {
    let session = &new.session;
    let over = session.expire_time.min(session.last_seen_time.plus(session.idle_limit));
    sessions::ActiveModel {
        session_id: Set(session.id.as_uuid()),
        digest: Set(new.digest.0.to_vec()),
        user_id: Set(session.user_id.as_uuid()),
        user_epoch: Set(session.user_epoch.as_i64()),
        everyone_epoch: Set(session.everyone_epoch.as_i64()),
        create_time: Set(session.create_time.as_millis()),
        authenticate_time: Set(session.authenticate_time.as_millis()),
        expire_time: Set(session.expire_time.as_millis()),
        last_seen_time: Set(session.last_seen_time.as_millis()),
        idle_limit_ms: Set(i64::try_from(session.idle_limit.as_millis()).unwrap_or(i64::MAX)),
        over_time: Set(over.as_millis()),
        remembered: Set(session.remembered),
        methods: Set(to_string(session.methods.as_slice()).expect("texts are JSON")),
        client_ip: Set(session.client.ip.map(|ip| ip.to_string())),
        client_user_agent: Set(session.client.user_agent.clone()),
        client_device_name: Set(session.client.device_name.clone()),
        end_time: Set(session.ended.map(|ended| ended.time.as_millis())),
        end_reason: Set(session.ended.map(|ended| ended.reason.as_i16())),
    }
}
