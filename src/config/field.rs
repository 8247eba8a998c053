//! The settings as data: key, names, kind, default and description of each, read off the struct itself.

use confique::Config as _;
use confique::meta::{FieldKind, LeafKind, Meta};

use super::{Config, limits};

/// Keys that only make sense in the file.
const FILE_ONLY: [&str; 1] = ["callers"];
/// Keys that are secrets as a whole: not in a file that is copied around, not in arguments that everybody sees.
const ENVIRONMENT_ONLY: [&str; 1] = ["token_keys"];

/// One setting.
#[derive(Clone, Debug)]
pub struct Field {
    /// The key in the file, with its section: `session.lifetime_s`.
    pub key: String,
    /// The doc lines, as written.
    pub doc: Vec<String>,
    /// What it holds.
    pub kind: Kind,
    /// What it is when nobody says anything; none where it is then absent.
    pub default: Option<toml::Value>,
}

/// What a setting holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A whole number within bounds.
    Integer {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// true or false.
    Bool,
    /// A text.
    Text,
    /// A table of its own.
    Table,
}

impl Field {
    /// The section, empty at the top, and the name within it.
    pub fn section_and_name(&self) -> (&str, &str) {
        self.key.split_once('.').unwrap_or(("", &self.key))
    }

    /// The environment variable that sets it.
    pub fn env(&self) -> Option<String> {
        let settable = !FILE_ONLY.contains(&self.key.as_str());
        settable.then(|| format!("LATCHKEY_{}", self.key.replace('.', "_").to_uppercase()))
    }

    /// The flag that sets it, without dashes in front.
    pub fn flag(&self) -> Option<String> {
        let settable = self.env().is_some() && self.in_file();
        settable.then(|| self.key.replace(['.', '_'], "-"))
    }

    /// Whether the file may set it.
    pub fn in_file(&self) -> bool {
        !ENVIRONMENT_ONLY.contains(&self.key.as_str())
    }

    /// The default as people write it, where there is one.
    pub fn default_text(&self) -> Option<String> {
        match self.default.as_ref()? {
            toml::Value::String(text) => Some(text.clone()),
            value => Some(value.to_string()),
        }
    }

    /// The description as one paragraph, with the bounds.
    pub fn help(&self) -> String {
        let text = self.doc.join(" ");
        match self.kind {
            Kind::Integer { min, max } => format!("{text} ({min} to {max})"),
            Kind::Bool | Kind::Text | Kind::Table => text,
        }
    }
}

/// All settings in the order of the struct.
pub fn fields() -> Vec<Field> {
    let mut fields = Vec::new();
    collect(&Config::META, "", &mut fields);
    fields
}

fn collect(meta: &Meta, prefix: &str, into: &mut Vec<Field>) {
    for field in meta.fields {
        let key = format!("{prefix}{}", field.name);
        let default = match field.kind {
            FieldKind::Nested { meta } => {
                collect(meta, &format!("{key}."), into);
                continue;
            }
            FieldKind::Leaf { kind: LeafKind::Required { default }, .. } => default,
            FieldKind::Leaf { kind: LeafKind::Optional, .. } => None,
        };
        let default = default
            .map(|value| toml::Value::try_from(value).expect("a default of the struct is a TOML value"));
        let kind = match &default {
            Some(toml::Value::Integer(_)) => {
                let (min, max) = limits::range(&key).expect("every number has bounds, as a test proves");
                Kind::Integer { min, max }
            }
            Some(toml::Value::Boolean(_)) => Kind::Bool,
            Some(toml::Value::Table(_)) => Kind::Table,
            _ => Kind::Text,
        };
        let doc = field.doc.iter().map(|line| line.trim().to_owned()).collect();
        into.push(Field { key, doc, kind, default });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_setting_is_described_and_has_names_of_its_own() {
        let fields = fields();
        assert!(fields.len() > 40);
        for field in &fields {
            let doc = field.doc.join(" ");
            assert!(doc.len() > 10 && doc.ends_with('.'), "{}: {doc:?}", field.key);
            assert_eq!(field.flag().is_none(), ["token_keys", "callers"].contains(&field.key.as_str()));
        }
        let named = |name: fn(&Field) -> Option<String>| fields.iter().filter_map(name).collect::<Vec<_>>();
        for names in [named(Field::env), named(Field::flag)] {
            assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "two settings share a name");
        }
    }

    #[test]
    fn names_follow_from_the_key() {
        let fields = fields();
        let field = fields.iter().find(|field| field.key == "session.idle_limit_s").expect("the setting");
        assert_eq!(field.env().as_deref(), Some("LATCHKEY_SESSION_IDLE_LIMIT_S"));
        assert_eq!(field.flag().as_deref(), Some("session-idle-limit-s"));
        assert_eq!(field.section_and_name(), ("session", "idle_limit_s"));
        assert_eq!(field.default, Some(toml::Value::Integer(3_600)));
        assert!(field.help().ends_with("(120 to 315360000)"));
    }

    #[test]
    fn durations_and_sizes_have_their_unit_last() {
        let units = ["_s", "_ms", "_kib", "_max", "_min", "_burst", "_per_minute", "_batch"];
        let unitless = ["argon2_iterations", "argon2_parallelism", "hash_threads"];
        for field in fields().iter().filter(|field| matches!(field.kind, Kind::Integer { .. })) {
            let (_, name) = field.section_and_name();
            assert!(units.iter().any(|unit| name.ends_with(unit)) || unitless.contains(&name), "{name}");
        }
    }
}
