//! Token keys: the fingerprint of each key that may sign, so that a node with another key of that number is noticed, and a
//! node without it knows that a token of that key may be good elsewhere.

use std::sync::Arc;

use sea_orm::{EntityTrait as _, QuerySelect as _, Set};

use super::change_log::{self, no_change};
use super::entity::{log_head, token_keys};
use super::error::Failure;
use super::facts::{self, headless};
use super::step::{Transaction, Verdict};
use crate::domain::id::Position;
use crate::domain::time::UnixMillis;
use crate::domain::token::{KeyFingerprint, KeyId};
use crate::store::{Change, KEYS_HEARD_AFTER, LogEntry, RegisterTokenKeys, Stamp};

/// Records the keys that are not known yet, or answers the first that is known with another fingerprint.
pub(super) async fn register(
    transaction: &Transaction,
    keys: Arc<[(KeyId, KeyFingerprint)]>,
    stamp: Stamp,
) -> Result<Verdict<RegisterTokenKeys>, Failure> {
    let known = Known::read(transaction).await?;
    match known.compare(&keys) {
        Err(key) => return Ok(Verdict::Nothing(RegisterTokenKeys::Mismatch(key))),
        Ok(new) if new.is_empty() => {
            // Others may still have to hear of what was recorded before.
            let head = Position::from_i64(facts::head(transaction).await?.position);
            let is_recent = known.knows_lately(&keys, stamp.time);
            return Ok(Verdict::Nothing(known.registered(is_recent.then(|| no_change(head)))));
        }
        Ok(_) => {}
    }
    // One after the other, so that of two nodes that start together the second one sees the keys of the first.
    let head = log_head::Entity::find_by_id(1_i16).lock_exclusive().one(transaction).await?;
    let head = Position::from_i64(head.ok_or_else(headless)?.position);
    let before = Known::read(transaction).await?;
    let new = match before.compare(&keys) {
        Err(key) => return Ok(Verdict::Nothing(RegisterTokenKeys::Mismatch(key))),
        Ok(new) if new.is_empty() => return Ok(Verdict::Nothing(before.registered(Some(no_change(head))))),
        Ok(new) => new,
    };
    let rows = new.iter().map(|(id, fingerprint)| token_keys::ActiveModel {
        key_id: Set(i16::from(id.0)),
        fingerprint: Set(fingerprint.0.to_vec()),
        create_time: Set(stamp.time.as_millis()),
    });
    token_keys::Entity::insert_many(rows).exec_without_returning(transaction).await?;
    let after = Known::read(transaction).await?;
    let change = if before.0.is_empty() {
        no_change(head)
    } else {
        let entries: Vec<_> = new.iter().map(|(key, _)| LogEntry::TokenKeyAdded { key: *key }).collect();
        change_log::change(0, change_log::append(transaction, &entries, stamp).await?)
    };
    Ok(Verdict::Commit(after.registered(Some(change))))
}

/// Forgets a key.
pub(super) async fn forget(
    transaction: &Transaction,
    key: KeyId,
    stamp: Stamp,
) -> Result<Verdict<Option<Change>>, Failure> {
    let deleted = token_keys::Entity::delete_by_id(i16::from(key.0)).exec(transaction).await?;
    if deleted.rows_affected == 0 {
        return Ok(Verdict::Nothing(None));
    }
    let rows = change_log::append(transaction, &[LogEntry::TokenKeyForgotten { key }], stamp).await?;
    Ok(Verdict::Commit(Some(change_log::change(0, rows))))
}

/// The keys that the database knows.
struct Known(Vec<token_keys::Model>);

impl Known {
    async fn read(transaction: &Transaction) -> Result<Self, Failure> {
        Ok(Self(token_keys::Entity::find().all(transaction).await?))
    }

    /// Those of the keys that are not known, or the first that is known, or named twice, with another fingerprint.
    fn compare(&self, keys: &[(KeyId, KeyFingerprint)]) -> Result<Vec<(KeyId, KeyFingerprint)>, KeyId> {
        let mut new: Vec<(KeyId, KeyFingerprint)> = Vec::new();
        for (id, fingerprint) in keys.iter().copied() {
            let stored = self.0.iter().find(|row| row.key_id == i16::from(id.0));
            let stored = stored.map(|row| row.fingerprint.as_slice());
            let named = new.iter().find(|(other, _)| *other == id).map(|(_, other)| other.0.as_slice());
            match stored.or(named) {
                Some(other) if other != fingerprint.0 => return Err(id),
                Some(_) => {}
                None => new.push((id, fingerprint)),
            }
        }
        Ok(new)
    }

    /// Whether one of the keys was recorded a short while ago, so that others may not have heard of it.
    fn knows_lately(&self, keys: &[(KeyId, KeyFingerprint)], now: UnixMillis) -> bool {
        let heard = now.minus(KEYS_HEARD_AFTER).as_millis();
        let is_of_ring = |row: &&token_keys::Model| keys.iter().any(|(id, _)| row.key_id == i16::from(id.0));
        self.0.iter().filter(is_of_ring).any(|row| row.create_time > heard)
    }

    fn registered(&self, change: Option<Change>) -> RegisterTokenKeys {
        let known = self.0.iter().filter_map(|row| u8::try_from(row.key_id).ok()).map(KeyId).collect();
        RegisterTokenKeys::Registered { known, change }
    }
}
