//! The frame decoder, and what the journal and the cache keep in frames.
//! `cargo fuzz run frame -- -malloc_limit_mb=1`

#![no_main]

#[path = "../inputs/frame.rs"]
mod input;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| input::read(data));
