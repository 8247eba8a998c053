//! A primary and its standby, replicated as an operator would: PostgreSQL by streaming, MariaDB by GTID. The standby is
//! synchronous, or asynchronous and made to fall behind, and is promoted by the server's own means.

use super::databases::{Engine, Raw, TestDatabase};
use super::own_server::OwnServer;
use super::waiting::eventually;

/// When the primary acknowledges a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replication {
    /// When the standby has it too.
    Synchronous,
    /// At once: the standby has it later, or never.
    Asynchronous,
}

/// Two servers, ended with the test.
pub struct ReplicatedServer {
    engine: Engine,
    pub primary: OwnServer,
    pub standby: OwnServer,
}

impl ReplicatedServer {
    /// Makes fresh data, starts a server on it, and another one that follows it.
    pub async fn start(engine: Engine, replication: Replication) -> Self {
        let settings = |role| settings(engine, replication, role);
        let mut primary = OwnServer::without_data(engine, settings(Role::Primary));
        let mut standby = OwnServer::without_data(engine, settings(Role::Standby));
        primary.make_data().await;
        if engine == Engine::Postgres {
            primary.restart().await;
            primary.operator().await.close().await;
            standby.copy_data(&primary).await;
            standby.restart().await;
        } else {
            standby.copy_data(&primary).await;
            primary.restart().await;
            standby.restart().await;
        }
        let pair = Self { engine, primary, standby };
        pair.connect(replication).await;
        pair
    }

    /// Lets the standby follow, and waits until the primary acknowledges commits as it should.
    async fn connect(&self, replication: Replication) {
        let (primary, standby) = (self.primary.operator().await, self.standby.operator().await);
        let is_synchronous = replication == Replication::Synchronous;
        if self.engine == Engine::Postgres {
            if is_synchronous {
                primary.run("ALTER SYSTEM SET synchronous_standby_names = '*'").await;
                primary.run("SELECT pg_reload_conf()").await;
            }
            let state = if is_synchronous { "sync" } else { "async" };
            let following = format!("SELECT COUNT(*) FROM pg_stat_replication WHERE sync_state = '{state}'");
            eventually("the standby follows", async || primary.number(&following).await == 1).await;
        } else {
            standby
                .run(&format!(
                    "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {}, MASTER_USER = 'operator', \
                     MASTER_CONNECT_RETRY = 1, MASTER_USE_GTID = slave_pos",
                    self.primary.port()
                ))
                .await;
            standby.run("START SLAVE").await;
            let following = if is_synchronous {
                "SELECT CAST(variable_value AS SIGNED) FROM information_schema.global_status \
                 WHERE variable_name = 'RPL_SEMI_SYNC_MASTER_CLIENTS'"
            } else {
                "SELECT COUNT(*) FROM information_schema.processlist WHERE command = 'Binlog Dump'"
            };
            eventually("the standby follows", async || primary.number(following).await == 1).await;
        }
        primary.close().await;
        standby.close().await;
    }

    /// A database with the schema on it, on both.
    pub async fn database(&self) -> TestDatabase {
        let database = self.primary.database().await;
        self.standby_catches_up().await;
        database
    }

    /// The URL of a database that names both hosts, the standby first.
    pub fn both_hosts(&self, database: &TestDatabase) -> String {
        let (primary, standby) = (self.primary.address(), self.standby.address());
        database.url().replace(&primary, &format!("{standby},{primary}"))
    }

    /// Makes the primary take no writes, as before a switch-over, without ending it.
    pub async fn primary_takes_no_writes(&self) {
        let primary = self.primary.operator().await;
        if self.engine == Engine::Postgres {
            primary.run("ALTER SYSTEM SET default_transaction_read_only = on").await;
            primary.run("SELECT pg_reload_conf()").await;
        } else {
            primary.run("SET GLOBAL read_only = 1").await;
        }
        primary.close().await;
    }

    /// How many connections of nodes the old primary has.
    pub async fn connections_to_old_primary(&self) -> i64 {
        let primary = self.primary.operator().await;
        let connections = if self.engine == Engine::Postgres {
            "SELECT COUNT(*) FROM pg_stat_activity WHERE application_name = 'latchkey'"
        } else {
            "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'latchkey'"
        };
        let count = primary.number(connections).await;
        primary.close().await;
        count
    }

