//! The contract of `proto/`, asked over real gRPC: each RPC with its answers, its refusals and its limits, and the life
//! of a node as its clients see it.
//!
//! To add an RPC: 1. a file here with what its comment in `proto/` promises; 2. its row in `every_rpc`, by which what
//! holds for every RPC is asked of it as well.

mod admin_users;
mod admission;
mod bad_requests;
mod barrier;
mod binding;
mod change_password;
mod client_description;
mod contract;
mod create_session;
mod create_user;
mod database_clock;
mod deadlines;
mod debug_output;
mod discovery;
mod drain;
mod ending;
mod equal_treatment;
mod every_rpc;
mod fleet;
mod hashing;
mod health;
mod heirs;
mod idle_limits;
mod import_users;
mod keepalive;
mod lean;
mod lease;
mod lifecycle;
mod list_sessions;
mod load_user;
mod locked_rows;
mod log_in;
mod malformed;
mod overtaken;
mod races;
mod reauthenticate;
mod revoke;
mod secrets;
mod session_rules;
mod store_faults;
mod stream;
mod stream_flow;
mod supervision;
mod token_keys;
mod validate;
