//! Reads the configuration file: a strict walk that knows the line of everything it finds.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize as _;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::error::{Origin, Problem, did_you_mean};
use super::field::{Field, Kind};
use super::value::Caller;

/// A setting that somebody gave.
pub(super) struct Given {
    pub(super) key: String,
    pub(super) value: toml::Value,
    pub(super) origin: Origin,
}

/// Reads a file that `origin` names. Whether values fit their settings is checked by the caller, as for values from elsewhere.
pub(super) fn read(path: &Path, origin: Origin, fields: &[Field], problems: &mut Vec<Problem>) -> Vec<Given> {
    match fs::read_to_string(path) {
        Ok(text) => Walk { path, text: &text, fields, problems, given: Vec::new() }.document(),
        Err(error) => {
            let what = format!("cannot read {}: {error}", path.display());
            problems.push(Problem::at(origin, what));
            Vec::new()
        }
    }
}

/// A key or a value with the place it was found at.
type Entry<'a> = (&'a Spanned<std::borrow::Cow<'a, str>>, &'a Spanned<DeValue<'a>>);

struct Walk<'w> {
    path: &'w Path,
    text: &'w str,
    fields: &'w [Field],
    problems: &'w mut Vec<Problem>,
    given: Vec<Given>,
}

impl Walk<'_> {
    fn document(mut self) -> Vec<Given> {
        let text = self.text;
        match DeTable::parse(text) {
            Ok(document) => document.get_ref().iter().for_each(|entry| self.top(entry)),
            // Only the message: the whole error quotes the line, which may hold a password.
            Err(error) => {
                let origin = self.origin(error.span().map_or(0, |span| span.start));
                self.problems.push(Problem::at(origin, format!("not TOML: {}", error.message())));
            }
        }
        self.given
    }

    fn top(&mut self, (name, value): Entry<'_>) {
        let key = name.get_ref().as_ref();
        let section = format!("{key}.");
        if !self.fields.iter().any(|field| field.key.starts_with(&section)) {
            self.setting(key, (name, value));
        } else if let Some(table) = value.get_ref().as_table() {
            for entry in table {
                self.setting(&format!("{section}{}", entry.0.get_ref()), entry);
            }
        } else {
            self.refuse(name, key, format!("is a section: write [{key}] and its settings below"));
        }
    }

    fn setting(&mut self, key: &str, (name, value): Entry<'_>) {
        let fields = self.fields;
        let Some(field) = fields.iter().find(|field| field.key == key) else {
            let hint = self.hint(key);
            return self.refuse(name, key, format!("there is no such setting{hint}"));
        };
        if !field.in_file() {
            let variable = field.env().unwrap_or_default();
            return self.refuse(name, key, format!("is not taken from a file: use the variable {variable}"));
        }
        if field.kind == Kind::Table && !self.callers(value) {
            return;
        }
        let origin = self.origin(name.span().start);
        match plain(value) {
            Ok(value) => self.given.push(Given { key: key.to_owned(), value, origin }),
            Err(what) => self.problems.push(Problem::of(origin, key, what)),
        }
    }

    /// Checks the table of callers one entry at a time, so that each mistake is named with its line.
    fn callers(&mut self, callers: &Spanned<DeValue<'_>>) -> bool {
        let problems_before = self.problems.len();
        let Some(table) = callers.get_ref().as_table() else {
            self.refuse(callers, "callers", "must be sections, such as [callers.shop]");
            return false;
        };
        for (name, value) in table {
            let key = format!("callers.{}", name.get_ref());
            if !is_caller_name(name.get_ref()) {
                self.refuse(name, "callers", "a name has 1 to 64 ASCII letters, digits or any of _ - .");
            } else if let Some(caller) = value.get_ref().as_table() {
                self.caller(&key, (name, value), caller);
            } else {
                self.refuse(name, &key, "must be a section with key_sha256 and allow");
            }
        }
        self.problems.len() == problems_before
    }

    fn caller(&mut self, key: &str, (name, value): Entry<'_>, caller: &DeTable<'_>) {
        const NAMES: [&str; 2] = ["key_sha256", "allow"];
        let lines: BTreeMap<&str, usize> =
            caller.keys().map(|name| (name.get_ref().as_ref(), name.span().start)).collect();
        for (name, at) in lines.iter().filter(|(name, _)| !NAMES.contains(name)) {
            let hint = did_you_mean(name, NAMES.into_iter());
            let problem = Problem::of(
                self.origin(*at),
                &format!("{key}.{name}"),
                format!("there is no such setting{hint}"),
            );
            self.problems.push(problem);
        }
        for missing in NAMES.iter().filter(|name| !lines.contains_key(*name)) {
            self.refuse(name, key, format!("{missing} is missing"));
        }
        if !lines.keys().copied().eq(["allow", "key_sha256"]) {
            return;
        }
        match Caller::deserialize(ValueDeserializer::from(value.clone())) {
            Ok(read) => {
                for pattern in read.allow.iter().filter(|pattern| !is_pattern(pattern)) {
                    let what =
                        format!("{pattern:?} is not of the form package.Service/Method or package.Service/*");
                    let origin = self.origin(lines["allow"]);
                    self.problems.push(Problem::of(origin, &format!("{key}.allow"), what));
                }
            }
            Err(error) => {
                let origin = self.origin(error.span().map_or(name.span().start, |span| span.start));
                self.problems.push(Problem::of(origin, key, error.message()));
            }
        }
    }

    /// The setting that an unknown key was probably meant to be; perhaps one of a section that was not opened.
    fn hint(&self, key: &str) -> String {
        let keys = || self.fields.iter().map(|field| field.key.as_str());
        if key.contains('.') {
            return did_you_mean(key, keys());
        }
        match self.fields.iter().find(|field| field.section_and_name().1 == key) {
            Some(field) => format!("; did you mean {}?", field.key),
            None => {
                did_you_mean(key, keys().map(|key| key.split_once('.').map_or(key, |(section, _)| section)))
            }
        }
    }

    fn refuse<T>(&mut self, place: &Spanned<T>, key: &str, what: impl Into<String>) {
        let origin = self.origin(place.span().start);
        self.problems.push(Problem::of(origin, key, what));
    }

    fn origin(&self, at: usize) -> Origin {
        let line = 1 + self.text.get(..at).unwrap_or_default().matches('\n').count();
        Origin::File(self.path.to_owned(), line)
    }
}

