//! Everything that can be set: one struct, whose fields are the settings.
//!
//! The doc lines of a field are the only description of a setting: help texts, the template and the printed
//! configuration are made from them. This module knows no other one; whoever composes the server turns sections into
//! the policies and limits of the modules concerned. Durations are whole numbers with their unit last in the name.
//!
//! To add a setting: 1. a field here, documented, with its default; 2. if it is a number, its bounds in `limits.rs`.
//! Flag, environment variable, help and template follow by themselves.

mod error;
mod field;
mod file;
mod limits;
mod load;
mod print;
mod value;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use confique::Config as _;

use crate::database_url::DatabaseUrl;

pub use self::error::{ConfigErrors, Origin, Problem};
pub use self::field::{Field, Kind, fields};
pub use self::limits::{USE_WRITE_INTERVAL, contradictions, uses_lead};
pub use self::load::{Loaded, Setting, Sources, load};
pub use self::print::{print, template};
pub use self::value::{ApiKeyDigest, Binding, Caller, HttpListen, LogFormat, Secret};

/// The settings of a Latchkey node.
#[derive(Clone, Debug, confique::Config)]
pub struct Config {
    /// Address and port that gRPC is served on; port 0 takes a free one.
    #[config(default = "127.0.0.1:50051", deserialize_with = value::socket_address)]
    pub listen: SocketAddr,
    /// Address and port of health checks and metrics over HTTP, or `off`.
    #[config(default = "127.0.0.1:9464")]
    pub http_listen: HttpListen,
    /// Serve without TLS on an address that other machines can reach. Passwords and tokens then cross the network in
    /// the clear unless something else protects it.
    #[config(default = false)]
    pub insecure: bool,
    /// Where users and sessions are kept: a `sqlite:`, `postgres:` or `mysql:` URL, with commas between several hosts, of
    /// which the one that takes writes is used. Percent-encode what is not a letter or digit in user, password and database.
    /// Give a URL with a password through the environment, since arguments can be seen by other users of the machine.
    #[config(default = "sqlite://latchkey.db?mode=rwc")]
    pub database_url: DatabaseUrl,
    /// File with the keys that sign session tokens; readable by root, the node's user and its groups only. A SQLite node
    /// without one uses
    /// `latchkey.key` beside the database, and makes it on its first start.
    pub token_key_file: Option<PathBuf>,
    /// The keys that sign session tokens, as text, in place of a file: `ID:KEY` entries separated by line ends, spaces or
    /// commas. Taken from the environment only.
    pub token_keys: Option<Secret>,
    /// The database.
    #[config(nested)]
    pub database: Database,
    /// How long sessions live.
    #[config(nested)]
    pub session: Session,
    /// What passwords must be like, and how they are hashed.
    #[config(nested)]
    pub password: Password,
    /// How many sign-ins may be tried.
    #[config(nested)]
    pub throttle: Throttle,
    /// The gRPC server.
    #[config(nested)]
    pub grpc: Grpc,
    /// How the process ends.
    #[config(nested)]
    pub shutdown: Shutdown,
    /// Memory, and how nodes agree.
    #[config(nested)]
    pub fleet: Fleet,
    /// Work that the node does by itself.
    #[config(nested)]
    pub maintenance: Maintenance,
    /// Log lines.
    #[config(nested)]
    pub log: Log,
    /// The services that may call, each with its name, the SHA-256 of its API key (`key_sha256`) and what it may call
    /// (`allow`). Without any, everybody who can connect may call everything; with one, everything else is refused.
    /// Taken from the file only.
    #[config(default = {})]
    pub callers: BTreeMap<String, Caller>,
}

impl Default for Config {
    fn default() -> Self {
        Self::from_layer(confique::Layer::default_values())
            .expect("every setting has a default or may be missing")
    }
}

/// The database.
#[derive(Clone, Debug, confique::Config)]
pub struct Database {
    /// Connections that the node holds open at most. SQLite always writes through one.
    #[config(default = 10)]
    pub connections_max: u32,
    /// How long a starting node tries to reach the database before it gives up.
    #[config(default = 30_000)]
    pub connect_timeout_ms: u64,
    /// How long a call waits for a free connection before it is answered UNAVAILABLE.
    #[config(default = 2000)]
    pub acquire_timeout_ms: u64,
    /// How long one statement may take.
    #[config(default = 5000)]
    pub statement_timeout_ms: u64,
    /// How long a statement waits for a row that another transaction holds.
    #[config(default = 2000)]
    pub lock_timeout_ms: u64,
}

/// How long sessions live.
#[derive(Clone, Debug, confique::Config)]
pub struct Session {
    /// A session ends this long after sign-in, whatever happens.
    #[config(default = 43_200)]
    pub lifetime_s: u64,
    /// A session ends when it was not used for this long.
    #[config(default = 3600)]
    pub idle_limit_s: u64,
    /// As `lifetime_s`, where the person asked to be remembered.
    #[config(default = 2_592_000)]
    pub remembered_lifetime_s: u64,
    /// As `idle_limit_s`, where the person asked to be remembered.
    #[config(default = 2_592_000)]
    pub remembered_idle_limit_s: u64,
    /// How long after proving who they are a person counts as fresh.
    #[config(default = 900)]
    pub fresh_window_s: u64,
    /// Sessions that one user may have; one more ends the oldest.
    #[config(default = 50)]
    pub per_user_max: u32,
    /// What happens to a session that is used from another device: "none", "basic" (it is not fresh) or "strong" (it
    /// ends; a remembered one is not fresh).
    #[config(default = "none")]
    pub binding: Binding,
}

