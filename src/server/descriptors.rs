//! File descriptors: the soft limit is raised to the hard one, and clients get only what the node itself does not need.
//! Otherwise idle connections could take the last descriptor, and neither the database nor a health check would be
//! reached.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::StartError;
use super::http::CONNECTIONS_MAX as HTTP_CONNECTIONS_MAX;

/// What one connection to the database may take: SQLite has the database, its log, the log's index and a temporary file.
const PER_DATABASE_CONNECTION: u64 = 4;
/// Connections to the database besides those of the pool: the follower's, the hints', and those being replaced.
const MORE_DATABASE_CONNECTIONS: u64 = 4;
/// Standard streams, listeners, event queues, key files, and what a library opens for a moment.
const OWN: u64 = 48;

/// Raises the limit of this process as far as it may by itself.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => tracing::debug!(from = limit.current, to = limit.maximum, "raised the limit of open files"),
        Err(error) => {
            let error = io::Error::from(error);
            tracing::warn!(%error, limit = limit.current, "cannot raise the limit of open files");
        }
    }
}

/// How many gRPC connections there may be: those of `grpc.connections_max`, or as many as the limit of open files leaves.
pub(super) fn connections(connections_max: usize, database_connections: u32) -> Result<usize, StartError> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let connections = share(limit, connections_max, database_connections)?;
    if connections < connections_max {
        tracing::warn!(
            open_files = limit,
            configured = connections_max,
            connections,
            "the limit of open files (ulimit -n, LimitNOFILE) leaves room for fewer connections than grpc.connections_max; \
             raise it, or lower the setting"
        );
    }
    Ok(connections)
}

fn share(limit: u64, connections_max: usize, database_connections: u32) -> Result<usize, StartError> {
    let database = PER_DATABASE_CONNECTION * (u64::from(database_connections) + MORE_DATABASE_CONNECTIONS);
    let http = u64::try_from(HTTP_CONNECTIONS_MAX).unwrap_or(u64::MAX);
    // One more is accepted before it can be refused.
    let reserved = database.saturating_add(http).saturating_add(OWN + 1);
    let left = limit.saturating_sub(reserved);
    if left == 0 {
        return Err(StartError::TooFewDescriptors { limit, needed: reserved + 1 });
    }
    Ok(connections_max.min(usize::try_from(left).unwrap_or(usize::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_what_the_node_does_not_need() {
        let share = |limit| share(limit, 1_000, 10).map_err(|error| error.to_string());
        assert_eq!(share(u64::MAX), Ok(1_000));
        assert_eq!(share(1_169), Ok(1_000));
        assert_eq!(share(1_168), Ok(999));
        assert_eq!(share(170), Ok(1));
        let refused = share(169).expect_err("nothing is left");
        assert!(refused.contains("169") && refused.contains("170"), "{refused}");
    }
}
