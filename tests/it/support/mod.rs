//! The harness: what a test needs from the machine, and never what it asserts about one subject alone.

pub mod captured_log;
pub mod databases;
pub mod dice;
pub mod failing_disk;
pub mod held_hashing;
pub mod interposed_coordination;
pub mod interposed_store;
pub mod node_process;
pub mod own_server;
pub mod pgbouncer;
pub mod plain_http;
pub mod raw_call;
pub mod refusals;
pub mod replicated_server;
pub mod server;
pub mod shorthands;
pub mod tcp_proxy;
pub mod verdicts;
pub mod waiting;
