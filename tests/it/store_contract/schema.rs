//! The schema is verified from the engine's own catalogue: whatever is missing or changed is named, a node does not start
//! on it, and `migrate up` puts it back.

use latchkey::domain::session::EndReason;
use latchkey::store::coordination::Coordination as _;
use latchkey::store::sql::{OpenError, SqlLimits, SqlStore, migrate_up, schema_status};
use latchkey::store::{EndTarget, Store as _, StoreError};
use migrations::Unseen;
use migrations::description::{Column, Kind, TABLES, Table};

use super::samples::{NOW, add_user, sign_in, stamp, verdict};
use crate::support::databases::{Engine, Raw, TestDatabase, on_each_engine, run_on};

on_each_engine![
    a_fresh_database_is_as_described,
    each_missing_or_changed_column_is_named,
    each_missing_or_changed_index_is_named,
    lost_rows_and_tables_are_named,
    what_a_newer_schema_adds_is_tolerated,
];

async fn flaws(db: &TestDatabase) -> Vec<String> {
    schema_status(db.url(), SqlLimits::default()).await.expect("a status").flaws
}

async fn a_fresh_database_is_as_described(db: &TestDatabase) {
    let raw = db.raw().await;
    let found = migrations::verify(raw.connection(), Unseen::IsMissing).await.expect("a catalogue");
    assert_eq!(found, [], "the description says more than the migrations make");
    let more = migrations::undescribed(raw.connection()).await.expect("a catalogue");
    assert_eq!(more, Vec::<String>::new(), "the migrations make more than the description says");
    raw.close().await;
}

/// A change of the schema, and how the test itself undoes it where `migrate up` cannot.
struct Damage {
    change: Vec<String>,
    complaint: String,
    undo: Vec<String>,
}

impl Damage {
    /// One that `migrate up` puts back.
    fn mendable(change: &[String], complaint: String) -> Self {
        Self { change: change.to_vec(), complaint, undo: Vec::new() }
    }

    /// Does it, expects the complaint from everybody who looks, and expects it to be gone afterwards.
    async fn check(self, db: &TestDatabase) {
        let Self { change, complaint, undo } = self;
        run(db, &change).await;
        let told = flaws(db).await;
        assert!(told.contains(&complaint), "{change:?}: {complaint:?} is not among {told:?}");
        let opened = SqlStore::open(db.url(), SqlLimits::default()).await;
        // SQLite is migrated when it is opened.
        match opened.err() {
            Some(OpenError::SchemaDamaged { flaws } | OpenError::SchemaLost { flaws }) => {
                assert!(flaws.iter().any(|flaw| flaw.contains(&complaint) || !undo.is_empty()), "{flaws:?}");
            }
            None if db.engine() == Engine::Sqlite && undo.is_empty() => {}
            other => panic!("{change:?}: opening says {other:?}"),
        }
        run(db, &undo).await;
        if undo.is_empty() && db.engine() != Engine::Sqlite {
            let done = migrate_up(db.url(), SqlLimits::default()).await;
            let done = done.unwrap_or_else(|error| panic!("{change:?}: {error}"));
            assert!(done.put_back.contains(&complaint), "{change:?}: {done:?}");
        }
        assert_eq!(flaws(db).await, Vec::<String>::new(), "{change:?} is undone");
    }
}

async fn run(db: &TestDatabase, statements: &[String]) {
    let raw = db.raw().await;
    for statement in statements {
        raw.run(statement).await;
    }
    raw.close().await;
}

/// Another type than the column's, and how the catalogue shows it.
fn other_type(kind: Kind, engine: Engine) -> (&'static str, &'static str) {
    match (engine, kind) {
        (Engine::Sqlite, Kind::Text) => ("BLOB", "BLOB"),
        (Engine::Sqlite, _) => ("TEXT", "TEXT"),
        (Engine::Postgres, Kind::Text) => ("varchar(10)", "character varying(10)"),
        (Engine::Postgres, Kind::Small | Kind::Big) => ("integer", "integer"),
        (Engine::Postgres, _) => ("text", "text"),
        (Engine::Mariadb, Kind::Text) => {
            ("TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", "text COLLATE utf8mb4_bin")
        }
        (Engine::Mariadb, Kind::Small | Kind::Big | Kind::Flag) => ("INT", "int(11)"),
        (Engine::Mariadb, _) => ("VARBINARY(100)", "varbinary(100)"),
    }
}

