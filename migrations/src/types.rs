//! What the three engines call the column types that the tables are made of.
//!
//! Everything that is compared byte for byte is binary. Text is utf8mb4 without padding on MariaDB, whose default may be
//! latin1 and whose other collations take `'bob'` and `'bob '` for the same.

use sea_orm_migration::sea_orm::DbBackend;

/// The names of the column types on one engine.
pub(crate) struct Types {
    /// A UUID.
    pub uuid: &'static str,
    /// 8 bytes.
    pub bytes_8: &'static str,
    /// 16 bytes.
    pub bytes_16: &'static str,
    /// The longest key of a login name: 128 code points of 4 bytes.
    pub login_key: &'static str,
    /// Text of up to 64 KiB.
    pub text: &'static str,
    /// A whole number of 16 bits.
    pub small: &'static str,
    /// A whole number of 64 bits; moments are milliseconds since 1970.
    pub big: &'static str,
    /// True or false.
    pub flag: &'static str,
    /// What leaves rows out of an index that have not ended; nothing on an engine whose indexes hold all rows.
    pub where_ended: &'static str,
    /// What stands before the other columns of an index of what has not ended, and behind them.
    pub unended_first: (&'static str, &'static str),
    /// What stands behind the columns of a table.
    pub table_end: &'static str,
    /// An expression that gives a random UUID.
    pub random_uuid: &'static str,
    /// How a row is inserted unless it is there.
    pub insert_unless_there: (&'static str, &'static str),
}

impl Types {
    /// The names on `engine`.
    pub(crate) const fn of(engine: DbBackend) -> Self {
        match engine {
            DbBackend::Sqlite => Self {
                uuid: "BLOB",
                bytes_8: "BLOB",
                bytes_16: "BLOB",
                login_key: "BLOB",
                text: "TEXT",
                small: "INTEGER",
                big: "INTEGER",
                flag: "INTEGER",
                where_ended: "WHERE end_time IS NOT NULL",
                unended_first: ("", "WHERE end_time IS NULL"),
                table_end: "STRICT",
                random_uuid: "randomblob(16)",
                insert_unless_there: ("INSERT OR IGNORE", ""),
            },
            DbBackend::Postgres => Self {
                uuid: "uuid",
                bytes_8: "bytea",
                bytes_16: "bytea",
                login_key: "bytea",
                text: "text",
                small: "smallint",
                big: "bigint",
                flag: "boolean",
                where_ended: "WHERE end_time IS NOT NULL",
                unended_first: ("", "WHERE end_time IS NULL"),
                table_end: "",
                random_uuid: "gen_random_uuid()",
                insert_unless_there: ("INSERT", "ON CONFLICT DO NOTHING"),
            },
            // MariaDB; the enum is open, but no other engine is compiled in.
            _ => Self {
                uuid: "BINARY(16)",
                bytes_8: "VARBINARY(8)",
                bytes_16: "VARBINARY(16)",
                login_key: "VARBINARY(512)",
                text: "TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin",
                small: "SMALLINT",
                big: "BIGINT",
                flag: "BOOLEAN",
                where_ended: "",
                unended_first: ("end_time,", ""),
                table_end: "ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin",
                random_uuid: "UNHEX(REPLACE(UUID(), '-', ''))",
                insert_unless_there: ("INSERT IGNORE", ""),
            },
        }
    }
}
