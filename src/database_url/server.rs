//! The URL of a database server, or of several: `postgres://USER:PASSWORD@HOST:PORT,HOST:PORT/DATABASE?PARAMETERS`.
//!
//! The `url` crate takes one host, so the list is split off first, and each host is parsed by itself. As in libpq, a host
//! that begins with `/` is the directory of a socket, and parameters take precedence over what stands before them.

use std::fmt::Write as _;
use std::net::IpAddr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;
use zeroize::Zeroizing;

use super::{InvalidUrl, decode, parameters};

const POSTGRES_PARAMETERS: [&str; 19] = [
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
    "target_session_attrs",
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
const POSTGRES_SSL_MODES: &[&str] = &["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
const MARIADB_SSL_MODES: &[&str] = &["disabled", "preferred", "required", "verify_ca", "verify_identity"];

/// Characters of a value that are readable where they stand.
const NOT_IN_VALUES: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'/').remove(b':').remove(b'~');
const NOT_IN_NAMES: &AsciiSet = &NOT_IN_VALUES.add(b'/').add(b':');

/// What runs on a database server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerEngine {
    /// PostgreSQL.
    Postgres,
    /// MariaDB.
    MariaDb,
}

impl ServerEngine {
    /// Its name, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::MariaDb => "MariaDB",
        }
    }

    const fn default_port(self) -> u16 {
        match self {
            Self::Postgres => 5432,
            Self::MariaDb => 3306,
        }
    }
}

/// One of the places where the database may be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Host {
    /// Where the driver looks by default: the URL names no host.
    Default,
    /// A host name or IP address (without brackets), and a port.
    Tcp(String, u16),
    /// PostgreSQL: the directory of the socket, and the port that is a part of its name. MariaDB: the socket.
    Socket(String, u16),
}

/// Which of several hosts a node uses, as `target_session_attrs` of libpq.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionTarget {
    /// The first that accepts a connection.
    Any,
    /// The first that takes writes.
    ReadWrite,
    /// The first that is no standby.
    Primary,
}

/// A database on a server.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl {
    engine: ServerEngine,
    hosts: Vec<Host>,
    user: String,
    password: Option<Zeroizing<String>>,
    database: String,
    /// Parameters for the driver, decoded; none of them is secret.
    parameters: Vec<(String, String)>,
    target: SessionTarget,
}

impl ServerUrl {
    /// Parses what comes after the colon of `scheme`.
    pub(super) fn parse(engine: ServerEngine, scheme: &str, rest: &str) -> Result<Self, InvalidUrl> {
        let Some(rest) = rest.strip_prefix("//") else {
            return Err(InvalidUrl::new(format!("must begin with {scheme}://")));
        };
        let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let path = tail.split('?').next().unwrap_or_default();
        if path.contains('@') || tail.contains('#') {
            return Err(malformed(engine));
        }
        let (account, hosts) = authority.split_once('@').unwrap_or(("", authority));
        // Whether a second one is a part of the password is anybody's guess.
        if hosts.contains('@') {
            return Err(malformed(engine));
        }
        let one_host = Zeroizing::new(format!("{scheme}://{account}@host{tail}"));
        let url = Url::parse(&one_host).map_err(|_| malformed(engine))?;
        let database = url.path().strip_prefix('/').unwrap_or_default();
        if database.contains('/') {
            return Err(malformed(engine));
        }
        let password = url.password().map(|password| decode(password).map(Zeroizing::new)).transpose()?;
        let mut parsed = Self {
            engine,
            hosts: Vec::new(),
            user: decode(url.username())?,
            password,
            database: decode(database)?,
            parameters: Vec::new(),
            target: SessionTarget::ReadWrite,
        };
        let mut places = Places::of_authority(engine, scheme, hosts)?;
        parsed.read_parameters(url.query().unwrap_or_default(), &mut places)?;
        parsed.hosts = places.hosts(engine)?;
        Ok(parsed)
    }