async fn each_missing_or_changed_column_is_named(db: &TestDatabase) {
    for table in TABLES {
        for column in table.columns {
            for damage in column_damages(db, table, column).await {
                damage.check(db).await;
            }
        }
    }
}

async fn column_damages(db: &TestDatabase, table: &Table, column: &Column) -> Vec<Damage> {
    let (engine, of, name) = (db.engine(), table.name, column.name);
    let null = if column.is_nullable { "NULL" } else { "NOT NULL" };
    let other_null = if column.is_nullable { "NOT NULL" } else { "NULL" };
    let backend = backend(engine);
    let (needed, own) = (column.shown(backend), column.kind.name(backend));
    let own_shown = needed.trim_end_matches("NOT NULL").trim_end_matches("NULL").trim();
    let (other, other_shown) = other_type(column.kind, engine);
    let renamed = Damage {
        change: vec![format!("ALTER TABLE {of} RENAME COLUMN {name} TO was_{name}")],
        complaint: format!("column {of}.{name} is missing"),
        undo: vec![format!("ALTER TABLE {of} RENAME COLUMN was_{name} TO {name}")],
    };
    let nullability = format!("column {of}.{name} is {own_shown} {other_null}, not {needed}");
    let typed = format!("column {of}.{name} is {other_shown} {null}, not {needed}");
    let is_key = name == table.primary_key;
    let mut damages = vec![renamed];
    match engine {
        Engine::Sqlite => {
            let definition = format!(" {name} {own} {null}");
            let (nulled, retyped) =
                (format!(" {name} {own} {other_null}"), format!(" {name} {other} {null}"));
            damages.push(remade(db, table, &definition, &nulled, nullability).await);
            damages.push(remade(db, table, &definition, &retyped, typed).await);
        }
        Engine::Postgres => {
            let (text, change) = (format!("ALTER TABLE {of} ALTER COLUMN {name}"), column.is_nullable);
            let set = if change { "SET" } else { "DROP" };
            if !is_key {
                damages.push(Damage::mendable(&[format!("{text} {set} NOT NULL")], nullability));
            }
            let using =
                if other == "text" && matches!(column.kind, Kind::Bytes8 | Kind::Bytes16 | Kind::LoginKey) {
                    format!("encode({name}, 'escape')")
                } else {
                    format!("{name}::{other}")
                };
            damages.push(Damage::mendable(&[format!("{text} TYPE {other} USING {using}")], typed));
        }
        Engine::Mariadb => {
            let modify = format!("ALTER TABLE {of} MODIFY COLUMN {name}");
            if !is_key {
                damages.push(Damage::mendable(&[format!("{modify} {own} {other_null}")], nullability));
            }
            damages.push(Damage::mendable(&[format!("{modify} {other} {null}")], typed));
        }
    }
    damages
}

/// The table with another definition, on SQLite, which changes no column in place.
async fn remade(db: &TestDatabase, table: &Table, part: &str, by: &str, complaint: String) -> Damage {
    let raw = db.raw().await;
    let rows = raw.rows(&format!("SELECT sql FROM sqlite_master WHERE name = '{}'", table.name)).await;
    let making: String = rows[0].try_get_by_index(0).expect("a statement");
    raw.close().await;
    assert!(making.contains(part), "{making} has no {part:?}");
    let away = |from: &str, to: &str| format!("ALTER TABLE {from} RENAME TO {to}");
    let (name, aside) = (table.name, format!("{}_aside", table.name));
    Damage {
        change: vec![away(name, &aside), making.replace(part, by)],
        complaint,
        undo: vec![format!("DROP TABLE {name}"), away(&aside, name)],
    }
}

const fn backend(engine: Engine) -> sea_orm::DbBackend {
    match engine {
        Engine::Sqlite => sea_orm::DbBackend::Sqlite,
        Engine::Postgres => sea_orm::DbBackend::Postgres,
        Engine::Mariadb => sea_orm::DbBackend::MySql,
    }
}

