//! No text is taken for a token of ours but one that this ring signed, and none makes the check panic.

#![no_main]

use std::sync::LazyLock;

use latchkey::domain::time::UnixMillis;
use latchkey::domain::token::{KEY_LEN, KeyId, KeyRing, SECRET_LEN, TokenKey};
use libfuzzer_sys::fuzz_target;

static RING: LazyLock<KeyRing> = LazyLock::new(|| {
    let keys = vec![TokenKey::new(KeyId(1), [7; KEY_LEN]), TokenKey::new(KeyId(2), [8; KEY_LEN])];
    KeyRing::new(keys).expect("a ring")
});

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = str::from_utf8(bytes) {
        assert!(RING.verify(text).is_err(), "forged without a key");
    }
    // What was signed is genuine, and with one byte changed it is not.
    let Some((secret, change)) = bytes.split_first_chunk::<SECRET_LEN>() else { return };
    let (token, minted) = RING.mint(UnixMillis::from_millis(1_767_225_600_000), secret);
    assert_eq!(RING.verify(token.expose()), Ok(minted));
    if let [at, byte, ..] = change {
        let mut text = token.expose().as_bytes().to_vec();
        let at = usize::from(*at) % text.len();
        let changed = text[at] != *byte;
        text[at] = *byte;
        if changed && let Ok(text) = str::from_utf8(&text) {
            assert!(RING.verify(text).is_err(), "altered and still genuine");
        }
    }
});