    /// Waits until the standby has everything that is on the primary now.
    pub async fn standby_catches_up(&self) {
        let (primary, standby) = (self.primary.operator().await, self.standby.operator().await);
        if self.engine == Engine::Postgres {
            let written = primary.text("SELECT pg_current_wal_insert_lsn()::text").await;
            let caught_up = format!("SELECT (pg_last_wal_replay_lsn() >= '{written}'::pg_lsn)::int::bigint");
            // What was inserted and belongs to no commit is written out a little later.
            eventually("the standby catches up", async || standby.number(&caught_up).await == 1).await;
        } else {
            let written = primary.text("SELECT CAST(@@gtid_binlog_pos AS CHAR)").await;
            applies(&standby, &written).await;
        }
        primary.close().await;
        standby.close().await;
    }

    /// Makes the standby have everything up to now, and nothing that is committed from now on.
    pub async fn standby_falls_behind(&self) {
        self.standby_catches_up().await;
        let standby = self.standby.operator().await;
        if self.engine == Engine::Postgres {
            standby.run("ALTER SYSTEM SET primary_conninfo = ''").await;
            standby.run("SELECT pg_reload_conf()").await;
            let receivers = "SELECT COUNT(*) FROM pg_stat_wal_receiver";
            eventually("the standby hears nothing", async || standby.number(receivers).await == 0).await;
        } else {
            standby.run("STOP SLAVE IO_THREAD").await;
        }
        standby.close().await;
    }

    /// Makes the standby a primary, with all that it received. What becomes of the old primary is for the test to say.
    pub async fn promote_standby(&self) {
        let standby = self.standby.operator().await;
        if self.engine == Engine::Postgres {
            assert_eq!(standby.number("SELECT pg_promote()::int::bigint").await, 1, "it is promoted");
        } else {
            standby.run("STOP SLAVE IO_THREAD").await;
            let status = standby.rows("SHOW SLAVE STATUS").await;
            let received: String = status[0].try_get("", "Gtid_IO_Pos").expect("a position");
            applies(&standby, &received).await;
            for step in ["STOP SLAVE", "RESET SLAVE ALL", "SET GLOBAL read_only = 0"] {
                standby.run(step).await;
            }
        }
        standby.close().await;
    }
}

/// Waits until a MariaDB standby has applied everything up to `position`.
async fn applies(standby: &Raw, position: &str) {
    let applied = format!("SELECT CAST(MASTER_GTID_WAIT('{position}', 60) AS SIGNED)");
    assert_eq!(standby.number(&applied).await, 0, "the standby applies {position}");
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Primary,
    Standby,
}

/// What docs/RELIABILITY.md asks of an operator.
fn settings(engine: Engine, replication: Replication, role: Role) -> Vec<String> {
    let is_synchronous = replication == Replication::Synchronous;
    let settings: &[&str] = match (engine, role) {
        // The defaults are durable, and let a standby follow. Which standby is synchronous is set when it is there.
        (Engine::Postgres, _) => &[],
        (_, Role::Primary) if is_synchronous => &[
            "--server-id=1",
            "--rpl-semi-sync-master-enabled=1",
            "--rpl-semi-sync-master-wait-point=AFTER_SYNC",
            "--rpl-semi-sync-master-timeout=3600000",
        ],
        (_, Role::Primary) => &["--server-id=1"],
        (_, Role::Standby) if is_synchronous => {
            &["--server-id=2", "--read-only=1", "--rpl-semi-sync-slave-enabled=1"]
        }
        (_, Role::Standby) => &["--server-id=2", "--read-only=1"],
    };
    let on_both: &[&str] = match engine {
        Engine::Mariadb => &[
            "--log-bin",
            "--log-slave-updates=1",
            "--binlog-format=ROW",
            "--sync-binlog=1",
            "--innodb-flush-log-at-trx-commit=1",
            "--gtid-strict-mode=1",
            // The schema has a trigger, and its owner is no SUPER user.
            "--log-bin-trust-function-creators=1",
        ],
        _ => &[],
    };
    settings.iter().chain(on_both).map(|setting| (*setting).to_owned()).collect()
}