async fn each_missing_or_changed_index_is_named(db: &TestDatabase) {
    let (engine, backend) = (db.engine(), backend(db.engine()));
    for table in TABLES {
        let of = table.name;
        for index in table.indexes {
            let (columns, condition) = (index.columns_on(backend), index.condition_on(backend));
            let only = if condition.is_empty() { String::new() } else { format!(" where {condition}") };
            let kind = if index.is_unique { "unique index" } else { "index" };
            let needed = format!("{kind} ({columns}){only}");
            if index.is_unique && engine != Engine::Mariadb {
                let name = format!("{of}_{}_key", index.name);
                let missing = format!("{needed} on {of} is missing (index {name})");
                if engine == Engine::Sqlite {
                    let column = format!("{} BLOB NOT NULL UNIQUE", index.name);
                    let without = column.replace(" UNIQUE", "");
                    remade(db, table, &column, &without, missing).await.check(db).await;
                } else {
                    let drop = format!("ALTER TABLE {of} DROP CONSTRAINT {name}");
                    Damage::mendable(&[drop], missing).check(db).await;
                }
                continue;
            }
            let name = index.name;
            let on = if engine == Engine::Mariadb { format!(" ON {of}") } else { String::new() };
            let drop = format!("DROP INDEX {name}{on}");
            let missing = format!("{needed} on {of} is missing (index {name})");
            Damage::mendable(std::slice::from_ref(&drop), missing).check(db).await;
            let other = format!("CREATE INDEX {name} ON {of} (create_time)");
            let changed = format!("index {name} on {of} is index (create_time), not {needed}");
            Damage::mendable(&[drop, other], changed).check(db).await;
        }
        if engine != Engine::Sqlite {
            let drop = if engine == Engine::Mariadb {
                format!("ALTER TABLE {of} DROP PRIMARY KEY")
            } else {
                format!("ALTER TABLE {of} DROP CONSTRAINT {of}_pkey")
            };
            let complaint = format!("primary key of {of} is (), not ({})", table.primary_key);
            Damage::mendable(&[drop], complaint).check(db).await;
        }
    }
}

async fn lost_rows_and_tables_are_named(db: &TestDatabase) {
    for Table { name, is_rebuilt_by_nodes, .. } in TABLES {
        let away = format!("ALTER TABLE {name} RENAME TO was_{name}");
        let undo = if *is_rebuilt_by_nodes {
            vec![]
        } else {
            vec![format!("ALTER TABLE was_{name} RENAME TO {name}")]
        };
        let complaint = format!("table {name} is missing");
        Damage { change: vec![away], complaint, undo }.check(db).await;
        let (change, complaint) = match db.engine() {
            Engine::Sqlite => continue,
            Engine::Postgres => {
                ("SET UNLOGGED", format!("table {name} is a table that is not logged, not a logged table"))
            }
            Engine::Mariadb => {
                ("ENGINE = MyISAM", format!("table {name} is a MyISAM table, not a InnoDB table"))
            }
        };
        Damage::mendable(&[format!("ALTER TABLE {name} {change}")], complaint).check(db).await;
    }
    Damage {
        change: vec![
            "CREATE TABLE kept AS SELECT * FROM log_head".to_owned(),
            "DELETE FROM log_head".to_owned(),
        ],
        complaint: "table log_head has 0 rows with id 1, not 1".to_owned(),
        undo: vec!["INSERT INTO log_head SELECT * FROM kept".to_owned(), "DROP TABLE kept".to_owned()],
    }
    .check(db)
    .await;
}

async fn what_a_newer_schema_adds_is_tolerated(db: &TestDatabase) {
    for more in [
        "ALTER TABLE users ADD COLUMN nickname INTEGER NULL",
        "CREATE INDEX users_by_nickname ON users (nickname)",
        "CREATE TABLE more (id INTEGER)",
    ] {
        run(db, &[more.to_owned()]).await;
    }
    assert_eq!(flaws(db).await, Vec::<String>::new());
    db.open().await.close().await;
}

