//! Paging (AIP-158): how many entries a page has, and the opaque word that leads to the next one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::invalid::Invalid;

/// Entries of a page when the caller does not say.
pub const PAGE_SIZE_DEFAULT: u32 = 50;
/// Entries of a page at most; a larger wish is cut to this (AIP-158).
pub const PAGE_SIZE_MAX: u32 = 1_000;

const CHECK_LEN: usize = 8;
const TOKEN_LEN: usize = 1 + 16 + CHECK_LEN;
const VERSION: u8 = 1;

/// Reads a wished page size; 0 means the default.
pub fn page_size(wished: i32) -> Result<u32, Invalid> {
    match u32::try_from(wished) {
        Ok(0) => Ok(PAGE_SIZE_DEFAULT),
        Ok(size) => Ok(size.min(PAGE_SIZE_MAX)),
        Err(_) => Err(Invalid::new("must not be negative")),
    }
}

/// Makes the word that leads to the entries behind `id` of the list named `list` (which takes in whatever selects its
/// entries, so that a word of one list is refused by another).
pub fn page_token(list: &str, id: Uuid) -> String {
    let mut raw = [0; TOKEN_LEN];
    raw[0] = VERSION;
    raw[1..17].copy_from_slice(id.as_bytes());
    raw[17..].copy_from_slice(&check(list, id));
    URL_SAFE_NO_PAD.encode(raw)
}

/// Reads such a word back; an empty one means the first page.
pub fn after(list: &str, token: &str) -> Result<Option<Uuid>, Invalid> {
    if token.is_empty() {
        return Ok(None);
    }
    let bad = || Invalid::new("must be the next_page_token of an earlier answer to the same request");
    let mut raw = [0; TOKEN_LEN];
    match URL_SAFE_NO_PAD.decode_slice(token, &mut raw) {
        Ok(TOKEN_LEN) if raw[0] == VERSION => {}
        _ => return Err(bad()),
    }
    let id = Uuid::from_slice(&raw[1..17]).map_err(|_| bad())?;
    if check(list, id) == raw[17..] { Ok(Some(id)) } else { Err(bad()) }
}

fn check(list: &str, id: Uuid) -> [u8; CHECK_LEN] {
    let full = Sha256::new().chain_update(list).chain_update([0]).chain_update(id.as_bytes()).finalize();
    let mut check = [0; CHECK_LEN];
    check.copy_from_slice(&full[..CHECK_LEN]);
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_cut_to_the_limit() {
        assert_eq!(page_size(0), Ok(PAGE_SIZE_DEFAULT));
        assert_eq!(page_size(7), Ok(7));
        assert_eq!(page_size(i32::MAX), Ok(PAGE_SIZE_MAX));
        assert!(page_size(-1).is_err());
    }

    #[test]
    fn a_token_leads_on_in_its_own_list_only() {
        let last = Uuid::from_u128(7);
        let token = page_token("users", last);
        assert_eq!(after("users", &token), Ok(Some(last)));
        assert_eq!(after("users", ""), Ok(None));
        for bad in [
            ("sessions", token.as_str()),
            ("users", "x"),
            ("users", &token[1..]),
            ("users", "\0"),
            ("users", &"A".repeat(34)),
        ] {
            assert!(after(bad.0, bad.1).is_err(), "{bad:?}");
        }
    }
}
