//! The session token, the key ring that signs it, and the digest by which memory and database find a session.
//!
//! `lk1_` + base64url without padding of: key id 1 B | absolute expiry, unix seconds 4 B | secret 32 B | tag 16 B.
//! `HMAC-SHA-256(key, "latchkey/session/v1" | key id | expiry | secret)` (RFC 2104) is computed once: its first half is
//! the tag, its second half the digest. Neither a stolen database nor a stolen key yields a token.
//! Nothing here touches a file or draws randomness: both are handed in.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64_simd::AsOut as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::time::UnixMillis;
use super::token_mac::{SIGNED_LEN, TokenMac, Wiped};

/// What every token starts with; secret scanners look for it.
pub const PREFIX: &str = "lk1_";
/// Bytes of secret in a token, from the operating system.
pub const SECRET_LEN: usize = 32;
/// Bytes of a signing key.
pub const KEY_LEN: usize = 32;
/// Keys a ring may hold.
pub const KEYS_MAX: usize = 8;

const TAG_LEN: usize = 16;
const RAW_LEN: usize = SIGNED_LEN + TAG_LEN;
/// Characters of a whole token.
pub const TEXT_LEN: usize = PREFIX.len() + (RAW_LEN * 4).div_ceil(3);
const FINGERPRINT_CONTEXT: &[u8] = b"latchkey/token-key-fingerprint/v1";

/// The secret that a client presents. Shown once, never stored, never logged.
#[derive(Clone)]
pub struct SessionToken(Zeroizing<String>);

impl SessionToken {
    /// The text to hand to the client, and to nobody else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionToken(..)")
    }
}

/// By what a session is found: half of the MAC over its token. Useless for signing in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenDigest(pub [u8; 16]);

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest(..)")
    }
}

/// What a genuine token says before anything is looked up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GenuineToken {
    /// Where to find the session.
    pub digest: TokenDigest,
    /// The absolute end of the session; no look-up can make it later.
    pub expire_time: UnixMillis,
}

/// Why a text is not known to be a token of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotGenuine {
    /// It was cut, altered or forged: no session has it.
    #[error("not a genuine session token")]
    Forged,
    /// It names a key that is not in the ring: a node with that key may know its session, and it may be forged.
    #[error("signed by a key that is not in the ring")]
    UnknownKey {
        /// The number of the key.
        key: KeyId,
        /// When it ends by its own word, which nobody vouches for. A session that has this token ends no later.
        expire_time: UnixMillis,
    },
}

/// The number of a key in the ring, as each token carries it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KeyId(pub u8);

/// What the database keeps of a key, so that a node with another key of that number refuses to start.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct KeyFingerprint(pub [u8; 16]);

/// One signing key. Its bytes and what HMAC makes of them are wiped when it goes away, as is each copy made for a token.
pub struct TokenKey {
    id: KeyId,
    bytes: Zeroizing<[u8; KEY_LEN]>,
    mac: TokenMac,
}

impl TokenKey {
    /// A key of the given number.
    pub fn new(id: KeyId, bytes: [u8; KEY_LEN]) -> Self {
        let bytes = Zeroizing::new(bytes);
        Self { id, mac: TokenMac::new(&bytes), bytes }
    }

    /// The key's number.
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// What the database may know of this key.
    pub fn fingerprint(&self) -> KeyFingerprint {
        let mac =
            Hmac::<Sha256>::new_from_slice(self.bytes.as_slice()).expect("HMAC takes a key of any length");
        let full = mac.chain_update(FINGERPRINT_CONTEXT).finalize().into_bytes();
        let mut half = [0; 16];
        half.copy_from_slice(&full[..16]);
        KeyFingerprint(half)
    }

    /// Tag and digest of the first bytes (key id, expiry, secret) of a token.
    fn tag_and_digest(&self, signed: &[u8; SIGNED_LEN]) -> ([u8; TAG_LEN], TokenDigest) {
        let full = self.mac.of(signed);
        let (mut tag, mut digest) = ([0; TAG_LEN], [0; 16]);
        tag.copy_from_slice(&full[..TAG_LEN]);
        digest.copy_from_slice(&full[TAG_LEN..]);
        (tag, TokenDigest(digest))
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({})", self.id.0)
    }
}

/// Why a text is not a key ring. Never repeats a key.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyRingError {
    /// No key at all.
    #[error("the key ring is empty: make one with `latchkey key new FILE`")]
    Empty,
    /// More than [`KEYS_MAX`] keys.
    #[error("the key ring holds more than {KEYS_MAX} keys: remove the oldest")]
    TooMany,
    /// An entry of another form.
    #[error("entry {entry} of the key ring is not `ID:KEY`: ID 0 to 255, KEY base64url of {KEY_LEN} bytes")]
    Malformed {
        /// Its number, counted from 1.
        entry: usize,
    },
    /// Two keys of one number.
    #[error("two keys of the ring have the number {id}: give each its own")]
    Duplicate {
        /// The number.
        id: u8,
    },
    /// No key of that number.
    #[error("the key ring holds no key {id}")]
    Unknown {
        /// The number.
        id: u8,
    },
    /// The key that signs shall go.
    #[error("key {id} signs: promote another one first")]
    Signing {
        /// The number.
        id: u8,
    },
}

