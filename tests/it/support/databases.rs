//! A fresh database for each test, on each engine.
//!
//! The servers are started by `scripts/test`, which says where they are and which engines it asked for:
//! `LATCHKEY_TEST_ENGINES` (`sqlite,postgres,mariadb`), `LATCHKEY_TEST_POSTGRES_URL`, `LATCHKEY_TEST_MARIADB_URL`.
//! Without these only SQLite is tested. An engine that was asked for and has no server is a failure, never a silence.

use std::env;
use std::fmt;
use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use latchkey::database_url::DatabaseUrl;
use latchkey::store::sql::{SqlLimits, SqlStore, migrate_up};
use sea_orm::{ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection, QueryResult, Statement};
use tempfile::TempDir;

/// A database engine that the store has to serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Engine {
    /// A file, opened by one process.
    Sqlite,
    /// A server, shared by nodes.
    Postgres,
    /// A server, shared by nodes.
    Mariadb,
}

impl Engine {
    /// The name in `LATCHKEY_TEST_ENGINES`, and at the end of a test's name.
    const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
            Self::Mariadb => "mariadb",
        }
    }

    /// The variable that says where its server is.
    const fn url_variable(self) -> Option<&'static str> {
        match self {
            Self::Sqlite => None,
            Self::Postgres => Some("LATCHKEY_TEST_POSTGRES_URL"),
            Self::Mariadb => Some("LATCHKEY_TEST_MARIADB_URL"),
        }
    }

    /// Whether this run is to test it: as the list says, and without a list where it can be.
    fn is_asked_for(self) -> bool {
        match env::var("LATCHKEY_TEST_ENGINES") {
            Ok(list) => list.split(',').any(|name| name.trim() == self.name()),
            Err(_) => self.url_variable().is_none_or(|variable| env::var_os(variable).is_some()),
        }
    }

    /// Says once a run that the engine's tests do nothing; past the test harness, which would swallow it.
    fn say_not_asked_for(self) {
        static SAID: [Once; 3] = [const { Once::new() }; 3];
        SAID[self as usize].call_once(|| {
            let line =
                format!("NOT ASKED FOR: tests of {self} do nothing in this run; scripts/test runs them\n");
            // A closed standard error is no reason to fail.
            let _ = std::io::stderr().write_all(line.as_bytes());
        });
    }

    /// The server's address, without a database of ours.
    fn server_url(self) -> Option<String> {
        self.url_variable().map(|variable| {
            env::var(variable).unwrap_or_else(|_| {
                panic!("{self} was asked for, but {variable} does not say where it is; run scripts/test")
            })
        })
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Declares tests that run on each engine: for `async fn promise(db: &TestDatabase)` beside it, a module `promise` with
/// the tests `sqlite`, `postgres` and `mariadb`.
macro_rules! on_each_engine {
    ($($promise:ident),+ $(,)?) => {$(
        mod $promise {
            use $crate::support::databases::{Engine, run_on};

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                run_on(Engine::Sqlite, super::$promise).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                run_on(Engine::Postgres, super::$promise).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn mariadb() {
                run_on(Engine::Mariadb, super::$promise).await;
            }
        }
    )+};
}
pub(crate) use on_each_engine;

/// The same for tests of what lies between a node and its server: without `sqlite`, where nothing does.
macro_rules! on_each_server {
    ($($promise:ident),+ $(,)?) => {$(
        mod $promise {
            use $crate::support::databases::{Engine, run_on};

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                run_on(Engine::Postgres, super::$promise).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn mariadb() {
                run_on(Engine::Mariadb, super::$promise).await;
            }
        }
    )+};
}
pub(crate) use on_each_server;

/// Runs a test on a database of its own, and removes the database also when the test fails.
pub async fn run_on(engine: Engine, test: impl AsyncFnOnce(&TestDatabase)) {
    if !engine.is_asked_for() {
        engine.say_not_asked_for();
        return;
    }
    let db = TestDatabase::create(engine).await;
    let outcome = AssertUnwindSafe(test(&db)).catch_unwind().await;
    db.discard().await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// An empty database with the schema in it.
pub struct TestDatabase {
    engine: Engine,
    url: String,
    place: Place,
}

/// Where the database lies.
enum Place {
    /// In a directory that goes away with this value.
    Directory(TempDir),
    /// On a server, under a name of its own.
    Server { server_url: String, name: String },
}

impl TestDatabase {
    /// Makes one. Panics where the engine has no server.
    pub async fn create(engine: Engine) -> Self {
        let empty = Self::create_empty(engine).await;
        migrate_up(&url_of(&empty.url), SqlLimits::default())
            .await
            .expect("a fresh database takes the schema");
        empty
    }

    /// Makes one without the schema.
    pub async fn create_empty(engine: Engine) -> Self {
        if let Some(server_url) = engine.server_url() {
            return Self::create_empty_on(engine, server_url).await;
        }
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("latchkey.db");
        let url = format!("sqlite://{}?mode=rwc", file.display());
        Self { engine, url, place: Place::Directory(directory) }
    }

    /// Makes one without the schema on a certain server.
    pub async fn create_empty_on(engine: Engine, server_url: String) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("latchkey_test_{}_{count}", std::process::id());
        // Without a character set: the schema has to name its own, whatever the server's default is.
        Raw::connect(&server_url).await.run(&format!("CREATE DATABASE {name}")).await;
        Self { engine, url: with_database(&server_url, &name), place: Place::Server { server_url, name } }
    }

    /// The engine that holds it.
    pub const fn engine(&self) -> Engine {
        self.engine
    }

    /// What a node would be given to find it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Opens the store on it, as a node does, but with patience: a busy test machine is no reason to fail.
    pub async fn open(&self) -> SqlStore {
        let patient = SqlLimits {
            connect_timeout: Duration::from_secs(30),
            acquire_timeout: Duration::from_secs(30),
            statement_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(20),
            ..SqlLimits::default()
        };
        SqlStore::open(&url_of(&self.url), patient).await.expect("the store opens")
    }

    /// A connection past the store. SQLite belongs to one process at a time: there the store must be closed first.
    pub async fn raw(&self) -> Raw {
        Raw::connect(&self.url).await
    }

    /// The database file, on SQLite.
    pub fn file(&self) -> Option<std::path::PathBuf> {
        match &self.place {
            Place::Directory(directory) => Some(directory.path().join("latchkey.db")),
            Place::Server { .. } => None,
        }
    }

    /// Removes it, as far as that succeeds: the server is thrown away soon.
    pub async fn discard(self) {
        if let Place::Server { server_url, name } = &self.place {
            let force = if self.engine == Engine::Postgres { " WITH (FORCE)" } else { "" };
            let raw = Raw::connect(server_url).await;
            let _ = raw.0.execute_unprepared(&format!("DROP DATABASE {name}{force}")).await;
            raw.close().await;
        }
    }
}

/// The address of a database, as the program takes it.
pub fn url_of(url: &str) -> DatabaseUrl {
    DatabaseUrl::parse(url).expect("an address of a database")
}

/// One plain connection to a database.
pub struct Raw(DatabaseConnection);

impl Raw {
    /// Connects to any server.
    pub async fn connect(url: &str) -> Self {
        Self::try_connect(url).await.expect("the database takes a plain connection")
    }

    /// Connects to a server that may not be ready.
    pub async fn try_connect(url: &str) -> Result<Self, sea_orm::DbErr> {
        let mut options = ConnectOptions::new(url);
        options.max_connections(1).sqlx_logging(false);
        Database::connect(options).await.map(Self)
    }

    /// The connection itself.
    pub const fn connection(&self) -> &DatabaseConnection {
        &self.0
    }

    /// Runs one statement.
    pub async fn run(&self, sql: &str) {
        self.try_run(sql).await.unwrap_or_else(|error| panic!("{}: {error}", sql.get(..200).unwrap_or(sql)));
    }

    /// Whether it leads to PostgreSQL.
    pub fn is_postgres(&self) -> bool {
        self.0.get_database_backend() == sea_orm::DbBackend::Postgres
    }

    /// Runs one statement that may fail.
    pub async fn try_run(&self, sql: &str) -> Result<(), String> {
        self.0.execute_unprepared(sql).await.map(drop).map_err(|error| error.to_string())
    }

    /// Runs a query.
    pub async fn rows(&self, sql: &str) -> Vec<QueryResult> {
        let statement = Statement::from_string(self.0.get_database_backend(), sql);
        self.0.query_all_raw(statement).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Runs a query for one number.
    pub async fn number(&self, sql: &str) -> i64 {
        let rows = self.rows(sql).await;
        rows[0].try_get_by_index(0).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Runs a query for one text.
    pub async fn text(&self, sql: &str) -> String {
        let rows = self.rows(sql).await;
        rows[0].try_get_by_index(0).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Closes it, and waits until it is.
    pub async fn close(self) {
        self.0.close().await.expect("a plain connection closes");
    }
}

/// The address of a database on a server, whatever database the server's address names.
fn with_database(server_url: &str, name: &str) -> String {
    let (address, query) = server_url.split_once('?').unwrap_or((server_url, ""));
    let (scheme, rest) = address.split_once("://").expect("an address has a scheme");
    let host = rest.split_once('/').map_or(rest, |(host, _)| host);
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    format!("{scheme}://{host}/{name}{query}")
}

#[cfg(test)]
mod tests {
    use super::with_database;

    #[test]
    fn the_database_of_an_address_is_replaced_and_the_rest_kept() {
        assert_eq!(with_database("postgres://a@h:1/postgres", "x"), "postgres://a@h:1/x");
        assert_eq!(with_database("mysql://a:b@h:1", "x"), "mysql://a:b@h:1/x");
        assert_eq!(with_database("mysql://h/?ssl-mode=DISABLED", "x"), "mysql://h/x?ssl-mode=DISABLED");
    }
}
