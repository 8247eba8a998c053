//! Which token keys the database knows, so that a token of a key that this node does not have can be told from a forged
//! one without a statement.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::domain::token::KeyId;
use crate::mutation::Mutation;

/// Set while it is not known whether the set is whole; above this bit stands how often that was so.
const IS_PARTIAL: u64 = 1;

/// A set of token keys by their numbers. The keeper writes what the log says, and one reader of the database what that
/// holds; who asks never waits.
#[derive(Debug)]
pub struct TokenKeySet {
    bits: [AtomicU64; 4],
    state: AtomicU64,
}

impl Default for TokenKeySet {
    fn default() -> Self {
        Self { bits: Default::default(), state: AtomicU64::new(IS_PARTIAL) }
    }
}

/// When the database was asked for the keys, so that what it said is not taken for the truth of a later time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AskedForKeys(u64);

impl TokenKeySet {
    /// Whether the database knows a key of that number; none while this node may not have heard of it.
    pub fn contains(&self, key: KeyId) -> Option<bool> {
        // The state first: where it says that the set is whole, the bits are.
        let is_whole = self.is_whole();
        let (word, bit) = place(key);
        let is_set = self.bits[word].load(Ordering::Acquire) & bit != 0;
        let is_known = is_set && !Mutation::UnknownKeyIsForged.is_on();
        (is_set || is_whole).then_some(is_known)
    }

    /// Whether it holds every key that the database knows.
    pub fn is_whole(&self) -> bool {
        self.state.load(Ordering::Acquire) & IS_PARTIAL == 0
    }

    /// To be called before the database is asked.
    pub fn ask(&self) -> AskedForKeys {
        AskedForKeys(self.state.load(Ordering::Acquire))
    }

    /// Takes in all keys that the database knew when it was asked. The set is whole, unless rows of the log were missed
    /// since then.
    pub fn learn(&self, asked: AskedForKeys, keys: impl IntoIterator<Item = KeyId>) {
        for key in keys {
            self.insert(key);
        }
        let whole = asked.0 & !IS_PARTIAL;
        let _ = self.state.compare_exchange(asked.0, whole, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// A row of the log says that the database knows the key.
    pub(super) fn insert(&self, key: KeyId) {
        let (word, bit) = place(key);
        self.bits[word].fetch_or(bit, Ordering::AcqRel);
    }

    /// Rows of the log may be missed, or one says that a key is forgotten: the database has to be asked again.
    pub(super) fn begin_anew(&self) {
        let next = |state: u64| Some((state | IS_PARTIAL).wrapping_add(2));
        // It is never refused.
        let _ = self.state.fetch_update(Ordering::AcqRel, Ordering::Relaxed, next);
        for word in &self.bits {
            word.store(0, Ordering::Release);
        }
    }
}

fn place(KeyId(key): KeyId) -> (usize, u64) {
    (usize::from(key) / 64, 1 << (key % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_unknown_only_where_the_set_is_whole() {
        let keys = TokenKeySet::default();
        assert_eq!([0, 255].map(|key| keys.contains(KeyId(key))), [None, None]);
        let asked = keys.ask();
        keys.learn(asked, [KeyId(0), KeyId(63), KeyId(64), KeyId(255)]);
        assert_eq!(
            [0, 1, 63, 64, 65, 255].map(|key| keys.contains(KeyId(key))).map(Option::unwrap_or_default),
            [true, false, true, true, false, true]
        );
        keys.insert(KeyId(1));
        assert_eq!(keys.contains(KeyId(1)), Some(true));
    }

    #[test]
    fn what_was_asked_before_rows_were_missed_does_not_make_it_whole() {
        let keys = TokenKeySet::default();
        let asked = keys.ask();
        keys.begin_anew();
        keys.learn(asked, [KeyId(7)]);
        assert_eq!([7, 8].map(|key| keys.contains(KeyId(key))), [Some(true), None]);
        keys.learn(keys.ask(), [KeyId(7)]);
        assert_eq!([7, 8].map(|key| keys.contains(KeyId(key))), [Some(true), Some(false)]);
        keys.begin_anew();
        assert_eq!(keys.contains(KeyId(7)), None);
    }
}