/// The keys of a fleet: the first signs, all verify.
#[derive(Debug)]
pub struct KeyRing {
    keys: Vec<TokenKey>,
}

impl KeyRing {
    /// A ring of the given keys, the signing one first.
    pub fn new(keys: Vec<TokenKey>) -> Result<Self, KeyRingError> {
        if keys.is_empty() {
            return Err(KeyRingError::Empty);
        }
        if keys.len() > KEYS_MAX {
            return Err(KeyRingError::TooMany);
        }
        for (at, key) in keys.iter().enumerate() {
            if keys[..at].iter().any(|other| other.id == key.id) {
                return Err(KeyRingError::Duplicate { id: key.id.0 });
            }
        }
        Ok(Self { keys })
    }

    /// Reads the text form: `ID:KEY` entries separated by line ends, commas or spaces (to which YAML folds lines); empty
    /// lines and `#` lines are passed over.
    pub fn parse(text: &str) -> Result<Self, KeyRingError> {
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let apart = |c: char| c == ',' || c.is_whitespace();
        let entries = lines.flat_map(|line| line.split(apart)).filter(|entry| !entry.is_empty());
        let keys = entries
            .enumerate()
            .map(|(at, entry)| parse_key(entry).ok_or(KeyRingError::Malformed { entry: at + 1 }))
            .collect::<Result<Vec<_>, _>>()?;
        Self::new(keys)
    }

    /// The text form, one key a line; wiped when dropped.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(self.keys.len() * 50));
        for key in &self.keys {
            let bytes = Zeroizing::new(URL_SAFE_NO_PAD.encode(key.bytes.as_slice()));
            text.push_str(&key.id.0.to_string());
            text.push(':');
            text.push_str(&bytes);
            text.push('\n');
        }
        text
    }

    /// This ring with a new key at its end, which verifies and does not sign yet. Where no number is given it is the one
    /// above the highest of the ring, and behind 255 the lowest that is free.
    pub fn with_new_key(mut self, number: Option<KeyId>, bytes: [u8; KEY_LEN]) -> Result<Self, KeyRingError> {
        let highest = self.keys.iter().map(|key| key.id.0).max().unwrap_or(0);
        let above = (1..=u8::MAX).map(|step| KeyId(highest.wrapping_add(step)));
        let mut free = above.filter(|id| self.keys.iter().all(|key| key.id != *id));
        let id = number.or_else(|| free.next()).ok_or(KeyRingError::TooMany)?;
        self.keys.push(TokenKey::new(id, bytes));
        Self::new(self.keys)
    }

    /// This ring with another of its keys in front, where it signs. The order of the others stays.
    pub fn promote(mut self, id: KeyId) -> Result<Self, KeyRingError> {
        let at = self.place(id)?;
        self.keys[..=at].rotate_right(1);
        Ok(self)
    }

    /// This ring without a key that does not sign. Tokens that it signed are no longer known.
    pub fn remove(mut self, id: KeyId) -> Result<Self, KeyRingError> {
        match self.place(id)? {
            0 => Err(KeyRingError::Signing { id: id.0 }),
            at => {
                self.keys.remove(at);
                Ok(self)
            }
        }
    }

    fn place(&self, id: KeyId) -> Result<usize, KeyRingError> {
        self.keys.iter().position(|key| key.id == id).ok_or(KeyRingError::Unknown { id: id.0 })
    }

    /// The keys, the signing one first.
    pub fn keys(&self) -> &[TokenKey] {
        &self.keys
    }

    /// Signs a token around `secret` that ends at `expire_time`, which is cut to whole seconds (1970 to 2106).
    pub fn mint(&self, expire_time: UnixMillis, secret: &[u8; SECRET_LEN]) -> (SessionToken, GenuineToken) {
        let key = &self.keys[0];
        let seconds = u32::try_from(expire_time.as_secs().max(0)).unwrap_or(u32::MAX);
        let mut raw = Zeroizing::new([0_u8; RAW_LEN]);
        raw[0] = key.id.0;
        raw[1..5].copy_from_slice(&seconds.to_be_bytes());
        raw[5..5 + SECRET_LEN].copy_from_slice(secret);
        let (tag, digest) = key.tag_and_digest(signed(&raw));
        raw[SIGNED_LEN..].copy_from_slice(&tag);
        let mut text = Zeroizing::new(String::with_capacity(TEXT_LEN));
        text.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(raw.as_slice(), &mut text);
        (
            SessionToken(text),
            GenuineToken { digest, expire_time: UnixMillis::from_millis(i64::from(seconds) * 1_000) },
        )
    }

    /// Checks that `text` was signed by a key of this ring, without allocating and in constant time for the tag.
    pub fn verify(&self, text: &str) -> Result<GenuineToken, NotGenuine> {
        if text.len() != TEXT_LEN {
            return Err(NotGenuine::Forged);
        }
        let encoded = text.strip_prefix(PREFIX).ok_or(NotGenuine::Forged)?;
        let mut raw = Wiped([0_u8; RAW_LEN]);
        let read = base64_simd::URL_SAFE_NO_PAD.decode(encoded.as_bytes(), raw.0.as_mut_slice().as_out());
        if read.map_err(|_| NotGenuine::Forged)?.len() != RAW_LEN {
            return Err(NotGenuine::Forged);
        }
        let raw = &raw.0;
        let seconds = u32::from_be_bytes([raw[1], raw[2], raw[3], raw[4]]);
        let expire_time = UnixMillis::from_millis(i64::from(seconds) * 1_000);
        let key = self.keys.iter().find(|key| key.id.0 == raw[0]);
        let key = key.ok_or(NotGenuine::UnknownKey { key: KeyId(raw[0]), expire_time })?;
        let (tag, digest) = key.tag_and_digest(signed(raw));
        let mut told = [0; TAG_LEN];
        told.copy_from_slice(&raw[SIGNED_LEN..]);
        // In constant time, and as one number, since byte by byte takes sixteen times as long.
        if !bool::from(u128::from_le_bytes(tag).ct_eq(&u128::from_le_bytes(told))) {
            return Err(NotGenuine::Forged);
        }
        Ok(GenuineToken { digest, expire_time })
    }
}

