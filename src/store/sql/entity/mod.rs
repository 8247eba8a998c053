//! The tables, typed. What a row means is said where it becomes a domain value, in the file of its aggregate.

pub(super) mod change_log;
pub(super) mod log_head;
pub(super) mod nodes;
pub(super) mod sessions;
pub(super) mod token_keys;
pub(super) mod users;