/// What passwords must be like, and how they are hashed.
#[derive(Clone, Debug, confique::Config)]
pub struct Password {
    /// Fewest characters (Unicode code points) of a new password.
    #[config(default = 15)]
    pub code_points_min: u32,
    /// Most characters (Unicode code points) of a new password.
    #[config(default = 256)]
    pub code_points_max: u32,
    /// Memory that one Argon2id hash fills; `hash_threads` times this is the peak.
    #[config(default = 19_456)]
    pub argon2_memory_kib: u32,
    /// Passes that one Argon2id hash makes over its memory.
    #[config(default = 2)]
    pub argon2_iterations: u32,
    /// Lanes of one Argon2id hash.
    #[config(default = 1)]
    pub argon2_parallelism: u32,
    /// Threads that hash passwords; 0 means all processors but one.
    #[config(default = 0)]
    pub hash_threads: u32,
    /// Hashes that may wait; one more is answered `OVERLOADED` at once.
    #[config(default = 500)]
    pub hash_queue_len_max: u32,
}

/// How many sign-ins may be tried.
#[derive(Clone, Debug, confique::Config)]
pub struct Throttle {
    /// Whether attempts are limited at all.
    #[config(default = true)]
    pub enabled: bool,
    /// Attempts a minute that one login name gets back.
    #[config(default = 10)]
    pub login_per_minute: u32,
    /// Attempts in a row that one login name may make.
    #[config(default = 20)]
    pub login_burst: u32,
    /// Attempts a minute that one network (/24 or /64) gets back.
    #[config(default = 60)]
    pub address_per_minute: u32,
    /// Attempts in a row that one network may make.
    #[config(default = 120)]
    pub address_burst: u32,
    /// Attempts a minute that all together get back.
    #[config(default = 6000)]
    pub global_per_minute: u32,
    /// Attempts in a row that all together may make.
    #[config(default = 600)]
    pub global_burst: u32,
    /// Login names and networks that are remembered at a time.
    #[config(default = 100_000)]
    pub keys_max: u32,
}

/// The gRPC server.
#[derive(Clone, Debug, confique::Config)]
pub struct Grpc {
    /// Connections in all.
    #[config(default = 10_000)]
    pub connections_max: u32,
    /// Connections from one address.
    #[config(default = 1000)]
    pub connections_per_address_max: u32,
    /// Calls at a time on one connection.
    #[config(default = 100)]
    pub streams_per_connection_max: u32,
    /// Size of a message that is read. A User-Agent header may fill 16 KiB, and twice that where a framework hands its
    /// bytes over as Latin-1.
    #[config(default = 65_536)]
    pub message_bytes_max: u32,
    /// Size of the headers of a call.
    #[config(default = 8192)]
    pub header_list_bytes_max: u32,
    /// How long a new connection may stay silent.
    #[config(default = 10_000)]
    pub first_byte_timeout_ms: u64,
    /// How often a silent connection is asked whether it is alive.
    #[config(default = 30_000)]
    pub keepalive_interval_ms: u64,
    /// How long it may take to answer that.
    #[config(default = 10_000)]
    pub keepalive_timeout_ms: u64,
    /// Serve reflection, so that grpcurl knows the contract.
    #[config(default = true)]
    pub reflection: bool,
    /// Serve `latchkey.admin.v1`, the management of users.
    #[config(default = true)]
    pub admin: bool,
}

/// How the process ends.
#[derive(Clone, Debug, confique::Config)]
pub struct Shutdown {
    /// How long the node goes on taking calls after it said that it is not ready any more, so that load balancers
    /// notice.
    #[config(default = 2000)]
    pub lame_duck_ms: u64,
    /// How long running calls then have to end.
    #[config(default = 10_000)]
    pub drain_ms: u64,
}

/// Memory, and how nodes agree.
#[derive(Clone, Debug, confique::Config)]
pub struct Fleet {
    /// Sessions that are held in memory at most; about 200 bytes each, with their users. Those not used lately make room,
    /// and are read again when they are asked for.
    #[config(default = 1_000_000)]
    pub sessions_in_memory_max: u32,
    /// Ended sessions and unknown tokens that are remembered as such, so that asking for them again costs no statement.
    #[config(default = 100_000)]
    pub dead_in_memory_max: u32,
    /// Tokens that may wait to be read into memory; one more is answered `STORE_UNAVAILABLE` at once.
    #[config(default = 10_000)]
    pub fills_waiting_max: u32,
}

/// Work that the node does by itself.
#[derive(Clone, Debug, confique::Config)]
pub struct Maintenance {
    /// How often the change log is read, where nobody says that there is something to read. 0 means 500 where the
    /// database can say so (PostgreSQL) or no other node writes (SQLite), and 100 elsewhere (MariaDB).
    #[config(default = 0)]
    pub poll_ms: u64,
    /// How often the last use of sessions is written down.
    #[config(default = 1000)]
    pub last_seen_flush_ms: u64,
    /// How often sessions that are long over are deleted.
    #[config(default = 60)]
    pub purge_interval_s: u64,
    /// Sessions that are deleted at a time.
    #[config(default = 500)]
    pub purge_batch: u32,
    /// How long rows of the change log are kept; the newest one always is.
    #[config(default = 86_400)]
    pub log_retain_s: u64,
    /// How long a session that is over is kept, so that its reason can still be told.
    #[config(default = 86_400)]
    pub retain_s: u64,
}

/// Log lines.
#[derive(Clone, Debug, confique::Config)]
pub struct Log {
    /// "text", "json", or "auto": text on a terminal, JSON otherwise.
    #[config(default = "auto")]
    pub format: LogFormat,
    /// What is logged, in the syntax of `RUST_LOG`, which wins over this. A release build has nothing at level `trace`.
    #[config(default = "warn,latchkey=info")]
    pub filter: String,
}
