//! The URL of the database: parsed once, where it is configured, and used in this form everywhere.
//!
//! Nothing here shows a password: `Debug` and [`DatabaseUrl::masked`] replace it, and no error repeats a part of the URL
//! that may hold one. Only [`ServerUrl::driver_url`] has it, for the database driver.

mod server;
mod sqlite;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde::de::Error as _;
use zeroize::Zeroizing;

pub use self::server::{Host, ServerEngine, ServerUrl, SessionTarget};
pub use self::sqlite::SqliteUrl;

/// Where users and sessions are stored.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A SQLite file, or a SQLite database in memory.
    Sqlite(SqliteUrl),
    /// One or more servers.
    Server(ServerUrl),
}

/// Why a text is no database URL. Completes the sentence "`database_url`: ...".
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidUrl(String);

impl InvalidUrl {
    fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl DatabaseUrl {
    /// Parses a URL.
    pub fn parse(text: &str) -> Result<Self, InvalidUrl> {
        if text.chars().any(char::is_control) {
            return Err(InvalidUrl::new("a control character must be percent-encoded"));
        }
        match text.split_once(':') {
            Some(("sqlite", _)) => SqliteUrl::parse(text).map(Self::Sqlite),
            Some((scheme @ ("postgres" | "postgresql"), rest)) => {
                ServerUrl::parse(ServerEngine::Postgres, scheme, rest).map(Self::Server)
            }
            Some((scheme @ ("mysql" | "mariadb"), rest)) => {
                ServerUrl::parse(ServerEngine::MariaDb, scheme, rest).map(Self::Server)
            }
            _ => Err(InvalidUrl::new("must begin with sqlite:, postgres: or mysql:")),
        }
    }

    /// The URL of a SQLite file, which is created if it is missing.
    pub fn of_sqlite_file(file: &Path) -> Self {
        Self::Sqlite(SqliteUrl::of_file(file))
    }

    /// Whether several nodes can share the database, and so must have the same keys.
    pub const fn is_shared(&self) -> bool {
        matches!(self, Self::Server(_))
    }

    /// Whether the database is MariaDB.
    pub fn is_mariadb(&self) -> bool {
        matches!(self, Self::Server(server) if server.engine() == ServerEngine::MariaDb)
    }

    /// The SQLite file; none for a database in memory, and for one that is shared.
    pub fn sqlite_file(&self) -> Option<PathBuf> {
        match self {
            Self::Sqlite(sqlite) => sqlite.file().map(Path::to_owned),
            Self::Server(_) => None,
        }
    }

    /// The URL with `***` in the place of the password.
    pub fn masked(&self) -> String {
        match self {
            Self::Sqlite(sqlite) => sqlite.text().to_owned(),
            Self::Server(server) => server.masked(),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({})", self.masked())
    }
}

impl<'de> Deserialize<'de> for DatabaseUrl {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(from)?);
        Self::parse(&text).map_err(D::Error::custom)
    }
}

/// The parameters of a URL: names as they are written, values decoded. As in libpq, `+` stands for itself.
fn parameters<'q>(query: &'q str, known: &[&str]) -> Result<Vec<(&'q str, String)>, InvalidUrl> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let pairs: Vec<_> = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
    if let Some((name, _)) = pairs.iter().find(|(name, _)| !known.contains(name)) {
        return Err(unknown_parameter(name, query, known));
    }
    pairs.into_iter().map(|(name, value)| Ok((name, decode(value)?))).collect()
}

/// The driver logs a parameter that it does not know with its value, which may be a password, or ignores it, and with it a
/// misspelt wish for protection. The name is not repeated either where it may be a part of a password.
fn unknown_parameter(name: &str, query: &str, known: &[&str]) -> InvalidUrl {
    let is_word = name.bytes().all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'_'));
    let may_be_secret = query.contains('@') || query.contains("password=");
    let name = if is_word && !may_be_secret { format!(" {name}") } else { String::new() };
    InvalidUrl::new(format!("has an unknown parameter{name}; known are {}", known.join(", ")))
}

fn decode(text: &str) -> Result<String, InvalidUrl> {
    let starts_code = |rest: &str| {
        rest.len() >= 2
            && rest.bytes().take(2).all(|digit| digit.is_ascii_hexdigit())
            && !rest.starts_with("00")
    };
    if !text.split('%').skip(1).all(starts_code) {
        return Err(InvalidUrl::new(
            "each % must begin the code of a character, such as %20 for a space and %25 for % itself",
        ));
    }
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(String::from).map_err(|_| InvalidUrl::new("what is percent-encoded must be UTF-8"))
}
