//! Which database a URL names, how it is shown to people, and whether the way to it is safe. Never shows a password.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use sea_orm::sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sea_orm::sqlx::postgres::{PgConnectOptions, PgSslMode};
use sea_orm::sqlx::sqlite::SqliteConnectOptions;

use super::error::OpenError;

/// The parameters of each engine's URL. The library logs any other one with its value, which may be a password, or passes
/// over it, and with it over a misspelt wish for protection.
const SQLITE_PARAMETERS: [&str; 4] = ["mode", "cache", "immutable", "vfs"];
const POSTGRES_PARAMETERS: [&str; 18] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];
const MARIADB_PARAMETERS: [&str; 13] = [
    "sslmode",
    "ssl-mode",
    "sslca",
    "ssl-ca",
    "charset",
    "collation",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "socket",
    "timezone",
    "time-zone",
];

/// A SQLite database on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SqliteFile {
    /// Where.
    pub(super) path: PathBuf,
    /// Whether it shall be made if it is missing.
    pub(super) create: bool,
}

/// A database that can be connected to.
#[derive(Clone)]
pub(super) enum Target {
    /// SQLite; none for a database in memory.
    Sqlite(SqliteConnectOptions, Option<SqliteFile>),
    /// PostgreSQL.
    Postgres(PgConnectOptions),
    /// MariaDB.
    MariaDb(MySqlConnectOptions),
}

impl Target {
    /// Reads a URL; refuses a way to another machine that is not verified.
    pub(super) fn parse(url: &str) -> Result<Self, OpenError> {
        let target = match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("sqlite") => sqlite(url)?,
            Some("postgres" | "postgresql") => {
                check_parameters(url, &POSTGRES_PARAMETERS)?;
                Self::Postgres(PgConnectOptions::from_str(url).map_err(|_| malformed("PostgreSQL"))?)
            }
            Some("mysql" | "mariadb") => {
                check_parameters(url, &MARIADB_PARAMETERS)?;
                Self::MariaDb(MySqlConnectOptions::from_str(url).map_err(|_| malformed("MariaDB"))?)
            }
            _ => {
                let schemes = "it must start with sqlite:, postgres: or mysql:";
                return Err(OpenError::BadUrl(schemes.to_owned()));
            }
        };
        target.check_transport()?;
        Ok(target)
    }

    /// What an operator reads in the log.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Sqlite(_, Some(file)) => format!("SQLite {}", file.path.display()),
            Self::Sqlite(_, None) => "SQLite in memory".to_owned(),
            Self::Postgres(options) => {
                let database = options.get_database().unwrap_or_else(|| options.get_username());
                let socket = options.get_socket().map(PathBuf::as_path);
                format!("PostgreSQL {}", place(options.get_host(), options.get_port(), socket, database))
            }
            Self::MariaDb(options) => {
                let database = options.get_database().unwrap_or("");
                let socket = options.get_socket().map(PathBuf::as_path);
                format!("MariaDB {}", place(options.get_host(), options.get_port(), socket, database))
            }
        }
    }

    /// The libraries fall back to plain text without a word, so anything but a verified way is refused here.
    fn check_transport(&self) -> Result<(), OpenError> {
        let (host, local, verified, setting) = match self {
            Self::Sqlite(..) => return Ok(()),
            Self::Postgres(options) => (
                options.get_host(),
                options.get_socket().is_some(),
                matches!(options.get_ssl_mode(), PgSslMode::VerifyFull),
                "sslmode=verify-full",
            ),
            Self::MariaDb(options) => (
                options.get_host(),
                options.get_socket().is_some(),
                matches!(options.get_ssl_mode(), MySqlSslMode::VerifyIdentity),
                "ssl-mode=VERIFY_IDENTITY",
            ),
        };
        if local || verified || is_loopback(host) {
            return Ok(());
        }
        Err(OpenError::InsecureTransport { host: host.to_owned(), setting })
    }
}

fn sqlite(url: &str) -> Result<Target, OpenError> {
    check_parameters(url, &SQLITE_PARAMETERS)?;
    let modes: Vec<_> = parameters(url).filter(|(key, _)| *key == "mode").map(|(_, mode)| mode).collect();
    // Whatever is percent-encoded means the same to the library, but not here.
    if modes.iter().any(|mode| !["ro", "rw", "rwc", "memory"].contains(mode)) {
        return Err(OpenError::BadUrl("its mode must be ro, rw, rwc or memory".to_owned()));
    }
    // A SQLite URL holds no password, so the words of the library may be shown.
    let options =
        SqliteConnectOptions::from_str(url).map_err(|error| OpenError::BadUrl(error.to_string()))?;
    let place = url.trim_start_matches("sqlite://").trim_start_matches("sqlite:");
    let in_memory = place.split('?').next() == Some(":memory:") || modes.contains(&"memory");
    let (path, create) = (options.get_filename().to_owned(), modes.contains(&"rwc"));
    let file = (!in_memory).then_some(SqliteFile { path, create });
    if file.as_ref().is_some_and(|file| file.path.as_os_str().is_empty()) {
        return Err(OpenError::BadUrl("it names no file, as in sqlite://latchkey.db".to_owned()));
    }
    Ok(Target::Sqlite(options, file))
}

