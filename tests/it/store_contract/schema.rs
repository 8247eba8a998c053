//! The schema is verified from the engine's own catalogue: whatever is missing or changed is named, a node does not start
//! on it, and `migrate up` puts it back.

use latchkey::domain::id::Position;
use latchkey::store::coordination::{Coordination as _, NodeState};
use latchkey::store::sql::{OpenError, SqlLimits, SqlStore, migrate_up, schema_status};
use migrations::Unseen;
use migrations::description::{Column, Kind, TABLES, Table};

use crate::support::databases::{Engine, TestDatabase, on_each_engine, url_of};

on_each_engine![
    a_fresh_database_is_as_described,
    each_missing_or_changed_column_is_named,
    each_missing_or_changed_index_is_named,
    lost_rows_and_tables_are_named,
    revocations_wait_for_nodes_whose_rows_were_lost,
    what_a_newer_schema_adds_is_tolerated,
];

async fn flaws(db: &TestDatabase) -> Vec<String> {
    schema_status(&url_of(db.url()), SqlLimits::default()).await.expect("a status").flaws
}

async fn a_fresh_database_is_as_described(db: &TestDatabase) {
    let raw = db.raw().await;
    let found = migrations::verify(raw.connection(), Unseen::IsMissing).await.expect("a catalogue");
    assert_eq!(found, [], "the description says more than the migrations make");
    let more = migrations::undescribed(raw.connection()).await.expect("a catalogue");
    assert_eq!(more, Vec::<String>::new(), "the migrations make more than the description says");
    raw.close().await;
}

/// A change of the schema, and how it is undone.
pub(super) struct Damage {
    change: Vec<String>,
    complaints: Vec<String>,
    undo: Undo,
}

enum Undo {
    /// `migrate up` puts it back.
    MigrateUp,
    /// `migrate up` says that it cannot, and changes nothing; the test undoes the change.
    Test(Vec<String>),
}

impl Damage {
    /// One that `migrate up` puts back.
    pub(super) fn mendable(change: &[String], complaint: String) -> Self {
        Self { change: change.to_vec(), complaints: vec![complaint], undo: Undo::MigrateUp }
    }

    /// One that only a backup puts back.
    fn lasting(change: &[String], complaint: String, undo: &[String]) -> Self {
        Self { change: change.to_vec(), complaints: vec![complaint], undo: Undo::Test(undo.to_vec()) }
    }

    /// Adds another one that is undone in the same way; false where it is not.
    fn take_in(&mut self, other: &mut Self) -> bool {
        match (&mut self.undo, &mut other.undo) {
            (Undo::MigrateUp, Undo::MigrateUp) => {}
            (Undo::Test(undo), Undo::Test(also)) => undo.append(also),
            _ => return false,
        }
        self.change.append(&mut other.change);
        self.complaints.append(&mut other.complaints);
        true
    }

