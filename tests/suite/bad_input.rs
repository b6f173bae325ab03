//! What people, clients and disks get wrong, told by the real binary: the exit code is the one for
//! it, and the words say what to do.

mod config;
mod database;
mod disk;
mod requests;
