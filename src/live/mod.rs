//! What this node holds in memory: sessions and their users, and the lease to answer from them. Synchronous and bounded;
//! no I/O, no async, no clock.
//!
//! In reading order: `lease` says whether memory may answer; `table` is what readers see, of `session` and `user`,
//! which is `encoded` once; `keeper` is the one writer, and decides by `recent` whether a read still counts; `uses` collects
//! what is to be written down.
//!
//! A node holds millions of sessions, so each is packed: `terms` holds what many have in common, `address` and `usage` what
//! each has of its own, and `index` finds them by public id in eight bytes each, the first half of a `digest`.

mod address;
mod digest;
pub mod encoded;
mod facts;
mod index;
pub mod keeper;
pub mod lease;
mod recent;
mod session;
pub mod table;
mod terms;
pub mod token_keys;
pub mod told;
mod usage;
mod user;
pub mod uses;

#[cfg(test)]
mod keeper_tests;
#[cfg(test)]
mod rule_tests;
#[cfg(test)]
mod samples;
