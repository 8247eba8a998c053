//! Token keys: the fingerprint of each key that ever signed, so that a node with another key of that number is noticed.

use std::sync::Arc;

use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, Set};

use super::entity::token_keys;
use super::error::Failure;
use super::step::{Transaction, Verdict};
use super::users::is_taken;
use crate::domain::time::UnixMillis;
use crate::domain::token::{KeyFingerprint, KeyId};

/// Records the keys that are not known yet, or answers the first that is known with another fingerprint.
pub(super) async fn register(
    transaction: &Transaction,
    keys: Arc<[(KeyId, KeyFingerprint)]>,
    now: UnixMillis,
) -> Result<Verdict<Option<KeyId>>, Failure> {
    let ids = keys.iter().map(|(id, _)| i16::from(id.0));
    let known =
        token_keys::Entity::find().filter(token_keys::Column::KeyId.is_in(ids)).all(transaction).await?;
    let mut new: Vec<(KeyId, KeyFingerprint)> = Vec::new();
    for (id, fingerprint) in keys.iter().copied() {
        let stored =
            known.iter().find(|row| row.key_id == i16::from(id.0)).map(|row| row.fingerprint.as_slice());
        let listed = new.iter().find(|(other, _)| *other == id).map(|(_, other)| other.0.as_slice());
        match stored.or(listed) {
            Some(other) if other != fingerprint.0 => return Ok(Verdict::Nothing(Some(id))),
            Some(_) => {}
            None => new.push((id, fingerprint)),
        }
    }
    if new.is_empty() {
        return Ok(Verdict::Nothing(None));
    }
    let rows = new.iter().map(|(id, fingerprint)| token_keys::ActiveModel {
        key_id: Set(i16::from(id.0)),
        fingerprint: Set(fingerprint.0.to_vec()),
        create_time: Set(now.as_millis()),
    });
    match token_keys::Entity::insert_many(rows).exec_without_returning(transaction).await {
        Ok(_) => Ok(Verdict::Commit(None)),
        // Another node recorded one of them meanwhile: look again.
        Err(error) if is_taken(&error) => Err(Failure::GaveWay("a key was recorded meanwhile".to_owned())),
        Err(error) => Err(error.into()),
    }
}
