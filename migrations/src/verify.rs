//! Compares a database with the description of the schema, element by element, and knows how to put elements back.

use std::fmt;

use sea_orm_migration::prelude::DbErr;
use sea_orm_migration::sea_orm::{ConnectionTrait, DbBackend, Statement};

use crate::catalogue::{self, Catalogue, FoundIndex, table_kind};
use crate::description::{Column, Index, TABLES, TRIGGER, Table};
use crate::m0001_tables::CHANGE_LOG_TRIGGER;

/// One element of the schema that is missing, or not what the program needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flaw {
    what: String,
    repair: Vec<String>,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Flaw {
    /// The statements that put the element back; none where only a backup does.
    pub fn repair(&self) -> &[String] {
        &self.repair
    }

    fn new(what: impl Into<String>, repair: impl IntoIterator<Item = String>) -> Self {
        Self { what: what.into(), repair: repair.into_iter().collect() }
    }

    fn lasting(what: impl Into<String>) -> Self {
        Self::new(what, [])
    }
}

/// How the trigger of MariaDB is verified by an account that may not see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unseen {
    /// What cannot be seen counts as missing.
    IsMissing,
    /// By inserting rows. The connection must be inside a transaction that its owner rolls back.
    IsTried,
}

/// Everything in which the database differs from the description, but for what it has on top. Reads; see [`Unseen`].
pub async fn verify<C: ConnectionTrait>(db: &C, unseen: Unseen) -> Result<Vec<Flaw>, DbErr> {
    let engine = db.get_database_backend();
    let found = catalogue::read(db).await?;
    let mut flaws = Vec::new();
    for table in TABLES {
        check_table(table, &found, engine, &mut flaws);
    }
    let has =
        |table: &str| found.tables.contains_key(table) && !flaws.iter().any(|flaw| flaw.repair.is_empty());
    if !(has("log_head") && has("change_log")) {
        return Ok(flaws);
    }
    check_rows(db, &mut flaws).await?;
    if engine == DbBackend::MySql {
        // Rows can be tried only where all else is there.
        let unseen = if flaws.is_empty() { unseen } else { Unseen::IsMissing };
        flaws.extend(check_trigger(db, &found, unseen).await?);
    }
    Ok(flaws)
}

/// What the database has on top of the description: nothing, right after all migrations. For tests.
pub async fn undescribed<C: ConnectionTrait>(db: &C) -> Result<Vec<String>, DbErr> {
    let engine = db.get_database_backend();
    let found = catalogue::read(db).await?;
    let table = |name: &str| TABLES.iter().find(|table| table.name == name);
    let knows =
        |of: &str, column: &str| table(of).is_some_and(|it| it.columns.iter().any(|one| one.name == column));
    let columns = found.columns.keys().filter(|(of, column)| !knows(of, column));
    let columns = columns.map(|(of, column)| format!("column {of}.{column}"));
    let is_described = |index: &&FoundIndex| {
        table(&index.table).is_some_and(|it| it.indexes.iter().any(|one| fits(one, index, engine)))
    };
    let indexes = found.indexes.iter().filter(|index| !is_described(index));
    let indexes = indexes.map(|index| format!("index {} on {}", index.name, index.table));
    let triggers = found.triggers.iter().filter(|trigger| trigger.name != TRIGGER);
    let triggers = triggers.map(|trigger| format!("trigger {}", trigger.name));
    Ok(columns.chain(indexes).chain(triggers).collect())
}

fn check_table(table: &Table, found: &Catalogue, engine: DbBackend, flaws: &mut Vec<Flaw>) {
    let Table { name, primary_key, .. } = table;
    let Some(kind) = found.tables.get(*name) else {
        let what = format!("table {name} is missing");
        return flaws.push(if table.is_rebuilt_by_nodes {
            Flaw::new(what, making(table, engine))
        } else {
            Flaw::lasting(what)
        });
    };
    if kind != table_kind(engine) {
        let repair = match engine {
            DbBackend::Sqlite => None,
            DbBackend::Postgres => Some(format!("ALTER TABLE {name} SET LOGGED")),
            _ => Some(format!("ALTER TABLE {name} ENGINE = InnoDB")),
        };
        flaws.push(Flaw::new(format!("table {name} is a {kind}, not a {}", table_kind(engine)), repair));
    }
    for column in table.columns {
        flaws.extend(check_column(table, column, found, engine));
    }
    let key = found.primary_keys.get(*name).map_or("", String::as_str);
    if key != *primary_key {
        let drop = (!key.is_empty()).then(|| match engine {
            DbBackend::MySql => format!("ALTER TABLE {name} DROP PRIMARY KEY"),
            _ => format!("ALTER TABLE {name} DROP CONSTRAINT {name}_pkey"),
        });
        let add = format!("ALTER TABLE {name} ADD PRIMARY KEY ({primary_key})");
        let repair = drop.into_iter().chain([add]).filter(|_| engine != DbBackend::Sqlite);
        flaws.push(Flaw::new(format!("primary key of {name} is ({key}), not ({primary_key})"), repair));
    }
    for index in table.indexes {
        flaws.extend(check_index(table, index, found, engine));
    }
}

