//! The integration tests, one crate: the harness in `support/`, then one file or folder a subject.

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
