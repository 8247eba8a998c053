//! The login name: what a person types, and the key under which it is found.
//!
//! The key is the name under PRECIS `UsernameCaseMapped` (RFC 8265, section 3.3): width- and case-mapped, NFC, with
//! controls, spaces and unassigned code points refused. The display form is kept beside it.

use std::fmt;

use precis_core::profile::Profile as _;
use precis_profiles::UsernameCaseMapped;

use super::invalid::Invalid;

/// Code points a login name may have.
pub const CODE_POINTS_MAX: usize = 128;

/// A login name in both its forms. Two names are the same login exactly when their keys are the same bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct LoginName {
    display: String,
    key: String,
}

impl LoginName {
    /// Reads a name as typed.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Err(Invalid::new("must not be empty"));
        }
        // Four bytes are the most a code point takes; this keeps the mapping below from seeing a huge text.
        if text.len() > CODE_POINTS_MAX * 4 || text.chars().count() > CODE_POINTS_MAX {
            return Err(too_long());
        }
        let key = map(text)?;
        if key.chars().count() > CODE_POINTS_MAX {
            return Err(too_long());
        }
        // Only a name whose key maps to itself can be taken: otherwise two keys could lead to one person.
        if map(&key)? != key {
            return Err(Invalid::new("must have a stable form under RFC 8265 UsernameCaseMapped"));
        }
        Ok(Self { display: text.to_owned(), key })
    }

    /// The name read back from the database, where both forms were stored.
    pub fn from_stored(display: String, key: String) -> Self {
        Self { display, key }
    }

    /// The form that the person chose.
    pub fn display(&self) -> &str {
        &self.display
    }

    /// The form by which the name is found and compared, byte for byte.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// The name of a failed attempt may be a password typed in the wrong box, so `Debug` shows neither form.
impl fmt::Debug for LoginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoginName(..)")
    }
}

fn map(text: &str) -> Result<String, Invalid> {
    let refused = |_| {
        Invalid::new(
            "must be a user name under RFC 8265 UsernameCaseMapped: no spaces, controls or unassigned code points",
        )
    };
    UsernameCaseMapped::new().enforce(text).map(std::borrow::Cow::into_owned).map_err(refused)
}

fn too_long() -> Invalid {
    Invalid::new(format!("must have at most {CODE_POINTS_MAX} code points"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(text: &str) -> String {
        LoginName::parse(text).expect(text).key().to_owned()
    }

    #[test]
    fn names_that_people_take_for_one_are_one() {
        assert_eq!(key("Alice"), key("aLICE"));
        assert_eq!(key("ａｌｉｃｅ"), key("alice"), "full-width letters");
        assert_eq!(key("e\u{301}va"), key("\u{e9}va"), "composed and decomposed");
        assert_ne!(key("bob"), key("rob"));
        assert_eq!(LoginName::parse("Alice").expect("valid").display(), "Alice");
        assert_eq!(key("Ada@Example.org"), "ada@example.org");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "a".repeat(CODE_POINTS_MAX + 1);
        let huge = "a".repeat(1 << 20);
        for bad in [
            "",
            "a b",
            "bob ",
            " bob",
            "a\0b",
            "a\u{7}b",
            "\u{378}",
            "a\u{200b}b",
            long.as_str(),
            huge.as_str(),
        ] {
            assert!(LoginName::parse(bad).is_err(), "{:?}", bad.chars().take(20).collect::<String>());
        }
        assert!(LoginName::parse(&"a".repeat(CODE_POINTS_MAX)).is_ok());
        // Each of these becomes two code points in the key, which has to fit as well.
        assert!(LoginName::parse(&"\u{130}".repeat(CODE_POINTS_MAX / 2)).is_ok());
        assert!(LoginName::parse(&"\u{130}".repeat(CODE_POINTS_MAX / 2 + 1)).is_err());
    }

    #[test]
    fn the_examples_of_rfc_8265_hold() {
        // Section 3.5: these are names, each with this key.
        for (name, expected) in [
            ("juliet@example.com", "juliet@example.com"),
            ("fussball", "fussball"),
            ("fu\u{df}ball", "fu\u{df}ball"),
            ("\u{3c0}", "\u{3c0}"),
            ("\u{3a3}", "\u{3c3}"),
            ("\u{3c3}", "\u{3c3}"),
            ("\u{3c2}", "\u{3c2}"),
        ] {
            assert_eq!(key(name), expected, "{name}");
        }
        // These are not: a space, nothing, a compatibility character, a symbol.
        for name in ["foo bar", "", "henry\u{2163}", "\u{265a}"] {
            assert!(LoginName::parse(name).is_err(), "{name}");
        }
        // The directionality rule: no mixing that could be read as another name.
        assert!(LoginName::parse("\u{5d0}\u{5d1}").is_ok());
        assert!(LoginName::parse("\u{5d0}hello").is_err());
    }

    #[test]
    fn no_code_point_gives_an_unstable_or_unprintable_key() {
        // Behind the first four planes there are no letters yet; a sample says that nothing there is taken.
        for c in ('\0'..='\u{3ffff}').chain(('\u{40000}'..=char::MAX).step_by(997)) {
            // Behind an upper-case letter, since that is where mapping begins to look at each character.
            let Ok(name) = LoginName::parse(&format!("A{c}")) else { continue };
            assert!(c <= '\u{3ffff}', "U+{:04X}", u32::from(c));
            assert_eq!(key(name.key()), name.key(), "U+{:04X}", u32::from(c));
            let odd = |c: char| c.is_uppercase() || c.is_control() || c.is_whitespace();
            assert!(!name.key().contains(odd), "U+{:04X}", u32::from(c));
        }
    }

    #[test]
    fn the_display_form_is_bounded_and_debug_shows_neither() {
        assert_eq!(format!("{:?}", LoginName::parse("marker")), "Ok(LoginName(..))");
        // The longest names in bytes: they must fit the columns of every database.
        let longest = "\u{10400}".repeat(CODE_POINTS_MAX);
        let name = LoginName::parse(&longest).expect("Deseret letters");
        assert_eq!((name.display().len(), name.key().len()), (CODE_POINTS_MAX * 4, CODE_POINTS_MAX * 4));
    }

    #[test]
    fn the_name_of_the_big_take_over_is_refused_or_stable() {
        // U+1D2E and friends: a mapping that was not idempotent once let one user take another's account.
        for name in [
            "\u{1d2e}igbird",
            "\u{1d2e}\u{1d35}\u{1d33}",
            "\u{fb01}n",
            "\u{1e9e}",
            "\u{130}stanbul",
            "\u{3a3}\u{3a3}",
        ] {
            if let Ok(read) = LoginName::parse(name) {
                assert_eq!(key(read.key()), read.key(), "{name:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_key_of_a_key_is_itself(text in "\\PC{1,40}") {
            if let Ok(name) = LoginName::parse(&text) {
                prop_assert_eq!(key(name.key()), name.key());
            }
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = LoginName::parse(&text);
        }
    }
}