/// What the tag of a token stands for.
fn signed(raw: &[u8; RAW_LEN]) -> &[u8; SIGNED_LEN] {
    raw.first_chunk().expect("the tag comes last")
}

fn parse_key(entry: &str) -> Option<TokenKey> {
    let (id, key) = entry.split_once(':')?;
    let decoded = Zeroizing::new(URL_SAFE_NO_PAD.decode(key).ok()?);
    let bytes: [u8; KEY_LEN] = decoded.as_slice().try_into().ok()?;
    Some(TokenKey::new(KeyId(id.parse().ok()?), bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ring(ids: &[u8]) -> KeyRing {
        KeyRing::new(ids.iter().map(|id| TokenKey::new(KeyId(*id), [*id; KEY_LEN])).collect())
            .expect("a ring")
    }

    #[test]
    fn a_token_is_75_characters_and_verifies() {
        let (token, minted) = ring(&[1]).mint(UnixMillis::from_millis(1_700_000_000_999), &[7; 32]);
        assert_eq!(token.expose().len(), 75);
        assert!(token.expose().starts_with("lk1_"));
        assert_eq!(minted.expire_time, UnixMillis::from_millis(1_700_000_000_000));
        assert_eq!(ring(&[1]).verify(token.expose()), Ok(minted));
    }

    #[test]
    fn the_format_is_pinned_by_a_vector() {
        let (token, minted) = ring(&[1]).mint(UnixMillis::from_millis(1_700_000_000_000), &[7; 32]);
        assert_eq!(
            token.expose(),
            "lk1_AWVT8QAHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHByu78jaZOXpHJiw7tP9l8Pg"
        );
        assert_ne!(minted.digest.0, [0; 16]);
    }

    #[test]
    fn every_key_of_the_ring_verifies_and_the_first_signs() {
        let (old, minted) = ring(&[1]).mint(UnixMillis::from_millis(5_000), &[7; 32]);
        assert_eq!(ring(&[2, 1]).verify(old.expose()), Ok(minted));
        let unknown = NotGenuine::UnknownKey { key: KeyId(1), expire_time: minted.expire_time };
        assert_eq!(ring(&[2]).verify(old.expose()), Err(unknown));
        let other = KeyRing::new(vec![TokenKey::new(KeyId(1), [9; KEY_LEN])]).expect("a ring");
        assert_eq!(other.verify(old.expose()), Err(NotGenuine::Forged));
    }

    #[test]
    fn the_text_form_of_a_ring_reads_back_and_errors_say_where() {
        let text = ring(&[3, 1]).to_text();
        let read = KeyRing::parse(&format!("# comment\n\n{}", text.as_str())).expect("a ring");
        assert_eq!(read.keys().iter().map(|key| key.id().0).collect::<Vec<_>>(), [3, 1]);
        assert_eq!(read.keys()[0].fingerprint(), ring(&[3]).keys()[0].fingerprint());
        assert_ne!(read.keys()[0].fingerprint(), read.keys()[1].fingerprint());
        assert_eq!(KeyRing::parse("\n# nothing\n").err(), Some(KeyRingError::Empty));
        let first = text.lines().next().expect("a line");
        assert_eq!(
            KeyRing::parse(&format!("{first}\nrubbish")).err(),
            Some(KeyRingError::Malformed { entry: 2 })
        );
        assert_eq!(
            KeyRing::parse(&format!("{first}\n{first}")).err(),
            Some(KeyRingError::Duplicate { id: 3 })
        );
    }

    fn ids(ring: Result<KeyRing, KeyRingError>) -> Result<Vec<u8>, KeyRingError> {
        ring.map(|ring| ring.keys().iter().map(|key| key.id().0).collect())
    }

    #[test]
    fn a_new_key_goes_to_the_end_under_a_number_of_its_own() {
        let new = |of: &[u8], number: Option<u8>| ids(ring(of).with_new_key(number.map(KeyId), [8; KEY_LEN]));
        assert_eq!(new(&[1], None), Ok(vec![1, 2]), "the old key goes on signing");
        assert_eq!(new(&[2, 7, 3], None), Ok(vec![2, 7, 3, 8]), "above the highest, not above the first");
        assert_eq!(new(&[255, 0], None), Ok(vec![255, 0, 1]));
        assert_eq!(new(&[1], Some(9)), Ok(vec![1, 9]));
        assert_eq!(new(&[1, 9], Some(9)), Err(KeyRingError::Duplicate { id: 9 }));
        assert_eq!(new(&[1, 2, 3, 4, 5, 6, 7, 8], None), Err(KeyRingError::TooMany));
    }

    #[test]
    fn a_key_is_promoted_to_sign_and_removed_when_it_does_not() {
        assert_eq!(ids(ring(&[1, 2, 3]).promote(KeyId(3))), Ok(vec![3, 1, 2]));
        assert_eq!(ids(ring(&[1, 2]).promote(KeyId(1))), Ok(vec![1, 2]), "twice is once");
        assert_eq!(ids(ring(&[1]).promote(KeyId(2))), Err(KeyRingError::Unknown { id: 2 }));
        assert_eq!(ids(ring(&[2, 1, 3]).remove(KeyId(1))), Ok(vec![2, 3]));
        assert_eq!(ids(ring(&[2, 1]).remove(KeyId(2))), Err(KeyRingError::Signing { id: 2 }));
        assert_eq!(ids(ring(&[2, 1]).remove(KeyId(3))), Err(KeyRingError::Unknown { id: 3 }));
    }

    #[test]
    fn through_a_whole_rotation_every_node_knows_every_token() {
        // Each step is a file that all nodes get before the next step is taken, so at most two neighbours run at a time.
        let old = || ring(&[1]);
        let added = || old().with_new_key(None, [2; KEY_LEN]).expect("added");
        let promoted = || added().promote(KeyId(2)).expect("promoted");
        for (one, other) in [(old(), added()), (added(), promoted())] {
            for (from, to) in [(&one, &other), (&other, &one)] {
                let (token, minted) = from.mint(UnixMillis::from_millis(5_000), &[7; SECRET_LEN]);
                assert_eq!(to.verify(token.expose()), Ok(minted));
            }
        }
    }

    #[test]
    fn nothing_secret_is_in_debug() {
        let ring = KeyRing::new(vec![TokenKey::new(KeyId(1), [b'K'; KEY_LEN])]).expect("a ring");
        let (token, genuine) = ring.mint(UnixMillis::from_millis(1), &[b'S'; 32]);
        assert_eq!(
            format!("{token:?} {:?} {ring:?}", genuine.digest),
            "SessionToken(..) TokenDigest(..) KeyRing { keys: [TokenKey(1)] }"
        );
    }

    #[test]
    fn one_altered_character_is_never_genuine() {
        let ring = ring(&[1, 2]);
        let (token, _) = ring.mint(UnixMillis::from_millis(1_700_000_000_000), &[0x5a; 32]);
        for at in 0..TEXT_LEN {
            for with in (0..=u8::MAX).map(char::from) {
                let mut altered = token.expose().to_owned();
                altered.replace_range(at..=at, with.encode_utf8(&mut [0; 2]));
                assert_eq!(ring.verify(&altered).is_ok(), altered == token.expose(), "{with:?} at {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_or_is_genuine(text in "\\PC{0,100}", formed in "lk1_[A-Za-z0-9_-]{71}") {
            prop_assert_eq!(ring(&[1]).verify(&text), Err(NotGenuine::Forged));
            prop_assert!(ring(&[1]).verify(&formed).is_err());
        }
    }
}
