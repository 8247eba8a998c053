//! What is wrong with a configuration, and where: always the place that a person would open to mend it.

use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Nobody gave one.
    Default,
    /// A line of the configuration file, counted from 1.
    File(PathBuf, usize),
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// One thing that is wrong. Never repeats a value, which may be a secret in the wrong place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Where to mend it.
    pub origin: Origin,
    /// Which setting, where the place alone does not say it.
    pub key: Option<String>,
    /// What is wrong.
    pub what: String,
}

impl Problem {
    /// A problem with a setting.
    pub(super) fn of(origin: Origin, key: &str, what: impl Into<String>) -> Self {
        Self { origin, key: Some(key.to_owned()), what: what.into() }
    }

    /// A problem with the place itself.
    pub(super) fn at(origin: Origin, what: impl Into<String>) -> Self {
        Self { origin, key: None, what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.key, &self.origin) {
            // Variables and flags are named after their setting.
            (None, _) | (_, Origin::Environment(_) | Origin::Flag(_)) => {
                write!(f, "{}: {}", self.origin, self.what)
            }
            (Some(key), _) => write!(f, "{}: {key}: {}", self.origin, self.what),
        }
    }
}

/// Everything that is wrong with a configuration, so that it can be mended in one go.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigErrors(pub Vec<Problem>);

/// A hint at the name that was probably meant.
pub(super) fn did_you_mean<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> String {
    const SIMILARITY_MIN: f64 = 0.75;
    let scored = names.map(|name| (strsim::jaro_winkler(wrong, name), name));
    let best = scored.max_by(|one, other| one.0.total_cmp(&other.0));
    match best {
        Some((score, name)) if score >= SIMILARITY_MIN => format!("; did you mean {name}?"),
        _ => String::new(),
    }
}
