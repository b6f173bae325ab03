//! What is in the stores before anything is asked: keys, sessions, counters. All follow from their
//! number, so that stores and load agree on them without passing them around.

pub mod counters;
pub mod keys;
pub mod sessions;
