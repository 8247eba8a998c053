//! A database server of a test's own, which it may stop and start: throw-away data in a temporary directory, a free port,
//! an unprivileged user. The other tests' servers are never touched. See `scripts/lib/databases.sh` for the settings.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use latchkey::store::sql::{SqlLimits, migrate_up};
use rustix::process::{Pid, Signal, getuid, kill_process};
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::databases::{Engine, Raw, TestDatabase, url_of};
use super::waiting::eventually;

/// The account of the nodes may write to no server that is `read_only`; the other one is the administrator's. A standby
/// makes its own accounts, so they are not replicated.
const MARIADB_ACCOUNTS: &str = "SET SESSION sql_log_bin = 0;
CREATE USER latchkey@'127.0.0.1';
GRANT ALL PRIVILEGES ON *.* TO latchkey@'127.0.0.1' WITH GRANT OPTION;
REVOKE READ_ONLY ADMIN, SUPER ON *.* FROM latchkey@'127.0.0.1';
CREATE USER operator@'127.0.0.1';
GRANT ALL PRIVILEGES ON *.* TO operator@'127.0.0.1' WITH GRANT OPTION;
";

/// A server, ended with the test.
pub struct OwnServer {
    engine: Engine,
    home: TempDir,
    port: u16,
    settings: Vec<String>,
    process: Option<Child>,
}

impl OwnServer {
    /// Makes fresh data and starts a server on it.
    pub async fn start(engine: Engine) -> Self {
        let mut server = Self::without_data(engine, Vec::new());
        server.make_data().await;
        server.restart().await;
        server
    }

