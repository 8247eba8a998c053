//! Hashes made elsewhere: which are taken, and what is said of those that are not.
//!
//! A bare hash is never guessed to be of a kind, and no refusal repeats any of the value: it is a secret of somebody.

use crate::domain::invalid::Invalid;
use crate::domain::password::PasswordHash;

use super::argon::StoredHash;

/// Characters an imported hash may have; the longest that is taken is far shorter.
const CHARS_MAX: usize = 512;

/// How a hash of each other kind begins, and what to call it. The first that fits names it.
const OTHERS: [(&str, &str); 31] = [
    ("$argon2id$", "an Argon2id hash of another version"),
    ("$argon2i$", "an Argon2i hash"),
    ("$argon2d$", "an Argon2d hash"),
    ("$2a$", "a bcrypt hash"),
    ("$2b$", "a bcrypt hash"),
    ("$2x$", "a bcrypt hash"),
    ("$2y$", "a bcrypt hash"),
    ("$scrypt$", "a scrypt hash"),
    ("$pbkdf2", "a PBKDF2 hash"),
    ("$1$", "an MD5-crypt hash"),
    ("$apr1$", "an MD5-crypt hash"),
    ("$5$", "a SHA-256-crypt hash"),
    ("$6$", "a SHA-512-crypt hash"),
    ("$7$", "a scrypt hash"),
    ("$y$", "a yescrypt hash"),
    ("$gy$", "a yescrypt hash"),
    ("scrypt:", "a Werkzeug scrypt hash"),
    ("pbkdf2:", "a Werkzeug PBKDF2 hash"),
    ("pbkdf2_", "a Django PBKDF2 hash"),
    ("bcrypt_sha256$", "a Django bcrypt hash"),
    ("bcrypt$", "a Django bcrypt hash"),
    ("argon2$", "a Django hash with a prefix of its own before the PHC string"),
    ("scrypt$", "a Django scrypt hash"),
    ("md5$", "a salted MD5 hash of Django or Werkzeug"),
    ("sha1$", "a salted SHA-1 hash of Django or Werkzeug"),
    ("sha256$", "a salted SHA-256 hash of Werkzeug"),
    ("sha512$", "a salted SHA-512 hash of Werkzeug"),
    ("{SSHA", "a salted SHA hash of LDAP"),
    ("{SHA", "a SHA hash of LDAP"),
    ("{CRYPT}", "a crypt hash of LDAP"),
    ("!", "the mark of a password that was made unusable"),
];

/// Whether hashes that are said to be of `scheme` are taken; empty where the text says itself what it is.
pub fn check_scheme(scheme: &str) -> Result<(), Invalid> {
    match scheme {
        "" | "argon2id" => Ok(()),
        "md5" | "sha1" | "sha256" => {
            Err(Invalid::new("names a bare digest, which is not taken yet; Argon2id PHC strings are"))
        }
        _ => Err(Invalid::new("names a scheme that is not known; argon2id is")),
    }
}

/// Takes a hash made elsewhere, of a scheme that [`check_scheme`] takes.
pub fn import(text: &str, scheme: &str) -> Result<PasswordHash, Invalid> {
    check_scheme(scheme)?;
    if text.is_empty() || text.len() > CHARS_MAX {
        return Err(Invalid::new(format!("must have 1 to {CHARS_MAX} characters")));
    }
    match StoredHash::parse(text) {
        Ok(_) => Ok(PasswordHash::from_phc(text.to_owned())),
        // A string of the scheme that is taken hears what is wrong with it; any other, what it is.
        Err(why) if text.starts_with("$argon2id$v=19$") => Err(why),
        Err(_) => Err(not_taken(text)),
    }
}

fn not_taken(text: &str) -> Invalid {
    if let Some((_, name)) = OTHERS.iter().find(|(prefix, _)| text.starts_with(prefix)) {
        return Invalid::new(format!("is {name}, which is not taken yet; Argon2id PHC strings are"));
    }
    let digest_len = matches!(text.len(), 32 | 40 | 56 | 64 | 96 | 128);
    if digest_len && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Invalid::new(
            "is bare hexadecimal, which does not say of which scheme it is; a scheme must be given with it",
        );
    }
    Invalid::new("is no hash of a known kind; Argon2id PHC strings are taken")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ARGON2ID: &str =
        "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

    fn refusal(text: &str, scheme: &str) -> String {
        import(text, scheme).expect_err("is refused").to_string()
    }

    #[test]
    fn argon2id_is_taken_as_it_is() {
        for scheme in ["", "argon2id"] {
            assert_eq!(import(ARGON2ID, scheme).expect("taken").expose(), ARGON2ID);
        }
    }

    #[test]
    fn what_is_not_taken_is_named() {
        for (text, name) in [
            ("$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW", "a bcrypt hash"),
            (
                "$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$/U3YPXYsSb3q9XxHvc0MLxur+GP960kN9j7emXX8zwY",
                "Argon2i ",
            ),
            (
                "$argon2id$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
                "another version",
            ),
            ("scrypt:32768:8:1$salt$00", "Werkzeug scrypt"),
            ("pbkdf2:sha256:600000$salt$00", "Werkzeug PBKDF2"),
            ("pbkdf2_sha256$600000$salt$AAAA", "Django PBKDF2"),
            (&format!("argon2{ARGON2ID}"), "Django hash"),
            ("$6$salt$hash", "SHA-512-crypt"),
            ("!x", "unusable"),
            ("5f4dcc3b5aa765d61d8327deb882cf99", "a scheme must be given"),
            ("5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD8", "a scheme must be given"),
            ("hunter2", "no hash of a known kind"),
        ] {
            assert!(refusal(text, "").contains(name), "{name}: {}", refusal(text, ""));
        }
        assert!(refusal("5f4dcc3b5aa765d61d8327deb882cf99", "md5").contains("bare digest"));
        assert!(refusal(ARGON2ID, "rot13").contains("not known"));
        assert!(refusal("", "").contains("must have"));
        assert!(refusal(&"$".repeat(CHARS_MAX + 1), "").contains("must have"));
    }

    #[test]
    fn a_hostile_cost_is_named() {
        assert!(refusal(&ARGON2ID.replace("m=65536", "m=4000000000"), "").contains("KiB of memory"));
        assert!(refusal(&ARGON2ID.replace("t=2", "t=100"), "").contains("iterations"));
        assert!(refusal("$argon2id$v=19$marker", "").contains("PHC string"));
    }

    proptest! {
        #[test]
        fn no_refusal_repeats_the_value(text in "[a-z0-9$]{0,4}marker[a-zA-Z0-9$]{0,80}", scheme in "md5|argon2id|marker|") {
            prop_assert!(!refusal(&text, &scheme).contains("marker"));
        }
    }
}
