//! What a call costs on the wire, by counting: allocations of the whole server, with a client that is none of it.

mod allocations;
mod bare_client;
