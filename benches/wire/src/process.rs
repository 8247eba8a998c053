//! A process on a core of its own, and the processor time that it has taken.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::Failure;

/// Where servers run.
pub const SERVERS: &str = "0";
/// Where clients run.
pub const CLIENTS: &str = "1";

/// A server, ended with this value.
pub struct Server {
    child: Child,
    /// Kept open, since a server that cannot write its log may end.
    _stdout: BufReader<ChildStdout>,
    /// What it wrote first.
    pub first_line: String,
}

impl Server {
    /// Starts `program` on the servers' core and waits for its first line, which says that it listens.
    pub fn start(program: &str, arguments: &[&str], settings: &[(&str, &str)]) -> Result<Self, Failure> {
        let mut command = pinned(SERVERS, program);
        command.args(arguments).envs(settings.iter().copied());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().ok_or("it is piped")?);
        stdout.read_line(&mut line)?;
        Ok(Self { child, _stdout: stdout, first_line: line })
    }

    /// The processor time that its threads have taken, to the nanosecond (proc(5), `schedstat`).
    pub fn cpu(&self) -> Result<Duration, Failure> {
        let mut spent = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // A thread that ends meanwhile is none of those that answer.
            let Ok(told) = std::fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            spent += told.split(' ').next().ok_or("a number")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(spent))
    }

    /// Memory that it holds, in bytes (the resident set).
    pub fn memory(&self) -> Result<u64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("it tells its memory")?;
        let kib: u64 = line.split_whitespace().next().ok_or("a number")?.parse()?;
        Ok(kib * 1_024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended already cannot be ended; that is all right.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `program` on one core.
pub fn pinned(core: &str, program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core, program]);
    command
}

/// Runs a client to its end, and gives what it wrote.
pub fn run_client(program: &str, arguments: &[&str]) -> Result<String, Failure> {
    let output = pinned(CLIENTS, program).args(arguments).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        return Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
