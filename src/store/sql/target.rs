//! How the driver reaches the database of a URL, and whether the way there is safe. Never shows a password.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use sea_orm::sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sea_orm::sqlx::postgres::{PgConnectOptions, PgSslMode};
use sea_orm::sqlx::sqlite::SqliteConnectOptions;

use super::error::OpenError;
use super::hosts::Hosts;
use crate::database_url::{DatabaseUrl, Host, ServerEngine, ServerUrl, SqliteUrl};

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
    Sqlite(Box<SqliteConnectOptions>, Option<SqliteFile>),
    /// PostgreSQL.
    Postgres(Hosts<PgConnectOptions>),
    /// MariaDB.
    MariaDb(Hosts<MySqlConnectOptions>),
}

impl Target {
    /// Refuses a way to another machine that is not verified.
    pub(super) fn new(url: &DatabaseUrl) -> Result<Self, OpenError> {
        match url {
            DatabaseUrl::Sqlite(url) => sqlite(url),
            DatabaseUrl::Server(url) => match url.engine() {
                ServerEngine::Postgres => {
                    Ok(Self::Postgres(Hosts::new(each_host(url, postgres)?, url.target())))
                }
                ServerEngine::MariaDb => {
                    Ok(Self::MariaDb(Hosts::new(each_host(url, mariadb)?, url.target())))
                }
            },
        }
    }

    /// What an operator reads in the log.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Sqlite(_, Some(file)) => format!("SQLite {}", file.path.display()),
            Self::Sqlite(_, None) => "SQLite in memory".to_owned(),
            Self::Postgres(hosts) => {
                let options = hosts.current();
                let database = options.get_database().unwrap_or_else(|| options.get_username());
                format!("PostgreSQL {}/{database}", hosts.describe())
            }
            Self::MariaDb(hosts) => {
                format!("MariaDB {}/{}", hosts.describe(), hosts.current().get_database().unwrap_or(""))
            }
        }
    }
}

fn sqlite(url: &SqliteUrl) -> Result<Target, OpenError> {
    // A SQLite URL holds no password, so the words of the library may be shown.
    let options =
        SqliteConnectOptions::from_str(url.text()).map_err(|error| OpenError::BadUrl(error.to_string()))?;
    let file = url.file().map(|path| SqliteFile { path: path.to_owned(), create: url.creates_file() });
    Ok(Target::Sqlite(Box::new(options), file))
}

/// How to connect to a host, and its name for people.
type OneHost<O> = Result<(O, String), OpenError>;

fn each_host<O>(
    url: &ServerUrl,
    options: fn(&str, &Host) -> OneHost<O>,
) -> Result<Vec<(O, String)>, OpenError> {
    url.hosts().iter().map(|host| options(&url.driver_url(host), host)).collect()
}

/// As the server's list of connections shows it.
fn postgres(url: &str, host: &Host) -> OneHost<PgConnectOptions> {
    let mut options = PgConnectOptions::from_str(url).map_err(|_| unusable("PostgreSQL"))?;
    // Poolers refuse a start-up parameter that they do not know; no column holds a floating-point number.
    options = options.application_name("latchkey").extra_float_digits(None);
    // The library keeps the brackets of an IPv6 address, and then looks for a host of that name.
    if let Host::Tcp(name, _) = host {
        options = options.host(name);
    }
    let by_default = Path::new(options.get_host());
    let socket =
        options.get_socket().map(PathBuf::as_path).or(by_default.is_absolute().then_some(by_default));
    let is_verified = matches!(options.get_ssl_mode(), PgSslMode::VerifyFull);
    if socket.is_none() && !is_verified {
        check_local(options.get_host(), "sslmode=verify-full")?;
    }
    let place = place(options.get_host(), options.get_port(), socket);
    Ok((options, place))
}

fn mariadb(url: &str, host: &Host) -> OneHost<MySqlConnectOptions> {
    let mut options = MySqlConnectOptions::from_str(url).map_err(|_| unusable("MariaDB"))?;
    options = options.charset("utf8mb4").timezone(Some("+00:00".to_owned()));
    if let Host::Tcp(name, _) = host {
        options = options.host(name);
    }
    let socket = options.get_socket().map(PathBuf::as_path);
    let is_verified = matches!(options.get_ssl_mode(), MySqlSslMode::VerifyIdentity);
    if socket.is_none() && !is_verified {
        check_local(options.get_host(), "ssl-mode=VERIFY_IDENTITY")?;
    }
    let place = place(options.get_host(), options.get_port(), socket);
    Ok((options, place))
}

/// The libraries fall back to plain text without a word, so anything but a verified way is refused.
fn check_local(host: &str, setting: &'static str) -> Result<(), OpenError> {
    let is_loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if is_loopback { Ok(()) } else { Err(OpenError::InsecureTransport { host: host.to_owned(), setting }) }
}

