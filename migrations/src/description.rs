//! The schema that the program needs, as data: what all migrations together make.
//!
//! A migration that adds a column, an index or a table adds it here as well; a test compares a freshly migrated database
//! with this description in both directions. `verify` compares any database with it.

use sea_orm_migration::sea_orm::DbBackend;

use crate::types::Types;

/// A table.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// The column of its primary key.
    pub primary_key: &'static str,
    /// Its columns.
    pub columns: &'static [Column],
    /// Its indexes beside the primary key.
    pub indexes: &'static [Index],
    /// Nodes write its rows again, so an empty table or column may take the place of a lost one.
    pub is_rebuilt_by_nodes: bool,
}

/// A column.
#[derive(Debug)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether it may be NULL.
    pub is_nullable: bool,
}

/// A type of `Types`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A UUID.
    Uuid,
    /// 8 bytes.
    Bytes8,
    /// 16 bytes.
    Bytes16,
    /// The key of a login name.
    LoginKey,
    /// Text.
    Text,
    /// A whole number of 16 bits.
    Small,
    /// A whole number of 64 bits.
    Big,
    /// True or false.
    Flag,
}

/// An index beside the primary key.
#[derive(Debug)]
pub struct Index {
    /// On MariaDB statements name the index that they use, so there the name counts for unique ones too.
    pub name: &'static str,
    /// Its columns, in order.
    pub columns: &'static [&'static str],
    /// Whether it keeps out a second row of the same values.
    pub is_unique: bool,
    /// Which rows it holds.
    pub rows: Rows,
}

/// Which rows an index holds, where the engine can leave some out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rows {
    /// All rows.
    All,
    /// Rows that ended.
    Ended,
    /// Rows that have not ended.
    NotEnded,
}

/// The trigger of MariaDB that numbers the change log.
pub const TRIGGER: &str = "change_log_number";

/// All tables.
pub const TABLES: &[Table] = &[
    Table {
        name: "log_head",
        primary_key: "id",
        columns: &[
            Column::new("id", Kind::Small),
            Column::new("log_id", Kind::Uuid),
            Column::new("position", Kind::Big),
            Column::new("lease_ms", Kind::Big),
            Column::new("everyone_epoch", Kind::Big),
            Column::new("everyone_time", Kind::Big),
            Column::new("lease_target_ms", Kind::Big),
            Column::new("lease_longest_ms", Kind::Big),
            Column::new("lease_change", Kind::Big),
        ],
        indexes: &[],
        is_rebuilt_by_nodes: false,
    },
    Table {
        name: "change_log",
        primary_key: "position",
        columns: &[
            Column::new("position", Kind::Big),
            Column::new("nonce", Kind::Bytes8),
            Column::new("kind", Kind::Small),
            Column::new("user_id", Kind::Uuid).nullable(),
            Column::new("session_id", Kind::Uuid).nullable(),
            Column::new("epoch", Kind::Big).nullable(),
            Column::new("create_time", Kind::Big),
            Column::new("key_id", Kind::Small).nullable(),
        ],
        indexes: &[],
        is_rebuilt_by_nodes: false,
    },
    Table {
        name: "users",
        primary_key: "user_id",
        columns: &[
            Column::new("user_id", Kind::Uuid),
            Column::new("login_key", Kind::LoginKey),
            Column::new("login_display", Kind::Text),
            Column::new("display_name", Kind::Text),
            Column::new("state", Kind::Small),
            Column::new("roles", Kind::Text),
            Column::new("attributes", Kind::Text),
            Column::new("password_hash", Kind::Text).nullable(),
            Column::new("credential_epoch", Kind::Big),
            Column::new("password_epoch", Kind::Big),
            Column::new("create_time", Kind::Big),
            Column::new("update_time", Kind::Big),
            Column::new("password_time", Kind::Big).nullable(),
        ],
        indexes: &[Index::unique("login_key", &["login_key"])],
        is_rebuilt_by_nodes: false,
    },
    Table {
        name: "sessions",
        primary_key: "session_id",
        columns: &[
            Column::new("session_id", Kind::Uuid),
            Column::new("digest", Kind::Bytes16),
            Column::new("user_id", Kind::Uuid),
            Column::new("user_epoch", Kind::Big),
            Column::new("everyone_epoch", Kind::Big),
            Column::new("create_time", Kind::Big),
            Column::new("authenticate_time", Kind::Big),
            Column::new("expire_time", Kind::Big),
            Column::new("last_seen_time", Kind::Big),
            Column::new("idle_limit_ms", Kind::Big),
            Column::new("over_time", Kind::Big),
            Column::new("remembered", Kind::Flag),
            Column::new("methods", Kind::Text),
            Column::new("client_ip", Kind::Text).nullable(),
            Column::new("client_user_agent", Kind::Text),
            Column::new("client_device_name", Kind::Text),
            Column::new("end_time", Kind::Big).nullable(),
            Column::new("end_reason", Kind::Small).nullable(),
        ],
        indexes: &[
            Index::unique("digest", &["digest"]),
            Index::new("sessions_of_user", &["user_id", "end_time", "expire_time"], Rows::All),
            Index::new("sessions_by_end", &["end_time"], Rows::Ended),
            Index::new("sessions_by_over", &["over_time"], Rows::All),
            Index::new("sessions_by_everyone", &["everyone_epoch"], Rows::All),
            Index::new("sessions_by_use", &["last_seen_time", "session_id"], Rows::NotEnded),
        ],
        is_rebuilt_by_nodes: false,
    },
    Table {
        name: "token_keys",
        primary_key: "key_id",
        columns: &[
            Column::new("key_id", Kind::Small),
            Column::new("fingerprint", Kind::Bytes16),
            Column::new("create_time", Kind::Big),
        ],
        indexes: &[],
        is_rebuilt_by_nodes: true,
    },
    Table {
        name: "nodes",
        primary_key: "node_id",
        columns: &[
            Column::new("node_id", Kind::Uuid),
            Column::new("name", Kind::Text),
            Column::new("state", Kind::Small),
            Column::new("applied_position", Kind::Big),
            Column::new("applied_nonce", Kind::Bytes8).nullable(),
            Column::new("join_time", Kind::Big),
            Column::new("heard_time", Kind::Big),
            Column::new("evict_time", Kind::Big).nullable(),
        ],
        indexes: &[],
        is_rebuilt_by_nodes: true,
    },
];

