//! Digests in any number, each made from its number alone, and the order in which they are asked for.

use latchkey::domain::token::TokenDigest;

/// Scatters a number over all 64 bits (SplitMix64).
pub fn scattered(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The digest of session `number`, where no token is made for it.
pub fn digest(number: u64) -> TokenDigest {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&scattered(number).to_le_bytes());
    bytes[8..].copy_from_slice(&scattered(!number).to_le_bytes());
    TokenDigest(bytes)
}

/// Numbers below `size` in random order, `count` of them.
pub fn in_random_order(size: u64, count: usize) -> impl Iterator<Item = u64> {
    (0..).take(count).map(move |step| scattered(0x5eed ^ step) % size)
}