fn making(table: &Table, engine: DbBackend) -> Vec<String> {
    let key = table.primary_key;
    let column = |column: &Column| {
        let key = if column.name == key { " PRIMARY KEY" } else { "" };
        format!("{}{key}", column.definition(engine))
    };
    let columns = table.columns.iter().map(column).collect::<Vec<_>>().join(", ");
    let end = crate::types::Types::of(engine).table_end;
    let table_itself = format!("CREATE TABLE {} ({columns}) {end}", table.name);
    let indexes = table.indexes.iter().map(|index| index.making(table.name, engine));
    let lost = (table.name == "nodes" && engine != DbBackend::Sqlite).then(|| lost_nodes(engine));
    std::iter::once(table_itself).chain(indexes).chain(lost).collect()
}

/// A row that stands for the nodes whose rows were lost, which may still hold leases. It is being evicted, so revocations
/// wait for it like for any silent node, until a node removes it after the longest lease.
fn lost_nodes(engine: DbBackend) -> String {
    let id = crate::types::Types::of(engine).random_uuid;
    format!(
        "INSERT INTO nodes (node_id, name, state, applied_position, join_time, heard_time, evict_time) \
         VALUES ({id}, 'nodes whose rows were lost', 2, 0, 0, 0, 0)"
    )
}

fn check_column(of: &Table, column: &Column, found: &Catalogue, engine: DbBackend) -> Option<Flaw> {
    let (table, name) = (of.name, column.name);
    let needed = column.shown(engine);
    let Some(is) = found.columns.get(&(table.to_owned(), name.to_owned())) else {
        let adding = format!("ALTER TABLE {table} ADD COLUMN {}", column.definition(engine));
        // Elsewhere the values are lost with the column. An empty one would make ended sessions good again.
        let can_be_added = of.is_rebuilt_by_nodes && column.is_nullable;
        let what = format!("column {table}.{name} is missing");
        return Some(Flaw::new(what, can_be_added.then_some(adding)));
    };
    if *is == needed {
        return None;
    }
    let repair = match engine {
        DbBackend::Sqlite => Vec::new(),
        DbBackend::Postgres => {
            let kind = column.kind.name(engine);
            let null = if column.is_nullable { "DROP" } else { "SET" };
            vec![
                format!("ALTER TABLE {table} ALTER COLUMN {name} TYPE {kind} USING {name}::{kind}"),
                format!("ALTER TABLE {table} ALTER COLUMN {name} {null} NOT NULL"),
            ]
        }
        _ => vec![format!("ALTER TABLE {table} MODIFY COLUMN {}", column.definition(engine))],
    };
    Some(Flaw::new(format!("column {table}.{name} is {is}, not {needed}"), repair))
}

fn check_index(table: &Table, index: &Index, found: &Catalogue, engine: DbBackend) -> Option<Flaw> {
    let of_table = || found.indexes.iter().filter(|other| other.table == table.name);
    if of_table().any(|other| fits(index, other, engine)) {
        return None;
    }
    let needed = shown(index.is_unique, &index.columns_on(engine), index.condition_on(engine));
    let name = if index.is_unique && engine != DbBackend::MySql {
        format!("{}_{}_key", table.name, index.name)
    } else {
        index.name.to_owned()
    };
    let making = index.making(table.name, engine);
    let Some(other) = of_table().find(|other| other.name == name) else {
        return Some(Flaw::new(format!("{needed} on {} is missing (index {name})", table.name), [making]));
    };
    let is = shown(other.is_unique, &other.columns, &other.condition);
    let is = if other.is_valid { is } else { format!("{is} that is not valid") };
    let dropping = match engine {
        DbBackend::MySql => format!("DROP INDEX {name} ON {}", table.name),
        // The index of a constraint goes away with it.
        DbBackend::Postgres if index.is_unique => {
            format!("ALTER TABLE {} DROP CONSTRAINT IF EXISTS {name}", table.name)
        }
        _ => format!("DROP INDEX IF EXISTS {name}"),
    };
    let also =
        (engine == DbBackend::Postgres && index.is_unique).then(|| format!("DROP INDEX IF EXISTS {name}"));
    let repair = std::iter::once(dropping).chain(also).chain([making]);
    Some(Flaw::new(format!("index {name} on {} is {is}, not {needed}", table.name), repair))
}