/// What a parsed URL can still hold that the driver refuses. Its own words may repeat a value.
fn unusable(engine: &str) -> OpenError {
    OpenError::BadUrl(format!("the driver for {engine} refuses a host or the value of a parameter"))
}

fn place(host: &str, port: u16, socket: Option<&Path>) -> String {
    match socket {
        Some(socket) => socket.display().to_string(),
        None if host.contains(':') => format!("[{host}]:{port}"),
        None => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Target {
        Target::new(&DatabaseUrl::parse(url).expect("a URL")).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    #[test]
    fn a_database_is_described_without_its_password() {
        for (url, described) in [
            ("sqlite://latchkey.db?mode=rwc", "SQLite latchkey.db"),
            ("sqlite:a%20b.db", "SQLite a b.db"),
            ("sqlite::memory:", "SQLite in memory"),
            ("postgres://u:geheim@localhost:5433/auth", "PostgreSQL localhost:5433/auth"),
            ("postgres://u:geheim@/auth?host=/run/pg", "PostgreSQL /run/pg/auth"),
            ("postgres://u:geheim@127.0.0.1,[::1]:1/auth", "PostgreSQL 127.0.0.1:5432,[::1]:1/auth"),
            ("mysql://u:geheim@[::1]/auth", "MariaDB [::1]:3306/auth"),
            ("mysql://u:geheim@localhost/auth?socket=/run/m.sock", "MariaDB /run/m.sock/auth"),
        ] {
            assert_eq!(parsed(url).describe(), described);
        }
    }

    #[test]
    fn a_file_is_told_from_a_database_in_memory_as_the_library_does() {
        for url in
            ["sqlite://a.db?mode=rwc", "sqlite:a%20b%3f.db", "sqlite://a:memory:b.db", "sqlite:///a#b.db"]
        {
            let Target::Sqlite(options, Some(file)) = parsed(url) else { panic!("{url} is a file") };
            assert_eq!(options.get_filename(), file.path, "{url}");
        }
        for url in ["sqlite::memory:", "sqlite://:memory:", "sqlite://a.db?cache=shared&mode=%6demory"] {
            assert!(matches!(parsed(url), Target::Sqlite(_, None)), "{url}");
        }
    }

    #[test]
    fn the_driver_gets_what_the_url_says() {
        let odd =
            "postgres://%40da%20b:p%25%2F%40%3F%23%2B@[::1]:5433/d%20b?options=-c%20a%3D1+2&sslmode=disable";
        let Target::Postgres(hosts) = parsed(odd) else { panic!("PostgreSQL") };
        let options = hosts.current();
        assert_eq!((options.get_host(), options.get_port()), ("::1", 5433));
        assert_eq!((options.get_username(), options.get_database()), ("@da b", Some("d b")));
        assert_eq!(options.get_options(), Some("-c a=1+2"));
        assert!(matches!(options.get_ssl_mode(), PgSslMode::Disable));
        let Target::MariaDb(hosts) = parsed("mariadb://%40da:x@%2Frun%2Fm.sock/d%2Db?ssl-mode=DISABLED")
        else {
            panic!("MariaDB")
        };
        let options = hosts.current();
        assert_eq!(options.get_socket().map(PathBuf::as_path), Some(Path::new("/run/m.sock")));
        assert_eq!((options.get_username(), options.get_database()), ("@da", Some("d-b")));
    }

    #[test]
    fn the_way_to_another_machine_must_be_verified() {
        for refused in [
            "postgres://u:p@db.example/auth",
            "postgres://u:p@db.example/auth?sslmode=require",
            "postgres://u:p@localhost/auth?host=db.example",
            "postgres://u:p@localhost,db.example/auth",
            "postgres://u:p@[2001:db8::1]/auth",
            "mysql://u:p@db.example/auth?ssl-mode=VERIFY_CA",
            "mysql://u:p@127.0.0.1.example/auth",
            "mysql://u:p@localhost,db.example/auth",
        ] {
            let refused = Target::new(&DatabaseUrl::parse(refused).expect("a URL")).err();
            assert!(matches!(refused, Some(OpenError::InsecureTransport { .. })), "{refused:?}");
        }
        for taken in [
            "postgres://u:p@db.example/auth?sslmode=verify-full",
            "postgres://u:p@a.example:1,b.example:2/auth?sslmode=verify-full",
            "postgres://u:p@127.0.0.1/auth",
            "postgres://u:p@[::1]/auth",
            "postgres://u:p@localhost/auth?host=/run/postgresql",
            "postgres:///auth?host=/run/postgresql",
            "mysql://u:p@db.example/auth?ssl-mode=VERIFY_IDENTITY",
            "mysql://u:p@127.9.9.9,[::1]/auth",
            "mysql://u:p@localhost/auth?socket=/run/mysqld/mysqld.sock",
        ] {
            parsed(taken);
        }
    }
}
