//! A connection whose every statement is answered in time or given up, so that no step waits for a silent server.
//!
//! Only the statement is given up here. The transaction around it is dropped later by its owner, with nothing in flight.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, ExecResult, QueryResult, RuntimeErr, Statement};

use super::places::Places;

/// A pool or a transaction, with a time limit on each statement.
#[derive(Debug)]
pub(super) struct Timed<C> {
    connection: C,
    limit: Duration,
    has_failed: AtomicBool,
}

impl<C> Timed<C> {
    /// Gives each statement on `connection` at most `limit`.
    pub(super) fn new(connection: C, limit: Duration) -> Self {
        Self { connection, limit, has_failed: AtomicBool::new(false) }
    }

    /// Whether a statement failed. A transaction in which one did may have been ended by the engine: SQLite may roll it back
    /// by itself, MariaDB does so at a deadlock, and PostgreSQL answers its COMMIT although it rolls back.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }

    /// The connection itself.
    pub(super) fn into_inner(self) -> C {
        self.connection
    }
}

impl Timed<Places> {
    /// What `read` makes of each row, as it comes.
    pub(super) async fn read_rows<T: Send>(
        &self,
        statement: Statement,
        read: impl FnMut(&QueryResult) -> T + Send,
    ) -> Result<Vec<T>, DbErr> {
        in_time(self.limit, self.connection.read_rows(statement, read)).await
    }
}

impl<C: Sync> Timed<C> {
    async fn noticed<T>(&self, answer: impl Future<Output = Result<T, DbErr>> + Send) -> Result<T, DbErr> {
        let answer = in_time(self.limit, answer).await;
        if answer.is_err() {
            self.has_failed.store(true, Ordering::Release);
        }
        answer
    }
}

/// What `answer` says, or that it took longer than `limit`.
pub(super) async fn in_time<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, DbErr>> + Send,
) -> Result<T, DbErr> {
    let too_late = |_| {
        let why = format!("no answer within {} ms", limit.as_millis());
        DbErr::Conn(RuntimeErr::Internal(why))
    };
    tokio::time::timeout(limit, answer).await.map_err(too_late)?
}

#[async_trait]
impl<C: ConnectionTrait + Send> ConnectionTrait for Timed<C> {
    fn get_database_backend(&self) -> DbBackend {
        self.connection.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.noticed(self.connection.execute_raw(statement)).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.noticed(self.connection.execute_unprepared(sql)).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.noticed(self.connection.query_one_raw(statement)).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.noticed(self.connection.query_all_raw(statement)).await
    }
}
