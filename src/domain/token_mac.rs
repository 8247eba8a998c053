//! The MAC of a token: HMAC-SHA-256 (RFC 2104) of a message that is always equally long.
//!
//! It is taken on each request of every other service, and it is most of what checking a session costs. So the padding of
//! FIPS 180-4 (section 5.1.1) is worked out here once, and what is left for each token is three turns of the library's
//! compression function, on blocks that are filled in place. The bytes are those of the library's own HMAC; what it saves
//! is in docs/PERFORMANCE.md.

use std::slice::from_ref;

use sha2::block_api::compress256;
use zeroize::{ZeroizeOnDrop, optimization_barrier};

/// What the MAC is for; it stands in front of what is signed.
const CONTEXT: &[u8; 19] = b"latchkey/session/v1";
/// Bytes of a token that are signed: key id, expiry, secret.
pub(super) const SIGNED_LEN: usize = 1 + 4 + super::token::SECRET_LEN;
const MESSAGE_LEN: usize = CONTEXT.len() + SIGNED_LEN;

const BLOCK_LEN: usize = 64;
/// Behind a message come at least one bit, rounded to a byte, and its length.
const PADDING_MIN: usize = 1 + 8;
const BLOCKS: usize = (MESSAGE_LEN + PADDING_MIN).div_ceil(BLOCK_LEN);
/// The state that SHA-256 begins with (FIPS 180-4, section 5.3.3).
const BEGIN: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// A hash under way.
type State = [u32; 8];

/// Wiped when it is dropped, all at once, where `Zeroizing` goes byte by byte.
pub(super) struct Wiped<T: Copy + Default, const N: usize>(pub(super) [T; N]);

impl<T: Copy + Default, const N: usize> Drop for Wiped<T, N> {
    fn drop(&mut self) {
        self.0.fill(T::default());
        // Nobody may leave that out because nobody looks.
        optimization_barrier(&self.0);
    }
}

/// A key, made ready: both hashes of HMAC have taken in their block of it.
#[derive(ZeroizeOnDrop)]
pub(super) struct TokenMac {
    inner: State,
    outer: State,
}

impl TokenMac {
    /// For `key`, which is shorter than a block.
    pub(super) fn new(key: &[u8; super::token::KEY_LEN]) -> Self {
        let behind = |pad: u8| {
            let mut block = Wiped([pad; BLOCK_LEN]);
            block.0.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
            let mut state = BEGIN;
            compress256(&mut state, from_ref(&block.0));
            state
        };
        Self { inner: behind(0x36), outer: behind(0x5c) }
    }

    /// The MAC of what is signed.
    pub(super) fn of(&self, signed: &[u8; SIGNED_LEN]) -> [u8; 32] {
        const EMPTY: [u8; BLOCKS * BLOCK_LEN] = {
            let mut blocks = padded::<{ BLOCKS * BLOCK_LEN }>(MESSAGE_LEN);
            let mut at = 0;
            while at < CONTEXT.len() {
                blocks[at] = CONTEXT[at];
                at += 1;
            }
            blocks
        };
        const EMPTY_OUTER: [u8; BLOCK_LEN] = padded(32);

        let (mut blocks, mut inner) = (Wiped(EMPTY), Wiped(self.inner));
        blocks.0[CONTEXT.len()..MESSAGE_LEN].copy_from_slice(signed);
        compress256(&mut inner.0, blocks.0.as_chunks().0);

        let (mut block, mut outer) = (Wiped(EMPTY_OUTER), Wiped(self.outer));
        put(&inner.0, &mut block.0);
        compress256(&mut outer.0, from_ref(&block.0));
        let mut mac = [0; 32];
        put(&outer.0, &mut mac);
        mac
    }
}

/// Blocks for a message of `len` bytes, which come behind one block of the key: all but the message.
const fn padded<const N: usize>(len: usize) -> [u8; N] {
    let mut blocks = [0; N];
    blocks[len] = 0x80;
    let bits = ((BLOCK_LEN + len) as u64 * 8).to_be_bytes();
    let mut at = 0;
    while at < bits.len() {
        blocks[N - bits.len() + at] = bits[at];
        at += 1;
    }
    blocks
}

fn put(state: &[u32; 8], out: &mut [u8]) {
    for (word, out) in state.iter().zip(out.as_chunks_mut().0) {
        *out = word.to_be_bytes();
    }
}

#[cfg(test)]
mod tests {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    use proptest::prelude::*;
    use sha2::Sha256;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_mac_that_the_library_takes(
            key in any::<[u8; 32]>(),
            signed in proptest::array::uniform32(any::<u8>()),
            head in any::<[u8; 5]>(),
        ) {
            let mut whole = [0; SIGNED_LEN];
            whole[..5].copy_from_slice(&head);
            whole[5..].copy_from_slice(&signed);
            let library = Hmac::<Sha256>::new_from_slice(&key).expect("a key").chain_update(CONTEXT).chain_update(whole);
            prop_assert_eq!(TokenMac::new(&key).of(&whole), <[u8; 32]>::from(library.finalize().into_bytes()));
        }
    }

    #[test]
    fn one_that_was_taken_elsewhere() {
        let mut signed = [0x42; SIGNED_LEN];
        signed[..5].copy_from_slice(&[1, 0x65, 0x53, 0xf1, 0x00]);
        let mac = TokenMac::new(&[7; 32]).of(&signed);
        let (first, second) = mac.split_first_chunk::<16>().expect("32 bytes");
        // By Python's `hmac`.
        assert_eq!(u128::from_be_bytes(*first), 0xd1cc_1cdf_f269_51c0_abd5_47cc_10d7_9635);
        assert_eq!(second, 0xdaf3_6e5e_310a_4f3f_0494_7be5_1a51_358e_u128.to_be_bytes());
    }
}
