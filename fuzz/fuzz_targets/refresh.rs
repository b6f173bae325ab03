//! The reader of refresh tokens. `cargo fuzz run refresh -- -malloc_limit_mb=1`

#![no_main]

#[path = "../inputs/refresh.rs"]
mod input;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| input::read(data));
