//! By what the map finds a session: a digest, or the first half of one, which is the hash of both. A digest is half of a
//! MAC, so nobody without the key can choose it.

use std::hash::{Hash, Hasher};

use papaya::Equivalent;

use crate::domain::token::TokenDigest;

/// The first half of a digest. It finds the entry of the digest as well as the whole does, where no other has the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct FirstHalf(u64);

impl FirstHalf {
    /// That of a digest.
    pub(super) fn of(digest: &TokenDigest) -> Self {
        let mut half = [0; 8];
        half.copy_from_slice(&digest.0[..8]);
        Self(u64::from_le_bytes(half))
    }
}

impl Hash for FirstHalf {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0.to_le_bytes());
    }
}

impl Equivalent<TokenDigest> for FirstHalf {
    fn equivalent(&self, digest: &TokenDigest) -> bool {
        *self == Self::of(digest)
    }
}

/// Takes the first half of a digest as its hash.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(half) = bytes.first_chunk::<8>() {
            self.0 = u64::from_le_bytes(*half);
        }
    }

    /// The length of the digest, which is always the same.
    fn write_usize(&mut self, _: usize) {}
}
