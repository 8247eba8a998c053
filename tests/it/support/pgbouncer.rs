//! PgBouncer between a node and a test's own PostgreSQL, ended with the test.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Stdio};

use tokio::net::TcpStream;

use super::own_server::OwnServer;
use super::waiting::eventually;

/// A pooler that passes over `options`, as those do that do not know them.
pub struct PgBouncer {
    process: Child,
    /// Where it listens.
    pub address: String,
}

impl PgBouncer {
    /// Starts one in the given mode before `server`, and waits until it takes connections.
    pub async fn start(server: &OwnServer, mode: &str) -> Self {
        let port =
            TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address").port();
        let file = server.inner().join(format!("pgbouncer-{mode}.ini"));
        // A plain connection of the driver, the control in this mode, sends the second one.
        let ignored = if mode == "session" { "options, extra_float_digits" } else { "options" };
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={} user=latchkey\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = {mode}\nignore_startup_parameters = {ignored}\n",
            server.port()
        );
        fs::write(&file, settings).expect("it is ours");
        let mut command = server.as_owner(Path::new("/usr/sbin/pgbouncer"));
        command.arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = command.spawn().expect("PgBouncer is installed (scripts/test sees to it)");
        eventually("the pooler takes connections", async || {
            assert!(process.try_wait().expect("ours").is_none(), "the pooler ended");
            TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
        Self { process, address: format!("127.0.0.1:{port}") }
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // One that has ended already cannot be ended; that is all right.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
