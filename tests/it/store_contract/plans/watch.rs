//! How each engine tells that something read a whole table.
//!
//! PostgreSQL and MariaDB count the rows read from each table. SQLite counts nothing, but refuses to go on at a page that
//! it cannot read: one page in the middle of each tree is spoilt, which whoever reads the whole tree trips over, and whoever
//! looks something up never meets.

use std::io::{Seek as _, SeekFrom, Write as _};

use super::crowd::TABLES;
use crate::support::databases::{Engine, Raw, TestDatabase};

/// Rows that one call may read of the large tables together: far above what a page of a list needs, far below a table.
const ROWS_READ_MAX: i64 = 2_000;

/// Knows what had been read when it was last asked.
pub struct Watch<'a> {
    db: &'a TestDatabase,
    rows_read: std::cell::Cell<i64>,
}

impl<'a> Watch<'a> {
    /// Begins to watch a filled database.
    pub async fn begin(db: &'a TestDatabase) -> Self {
        match db.engine() {
            Engine::Sqlite => spoil_the_middle(db).await,
            Engine::Postgres => {}
            Engine::Mariadb => {
                let raw = db.raw().await;
                raw.run("SET GLOBAL userstat = 1").await;
                raw.close().await;
            }
        }
        let watch = Self { db, rows_read: std::cell::Cell::new(0) };
        watch.rows_read.set(watch.count().await);
        watch
    }

    /// What was read since the last question, if that is too much; `answer` is what the call itself said of it.
    pub async fn read_everything_since(&self, answer: Result<(), String>) -> Option<String> {
        if self.db.engine() == Engine::Sqlite {
            return answer.err();
        }
        answer.expect("the call succeeds");
        let rows_read = self.count().await;
        let since = rows_read - self.rows_read.replace(rows_read);
        (since > ROWS_READ_MAX).then(|| format!("{since} rows read"))
    }

    async fn count(&self) -> i64 {
        match self.db.engine() {
            Engine::Sqlite => 0,
            Engine::Postgres => count_on_postgres(self.db).await,
            Engine::Mariadb => {
                let raw = self.db.raw().await;
                let tables = TABLES.map(|table| format!("'{table}'")).join(", ");
                let count = raw
                    .number(&format!(
                        "SELECT CAST(COALESCE(SUM(rows_read), 0) AS SIGNED) FROM information_schema.table_statistics
                         WHERE table_schema = DATABASE() AND table_name IN ({tables})"
                    ))
                    .await;
                raw.close().await;
                count
            }
        }
    }
}

/// A connection hands its counts in when it ends, so this waits until it is the last one.
async fn count_on_postgres(db: &TestDatabase) -> i64 {
    let raw = db.raw().await;
    let others = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() \
                  AND pid <> pg_backend_pid() AND backend_type IN ('client backend', 'parallel worker')";
    let ended = async {
        while raw.number(others).await > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), ended)
        .await
        .expect("a closed store has no connection");
    let tables = TABLES.map(|table| format!("'{table}'")).join(", ");
    let count = raw
        .number(&format!(
            "SELECT (SELECT COALESCE(SUM(seq_tup_read), 0) FROM pg_stat_user_tables WHERE relname IN ({tables}))::bigint
                  + (SELECT COALESCE(SUM(idx_tup_read), 0) FROM pg_stat_user_indexes WHERE relname IN ({tables}))::bigint"
        ))
        .await;
    raw.close().await;
    count
}

/// Makes a leaf in the middle of each tree, of the tables and of their indexes, unreadable.
async fn spoil_the_middle(db: &TestDatabase) {
    let raw = db.raw().await;
    raw.run("PRAGMA wal_checkpoint(TRUNCATE)").await;
    let page_size = u64::try_from(raw.number("PRAGMA page_size").await).expect("a size");
    let mut spoilt = Vec::new();
    for tree in trees(&raw).await {
        let leaves = format!("FROM dbstat WHERE name = '{tree}' AND pagetype = 'leaf'");
        let count = raw.number(&format!("SELECT COUNT(*) {leaves}")).await;
        assert!(count > 20, "{tree} has a middle");
        let middle = format!("SELECT pageno {leaves} ORDER BY path LIMIT 1 OFFSET {}", count / 2);
        spoilt.push(u64::try_from(raw.number(&middle).await).expect("a page number"));
    }
    raw.close().await;
    let path = db.file().expect("SQLite has a file");
    let mut file = std::fs::OpenOptions::new().write(true).open(path).expect("the file opens");
    for page in spoilt {
        file.seek(SeekFrom::Start((page - 1) * page_size)).expect("the page is there");
        file.write_all(&[0xff; 8]).expect("the page is written");
    }
}

/// Those that hold all rows of their table; what leaves rows out may have no middle.
async fn trees(raw: &Raw) -> Vec<String> {
    let tables = TABLES.map(|table| format!("'{table}'")).join(", ");
    let rows = raw
        .rows(&format!(
            "SELECT name FROM sqlite_schema WHERE rootpage > 0 AND tbl_name IN ({tables}) \
             AND COALESCE(sql, '') NOT LIKE '%WHERE%'"
        ))
        .await;
    rows.iter().map(|row| row.try_get_by_index(0).expect("a name")).collect()
}