/// An index is told by its name where statements name it, or where only its columns say nothing of its purpose.
fn fits(needed: &Index, is: &FoundIndex, engine: DbBackend) -> bool {
    let by_name = !needed.is_unique || engine == DbBackend::MySql;
    is.is_valid
        && is.is_unique == needed.is_unique
        && is.columns == needed.columns_on(engine)
        && is.condition == needed.condition_on(engine)
        && (!by_name || is.name == needed.name)
}

fn shown(is_unique: bool, columns: &str, condition: &str) -> String {
    let unique = if is_unique { "unique index" } else { "index" };
    let only = if condition.is_empty() { String::new() } else { format!(" where {condition}") };
    format!("{unique} ({columns}){only}")
}

/// The head has one row, and whatever the log holds has a number.
async fn check_rows<C: ConnectionTrait>(db: &C, flaws: &mut Vec<Flaw>) -> Result<(), DbErr> {
    let heads = number(db, "SELECT COUNT(*) AS number FROM log_head WHERE id = 1").await?;
    if heads != 1 {
        flaws.push(Flaw::lasting(format!("table log_head has {heads} rows with id 1, not 1")));
    }
    let unnumbered = number(db, "SELECT COUNT(*) AS number FROM change_log WHERE position <= 0").await?;
    if unnumbered > 0 {
        flaws.push(Flaw::new(
            "table change_log holds a row without a number: what it ended is in force nowhere, so run `latchkey fleet \
             new-log` once the schema is whole",
            ["DELETE FROM change_log WHERE position <= 0".to_owned()],
        ));
    }
    Ok(())
}

async fn check_trigger<C: ConnectionTrait>(
    db: &C,
    found: &Catalogue,
    unseen: Unseen,
) -> Result<Option<Flaw>, DbErr> {
    let make = [CHANGE_LOG_TRIGGER.to_owned()];
    let (_, needed) = CHANGE_LOG_TRIGGER.split_once("FOR EACH ROW").unwrap_or_default();
    let needed = words(&format!("BEFORE INSERT {needed}"));
    let trigger = found.triggers.iter().find(|trigger| trigger.name == TRIGGER);
    let is_seen = match trigger.map(|trigger| &trigger.body) {
        Some(Some(body)) if words(body) == needed => return Ok(None),
        Some(Some(_)) => true,
        Some(None) | None => false,
    };
    if !is_seen && unseen == Unseen::IsTried && numbers_itself(db).await? {
        return Ok(None);
    }
    let what = if trigger.is_some() { "has another body" } else { "is missing" };
    Ok(Some(Flaw::new(format!("trigger {TRIGGER} on change_log {what}"), make)))
}

/// Whether rows of the change log get the next number, and an end of everyone the next epoch.
async fn numbers_itself<C: ConnectionTrait>(db: &C) -> Result<bool, DbErr> {
    // Locked, so that the next numbers stay the next ones.
    let head_query = "SELECT position, everyone_epoch FROM log_head WHERE id = 1 FOR UPDATE";
    let Some(head) = db.query_one_raw(Statement::from_string(DbBackend::MySql, head_query)).await? else {
        return Ok(false);
    };
    let (position, epoch): (i64, i64) = (head.try_get("", "position")?, head.try_get("", "everyone_epoch")?);
    for (kind, number, expected) in [(1, position + 1, None), (7, position + 2, Some(epoch + 1))] {
        let trying = format!(
            "INSERT IGNORE INTO change_log (position, nonce, kind, create_time) \
             VALUES (COALESCE(@latchkey_head := NULL, 0), '', {kind}, 0) \
             RETURNING position, epoch, CAST(@latchkey_head AS SIGNED) AS head"
        );
        let Some(row) = db.query_one_raw(Statement::from_string(DbBackend::MySql, trying)).await? else {
            return Ok(false);
        };
        if row.try_get::<i64>("", "position")? != number
            || row.try_get::<Option<i64>>("", "head")? != Some(number)
            || row.try_get::<Option<i64>>("", "epoch")? != expected
        {
            return Ok(false);
        }
    }
    let head = db.query_one_raw(Statement::from_string(DbBackend::MySql, head_query)).await?;
    head.map_or(Ok(false), |head| {
        Ok(head.try_get::<i64>("", "position")? == position + 2
            && head.try_get::<i64>("", "everyone_epoch")? == epoch + 1)
    })
}

async fn number<C: ConnectionTrait>(db: &C, sql: &str) -> Result<i64, DbErr> {
    let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await?;
    row.map_or(Ok(0), |row| row.try_get("", "number"))
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