/// The parameters of a URL, as they are written.
fn parameters(url: &str) -> impl Iterator<Item = (&str, &str)> {
    let (_, query) = url.split_once('?').unwrap_or_default();
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Refuses a parameter that is not `known`. Its value is never repeated; nor its name, where that may be a part of a
/// password that was not percent-encoded.
fn check_parameters(url: &str, known: &[&str]) -> Result<(), OpenError> {
    let Some((key, _)) = parameters(url).find(|(key, _)| !known.contains(key)) else { return Ok(()) };
    let is_word = key.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-' || byte == b'_');
    let may_be_secret =
        url.split_once('?').is_some_and(|(_, query)| query.contains('@') || query.contains("password="));
    let name = if is_word && !may_be_secret { format!(" {key}") } else { String::new() };
    Err(OpenError::BadUrl(format!("it has an unknown parameter{name}; known are {}", known.join(", "))))
}

fn malformed(engine: &str) -> OpenError {
    let form = "user:password@host:port/database, with what is not a letter or digit percent-encoded";
    OpenError::BadUrl(format!("it is not a {engine} URL of the form {form}"))
}

fn place(host: &str, port: u16, socket: Option<&Path>, database: &str) -> String {
    match socket {
        Some(socket) => format!("{}/{database}", socket.display()),
        None => format!("{host}:{port}/{database}"),
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(url: &str) -> String {
        Target::parse(url).map_or_else(|error| error.to_string(), |target| target.describe())
    }

    #[test]
    fn a_database_is_described_without_its_password() {
        assert_eq!(described("sqlite://latchkey.db?mode=rwc"), "SQLite latchkey.db");
        assert_eq!(described("sqlite::memory:"), "SQLite in memory");
        assert_eq!(described("postgres://u:geheim@localhost:5433/auth"), "PostgreSQL localhost:5433/auth");
        assert_eq!(described("mysql://u:geheim@[::1]/auth"), "MariaDB [::1]:3306/auth");
        for bad in ["postgres://u:geheim@host:port/db", "mysql://u:geheim@host:99999/db", "geheim"] {
            assert!(matches!(Target::parse(bad), Err(OpenError::BadUrl(_))), "{bad}");
            assert!(!described(bad).contains("geheim"), "{bad}");
        }
        assert!(matches!(Target::parse("sqlite://a.db?mode=nonsense"), Err(OpenError::BadUrl(_))));
        assert!(matches!(Target::parse("sqlite://?mode=rwc"), Err(OpenError::BadUrl(_))));
    }

    #[test]
    fn an_unknown_parameter_is_refused_without_its_value() {
        for (url, told) in [
            ("postgres://u@localhost/auth?pasword=geheim", "unknown parameter pasword;"),
            ("postgres://u@localhost/auth?ssl_mode=geheim", "unknown parameter ssl_mode;"),
            ("postgres://u@localhost/auth?password=x&geheim=1", "unknown parameter;"),
            ("postgres://u:p?geheim=@localhost/auth", "unknown parameter;"),
            ("postgres://u@localhost/auth?options[geheim]=1", "unknown parameter;"),
            ("mysql://u@localhost/auth?password=geheim", "unknown parameter;"),
            ("mysql://u@localhost/auth?sslrootcert=geheim", "unknown parameter sslrootcert;"),
            ("mysql://u@localhost/auth?%73slmode=geheim", "unknown parameter;"),
            ("sqlite://a.db?key=geheim", "unknown parameter key;"),
        ] {
            let error = Target::parse(url).err().expect("refused").to_string();
            assert!(error.contains(told) && !error.contains("geheim"), "{url}: {error}");
        }
        for url in [
            "postgres://localhost/auth?host=/run/postgresql&user=u&password=p&application_name=a",
            "mysql://u:p@localhost/auth?ssl-mode=DISABLED&charset=utf8mb4&",
            "sqlite://a.db?mode=rwc&cache=private",
        ] {
            assert!(Target::parse(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn a_file_is_told_from_a_database_in_memory_as_the_library_does() {
        let file = |url: &str| match Target::parse(url) {
            Ok(Target::Sqlite(_, file)) => file.map(|file| (file.path, file.create)),
            other => panic!("{url}: {:?}", other.err()),
        };
        assert_eq!(file("sqlite://a.db?mode=rwc"), Some(("a.db".into(), true)));
        assert_eq!(file("sqlite:a%20b.db"), Some(("a b.db".into(), false)));
        assert_eq!(file("sqlite://a:memory:b.db"), Some(("a:memory:b.db".into(), false)));
        assert_eq!(file("sqlite://mode=memory.db"), Some(("mode=memory.db".into(), false)));
        for url in ["sqlite::memory:", "sqlite://:memory:", "sqlite://a.db?cache=shared&mode=memory"] {
            assert_eq!(file(url), None, "{url}");
        }
        assert!(matches!(Target::parse("sqlite://a.db?mode=%6demory"), Err(OpenError::BadUrl(_))));
    }

    #[test]
    fn the_way_to_another_machine_must_be_verified() {
        for refused in [
            "postgres://u:p@db.example/auth",
            "postgres://u:p@db.example/auth?sslmode=require",
            "postgres://u:p@localhost/auth?host=db.example",
            "mysql://u:p@db.example/auth?ssl-mode=VERIFY_CA",
            "mysql://u:p@127.0.0.1.example/auth",
        ] {
            assert!(matches!(Target::parse(refused), Err(OpenError::InsecureTransport { .. })), "{refused}");
        }
        for taken in [
            "postgres://u:p@db.example/auth?sslmode=verify-full",
            "postgres://u:p@127.0.0.1/auth",
            "postgres://u:p@localhost/auth?host=/run/postgresql",
            "mysql://u:p@db.example/auth?ssl-mode=VERIFY_IDENTITY",
            "mysql://u:p@127.9.9.9/auth",
        ] {
            assert!(Target::parse(taken).is_ok(), "{taken}");
        }
    }
}
