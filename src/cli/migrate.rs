//! `migrate`: the schema of the database.

use clap::{Args, Subcommand};

use super::failure::{Exit, Failure, Outcome};
use super::node::{limits, not_opened};
use super::output;
use super::says_no_color;
use super::settings::Settings;
use crate::config::Config;
use crate::store::sql::{OpenError, SchemaStatus, migrate_up, schema_status};
use crate::telemetry::{self, LogFormat, report_wait};

/// Bring the schema of the database up to date, or look at it. (`serve` does so itself for SQLite.)
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Apply the migrations that are missing, and put back what was lost of the schema; only one process at a time does.
    #[command(after_help = "Example:\n  LATCHKEY_DATABASE_URL=postgres://... latchkey migrate up")]
    Up(Migrate),
    /// List the migrations and verify the schema; exit code 1 if migrations are missing, 69 if the schema is damaged.
    #[command(after_help = "Example:\n  LATCHKEY_DATABASE_URL=postgres://... latchkey migrate status")]
    Status(Migrate),
}

/// Arguments of `migrate up` and `migrate status`.
#[derive(Debug, Args)]
pub(super) struct Migrate {
    #[command(flatten)]
    settings: Settings,
}

impl Command {
    pub(super) fn run(self) -> Outcome {
        let (Self::Up(Migrate { settings }) | Self::Status(Migrate { settings })) = &self;
        let config = settings.clone().load()?.config;
        telemetry::start_logging(LogFormat::for_stderr(), "warn", says_no_color())
            .map_err(|error| Failure::new(Exit::Configuration, error.to_string()))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        match self {
            Self::Up(_) => runtime.block_on(up(&config)),
            Self::Status(_) => runtime.block_on(status(&config)),
        }
    }
}

async fn up(config: &Config) -> Outcome {
    let done = migrate_up(&config.database_url, limits(config));
    let what = "the database to be migrated: it may not answer, or another migration or a backup may lock it";
    let done = report_wait(what, done).await;
    let done = done.map_err(|error| not_opened(&error))?;
    for name in &done.applied {
        output::print(&format!("applied {name}\n"))?;
    }
    for what in &done.put_back {
        output::print(&format!("put back: {what}\n"))?;
    }
    if done.applied.is_empty() && done.put_back.is_empty() {
        output::print("the schema is up to date\n")?;
    }
    Ok(())
}

async fn status(config: &Config) -> Outcome {
    let status = schema_status(&config.database_url, limits(config));
    let status = report_wait("the database", status).await;
    let SchemaStatus { migrations, flaws } = status.map_err(|error| not_opened(&error))?;
    let row = |name: &str, applied: bool| [name.to_owned(), if applied { "yes" } else { "no" }.to_owned()];
    output::print(&output::table(
        ["MIGRATION", "APPLIED"],
        migrations.iter().map(|one| row(&one.name, one.applied)),
    ))?;
    if !flaws.is_empty() {
        return Err(not_opened(&OpenError::SchemaDamaged { flaws }));
    }
    match migrations.iter().filter(|one| !one.applied).count() {
        0 => Ok(()),
        1 => Err(pending("1 migration is missing")),
        many => Err(pending(&format!("{many} migrations are missing"))),
    }
}

fn pending(message: &str) -> Failure {
    Failure::new(Exit::Refused, message).hint("run `latchkey migrate up`")
}