    fn read_parameters(&mut self, query: &str, places: &mut Places) -> Result<(), InvalidUrl> {
        let (known, modes): (&[&str], _) = match self.engine {
            ServerEngine::Postgres => (&POSTGRES_PARAMETERS, POSTGRES_SSL_MODES),
            ServerEngine::MariaDb => (&MARIADB_PARAMETERS, MARIADB_SSL_MODES),
        };
        let mut seen = Vec::new();
        for (name, value) in parameters(query, known)? {
            if seen.contains(&name) {
                return Err(InvalidUrl::new(format!("{name} must be given once")));
            }
            seen.push(name);
            match name {
                "host" => places.names = list(&value),
                "hostaddr" => places.addresses = list(&value),
                "port" => places.ports = list(&value),
                "socket" => places.socket = Some(value),
                "dbname" => self.database = value,
                "user" => self.user = value,
                "password" => self.password = Some(Zeroizing::new(value)),
                "target_session_attrs" => self.target = session_target(&value)?,
                "sslmode" | "ssl-mode" if !modes.contains(&value.to_ascii_lowercase().as_str()) => {
                    return Err(InvalidUrl::new(format!("{name} must be one of {}", modes.join(", "))));
                }
                "statement-cache-capacity" if value.parse::<usize>().is_err() => {
                    return Err(InvalidUrl::new("statement-cache-capacity must be a whole number"));
                }
                _ => self.parameters.push((name.to_owned(), value)),
            }
        }
        Ok(())
    }

    /// What runs there.
    pub const fn engine(&self) -> ServerEngine {
        self.engine
    }

    /// Where the database may be, at least one place, in the order of preference.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Which of the hosts to use.
    pub const fn target(&self) -> SessionTarget {
        self.target
    }

    /// The URL of one of its hosts, password included: for the database driver and nobody else.
    pub fn driver_url(&self, host: &Host) -> Zeroizing<String> {
        let encode = |text: &str| Zeroizing::new(utf8_percent_encode(text, NON_ALPHANUMERIC).to_string());
        let mut text = Zeroizing::new(match self.engine {
            ServerEngine::Postgres => "postgres://".to_owned(),
            ServerEngine::MariaDb => "mysql://".to_owned(),
        });
        // Without a host a URL may have no user.
        let is_empty = *host == Host::Default;
        if !is_empty && (!self.user.is_empty() || self.password.is_some()) {
            text.push_str(&encode(&self.user));
            if let Some(password) = &self.password {
                text.push(':');
                text.push_str(&encode(password));
            }
            text.push('@');
        }
        let mut query: Vec<(&str, &str)> =
            self.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        match host {
            Host::Default => {
                query.extend((!self.user.is_empty()).then_some(("user", self.user.as_str())));
                query.extend(self.password.as_ref().map(|password| ("password", password.as_str())));
            }
            Host::Tcp(name, port) if name.contains(':') => _ = write!(text, "[{name}]:{port}"),
            Host::Tcp(name, port) => _ = write!(text, "{}:{port}", *encode_host(name)),
            Host::Socket(path, port) if self.engine == ServerEngine::Postgres => {
                _ = write!(text, "{}:{port}", *encode(path));
            }
            Host::Socket(path, _) => {
                text.push_str("localhost");
                query.push(("socket", path));
            }
        }
        text.push('/');
        text.push_str(&encode(&self.database));
        for (at, (name, value)) in query.into_iter().enumerate() {
            text.push(if at == 0 { '?' } else { '&' });
            text.push_str(name);
            text.push('=');
            text.push_str(&encode(value));
        }
        text
    }

    /// The URL with `***` in the place of the password.
    pub(super) fn masked(&self) -> String {
        let name = |text: &str| utf8_percent_encode(text, NOT_IN_NAMES).to_string();
        let mut text = match self.engine {
            ServerEngine::Postgres => "postgres://".to_owned(),
            ServerEngine::MariaDb => "mysql://".to_owned(),
        };
        if !self.user.is_empty() || self.password.is_some() {
            let password = if self.password.is_some() { ":***" } else { "" };
            _ = write!(text, "{}{password}@", name(&self.user));
        }
        let hosts = self.hosts.iter().map(|host| match host {
            Host::Default => String::new(),
            Host::Tcp(host, port) => {
                let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                if *port == self.engine.default_port() { host } else { format!("{host}:{port}") }
            }
            Host::Socket(path, port) if *port == self.engine.default_port() => name(path),
            Host::Socket(path, port) => format!("{}:{port}", name(path)),
        });
        text.push_str(&hosts.collect::<Vec<_>>().join(","));
        _ = write!(text, "/{}", name(&self.database));
        let target = match self.target {
            SessionTarget::Any => Some("any"),
            SessionTarget::ReadWrite => None,
            SessionTarget::Primary => Some("primary"),
        };
        let parameters = self.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let parameters = parameters.chain(target.map(|target| ("target_session_attrs", target)));
        for (at, (name, value)) in parameters.enumerate() {
            let value = utf8_percent_encode(value, NOT_IN_VALUES);
            _ = write!(text, "{}{name}={value}", if at == 0 { '?' } else { '&' });
        }
        text
    }
}

/// The hosts of a URL as they are written: in its authority, and in parameters that take precedence.
struct Places {
    names: Vec<String>,
    ports: Vec<String>,
    addresses: Vec<String>,
    socket: Option<String>,
}

