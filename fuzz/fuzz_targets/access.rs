//! The reader of access tokens. `cargo fuzz run access -- -malloc_limit_mb=1`

#![no_main]

#[path = "../inputs/access.rs"]
mod input;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| input::read(data));
