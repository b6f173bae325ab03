//! What is measured: the gateway as a process, and its parts in this one; beside it what they need.

pub mod gateway;
pub mod parts;
pub mod process;
pub mod support;
