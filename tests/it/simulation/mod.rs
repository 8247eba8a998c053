//! The protocol by which nodes agree, proved in a world without I/O, threads or real time.
//!
//! The nodes are the shipped ones: `fleet::member`, `fleet::barrier`, `fleet::membership` and the memory of `live`. The
//! database, the network, the clocks and all that happens to them are models (`database`, `clock`, `world`), and follow
//! from a seed. `scenarios` are single stories, one at least for each broken variant of a rule (`latchkey::mutation`);
//! `safety` and `liveness` are random ones.

mod calls;
mod checks;
mod clock;
mod database;
mod faults;
mod lease_changes;
mod liveness;
mod lost_commits;
mod model;
mod node;
mod people;
mod process;
mod safety;
mod scenarios;
mod stage;
mod world;