/// The value without its places.
fn plain(value: &Spanned<DeValue<'_>>) -> Result<toml::Value, String> {
    toml::Value::deserialize(ValueDeserializer::from(value.clone()))
        .map_err(|error| error.message().to_owned())
}

fn is_caller_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

/// Whether the text names one RPC, or all of one service. What is served is not known here.
fn is_pattern(text: &str) -> bool {
    let word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    text.split_once('/').is_some_and(|(service, method)| {
        service.contains('.') && service.split('.').all(word) && (method == "*" || word(method))
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Config, ConfigErrors, Sources, load};
    use super::*;

    const SHOP: &str = "0000000000000000000000000000000000000000000000000000000000000000";

    fn read(text: &str) -> Result<Config, ConfigErrors> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("latchkey.toml");
        fs::write(&path, text).expect("a file");
        let mut read = load(&Sources { file: Some(path), ..Sources::default() });
        for problem in read.as_mut().err().into_iter().flat_map(|errors| &mut errors.0) {
            if let Origin::File(path, _) = &mut problem.origin {
                *path = "latchkey.toml".into();
            }
        }
        read.map(|loaded| loaded.config)
    }

    /// The problems, one a line.
    fn refused(text: &str) -> String {
        read(text).expect_err("refused").to_string()
    }

    #[test]
    fn mistakes_in_the_file_are_named_with_file_line_and_key() {
        for (text, said) in [
            (
                "\n[session]\nidle_limit = 5\n",
                "latchkey.toml:3: session.idle_limit: there is no such setting; did you mean session.idle_limit_s?",
            ),
            (
                "lifetime_s = 5\n",
                "latchkey.toml:1: lifetime_s: there is no such setting; did you mean session.lifetime_s?",
            ),
            ("[sesion]\nx = 5\n", "latchkey.toml:1: sesion: there is no such setting; did you mean session?"),
            (
                "[session]\nlifetime_s = 0\n",
                "latchkey.toml:2: session.lifetime_s: must be a whole number from 1 to 315360000",
            ),
            (
                "[session]\nlifetime_s = 315360001\n",
                "latchkey.toml:2: session.lifetime_s: must be a whole number from 1 to 315360000",
            ),
            (
                "[session]\nlifetime_s = -1\n",
                "latchkey.toml:2: session.lifetime_s: must be a whole number from 1 to 315360000",
            ),
            (
                "[session]\nlifetime_s = \"1h\"\n",
                "latchkey.toml:2: session.lifetime_s: must be a whole number from 1 to 315360000",
            ),
            ("insecure = 1\n", "latchkey.toml:1: insecure: must be true or false"),
            ("listen = 1\n", "latchkey.toml:1: listen: must be a text in quotes"),
            (
                "listen = \"here\"\n",
                "latchkey.toml:1: listen: must be an IP address and a port, such as 127.0.0.1:50051",
            ),
            (
                "http_listen = \"here\"\n",
                "latchkey.toml:1: http_listen: must be an IP address and a port, such as 127.0.0.1:9464, or \"off\"",
            ),
            (
                "database_url = \"marker\"\n",
                "latchkey.toml:1: database_url: must begin with sqlite:, postgres: or mysql:",
            ),
            (
                "[log]\nformat = \"xml\"\n",
                "latchkey.toml:2: log.format: unknown variant `xml`, expected one of `auto`, `text`, `json`",
            ),
            (
                "session = 1\n",
                "latchkey.toml:1: session: is a section: write [session] and its settings below",
            ),
            (
                "token_keys = \"marker\"\n",
                "latchkey.toml:1: token_keys: is not taken from a file: use the variable LATCHKEY_TOKEN_KEYS",
            ),
            (
                "\n\n[password]\ncode_points_min = 80\ncode_points_max = 70\n",
                "latchkey.toml:4: password.code_points_min: must not be above password.code_points_max, which is 70",
            ),
        ] {
            assert_eq!(refused(text), said);
        }
    }

    #[test]
    fn text_that_is_not_toml_is_named_by_line_and_never_quoted() {
        let refused = refused("insecure = false\ndatabase_url = \"marker\n");
        assert!(refused.starts_with("latchkey.toml:2: not TOML: "), "{refused}");
        assert!(!refused.contains("marker"), "{refused}");
    }

    #[test]
    fn callers_are_read_and_their_mistakes_named_one_by_one() {
        let good =
            format!("[callers.shop]\nkey_sha256 = \"{SHOP}\"\nallow = [\"latchkey.v1.AuthService/*\"]\n");
        let config = read(&good).expect("it holds");
        assert_eq!(config.callers["shop"].key_sha256.0, [0; 32]);
        assert_eq!(config.callers["shop"].allow, ["latchkey.v1.AuthService/*"]);
        let twice = format!("{good}{}", good.replace("shop", "till"));
        for (text, said) in [
            (
                good.replace("allow", "alow"),
                "latchkey.toml:3: callers.shop.alow: there is no such setting; did you mean allow?\nlatchkey.toml:1: callers.shop: allow is missing",
            ),
            (
                good.replace("0\"", "x\""),
                "latchkey.toml:2: callers.shop: must be the SHA-256 of the API key, 64 hexadecimal digits (sha256sum prints it)",
            ),
            (
                good.replace("AuthService/*", "AuthService"),
                "latchkey.toml:3: callers.shop.allow: \"latchkey.v1.AuthService\" is not of the form package.Service/Method or package.Service/*",
            ),
            (
                good.replace("shop", "\"the shop\""),
                "latchkey.toml:1: callers: a name has 1 to 64 ASCII letters, digits or any of _ - .",
            ),
            (
                "callers = 1\n".to_owned(),
                "latchkey.toml:1: callers: must be sections, such as [callers.shop]",
            ),
            (twice, "latchkey.toml:1: callers: shop and till have the same key: give each its own"),
        ] {
            assert_eq!(refused(&text), said);
        }
    }
}