const DROP_TRIGGER: &str = "DROP TRIGGER change_log_number";
const MISSING_TRIGGER: &str = "trigger change_log_number on change_log is missing";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_or_changed_trigger_is_named_and_put_back() {
    run_on(Engine::Mariadb, async |db: &TestDatabase| {
        Damage::mendable(&[DROP_TRIGGER.to_owned()], MISSING_TRIGGER.to_owned()).check(db).await;
        let other =
            "CREATE TRIGGER change_log_number BEFORE INSERT ON change_log FOR EACH ROW SET NEW.position = 5";
        let changed = "trigger change_log_number on change_log has another body".to_owned();
        Damage::mendable(&[DROP_TRIGGER.to_owned(), other.to_owned()], changed).check(db).await;
        // What an older version answered OK to.
        let lost = "INSERT INTO change_log (position, nonce, kind, create_time) VALUES (0, '12345678', 7, 0)";
        let change = [DROP_TRIGGER.to_owned(), lost.to_owned()];
        Damage::mendable(&change, MISSING_TRIGGER.to_owned()).check(db).await;
        assert_eq!(db.raw().await.number("SELECT COUNT(*) FROM change_log").await, 0);
    })
    .await;
}

/// The trigger is seen only by accounts with a privilege that a node does not need.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_may_not_see_the_trigger_tries_it() {
    run_on(Engine::Mariadb, async |db: &TestDatabase| {
        let raw = db.raw().await;
        let names = raw.rows("SELECT DATABASE()").await;
        let name: String = names[0].try_get_by_index(0).expect("a name");
        let account = format!("{}_u", name.trim_start_matches("latchkey_"));
        raw.run(&format!("CREATE USER {account}@'127.0.0.1'")).await;
        raw.run(&format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {name}.* TO {account}@'127.0.0.1'")).await;
        let url = db.url().replace("//latchkey@", &format!("//{account}@"));
        let before = head(&raw).await;
        SqlStore::open(&url, SqlLimits::default()).await.expect("a whole schema").close().await;
        assert_eq!(head(&raw).await, before, "whatever was tried is undone");
        raw.run(DROP_TRIGGER).await;
        let refused = SqlStore::open(&url, SqlLimits::default()).await.err();
        assert!(
            matches!(&refused, Some(OpenError::SchemaDamaged { flaws }) if flaws == &[MISSING_TRIGGER]),
            "{refused:?}"
        );
        raw.run(&format!("DROP USER {account}@'127.0.0.1'")).await;
    })
    .await;
}

async fn head(raw: &Raw) -> i64 {
    raw.number("SELECT position * 1000 + everyone_epoch + (SELECT COUNT(*) FROM change_log) FROM log_head")
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_once_the_trigger_is_gone() {
    run_on(Engine::Mariadb, async |db: &TestDatabase| {
        let (store, raw) = (db.open().await, db.raw().await);
        let ada = add_user(&store, "ada").await;
        let session = sign_in(&store, &ada, NOW).await;
        assert_eq!(store.schema_flaws().await.expect("an answer"), Vec::<String>::new());
        let ending = async |target| store.end_sessions(target, EndReason::Revoked, stamp(NOW)).await;
        raw.run(DROP_TRIGGER).await;
        assert_eq!(store.schema_flaws().await.expect("an answer"), [MISSING_TRIGGER]);
        for target in [
            EndTarget::Session(session.id),
            EndTarget::User { user: ada.id, except: None },
            EndTarget::Everyone,
        ] {
            let refused = ending(target).await;
            assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        }
        let refused = store.start_new_log(stamp(NOW)).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        assert_eq!(raw.number("SELECT COUNT(*) FROM change_log").await, 0, "whatever was refused is undone");
        assert_eq!(verdict(&store, session.id, NOW).await, Ok(()), "the session stands");
        // The control: the numbers alone look right, and the head does not move.
        raw.run(
            "CREATE TRIGGER change_log_number BEFORE INSERT ON change_log FOR EACH ROW SET NEW.position = 1",
        )
        .await;
        let refused = ending(EndTarget::Session(session.id)).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        migrate_up(db.url(), SqlLimits::default()).await.expect("put back");
        let ended = ending(EndTarget::Session(session.id)).await.expect("an answer");
        assert_eq!(ended.position.as_i64(), 1);
        assert!(verdict(&store, session.id, NOW).await.is_err(), "it ended");
    })
    .await;
}
