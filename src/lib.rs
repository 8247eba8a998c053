//! Latchkey signs people in, and answers for every request of every other service whether the session is still good and
//! whose it is.
//!
//! # Code map
//!
//! In reading order; the import law between these parts is a test (`tests/tidy.rs`), and ARCHITECTURE.md has the picture.
//!
//! | part | owns |
//! | --- | --- |
//! | [`domain`] | values and rules: ids, token, session, user, password, refusal. No async, I/O, clock or framework |
//! | [`host`] | what is taken from the machine: the clock and randomness, each behind a trait |
//! | [`live`] | HOT PATH: sessions and users in memory, and the lease to answer from them. Reads take no lock and allocate nothing |
//! | [`fleet`] | how nodes agree: change-log follower, lease, list of nodes, barrier. The rules are without I/O |
//! | [`supervise`] | restarts tasks that panic, and ends the node when that does not help |
//! | [`mutation`] | broken variants of the rules, for tests only |
//! | [`passwords`] | the bounded hashing pool, hash formats, import, the budget of guesses |
//! | [`store`] | trait `Store`, the port to durable state; `store::sql` is the only code that knows SQL |
//! | [`usecases`] | what the service does, one file a feature |
//! | [`grpc`] | the only code that knows tonic: services, wire and domain, statuses, the common front |
//! | [`telemetry`] | log set-up, and every metric in one struct |
//! | [`config`] | every setting in one struct, whose doc lines are the help, the template and the reference |
//! | [`database_url`] | the URL of the database, parsed once; secret, and shown masked |
//! | [`key_file`] | the token key ring on disk |
//! | [`server`] | the only composition root, and the life of a node |
//! | [`cli`] | one file a command; all but serve, demo, migrate, key and config talk gRPC |
//!
//! # Where does it happen?
//!
//! * a sign-in: `usecases/log_in.rs`
//! * "is this session good?": the rule is `domain::session::Session::check`, the call `usecases/validate_session.rs`
//! * a password changes: `usecases/change_password.rs`, and in one transaction `store/sql/passwords.rs`
//! * a hot question is answered: `grpc/lean/`, and what is unusual about it by tonic's routes, `grpc/auth.rs`
//! * a refusal becomes a gRPC status: `grpc/status.rs`
//! * a number of the change log is taken: `store/sql/change_log.rs`
//! * a node earns the right to answer: `fleet/follower.rs`; what it is: `live/lease.rs`
//! * a revocation waits until no node can accept any more: `fleet/settling.rs`, by the rule of `fleet/barrier.rs`
//! * memory takes in what was read, or does not: `live/keeper.rs`

pub mod cli;
pub mod config;
pub mod database_url;
pub mod domain;
pub mod fleet;
pub mod grpc;
pub mod host;
pub mod key_file;
pub mod live;
pub mod mutation;
pub mod passwords;
pub mod server;
pub mod store;
pub mod supervise;
pub mod telemetry;
pub mod usecases;
