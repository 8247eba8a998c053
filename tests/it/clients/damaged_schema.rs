//! What is missing of the schema is named by every command that depends on it, with the exit code for it, and is put back
//! by `migrate up`.

use tempfile::TempDir;

use crate::crash::{prepare, start};
use crate::support::databases::{Engine, TestDatabase, on_each_engine, on_each_server};
use crate::support::node_process::{Ended, NodeProcess, program, run};

on_each_engine![what_cannot_be_put_back_is_named_by_each_command];
on_each_server![what_is_missing_is_named_by_each_command_until_it_is_put_back];

const UNAVAILABLE: Option<i32> = Some(69);

/// A database, and the folder of who operates it.
struct Place<'d> {
    db: &'d TestDatabase,
    folder: TempDir,
}

impl<'d> Place<'d> {
    fn new(db: &'d TestDatabase) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        prepare(folder.path(), db);
        Self { db, folder }
    }

    async fn change(&self, statements: &[&str]) {
        let raw = self.db.raw().await;
        for statement in statements {
            raw.run(statement).await;
        }
        raw.close().await;
    }

    /// Runs a command on the database itself.
    fn run(&self, arguments: &[&str]) -> Ended {
        let mut command = program(self.folder.path());
        command.args(arguments).args(["--database-url", self.db.url()]);
        run(command, "")
    }

    /// Asks a node how the fleet is.
    fn fleet_status(&self, node: &NodeProcess) -> Ended {
        let mut command = program(self.folder.path());
        command.args(["fleet", "status"]).env("LATCHKEY_SERVER", format!("http://{}", node.grpc));
        run(command, "")
    }

    /// Starts a node that is expected not to start.
    fn refused_node(&self) -> Ended {
        let arguments = ["--database-url", self.db.url(), "--token-key-file", "token.key"];
        NodeProcess::start(self.folder.path(), &arguments).err().expect("it does not start")
    }
}

#[track_caller]
fn names(ended: &Ended, missing: &[&str]) {
    assert_eq!(ended.code, UNAVAILABLE, "{ended:?}");
    for what in missing {
        assert!(ended.stderr.contains(what), "{what:?} is missing in {ended:?}");
    }
}

async fn what_is_missing_is_named_by_each_command_until_it_is_put_back(db: &TestDatabase) {
    let place = Place::new(db);
    let node = start(place.folder.path(), db.url(), &[]);
    let all_is_well = || {
        for ended in [place.run(&["migrate", "status"]), place.fleet_status(&node)] {
            assert_eq!(ended.code, Some(0), "{ended:?}");
        }
        assert_eq!(start(place.folder.path(), db.url(), &[]).stop().code, Some(0));
    };
    all_is_well();
    let (change, missing): (&[&str], &[&str]) = if db.engine() == Engine::Mariadb {
        let change = &[
            "DROP TRIGGER change_log_number",
            "DROP INDEX digest ON sessions",
            "DROP INDEX sessions_by_over ON sessions",
        ];
        let missing = &[
            "trigger change_log_number on change_log is missing",
            "unique index (digest) on sessions is missing (index digest)",
            "index (over_time) on sessions is missing (index sessions_by_over)",
        ];
        (change, missing)
    } else {
        let change =
            &["ALTER TABLE sessions DROP CONSTRAINT sessions_digest_key", "DROP INDEX sessions_by_over"];
        let missing = &[
            "unique index (digest) on sessions is missing (index sessions_digest_key)",
            "index (over_time) on sessions is missing (index sessions_by_over)",
        ];
        (change, missing)
    };
    place.change(change).await;
    names(&place.run(&["migrate", "status"]), missing);
    names(&place.fleet_status(&node), missing);
    names(&place.refused_node(), missing);
    let done = place.run(&["migrate", "up"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    for what in missing {
        assert!(done.stdout.contains(&format!("put back: {what}\n")), "{done:?}");
    }
    all_is_well();
    assert_eq!(node.stop().code, Some(0));
}

/// An empty column would make ended sessions good again, so that no command adds one.
async fn what_cannot_be_put_back_is_named_by_each_command(db: &TestDatabase) {
    let place = Place::new(db);
    place.change(&["ALTER TABLE sessions RENAME COLUMN end_time TO aside"]).await;
    let missing = &["column sessions.end_time is missing"];
    for ended in [place.run(&["migrate", "status"]), place.run(&["migrate", "up"]), place.refused_node()] {
        names(&ended, missing);
    }
    place.change(&["ALTER TABLE sessions RENAME COLUMN aside TO end_time"]).await;
    let well = place.run(&["migrate", "status"]);
    assert_eq!(well.code, Some(0), "{well:?}");
}
