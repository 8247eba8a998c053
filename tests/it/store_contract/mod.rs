//! The specification of `Store`, as tests that run on every engine alike: each promise in the documentation of the trait
//! has its test here, and an exception of one engine is named where it is made, with its reason.
//!
//! To add a promise: 1. the sentence on the method of `Store`; 2. an `async fn` here that breaks without it, named in the
//! `on_each_engine!` list that opens its file; 3. the code in `store/sql/`.

mod cap;
mod change_log;
mod concurrency;
mod coordination;
mod database_urls;
mod dead_on_arrival;
mod durability;
mod end_together;
mod ending;
mod filling;
mod following;
mod hints;
mod locked_rows;
mod log_trigger;
mod log_upkeep;
mod lower_bound;
mod node_connection;
mod node_start;
mod passwords;
mod plans;
mod primary;
mod purge;
mod replay;
mod samples;
mod schema;
mod server_settings;
mod sessions;
mod several_hosts;
mod silent_release;
mod snapshots;
mod unfinished_transaction;
mod unreadable;
mod user_updates;
mod users;
mod write_again;
mod write_again_far;
