//! `serve`: one node, from the configuration to the exit code.

use clap::Args;
use rustix::fs::Mode;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::failure::{Exit, Failure, Outcome};
use super::node::Node;
use super::output;
use super::says_no_color;
use super::settings::Settings;
use crate::config::{Config, Loaded, LogFormat};
use crate::server::Drained;
use crate::server::descriptors::raise_limit;
use crate::telemetry;

/// Serve until SIGTERM or Ctrl-C; a second one ends at once.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  latchkey serve\n  latchkey serve --config latchkey.toml\n  \
    LATCHKEY_DATABASE_URL=postgres://latchkey:...@127.0.0.1/latchkey latchkey serve --token-key-file token.key\n\n\
    When it listens, one line on stdout says where: listening grpc=ADDRESS http=ADDRESS. Log lines go to stderr.\n\
    Exit codes: 0 after a clean drain, 1 if calls were cut off, 69 database not reachable, 70 a defect, 78 bad configuration.\n\
    Few settings are shown by -h, all by --help.")]
pub(super) struct Serve {
    #[command(flatten)]
    settings: Settings,
}

impl Serve {
    pub(super) fn run(self) -> Outcome {
        let Loaded { config, passed_over, .. } = self.settings.load()?;
        start_logging(&config)?;
        if !passed_over.is_empty() {
            tracing::info!(
                variables = passed_over.join(" "),
                "these variables are no settings: Kubernetes sets them for a service; enableServiceLinks: false removes them"
            );
        }
        raise_limit();
        keep_files_private();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let (shutdown, abort) = (CancellationToken::new(), CancellationToken::new());
            let signals = signals(&shutdown, &abort)?;
            tokio::select! {
                outcome = serve(&config, &shutdown, &abort) => outcome,
                never = signals => never,
            }
        })
    }
}

async fn serve(config: &Config, shutdown: &CancellationToken, abort: &CancellationToken) -> Outcome {
    let Some(node) = Node::start(config, shutdown).await? else {
        tracing::info!("stopped before the node was ready");
        return Ok(());
    };
    let http = node.server.http_address().map_or_else(|| "off".to_owned(), |address| address.to_string());
    tracing::info!("{}", node.describe());
    output::announce(&format!("listening grpc={} http={http}\n", node.server.grpc_address()));
    match node.run(shutdown.clone(), abort.clone()).await {
        Drained::Clean => {
            tracing::info!("stopped; every call was answered");
            Ok(())
        }
        Drained::Failed(task) => Err(Failure::new(
            Exit::Defect,
            format!("ended by itself: the task {task} panicked again and again"),
        )
        .hint("the log has the panics; please report them")),
        Drained::CutOff if abort.is_cancelled() => {
            Err(Failure::new(Exit::Refused, "stopped at once, as told"))
        }
        Drained::CutOff => {
            Err(Failure::new(Exit::Refused, "stopped; calls were cut off at shutdown.drain_ms"))
        }
    }
}

/// Turns the first signal to stop into a drain and the second into the end. A closed terminal and the signals by which
/// programs are told to reload or to open their log anew have no meaning here, and must not kill a node without a drain.
/// The result is work that never ends by itself.
fn signals(
    shutdown: &CancellationToken,
    abort: &CancellationToken,
) -> Result<impl Future<Output = Outcome> + use<>, Failure> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hang_up = signal(SignalKind::hangup())?;
    let (mut first_user, mut second_user) =
        (signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?);
    let (shutdown, abort) = (shutdown.clone(), abort.clone());
    Ok(async move {
        loop {
            let ignored = tokio::select! {
                _ = terminate.recv() => None,
                _ = interrupt.recv() => None,
                _ = hang_up.recv() => Some("SIGHUP"),
                _ = first_user.recv() => Some("SIGUSR1"),
                _ = second_user.recv() => Some("SIGUSR2"),
            };
            if let Some(signal) = ignored {
                tracing::info!(
                    signal,
                    "signal ignored: this server reloads nothing; restart it to apply changes"
                );
            } else if shutdown.is_cancelled() {
                tracing::warn!("told to stop once more: ending at once");
                abort.cancel();
            } else {
                tracing::info!("told to stop: draining; once more ends at once");
                shutdown.cancel();
            }
        }
    })
}

/// What the node makes, such as a SQLite database with password hashes, is for its owner only.
fn keep_files_private() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

fn start_logging(config: &Config) -> Outcome {
    let format = match config.log.format {
        LogFormat::Auto => telemetry::LogFormat::for_stderr(),
        LogFormat::Text => telemetry::LogFormat::Text,
        LogFormat::Json => telemetry::LogFormat::Json,
    };
    telemetry::start_logging(format, &config.log.filter, says_no_color())
        .map_err(|error| Failure::new(Exit::Configuration, error.to_string()))
}
