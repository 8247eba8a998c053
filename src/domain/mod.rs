//! Values and rules: what a token, a session, a user and a refusal *are*.
//!
//! Everything here is pure: no I/O, no async, no clock, no framework. A function that needs the time takes `now`.
//! Values are parsed at the edge, so that inside the process a bad one cannot exist.

pub mod change;
pub mod client;
pub mod id;
pub mod invalid;
pub mod login_name;
pub mod page;
pub mod password;
pub mod refusal;
pub mod session;
pub mod time;
pub mod token;
mod token_mac;
pub mod user;
