//! Servers, accounts and poolers whose settings are not what a node relies on: each session sets its own, and where that
//! is not enough the node warns or refuses, in words that say what to change.

use latchkey::store::coordination::{AckCommit, Coordination as _};
use latchkey::store::sql::{OpenError, SqlLimits, SqlStore, migrate_up};

use super::samples::{add_user, new_node};
use crate::support::captured_log;
use crate::support::databases::{Engine, Raw, TestDatabase, run_on, url_of};
use crate::support::own_server::OwnServer;
use crate::support::pgbouncer::PgBouncer;

async fn open(url: &str) -> Result<SqlStore, OpenError> {
    SqlStore::open(&url_of(url), SqlLimits::default()).await
}

/// The words of a refusal for what the operator has to change.
async fn refusal(url: &str) -> String {
    match open(url).await {
        Err(OpenError::Unsupported(why)) => why,
        other => panic!("not refused so: {:?}", other.err()),
    }
}

/// The warnings that were logged while a store on `url` was opened.
async fn warnings(url: &str) -> Vec<String> {
    captured_log::listen();
    let opened = open(url).await;
    let lines = captured_log::stop();
    opened.expect("the store opens").close().await;
    lines.into_iter().filter(|line| line.contains("may lose what was acknowledged")).collect()
}

async fn on(engine: Engine, test: impl AsyncFnOnce()) {
    run_on(engine, async |_: &TestDatabase| test().await).await;
}

