//! The only code that knows tonic and prost: services, wire to domain and back, statuses, and the front they share.
//!
//! To add an RPC: 1. `proto/`, with a comment that says who may call, what is refused and whether it may be repeated;
//! 2. its use case in `usecases/`; 3. a handler here that only translates; 4. its tests in `tests/it/`.

pub mod auth;
pub mod callers;
pub mod deadline;
pub mod first_turn;
pub mod fleet;
pub mod front;
mod headers;
mod keepalive;
pub mod lean;
pub mod listener;
pub mod observe;
pub mod outbox;
mod page;
pub mod proto;
pub mod refused_message;
pub mod reply;
pub mod status;
pub mod users;
pub mod wire;
