//! The real program in a process of its own: a node that serves, and commands that end.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{JoinHandle, spawn};

use rustix::process::{Pid, Signal, kill_process};

use super::waiting::eventually;

/// A node of the real program in its own folder, ended with the test.
pub struct NodeProcess {
    child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
    /// Where gRPC is served.
    pub grpc: String,
    /// Where health and metrics are served.
    pub http: String,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Names another build of the program, for figures of the one that ships.
const PROGRAM_FROM: &str = "LATCHKEY_TEST_PROGRAM";

/// Names the mutation that is switched on, for tests and for the program.
const MUTATION: &str = "LATCHKEY_MUTATION";
const MUTATION_OF_PROGRAM: &str = "MUTATION_OF_LATCHKEY";

/// The program in a folder, with no setting from around.
pub fn program(folder: &Path) -> Command {
    let built = std::env::var_os(PROGRAM_FROM).unwrap_or_else(|| env!("CARGO_BIN_EXE_latchkey").into());
    let mut command = Command::new(built);
    command.current_dir(folder).env_clear().env("PATH", "/usr/bin:/bin");
    // A broken variant that is switched on is switched on in the program, too.
    if let Some(mutation) = std::env::var_os(MUTATION) {
        command.env(MUTATION_OF_PROGRAM, mutation);
    }
    command
}

/// Runs a command to its end, with `input` on its standard input.
pub fn run(mut command: Command, input: &str) -> Ended {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    // A command that does not read its input may have ended already.
    let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("the program ends");
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("it writes text"),
        stderr: String::from_utf8(output.stderr).expect("it writes text"),
    }
}

impl NodeProcess {
    /// Serves on free ports from the folder's SQLite file, with more arguments, and waits until it listens. Where it ends
    /// instead, that is the error.
    pub fn start(folder: &Path, arguments: &[&str]) -> Result<Self, Ended> {
        Self::start_with(folder, arguments, &[])
    }

    /// The same with more in the environment.
    pub fn start_with(
        folder: &Path,
        arguments: &[&str],
        environment: &[(&str, PathBuf)],
    ) -> Result<Self, Ended> {
        let mut command = program(folder);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        // Flags win over the environment, so a test may still say otherwise.
        command.env("LATCHKEY_LISTEN", "127.0.0.1:0").env("LATCHKEY_HTTP_LISTEN", "127.0.0.1:0");
        command.env("LATCHKEY_SHUTDOWN_LAME_DUCK_MS", "0").arg("serve").args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("it writes text");
        let place = |name: &str| {
            let found = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            found.map(str::to_owned)
        };
        if let (Some(grpc), Some(http)) = (place("grpc"), place("http")) {
            let stderr = child.stderr.take().expect("it is piped");
            let (stdout, stderr) = (Some(read_along(stdout)), Some(read_along(stderr)));
            return Ok(Self { child, stdout, stderr, grpc, http });
        }
        let output = child.wait_with_output().expect("the program ends");
        Err(Ended {
            code: output.status.code(),
            stdout: line,
            stderr: String::from_utf8(output.stderr).expect("it writes text"),
        })
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(id, signal).expect("the process is there");
    }

    /// Asks it to stop and waits until it has.
    pub fn stop(mut self) -> Ended {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> Ended {
        let code = self.child.wait().expect("it ends").code();
        self.told(code)
    }

    /// The same for a test that has more to do meanwhile, and not for ever. No code where a signal ended it.
    pub async fn ended(&mut self) -> Ended {
        let mut status = None;
        eventually("the end of the node", async || {
            status = self.child.try_wait().expect("it can be waited for");
            status.is_some()
        })
        .await;
        self.told(status.and_then(|status| status.code()))
    }

    /// Whether it is still there.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it can be waited for").is_none()
    }

    fn told(&mut self, code: Option<i32>) -> Ended {
        let text = |reader: Option<JoinHandle<String>>| {
            reader.map_or_else(String::new, |reader| reader.join().expect("it writes text"))
        };
        Ended { code, stdout: text(self.stdout.take()), stderr: text(self.stderr.take()) }
    }
}

/// Reads to the end beside the test: a node whose pipe is full would stand still.
fn read_along(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).expect("it writes text");
        text
    })
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // One that has ended already cannot be ended; that is all right.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