/// Makes an account with ordinary rights, and a trigger that writes down how the sessions are set that add users.
async fn watched(server: &OwnServer, operator: &Raw, seen: &str) -> TestDatabase {
    let db = server.database().await;
    let raw = db.raw().await;
    raw.run("CREATE TABLE seen (setting TEXT)").await;
    if raw.is_postgres() {
        raw.run(&format!(
            "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN INSERT INTO seen VALUES ({seen}); RETURN NEW; END $$"
        ))
        .await;
        raw.run("CREATE TRIGGER see AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION see()").await;
    } else {
        raw.run(&format!(
            "CREATE TRIGGER see AFTER INSERT ON users FOR EACH ROW INSERT INTO seen VALUES ({seen})"
        ))
        .await;
        operator.run("CREATE USER plain@'127.0.0.1'").await;
        let name = raw.text("SELECT DATABASE()").await;
        operator.run(&format!("GRANT ALL PRIVILEGES ON `{name}`.* TO plain@'127.0.0.1'")).await;
    }
    raw.close().await;
    db
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_sets_what_it_relies_on_mariadb() {
    on(Engine::Mariadb, async || {
        let odd = [
            "--autocommit=0",
            "--sql-mode=",
            "--default-time-zone=+03:00",
            "--transaction-isolation=SERIALIZABLE",
            "--completion-type=CHAIN",
            "--init-connect=SET autocommit=0, sql_mode='ANSI_QUOTES', time_zone='+05:00', tx_isolation='READ-UNCOMMITTED'",
        ];
        let server = OwnServer::start_with(Engine::Mariadb, &odd).await;
        let operator = server.operator().await;
        operator.run("SET autocommit = 1").await;
        let settings = "CONCAT_WS(' ', @@session.autocommit, @@session.tx_isolation, @@session.time_zone, @@session.completion_type)";
        let db = watched(&server, &operator, settings).await;
        let url = db.url().replace("//latchkey@", "//plain@");
        // The control: a session that sets nothing of this has it as the server says.
        let raw = Raw::connect(&url).await;
        let plain = raw.text(&format!("SELECT {settings}")).await;
        assert!(plain.starts_with("OFF READ-UNCOMMITTED") && plain.ends_with("CHAIN"), "{plain}");
        let store = open(&url).await.expect("the store opens");
        add_user(&store, "ada").await;
        let seen = "SELECT GROUP_CONCAT(DISTINCT setting) FROM seen";
        operator.run(&format!("USE `{}`", raw.text("SELECT DATABASE()").await)).await;
        assert_eq!(operator.text(seen).await, "ON READ-COMMITTED +00:00 NO_CHAIN");
        // A statement alone is committed when it is answered.
        let node = new_node("ada");
        let joined = store.join(node.clone()).await.expect("it joins");
        let server = store.poll(node.id, joined.position, 1).await.expect("an answer").server;
        let durable = AckCommit::Durable(server);
        store.acknowledge(node.id, joined.position, joined.nonce, durable).await.expect("acknowledged");
        store.leave(node.id).await.expect("it leaves");
        assert_eq!(operator.number("SELECT COUNT(*) FROM nodes").await, 0);
        // The control: the same statement on the other session is not.
        raw.run("DELETE FROM users").await;
        assert_eq!(operator.number("SELECT COUNT(*) FROM users").await, 1);
        store.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_sets_what_it_relies_on_postgres() {
    on(Engine::Postgres, async || {
        let server = OwnServer::start(Engine::Postgres).await;
        let operator = server.operator().await;
        let settings = "concat_ws(' ', current_setting('synchronous_commit'), current_setting('transaction_isolation'), \
                        current_setting('TimeZone'), current_setting('lock_timeout'))";
        let db = watched(&server, &operator, settings).await;
        for odd in [
            "synchronous_commit = off",
            "default_transaction_isolation = 'serializable'",
            "TimeZone = 'Asia/Tokyo'",
            "lock_timeout = 1",
            "idle_in_transaction_session_timeout = 0",
        ] {
            operator.run(&format!("ALTER ROLE latchkey SET {odd}")).await;
        }
        // The control: a session that sets nothing of this has it as the role says.
        let raw = db.raw().await;
        let plain = raw.text(&format!("SELECT {settings}")).await;
        assert!(plain.starts_with("off serializable") && plain.ends_with("1ms"), "{plain}");
        let told = warnings(db.url()).await;
        assert!(told.iter().any(|line| line.contains("synchronous_commit is off or local")), "{told:?}");
        let store = open(db.url()).await.expect("the store opens");
        add_user(&store, "ada").await;
        assert_eq!(raw.text("SELECT string_agg(DISTINCT setting, ',') FROM seen").await, "on read committed UTC 4s");
        store.close().await;
        operator.run("ALTER ROLE latchkey RESET ALL").await;
        assert_eq!(warnings(db.url()).await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_may_lose_commits_is_warned_of_postgres() {
    on(Engine::Postgres, async || {
        let weak = ["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "synchronous_commit=local"];
        let server = OwnServer::start_with(Engine::Postgres, &weak).await;
        let told = warnings(server.database().await.url()).await.join("\n");
        for setting in ["fsync is off", "full_page_writes is off", "synchronous_commit is off or local"] {
            assert!(told.contains(setting), "{setting}: {told}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_may_lose_commits_or_takes_none_is_told_of_mariadb() {
    on(Engine::Mariadb, async || {
        let weak = [
            "--server-id=1",
            "--log-bin",
            "--sync-binlog=0",
            "--innodb-flush-log-at-trx-commit=2",
            "--binlog-format=STATEMENT",
        ];
        let server = OwnServer::start_with(Engine::Mariadb, &weak).await;
        let operator = server.operator().await;
        operator.run("SET SESSION binlog_format = ROW").await;
        let empty =
            TestDatabase::create_empty_on(Engine::Mariadb, format!("mysql://latchkey@{}/", server.address()))
                .await;
        let migrated = || async { migrate_up(&url_of(empty.url()), SqlLimits::default()).await };
        // Error 1665: what is written at READ COMMITTED cannot be logged as statements.
        let refused = migrated().await.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(
            refused.contains("set it to ROW or MIXED") && !refused.contains("cannot be reached"),
            "{refused}"
        );
        operator.run("SET GLOBAL binlog_format = ROW").await;
        // Error 1419: the trigger.
        let refused = migrated().await.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(
            refused.contains("log_bin_trust_function_creators = 1") && !refused.contains("cannot be reached"),
            "{refused}"
        );
        operator.run("SET GLOBAL log_bin_trust_function_creators = 1").await;
        migrated().await.expect("the control: now it takes the schema");
        let told = warnings(empty.url()).await.join("\n");
        for setting in ["innodb_flush_log_at_trx_commit is not 1", "sync_binlog is not 1"] {
            assert!(told.contains(setting), "{setting}: {told}");
        }
        operator.run("SET GLOBAL binlog_format = STATEMENT").await;
        assert!(refusal(empty.url()).await.contains("set it to ROW or MIXED"));
        operator
            .run("SET GLOBAL binlog_format = MIXED, sync_binlog = 1, innodb_flush_log_at_trx_commit = 1")
            .await;
        assert_eq!(warnings(empty.url()).await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_with_a_plug_in_that_is_not_there_is_told_what_to_change() {
    on(Engine::Mariadb, async || {
        let server = OwnServer::start(Engine::Mariadb).await;
        let operator = server.operator().await;
        let db = server.database().await;
        operator.run("INSTALL SONAME 'auth_ed25519'").await;
        operator.run("CREATE USER ed@'127.0.0.1' IDENTIFIED VIA ed25519 USING PASSWORD('geheim')").await;
        operator.run("GRANT ALL PRIVILEGES ON *.* TO ed@'127.0.0.1'").await;
        let url = db.url().replace("//latchkey@", "//ed:geheim@");
        let why = refusal(&url).await;
        assert!(
            why.contains("ed25519") && why.contains("mysql_native_password") && !why.contains("geheim"),
            "{why}"
        );
        // What is told is what helps.
        operator
            .run("ALTER USER ed@'127.0.0.1' IDENTIFIED VIA mysql_native_password USING PASSWORD('geheim')")
            .await;
        open(&url).await.expect("the store opens").close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_keeps_no_sessions_is_refused() {
    on(Engine::Postgres, async || {
        let server = OwnServer::start(Engine::Postgres).await;
        let db = server.database().await;
        for mode in ["transaction", "statement"] {
            let pooler = PgBouncer::start(&server, mode).await;
            let why = refusal(&db.url().replace(&server.address(), &pooler.address)).await;
            assert!(why.contains("pool_mode = session"), "{mode}: {why}");
        }
        let pooler = PgBouncer::start(&server, "session").await;
        let store = open(&db.url().replace(&server.address(), &pooler.address)).await;
        let store = store.expect("the control: one that keeps sessions is taken");
        add_user(&store, "ada").await;
        store.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_that_a_pooler_passes_over_hold_all_the_same() {
    on(Engine::Postgres, async || {
        let server = OwnServer::start(Engine::Postgres).await;
        let db = server.database().await;
        let raw = db.raw().await;
        raw.run("CREATE TABLE seen (setting TEXT)").await;
        raw.run(
            "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN INSERT INTO seen VALUES (current_setting('latchkey.tenant', true)); RETURN NEW; END $$",
        )
        .await;
        raw.run("CREATE TRIGGER see AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION see()").await;
        let pooler = PgBouncer::start(&server, "session").await;
        let url = db.url().replace(&server.address(), &pooler.address);
        let url = format!("{url}?options=-c%20latchkey.tenant%3Done%5C%20two");
        // The control: the pooler does pass over them.
        let plain = Raw::connect(&url).await;
        assert!(plain.connection().get_database_backend() == sea_orm::DbBackend::Postgres);
        assert_eq!(
            plain.text("SELECT coalesce(current_setting('latchkey.tenant', true), 'none')").await,
            "none"
        );
        let store = open(&url).await.expect("the store opens");
        add_user(&store, "ada").await;
        assert_eq!(raw.text("SELECT string_agg(setting, ',') FROM seen").await, "one two");
        store.close().await;
        // What cannot be set in a session is said, and not waited for.
        let fixed = url.replace("latchkey.tenant%3Done%5C%20two", "max_connections%3D5");
        assert!(refusal(&fixed).await.contains("max_connections"));
    })
    .await;
}
