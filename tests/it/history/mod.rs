//! Random histories: whatever is asked in whatever order, the service answers as the contract says.
//!
//! `sequential` plays one call after the other and compares each answer with that of a model in memory (`oracle`), which
//! knows nothing of epochs, change logs or tables. `concurrent` plays many calls at a time, where no single answer can be
//! foretold, and checks what must hold for each session whatever the order was (`checker`).

pub mod books;
pub mod checker;
pub mod client;
mod concurrent;
mod expectations;
mod faulty_store;
pub mod operation;
mod oracle;
mod player;
mod sequential;
