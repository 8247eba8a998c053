//! Memory as readers and its one writer meet in it: nothing is allocated for an answer, and nobody is told what was true
//! before the lease that vouches for it.

mod allocations;
mod idleness;
mod orders;
mod room;
mod samples;
mod stress;