    /// A place for a server that has no data and does not run. `settings` are arguments of the server program.
    pub(super) fn without_data(engine: Engine, settings: Vec<String>) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        // The server's own user must get through to its data.
        fs::set_permissions(home.path(), Permissions::from_mode(0o711)).expect("it is ours");
        let inner = home.path().join("home");
        fs::create_dir(&inner).expect("a directory");
        if getuid().is_root() {
            let (user, group) = ids_of(account(engine));
            chown(&inner, Some(user), Some(group)).expect("root may give it away");
        }
        let port =
            TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address").port();
        Self { engine, home, port, settings, process: None }
    }

    /// Makes fresh data.
    pub(super) async fn make_data(&self) {
        if self.engine == Engine::Mariadb {
            fs::write(self.inner().join("accounts.sql"), MARIADB_ACCOUNTS).expect("it is ours");
        }
        self.run(self.making()).await;
    }

    /// Takes a copy of another server: of one that runs (PostgreSQL), or of one that has not run yet (MariaDB).
    pub(super) async fn copy_data(&self, from: &Self) {
        let data = self.inner().join("data");
        let command = if self.engine == Engine::Postgres {
            let mut command = self.as_owner(&postgres("pg_basebackup"));
            command.args(["--host=127.0.0.1", "--username=latchkey", "--checkpoint=fast", "--no-sync"]);
            // It becomes a standby of the server that it is a copy of.
            command.arg(format!("--port={}", from.port)).arg("--write-recovery-conf");
            command.arg("--pgdata").arg(data);
            command
        } else {
            let accounts = "accounts.sql";
            fs::copy(from.inner().join(accounts), self.inner().join(accounts)).expect("it is ours");
            let mut command = self.as_owner(Path::new("cp"));
            command.arg("--recursive").arg(from.inner().join("data")).arg(data);
            command
        };
        self.run(command).await;
    }

    async fn run(&self, command: Command) {
        let ran = tokio::task::spawn_blocking(move || run_to_end(command)).await.expect("it ends");
        ran.unwrap_or_else(|why| panic!("{} has no data: {why}", self.engine));
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its socket, as a URL names it: PostgreSQL's directory, or MariaDB's file.
    pub fn socket(&self) -> PathBuf {
        if self.engine == Engine::Postgres { self.inner() } else { self.inner().join("socket") }
    }

    /// Starts a server on fresh data, with more arguments of the server program.
    pub async fn start_with(engine: Engine, settings: &[&str]) -> Self {
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut server = Self::without_data(engine, settings);
        server.make_data().await;
        server.restart().await;
        server
    }

    /// Connects with the rights of its administrator, as soon as it takes connections.
    pub async fn operator(&self) -> Raw {
        let url = match self.engine {
            Engine::Postgres => format!("postgres://latchkey@{}/postgres", self.address()),
            _ => format!("mysql://operator@{}/mysql", self.address()),
        };
        let mut connected = None;
        eventually("the server takes statements", async || {
            connected = Raw::try_connect(&url).await.ok();
            connected.is_some()
        })
        .await;
        connected.expect("it was waited for")
    }

    /// A database with the schema on it.
    pub async fn database(&self) -> TestDatabase {
        let scheme = if self.engine == Engine::Postgres { "postgres" } else { "mysql" };
        let url = format!("{scheme}://latchkey@127.0.0.1:{}/{scheme}", self.port);
        let empty = TestDatabase::create_empty_on(self.engine, url.replace("/mysql", "/")).await;
        migrate_up(&url_of(empty.url()), SqlLimits::default())
            .await
            .expect("a fresh database takes the schema");
        empty
    }

    /// Ends it at once, as a crash does, and waits until it has.
    pub async fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        signal(&process, if self.engine == Engine::Postgres { Signal::QUIT } else { Signal::KILL });
        eventually("the end of the server", async || process.try_wait().expect("ours").is_some()).await;
    }

    /// Starts it on its old data and its old port, and waits until it takes connections.
    pub async fn restart(&mut self) {
        let mut command = self.serving();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = command.spawn().expect("the server starts");
        let port = self.port;
        eventually("the server takes connections", async || {
            assert!(process.try_wait().expect("ours").is_none(), "the server ended");
            TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
        self.process = Some(process);
    }

    pub(super) fn inner(&self) -> PathBuf {
        self.home.path().join("home")
    }

    fn making(&self) -> Command {
        let inner = self.inner();
        if self.engine == Engine::Postgres {
            let mut command = self.as_owner(&postgres("initdb"));
            command.arg("--pgdata").arg(inner.join("data"));
            command.args([
                "--username=latchkey",
                "--auth=trust",
                "--encoding=UTF8",
                "--no-locale",
                "--no-sync",
            ]);
            return command;
        }
        let mut command = self.as_owner(Path::new("mariadb-install-db"));
        command.arg("--no-defaults").arg(format!("--datadir={}", inner.join("data").display()));
        command.args(["--skip-test-db", "--auth-root-authentication-method=normal"]);
        command
    }

    fn serving(&self) -> Command {
        let (inner, port) = (self.inner(), self.port.to_string());
        let in_home = |name: &str| inner.join(name).display().to_string();
        if self.engine == Engine::Postgres {
            let mut command = self.as_owner(&postgres("postgres"));
            command.args(["-D", &in_home("data"), "-p", &port, "-c", "listen_addresses=127.0.0.1"]);
            command.args(["-c", &format!("unix_socket_directories={}", inner.display())]);
            command.args(&self.settings);
            return command;
        }
        let mut command = self.as_owner(Path::new("mariadbd"));
        command.args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve", "--port", &port]);
        command.arg(format!("--datadir={}", in_home("data")));
        command.arg(format!("--socket={}", in_home("socket"))).arg(format!("--pid-file={}", in_home("pid")));
        // Accounts are made at the first start and are there at the others.
        if !inner.join("data").join("ibtmp1").exists() {
            command.arg(format!("--init-file={}", in_home("accounts.sql")));
        }
        command.args(&self.settings);
        command
    }

    /// A command as the server's own user, where the test runs as root: PostgreSQL refuses root.
    pub(super) fn as_owner(&self, program: &Path) -> Command {
        let mut command = if getuid().is_root() {
            let (user, group) = ids_of(account(self.engine));
            let mut command = Command::new("setpriv");
            command.args([
                format!("--reuid={user}"),
                format!("--regid={group}"),
                "--clear-groups".to_owned(),
            ]);
            command.arg(program);
            command
        } else {
            Command::new(program)
        };
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin")).env("HOME", self.inner()).current_dir(self.inner());
        command
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            signal(&process, if self.engine == Engine::Postgres { Signal::QUIT } else { Signal::KILL });
            let _ = process.wait();
        }
    }
}

fn signal(process: &Child, signal: Signal) {
    let id = i32::try_from(process.id()).ok().and_then(Pid::from_raw).expect("a process id");
    // One that has ended by itself cannot be ended; whoever waits for it sees that.
    let _ = kill_process(id, signal);
}

/// The account of the package.
const fn account(engine: Engine) -> &'static str {
    match engine {
        Engine::Postgres => "postgres",
        _ => "mysql",
    }
}

/// User and group of an account; those of nobody where the package made none.
fn ids_of(account: &str) -> (u32, u32) {
    let of = |account: &str| {
        let number = |flag| {
            let output =
                Command::new("id").args([flag, account]).output().ok().filter(|out| out.status.success());
            output.and_then(|output| String::from_utf8(output.stdout).ok()?.trim().parse().ok())
        };
        Some((number("-u")?, number("-g")?))
    };
    of(account).or_else(|| of("nobody")).expect("an account without rights")
}

/// A program of the newest PostgreSQL.
fn postgres(program: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.map(|version| version.path().join("bin").join(program)).filter(|path| path.exists());
    found.max().unwrap_or_else(|| PathBuf::from(program))
}

fn run_to_end(mut command: Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    let told =
        || format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(()) } else { Err(told()) }
}