    /// Does it, expects the complaints from everybody who looks, and expects them to be gone afterwards.
    pub(super) async fn check(self, db: &TestDatabase) {
        let Self { change, complaints, undo } = self;
        run(db, &change).await;
        let told = flaws(db).await;
        let names_all = |flaws: &[String]| complaints.iter().all(|complaint| flaws.contains(complaint));
        assert!(names_all(&told), "{change:?}: not all of {complaints:?} are among {told:?}");
        if db.engine() != Engine::Sqlite {
            match SqlStore::open(&url_of(db.url()), SqlLimits::default()).await.err() {
                Some(OpenError::SchemaDamaged { flaws }) => assert!(names_all(&flaws), "{flaws:?}"),
                other => panic!("{change:?}: opening says {other:?}"),
            }
        }
        let done = migrate_up(&url_of(db.url()), SqlLimits::default()).await;
        match undo {
            Undo::MigrateUp => {
                let done = done.unwrap_or_else(|error| panic!("{change:?}: {error}"));
                assert!(names_all(&done.put_back), "{change:?}: {done:?}");
            }
            Undo::Test(undo) => {
                let is_told = matches!(&done, Err(OpenError::SchemaLost { flaws }) if names_all(flaws));
                assert!(is_told, "{change:?}: {done:?}");
                assert_eq!(flaws(db).await, told, "{change:?}: nothing is changed");
                if db.engine() == Engine::Sqlite {
                    // A SQLite file is migrated when it is opened.
                    let refused = SqlStore::open(&url_of(db.url()), SqlLimits::default()).await.err();
                    assert!(matches!(refused, Some(OpenError::SchemaLost { .. })), "{refused:?}");
                }
                run(db, &undo).await;
            }
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
        let mut damages = Vec::new();
        for column in table.columns {
            damages.extend(column_damages(db, table, column).await);
        }
        // Servers change columns one by one, so the damages of one kind are done together: that takes a third of the time.
        for kind in [ColumnDamage::Missing, ColumnDamage::Nullability, ColumnDamage::Type] {
            let mut together: Vec<Damage> = Vec::new();
            for (_, mut damage) in damages.extract_if(.., |(of, _)| *of == kind) {
                let is_taken_in = db.engine() != Engine::Sqlite
                    && together.iter_mut().any(|other| other.take_in(&mut damage));
                if !is_taken_in {
                    together.push(damage);
                }
            }
            for damage in together {
                damage.check(db).await;
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ColumnDamage {
    Missing,
    Nullability,
    Type,
}

async fn column_damages(db: &TestDatabase, table: &Table, column: &Column) -> Vec<(ColumnDamage, Damage)> {
    let (engine, of, name) = (db.engine(), table.name, column.name);
    let null = if column.is_nullable { "NULL" } else { "NOT NULL" };
    let other_null = if column.is_nullable { "NOT NULL" } else { "NULL" };
    let backend = backend(engine);
    let (needed, own) = (column.shown(backend), column.kind.name(backend));
    let own_shown = needed.trim_end_matches("NOT NULL").trim_end_matches("NULL").trim();
    let (other, other_shown) = other_type(column.kind, engine);
    let missing = format!("column {of}.{name} is missing");
    let gone = if table.is_rebuilt_by_nodes && column.is_nullable {
        Damage::mendable(&[format!("ALTER TABLE {of} DROP COLUMN {name}")], missing)
    } else {
        // Also a nullable one: with an empty `end_time` ended sessions would be good again.
        let rename = |from: &str, to: &str| format!("ALTER TABLE {of} RENAME COLUMN {from} TO {to}");
        let aside = format!("was_{name}");
        Damage::lasting(&[rename(name, &aside)], missing, &[rename(&aside, name)])
    };
    let nullability = format!("column {of}.{name} is {own_shown} {other_null}, not {needed}");
    let typed = format!("column {of}.{name} is {other_shown} {null}, not {needed}");
    let is_key = name == table.primary_key;
    let mut damages = vec![(ColumnDamage::Missing, gone)];
    match engine {
        Engine::Sqlite => {
            let definition = format!(" {name} {own} {null}");
            let (nulled, retyped) =
                (format!(" {name} {own} {other_null}"), format!(" {name} {other} {null}"));
            if !is_key {
                damages.push((
                    ColumnDamage::Nullability,
                    remade(db, table, &definition, &nulled, nullability).await,
                ));
            }
            damages.push((ColumnDamage::Type, remade(db, table, &definition, &retyped, typed).await));
        }
        Engine::Postgres => {
            let (text, change) = (format!("ALTER TABLE {of} ALTER COLUMN {name}"), column.is_nullable);
            let set = if change { "SET" } else { "DROP" };
            if !is_key {
                damages.push((
                    ColumnDamage::Nullability,
                    Damage::mendable(&[format!("{text} {set} NOT NULL")], nullability),
                ));
            }
            let using =
                if other == "text" && matches!(column.kind, Kind::Bytes8 | Kind::Bytes16 | Kind::LoginKey) {
                    format!("encode({name}, 'escape')")
                } else {
                    format!("{name}::{other}")
                };
            damages.push((
                ColumnDamage::Type,
                Damage::mendable(&[format!("{text} TYPE {other} USING {using}")], typed),
            ));
        }
        Engine::Mariadb => {
            let modify = format!("ALTER TABLE {of} MODIFY COLUMN {name}");
            if !is_key {
                damages.push((
                    ColumnDamage::Nullability,
                    Damage::mendable(&[format!("{modify} {own} {other_null}")], nullability),
                ));
            }
            damages
                .push((ColumnDamage::Type, Damage::mendable(&[format!("{modify} {other} {null}")], typed)));
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
    let change = [away(name, &aside), making.replace(part, by)];
    Damage::lasting(&change, complaint, &[format!("DROP TABLE {name}"), away(&aside, name)])
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
                    let mut damage = remade(db, table, &column, &without, missing).await;
                    // The indexes have gone with the old table, and are put back as well.
                    damage.change.push(format!("DROP TABLE {of}_aside"));
                    Damage { undo: Undo::MigrateUp, ..damage }.check(db).await;
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
        let away = [format!("ALTER TABLE {name} RENAME TO was_{name}")];
        let complaint = format!("table {name} is missing");
        let damage = if *is_rebuilt_by_nodes {
            Damage::mendable(&away, complaint)
        } else {
            Damage::lasting(&away, complaint, &[format!("ALTER TABLE was_{name} RENAME TO {name}")])
        };
        damage.check(db).await;
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
    let change = ["CREATE TABLE kept AS SELECT * FROM log_head", "DELETE FROM log_head"].map(str::to_owned);
    let undo = ["INSERT INTO log_head SELECT * FROM kept", "DROP TABLE kept"].map(str::to_owned);
    let complaint = "table log_head has 0 rows with id 1, not 1".to_owned();
    Damage::lasting(&change, complaint, &undo).check(db).await;
}

/// A node may hold a lease although the table that lists it was lost. The barrier waits for each row that has not
/// acknowledged, until it is removed.
async fn revocations_wait_for_nodes_whose_rows_were_lost(db: &TestDatabase) {
    run(db, &["DROP TABLE nodes".to_owned()]).await;
    migrate_up(&url_of(db.url()), SqlLimits::default()).await.expect("put back");
    let store = db.open().await;
    let nodes = store.nodes().await.expect("a list").nodes;
    let states: Vec<_> = nodes.iter().map(|node| (node.state, node.applied)).collect();
    let expected = [(NodeState::Evicting, Position::ZERO)];
    // SQLite has one process, which opens the database anew.
    assert_eq!(states, if store.is_exclusive() { &[][..] } else { &expected[..] });
    store.close().await;
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
