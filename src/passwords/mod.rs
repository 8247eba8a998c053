//! Passwords: hashing them on threads of their own, reading hashes made elsewhere, and slowing down guessers.
//!
//! Nothing here knows users, the database or the wire; the use cases bring a password and a hash together. To take
//! another kind of hash: 1. name it in `import.rs` as taken; 2. verify it in `worker.rs`, with as much work as any other.

mod argon;
pub mod cost;
pub mod import;
pub mod pool;
pub mod throttle;
mod worker;
