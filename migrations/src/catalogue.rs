//! What a database holds, as its own catalogue says. Only reads.

use std::collections::BTreeMap;

use sea_orm_migration::prelude::DbErr;
use sea_orm_migration::sea_orm::{ConnectionTrait, DbBackend, QueryResult, Statement};

use crate::description::{TABLES, shown};

/// What was found of the tables that the program needs.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    /// What each table is, such as "InnoDB table".
    pub tables: BTreeMap<String, String>,
    /// Type and nullability by table and column.
    pub columns: BTreeMap<(String, String), String>,
    /// The columns of each table's primary key.
    pub primary_keys: BTreeMap<String, String>,
    pub indexes: Vec<FoundIndex>,
    /// The triggers of the change log.
    pub triggers: Vec<FoundTrigger>,
}

/// An index.
#[derive(Debug)]
pub(crate) struct FoundIndex {
    pub table: String,
    pub name: String,
    pub is_unique: bool,
    /// Whether the engine uses it, and holds to it.
    pub is_valid: bool,
    pub columns: String,
    pub condition: String,
}

/// A trigger.
#[derive(Debug)]
pub(crate) struct FoundTrigger {
    pub name: String,
    /// Timing, event and statement; none where the account may not see them.
    pub body: Option<String>,
}

/// What a table has to be.
pub(crate) const fn table_kind(engine: DbBackend) -> &'static str {
    match engine {
        DbBackend::Sqlite => "STRICT table",
        DbBackend::Postgres => "logged table",
        _ => "InnoDB table",
    }
}

/// Reads the catalogue.
pub(crate) async fn read<C: ConnectionTrait>(db: &C) -> Result<Catalogue, DbErr> {
    let engine = db.get_database_backend();
    let queries = match engine {
        DbBackend::Sqlite => SQLITE,
        DbBackend::Postgres => POSTGRES,
        _ => MARIADB,
    };
    let mut found = Catalogue::default();
    for row in rows(db, queries.tables).await? {
        found.tables.insert(text(&row, "table_name")?, text(&row, "kind")?);
    }
    for row in rows(db, queries.columns).await? {
        let is_nullable = row.try_get::<i64>("", "is_nullable")? == 1;
        let column = (text(&row, "table_name")?, text(&row, "column_name")?);
        found.columns.insert(column, shown(&text(&row, "column_type")?, is_nullable));
    }
    for row in rows(db, queries.indexes).await? {
        let (table, columns) = (text(&row, "table_name")?, text(&row, "column_names")?.replace('"', ""));
        if row.try_get::<i64>("", "is_primary")? == 1 {
            found.primary_keys.insert(table, columns);
            continue;
        }
        found.indexes.push(FoundIndex {
            table,
            name: text(&row, "index_name")?,
            is_unique: row.try_get::<i64>("", "is_unique")? == 1,
            is_valid: row.try_get::<i64>("", "is_valid")? == 1,
            columns,
            condition: condition(&text(&row, "condition_text")?),
        });
    }
    if engine == DbBackend::MySql {
        for row in rows(db, MARIADB_TRIGGERS).await? {
            let body = row.try_get::<Option<String>>("", "body")?;
            found.triggers.push(FoundTrigger { name: text(&row, "trigger_name")?, body });
        }
    }
    Ok(found)
}

/// The rows of a query in which `TABLES` stands for the names of the tables.
async fn rows<C: ConnectionTrait>(db: &C, sql: &str) -> Result<Vec<QueryResult>, DbErr> {
    let engine = db.get_database_backend();
    // A table is what an unqualified name leads to, as in the program's own statements.
    let name = |name| {
        if engine == DbBackend::Postgres { format!("to_regclass('{name}')") } else { format!("'{name}'") }
    };
    let names = TABLES.iter().map(|table| name(table.name)).collect::<Vec<_>>().join(", ");
    db.query_all_raw(Statement::from_string(engine, sql.replace("TABLES!", &names))).await
}

fn text(row: &QueryResult, column: &str) -> Result<String, DbErr> {
    Ok(row.try_get::<Option<String>>("", column)?.unwrap_or_default())
}

/// The condition of an index in one spelling: SQLite shows the whole statement, PostgreSQL puts it in brackets.
fn condition(shown: &str) -> String {
    let words = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    let condition = if words.starts_with("CREATE ") {
        words.split_once(" WHERE ").map_or("", |(_, it)| it)
    } else {
        &words
    };
    condition.trim_start_matches('(').trim_end_matches(')').to_owned()
}

struct Queries {
    tables: &'static str,
    columns: &'static str,
    indexes: &'static str,
}

