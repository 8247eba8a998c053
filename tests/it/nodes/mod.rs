//! A fleet of real nodes on a real database, under faults: what callers were told goes to a checker, whatever the fault was.
//!
//! `harness` starts nodes, each behind a network of its own; `load` calls them all the time; `log` is what was written down;
//! `checker` finds what must not be in it, per node; `report` says how a fault felt. The other files are one kind of fault
//! each.

mod checker;
mod counts;
mod crowds;
mod failover;
mod frozen;
mod harness;
mod head_lock;
mod healthy;
mod killed;
mod lease_changes;
mod lease_cost;
mod load;
mod log;
mod membership;
mod partitioned;
mod report;
mod restarted;
mod slow;
