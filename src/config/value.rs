//! The kinds of values that are more than a number or a text: each is checked when it is read, and the secret ones show
//! nothing of themselves in `Debug`.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::Error as _;
use zeroize::Zeroizing;

/// Reads an address, with an error that shows what one looks like.
pub(super) fn socket_address<'de, D: serde::Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let bad = |_| D::Error::custom("must be an IP address and a port, such as 127.0.0.1:50051");
    String::deserialize(from)?.parse().map_err(bad)
}

/// Where HTTP is served, if it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HttpListen {
    /// Nowhere.
    Off,
    /// On this address.
    At(SocketAddr),
}

impl<'de> Deserialize<'de> for HttpListen {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text.is_empty() || text == "off" {
            return Ok(Self::Off);
        }
        let bad =
            |_| D::Error::custom("must be an IP address and a port, such as 127.0.0.1:9464, or \"off\"");
        text.parse().map(Self::At).map_err(bad)
    }
}

/// What happens to a session that is used from another device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Binding {
    /// Nothing.
    None,
    /// It is not fresh.
    Basic,
    /// It ends.
    Strong,
}

/// The form of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// The address of the database, which may hold a password: `Debug` and [`DatabaseUrl::masked`] leave it out.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(Zeroizing<String>);

impl DatabaseUrl {
    /// The whole URL, for the driver and nobody else.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The URL of a SQLite file, which is made if it is missing.
    pub fn of_sqlite_file(file: &Path) -> Self {
        Self(Zeroizing::new(format!("sqlite://{}?mode=rwc", file.display())))
    }

    /// Whether many nodes can share it, and so must be given the same keys.
    pub fn is_shared(&self) -> bool {
        !self.0.starts_with("sqlite:")
    }

    /// Whether it is on MariaDB.
    pub fn is_mariadb(&self) -> bool {
        self.0.starts_with("mysql:") || self.0.starts_with("mariadb:")
    }

    /// The SQLite file; none for a database in memory, and for one that is shared.
    pub fn sqlite_file(&self) -> Option<PathBuf> {
        let rest = self.0.strip_prefix("sqlite:")?;
        let file = rest.strip_prefix("//").unwrap_or(rest);
        let (file, query) = file.split_once('?').unwrap_or((file, ""));
        let in_memory = file == ":memory:" || query.contains("mode=memory");
        (!in_memory).then(|| PathBuf::from(file))
    }

    /// The URL with `***` in the place of every password.
    pub fn masked(&self) -> String {
        mask(&self.0)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({})", self.masked())
    }
}

impl<'de> Deserialize<'de> for DatabaseUrl {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        const SCHEMES: [&str; 5] = ["sqlite:", "postgres:", "postgresql:", "mysql:", "mariadb:"];
        let text = Zeroizing::new(String::deserialize(from)?);
        if !SCHEMES.iter().any(|scheme| text.starts_with(scheme)) {
            return Err(D::Error::custom("must begin with sqlite:, postgres: or mysql:"));
        }
        Ok(Self(text))
    }
}

/// Replaces the password of a URL, in its authority or its query. What cannot be told apart is left out whole.
pub(super) fn mask(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return hide_without_authority(url) };
    let (address, query) =
        rest.split_once('?').map_or((rest, None), |(address, query)| (address, Some(query)));
    // The last @ ends the credentials, since a password that was not percent-encoded may hold one itself.
    let address = match address.rsplit_once('@') {
        Some((credentials, host)) => match credentials.split_once(':') {
            Some((user, _)) => format!("{user}:***@{host}"),
            None => address.to_owned(),
        },
        None => address.to_owned(),
    };
    let hide = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if name.to_ascii_lowercase().contains("pass") => format!("{name}=***"),
        _ => pair.to_owned(),
    };
    let query = query.map(|query| query.split('&').map(hide).collect::<Vec<_>>().join("&"));
    // A question mark inside a password splits it in two, and the @ is then behind it.
    match query {
        Some(query) if query.contains('@') => format!("{scheme}://***"),
        Some(query) => format!("{scheme}://{address}?{query}"),
        None => format!("{scheme}://{address}"),
    }
}

fn hide_without_authority(url: &str) -> String {
    match url.split_once(':') {
        Some(("sqlite", file)) => format!("sqlite:{file}"),
        Some((scheme, _)) => format!("{scheme}:***"),
        None => "***".to_owned(),
    }
}

/// A text that nothing prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The text, for its one user.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|text| Self(Zeroizing::new(text)))
    }
}

/// A service that may call.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Caller {
    /// SHA-256 of its API key, 64 hexadecimal digits.
    pub key_sha256: ApiKeyDigest,
    /// What it may call: `package.Service/Method` or `package.Service/*`.
    pub allow: Vec<String>,
}

/// The SHA-256 of an API key. Of no use for calling.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ApiKeyDigest(pub [u8; 32]);

impl fmt::Debug for ApiKeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeyDigest(..)")
    }
}

impl<'de> Deserialize<'de> for ApiKeyDigest {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        hex_digest(&text).map(Self).ok_or_else(|| {
            D::Error::custom(
                "must be the SHA-256 of the API key, 64 hexadecimal digits (sha256sum prints it)",
            )
        })
    }
}

fn hex_digest(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut digest = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_spelling_of_a_url_shows_its_password() {
        for (url, shown) in [
            ("postgres://ada:marker@db/latchkey", "postgres://ada:***@db/latchkey"),
            ("postgres://ada:mar@ker@db/latchkey", "postgres://ada:***@db/latchkey"),
            ("postgres://ada:mar/ker@db/latchkey", "postgres://ada:***@db/latchkey"),
            ("postgres://ada:mar?ker@db/latchkey", "postgres://***"),
            ("postgres://db/l?user=a&Password=marker", "postgres://db/l?user=a&Password=***"),
            ("mysql://ada@db/latchkey?ssl-mode=required", "mysql://ada@db/latchkey?ssl-mode=required"),
            ("postgres:marker", "postgres:***"),
            ("marker", "***"),
            ("sqlite::memory:", "sqlite::memory:"),
            ("sqlite://latchkey.db?mode=rwc", "sqlite://latchkey.db?mode=rwc"),
        ] {
            assert_eq!(mask(url), shown);
        }
    }

    #[test]
    fn a_sqlite_url_names_its_file() {
        let file = |url: &str| DatabaseUrl(Zeroizing::new(url.to_owned())).sqlite_file();
        assert_eq!(file("sqlite://latchkey.db?mode=rwc"), Some("latchkey.db".into()));
        assert_eq!(file("sqlite:///var/lib/latchkey.db"), Some("/var/lib/latchkey.db".into()));
        assert_eq!(file("sqlite:latchkey.db"), Some("latchkey.db".into()));
        for other in ["sqlite::memory:", "sqlite://x?mode=memory", "postgres://db/latchkey"] {
            assert_eq!(file(other), None, "{other}");
        }
        let url = DatabaseUrl::of_sqlite_file(Path::new("/tmp/a.db"));
        assert_eq!((url.sqlite_file(), url.is_shared()), (Some("/tmp/a.db".into()), false));
    }

    #[test]
    fn a_digest_is_64_hexadecimal_digits() {
        assert_eq!(hex_digest(&"aF".repeat(32)), Some([0xaf; 32]));
        for bad in ["", "af", &"ag".repeat(32), &"af".repeat(33), &"é".repeat(32)] {
            assert_eq!(hex_digest(bad), None, "{bad}");
        }
    }
}