impl Places {
    fn of_authority(engine: ServerEngine, scheme: &str, hosts: &str) -> Result<Self, InvalidUrl> {
        let mut places = Self { names: Vec::new(), ports: Vec::new(), addresses: Vec::new(), socket: None };
        if hosts.is_empty() {
            return Ok(places);
        }
        for host in hosts.split(',') {
            let url = Url::parse(&format!("{scheme}://{host}/")).map_err(|_| malformed(engine))?;
            let name = match url.host() {
                Some(url::Host::Domain(name)) => decode(name)?,
                Some(url::Host::Ipv4(address)) => address.to_string(),
                Some(url::Host::Ipv6(address)) => address.to_string(),
                None => return Err(malformed(engine)),
            };
            places.names.push(name);
            places.ports.push(url.port().map_or_else(String::new, |port| port.to_string()));
        }
        Ok(places)
    }

    fn hosts(self, engine: ServerEngine) -> Result<Vec<Host>, InvalidUrl> {
        let default = engine.default_port();
        if let Some(socket) = self.socket {
            if self.names.len() > 1 {
                return Err(InvalidUrl::new("either socket or several hosts can be given, not both"));
            }
            if !socket.starts_with('/') {
                return Err(InvalidUrl::new("socket must be an absolute path"));
            }
            return Ok(vec![Host::Socket(socket, default)]);
        }
        if !self.addresses.iter().all(|address| address.parse::<IpAddr>().is_ok()) {
            return Err(InvalidUrl::new("hostaddr must be an IP address, or several with commas between"));
        }
        let names = if self.addresses.is_empty() { self.names } else { self.addresses };
        let ports = self.ports.iter().map(|port| match port.as_str() {
            "" => Ok(default),
            port => port.parse().ok().filter(|&port| port > 0).ok_or_else(bad_port),
        });
        let ports = ports.collect::<Result<Vec<u16>, _>>()?;
        let port_of = |at: usize| match ports.as_slice() {
            [] => Some(default),
            [all] => Some(*all),
            each => (each.len() == names.len()).then(|| each.get(at).copied()).flatten(),
        };
        let place = |(at, name): (usize, &String)| {
            let port = port_of(at).ok_or_else(bad_port)?;
            match name.as_str() {
                "" => Err(InvalidUrl::new("a host of the list is empty")),
                path if path.starts_with('/') => Ok(Host::Socket(name.clone(), port)),
                _ => Ok(Host::Tcp(name.clone(), port)),
            }
        };
        if names.is_empty() {
            return Ok(vec![match engine {
                ServerEngine::MariaDb => Host::Tcp("localhost".to_owned(), port_of(0).unwrap_or(default)),
                ServerEngine::Postgres if ports.is_empty() => Host::Default,
                ServerEngine::Postgres => Host::Tcp("localhost".to_owned(), port_of(0).ok_or_else(bad_port)?),
            }]);
        }
        names.iter().enumerate().map(place).collect()
    }
}

fn list(value: &str) -> Vec<String> {
    value.split(',').map(str::to_owned).collect()
}

/// A host may hold no character that would end it; such a name belongs to no machine, and the driver will say so.
fn encode_host(name: &str) -> Zeroizing<String> {
    Zeroizing::new(utf8_percent_encode(name, NOT_IN_NAMES).to_string())
}

fn session_target(value: &str) -> Result<SessionTarget, InvalidUrl> {
    match value {
        "any" => Ok(SessionTarget::Any),
        "read-write" => Ok(SessionTarget::ReadWrite),
        "primary" => Ok(SessionTarget::Primary),
        "read-only" | "standby" | "prefer-standby" => Err(InvalidUrl::new(
            "target_session_attrs must be read-write, primary or any: a node writes, which no standby allows",
        )),
        _ => Err(InvalidUrl::new("target_session_attrs must be read-write, primary or any")),
    }
}

fn bad_port() -> InvalidUrl {
    InvalidUrl::new("port must be from 1 to 65535: one for all hosts, or one for each")
}

fn malformed(engine: ServerEngine) -> InvalidUrl {
    let scheme = match engine {
        ServerEngine::Postgres => "postgres",
        ServerEngine::MariaDb => "mysql",
    };
    InvalidUrl::new(format!(
        "must have the form {scheme}://USER:PASSWORD@HOST:PORT/DATABASE, with an IPv6 address in brackets, commas between \
         several hosts, and every character of user, password and database that is not a letter or digit percent-encoded \
         (@ is %40, / is %2F)"
    ))
}
