//! A password as typed, a password hash as stored, and the rules a new password has to meet.
//!
//! NIST SP 800-63B-4, section 3.1.1.2: length counted in code points after NFC, no composition rules, nothing trimmed
//! or cut. Neither type has a `Display`, and `Debug` shows nothing of either.

use std::fmt;

use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;

use super::invalid::Invalid;

/// Bytes any password may have on the wire; far above every length policy, far below the message limit.
pub const BYTES_MAX: usize = 4_096;
/// No policy may ask for fewer code points than this (NIST SP 800-63B-4).
pub const CODE_POINTS_FLOOR: u32 = 8;
/// No policy may refuse passwords of up to this many code points (NIST SP 800-63B-4).
pub const CODE_POINTS_MAX_FLOOR: u32 = 64;
/// No policy may allow more code points than surely fit into [`BYTES_MAX`].
pub const CODE_POINTS_CEILING: u32 = 1_024;

/// A password in NFC, wiped when dropped.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Takes a password as typed; any text but an empty or a huge one.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Err(Invalid::new("must not be empty"));
        }
        if text.len() > BYTES_MAX {
            return Err(Invalid::new(format!("must have at most {BYTES_MAX} bytes")));
        }
        // Room for the longest expansion under NFC (factor 3 in UTF-8), so that growing leaves no copy behind.
        let mut normal = Zeroizing::new(String::with_capacity(text.len() * 3));
        normal.extend(text.nfc());
        Ok(Self(normal))
    }

    /// The bytes to hash.
    pub fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn code_points(&self) -> u32 {
        u32::try_from(self.0.chars().count()).unwrap_or(u32::MAX)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// A password hash in PHC string form, as the database holds it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// Wraps a PHC string. Whether it can be verified is the business of the hashing pool.
    pub fn from_phc(phc: String) -> Self {
        Self(phc)
    }

    /// The PHC string, for the hashing pool and the database.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(..)")
    }
}

/// Which rule a new password broke. The name goes to the client as metadata of `PASSWORD_REFUSED`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PasswordRule {
    /// Fewer code points than the policy asks for.
    TooShort {
        /// The fewest that are taken.
        code_points_min: u32,
    },
    /// More code points than the policy allows.
    TooLong {
        /// The most that are taken.
        code_points_max: u32,
    },
}

/// The length rules of new passwords. They are not applied to passwords that exist.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PasswordPolicy {
    /// Fewest code points, at least [`CODE_POINTS_FLOOR`].
    pub code_points_min: u32,
    /// Most code points.
    pub code_points_max: u32,
}

impl Default for PasswordPolicy {
    fn default() -> Self {
        Self { code_points_min: 15, code_points_max: 256 }
    }
}

impl PasswordPolicy {
    /// A policy within the limits that NIST sets to policies.
    pub fn new(code_points_min: u32, code_points_max: u32) -> Result<Self, Invalid> {
        if code_points_min < CODE_POINTS_FLOOR || code_points_min > code_points_max {
            return Err(Invalid::new(format!(
                "must ask for at least {CODE_POINTS_FLOOR} code points, and for no more than it allows"
            )));
        }
        if !(CODE_POINTS_MAX_FLOOR..=CODE_POINTS_CEILING).contains(&code_points_max) {
            return Err(Invalid::new(format!(
                "must allow {CODE_POINTS_MAX_FLOOR} to {CODE_POINTS_CEILING} code points"
            )));
        }
        Ok(Self { code_points_min, code_points_max })
    }

    /// Says which rule a new password breaks, if any.
    pub fn check(&self, password: &Password) -> Result<(), PasswordRule> {
        let count = password.code_points();
        if count < self.code_points_min {
            return Err(PasswordRule::TooShort { code_points_min: self.code_points_min });
        }
        if count > self.code_points_max {
            return Err(PasswordRule::TooLong { code_points_max: self.code_points_max });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), PasswordRule> {
        PasswordPolicy::default().check(&Password::parse(text).expect("a password"))
    }

    #[test]
    fn length_is_counted_in_code_points_after_nfc() {
        assert_eq!(check(&"é".repeat(15)), Ok(()));
        assert_eq!(
            check(&"e\u{301}".repeat(14)),
            Err(PasswordRule::TooShort { code_points_min: 15 }),
            "28 code points before NFC"
        );
        assert_eq!(check(&"x".repeat(256)), Ok(()));
        assert_eq!(check(&"x".repeat(257)), Err(PasswordRule::TooLong { code_points_max: 256 }));
    }

    #[test]
    fn nothing_is_trimmed_or_cut() {
        for text in [format!(" {} ", "x".repeat(1_022)), "\0a\0".to_owned(), "\t\r\n".to_owned()] {
            assert_eq!(Password::parse(&text).expect("a password").expose(), text.as_bytes());
        }
    }

    #[test]
    fn the_longest_that_any_policy_allows_fits() {
        let widest = "\u{1f511}".repeat(CODE_POINTS_CEILING as usize);
        assert_eq!(widest.len(), BYTES_MAX);
        let policy = PasswordPolicy::new(CODE_POINTS_FLOOR, CODE_POINTS_CEILING).expect("a policy");
        assert_eq!(policy.check(&Password::parse(&widest).expect("a password")), Ok(()));
    }

    #[test]
    fn normalizing_leaves_no_copy_behind() {
        // The second grows threefold under NFC, which is the most that anything does.
        for text in
            ["\u{fb2c}".repeat(BYTES_MAX / 3), "\u{1d160}".repeat(BYTES_MAX / 4), "x".repeat(BYTES_MAX)]
        {
            let password = Password::parse(&text).expect("a password");
            assert!(password.expose().len() <= text.len() * 3);
            assert_eq!(password.0.capacity(), text.len() * 3, "the buffer was never moved");
        }
    }

    #[test]
    fn a_policy_stays_within_what_nist_allows() {
        let PasswordPolicy { code_points_min, code_points_max } = PasswordPolicy::default();
        assert_eq!(PasswordPolicy::new(code_points_min, code_points_max), Ok(PasswordPolicy::default()));
        for (min, max) in [(7, 256), (0, 256), (65, 64), (15, 63), (15, 1_025)] {
            assert!(PasswordPolicy::new(min, max).is_err(), "{min}..{max}");
        }
    }

    #[test]
    fn both_spellings_of_one_text_are_one_password() {
        let (composed, decomposed) = (Password::parse("é"), Password::parse("e\u{301}"));
        assert_eq!(composed.expect("valid").expose(), decomposed.expect("valid").expose());
    }

    #[test]
    fn empty_and_huge_are_refused_and_debug_shows_nothing() {
        assert!(Password::parse("").is_err());
        assert!(Password::parse(&"x".repeat(BYTES_MAX + 1)).is_err());
        assert_eq!(format!("{:?}", Password::parse("marker")), "Ok(Password(..))");
    }
}