const SQLITE: Queries = Queries {
    tables: "SELECT name AS table_name, CASE WHEN type = 'table' AND strict THEN 'STRICT table' \
             WHEN type = 'table' THEN 'table without STRICT' ELSE type END AS kind \
             FROM pragma_table_list WHERE schema = 'main' AND name IN (TABLES!)",
    columns: "SELECT m.name AS table_name, c.name AS column_name, c.type AS column_type, \
              1 - c.\"notnull\" AS is_nullable \
              FROM sqlite_master AS m JOIN pragma_table_info(m.name) AS c WHERE m.name IN (TABLES!)",
    indexes: "SELECT m.name AS table_name, i.name AS index_name, i.\"unique\" AS is_unique, 1 AS is_valid, \
              0 AS is_primary, s.sql AS condition_text, (SELECT group_concat(name, ', ') FROM \
              (SELECT k.name || iif(k.desc, ' DESC', '') || iif(k.coll = 'BINARY', '', ' COLLATE ' || k.coll) AS name \
              FROM pragma_index_xinfo(i.name) AS k WHERE k.key ORDER BY k.seqno)) AS column_names \
              FROM sqlite_master AS m JOIN pragma_index_list(m.name) AS i \
              LEFT JOIN sqlite_master AS s ON s.type = 'index' AND s.name = i.name \
              WHERE m.type = 'table' AND m.name IN (TABLES!) AND i.origin <> 'pk' \
              UNION ALL SELECT m.name, '', 1, 1, 1, '', (SELECT group_concat(name, ', ') FROM \
              (SELECT c.name AS name FROM pragma_table_info(m.name) AS c WHERE c.pk > 0 ORDER BY c.pk)) \
              FROM sqlite_master AS m WHERE m.type = 'table' AND m.name IN (TABLES!)",
};

const POSTGRES: Queries = Queries {
    tables: "SELECT relname::text AS table_name, CASE WHEN relkind IN ('r', 'p') AND relpersistence = 'p' \
             THEN 'logged table' WHEN relkind IN ('r', 'p') THEN 'table that is not logged' \
             ELSE 'relation of another kind' END AS kind FROM pg_class WHERE oid IN (TABLES!)",
    columns: "SELECT c.relname::text AS table_name, a.attname::text AS column_name, \
              format_type(a.atttypid, a.atttypmod) AS column_type, \
              CASE WHEN a.attnotnull THEN 0 ELSE 1 END::bigint AS is_nullable \
              FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid \
              WHERE a.attrelid IN (TABLES!) AND a.attnum > 0 AND NOT a.attisdropped",
    indexes: "SELECT t.relname::text AS table_name, i.relname::text AS index_name, \
              CASE WHEN x.indisunique AND x.indimmediate THEN 1 ELSE 0 END::bigint AS is_unique, \
              CASE WHEN x.indisvalid AND x.indisready THEN 1 ELSE 0 END::bigint AS is_valid, \
              CASE WHEN x.indisprimary THEN 1 ELSE 0 END::bigint AS is_primary, \
              pg_get_expr(x.indpred, x.indrelid) AS condition_text, \
              (SELECT string_agg(pg_get_indexdef(x.indexrelid, k, true) || \
              CASE WHEN x.indoption[k - 1] & 1 = 1 THEN ' DESC' ELSE '' END, ', ' ORDER BY k) \
              FROM generate_series(1, x.indnkeyatts::int) AS k) AS column_names \
              FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid \
              JOIN pg_class AS t ON t.oid = x.indrelid WHERE x.indrelid IN (TABLES!)",
};

const MARIADB: Queries = Queries {
    tables: "SELECT CAST(TABLE_NAME AS CHAR) AS table_name, \
             CAST(IF(TABLE_TYPE = 'BASE TABLE', CONCAT(ENGINE, ' table'), TABLE_TYPE) AS CHAR) AS kind \
             FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN (TABLES!)",
    columns: "SELECT CAST(TABLE_NAME AS CHAR) AS table_name, CAST(COLUMN_NAME AS CHAR) AS column_name, \
              CAST(CONCAT(COLUMN_TYPE, IF(COLLATION_NAME IS NULL, '', CONCAT(' COLLATE ', COLLATION_NAME))) AS CHAR) \
              AS column_type, CAST(IS_NULLABLE = 'YES' AS SIGNED) AS is_nullable \
              FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN (TABLES!)",
    indexes: "SELECT CAST(TABLE_NAME AS CHAR) AS table_name, CAST(INDEX_NAME AS CHAR) AS index_name, \
              CAST(MIN(NON_UNIQUE = 0) AS SIGNED) AS is_unique, CAST(1 AS SIGNED) AS is_valid, \
              CAST(MIN(INDEX_NAME = 'PRIMARY') AS SIGNED) AS is_primary, CAST('' AS CHAR) AS condition_text, \
              CAST(GROUP_CONCAT(CONCAT(COLUMN_NAME, IF(SUB_PART IS NULL, '', CONCAT('(', SUB_PART, ')')), \
              IF(COLLATION = 'D', ' DESC', '')) ORDER BY SEQ_IN_INDEX SEPARATOR ', ') AS CHAR) AS column_names \
              FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN (TABLES!) \
              GROUP BY TABLE_NAME, INDEX_NAME",
};

/// An account without the TRIGGER privilege sees no statement, or no trigger at all, depending on the version.
const MARIADB_TRIGGERS: &str = "SELECT CAST(TRIGGER_NAME AS CHAR) AS trigger_name, \
    CAST(CONCAT(ACTION_TIMING, ' ', EVENT_MANIPULATION, ' ', NULLIF(ACTION_STATEMENT, '')) AS CHAR) AS body \
    FROM information_schema.TRIGGERS \
    WHERE TRIGGER_SCHEMA = DATABASE() AND EVENT_OBJECT_TABLE = 'change_log'";