impl Column {
    const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, is_nullable: false }
    }

    const fn nullable(self) -> Self {
        Self { is_nullable: true, ..self }
    }

    /// As it stands in a statement that makes the column.
    pub fn definition(&self, engine: DbBackend) -> String {
        let null = if self.is_nullable { "NULL" } else { "NOT NULL" };
        format!("{} {} {null}", self.name, self.kind.name(engine))
    }

    /// As the engine's catalogue shows it.
    pub fn shown(&self, engine: DbBackend) -> String {
        shown(self.kind.catalogue_name(engine), self.is_nullable)
    }
}

/// A type and whether it may be NULL, as complaints show it.
pub(crate) fn shown(catalogue_name: &str, is_nullable: bool) -> String {
    format!("{catalogue_name} {}", if is_nullable { "NULL" } else { "NOT NULL" })
}

impl Kind {
    /// As it is written in a statement.
    pub const fn name(self, engine: DbBackend) -> &'static str {
        let types = Types::of(engine);
        match self {
            Self::Uuid => types.uuid,
            Self::Bytes8 => types.bytes_8,
            Self::Bytes16 => types.bytes_16,
            Self::LoginKey => types.login_key,
            Self::Text => types.text,
            Self::Small => types.small,
            Self::Big => types.big,
            Self::Flag => types.flag,
        }
    }

    /// As the catalogue shows it: MariaDB has names, widths and collations of its own there.
    const fn catalogue_name(self, engine: DbBackend) -> &'static str {
        match (engine, self) {
            (DbBackend::MySql, Self::Uuid) => "binary(16)",
            (DbBackend::MySql, Self::Bytes8) => "varbinary(8)",
            (DbBackend::MySql, Self::Bytes16) => "varbinary(16)",
            (DbBackend::MySql, Self::LoginKey) => "varbinary(512)",
            (DbBackend::MySql, Self::Text) => "text COLLATE utf8mb4_nopad_bin",
            (DbBackend::MySql, Self::Small) => "smallint(6)",
            (DbBackend::MySql, Self::Big) => "bigint(20)",
            (DbBackend::MySql, Self::Flag) => "tinyint(1)",
            _ => self.name(engine),
        }
    }
}

impl Index {
    const fn new(name: &'static str, columns: &'static [&'static str], rows: Rows) -> Self {
        Self { name, columns, is_unique: false, rows }
    }

    const fn unique(name: &'static str, columns: &'static [&'static str]) -> Self {
        Self { name, columns, is_unique: true, rows: Rows::All }
    }

    /// The columns on `engine`: where an index holds all rows, those that have not ended lie apart.
    pub fn columns_on(&self, engine: DbBackend) -> String {
        let apart = engine == DbBackend::MySql && self.rows == Rows::NotEnded;
        let first = if apart { "end_time, " } else { "" };
        format!("{first}{}", self.columns.join(", "))
    }

    /// Which rows it holds on `engine`, as the condition of a statement.
    pub const fn condition_on(&self, engine: DbBackend) -> &'static str {
        match (engine, self.rows) {
            (DbBackend::MySql, _) | (_, Rows::All) => "",
            (_, Rows::Ended) => "end_time IS NOT NULL",
            (_, Rows::NotEnded) => "end_time IS NULL",
        }
    }

    /// The statement that makes it. Only on MariaDB names of indexes belong to their table.
    pub fn making(&self, table: &str, engine: DbBackend) -> String {
        let name = match engine {
            DbBackend::MySql => self.name.to_owned(),
            _ if self.is_unique => format!("{table}_{}_key", self.name),
            _ => self.name.to_owned(),
        };
        let unique = if self.is_unique { "UNIQUE " } else { "" };
        let condition = self.condition_on(engine);
        let only = if condition.is_empty() { String::new() } else { format!(" WHERE {condition}") };
        format!("CREATE {unique}INDEX {name} ON {table} ({}){only}", self.columns_on(engine))
    }
}
