//! The integration tests, one crate: the harness in `support/`, then one file or folder a subject.

#![expect(clippy::disallowed_macros, reason = "tests print their figures and seeds")]

mod clients;
mod crash;
mod history;
mod memory;
mod nodes;
mod rpc;
mod simulation;
mod store_contract;
mod support;
mod wire;
