//! The chunk decoder. `cargo fuzz run chunk -- -malloc_limit_mb=1`

#![no_main]

#[path = "../inputs/chunk.rs"]
mod input;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| input::read(data));
