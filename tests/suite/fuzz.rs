//! The fuzz targets' inputs in the ordinary run: the kept corpus, and changes to it, by seed
//! (`fuzz/bytes.rs`). And once more in a process of their own, which may take little memory beside
//! them. Readers that only this crate's own tests reach have theirs beside the code: `any_bytes_…`.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::{Resource, Rlimit, setrlimit};

#[path = "../../fuzz/inputs/access.rs"]
mod access;
#[path = "../../fuzz/bytes.rs"]
mod bytes;
#[path = "../../fuzz/inputs/chunk.rs"]
mod chunk;
#[path = "../../fuzz/inputs/frame.rs"]
mod frame;
#[path = "../../fuzz/inputs/policy.rs"]
mod policy;
#[path = "../../fuzz/inputs/refresh.rs"]
mod refresh;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = fs::read_dir(dir).expect("the corpus is part of the repository");
    let mut files: Vec<_> = files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
    // The same changes with the same seed.
    files.sort();
    assert!(files.len() >= 3, "{} files", files.len());
    files
}

/// Set for the process that has little memory: how much more than it has when the inputs begin, in
/// bytes.
const BOUND: &str = "GATEPOST_FUZZ_MEMORY";

/// From here on this process may take little more memory, if it was started so.
fn bound_memory() {
    let Ok(bound) = std::env::var(BOUND) else { return };
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    let kib: u64 = size.split_whitespace().next().unwrap().parse().unwrap();
    let most = (kib << 10) + bound.parse::<u64>().unwrap();
    setrlimit(Resource::As, Rlimit { current: Some(most), maximum: Some(most) }).unwrap();
}

fn run(target: &str, input: fn(&[u8])) {
    let corpus = corpus(target);
    bound_memory();
    bytes::each(target, &corpus, input);
}

#[test]
fn no_chunk_that_is_read_panics_or_is_more_than_its_bytes() {
    run("chunk", chunk::read);
}

#[test]
fn no_frame_that_is_read_panics_or_is_more_than_its_bytes() {
    run("frame", frame::read);
}

#[test]
fn no_access_token_that_is_accepted_says_what_it_must_not() {
    run("access", access::read);
}

#[test]
fn no_policy_that_is_read_says_something_else_when_it_is_written() {
    run("policy", policy::read);
}

#[test]
fn no_refresh_token_is_proven_in_another_text_than_its_own() {
    run("refresh", refresh::read);
}

/// No length that an input tells is believed: each target runs in 4 MiB beside what its process
/// has. (What is allocated in one piece is mapped, so that the bound sees it.)
#[cfg(target_os = "linux")]
#[test]
fn what_is_allocated_is_bounded_by_the_input() {
    let names = ["no_chunk_", "no_frame_", "no_access_", "no_refresh_"];
    for name in names {
        let mut own = Command::new(std::env::current_exe().unwrap());
        own.arg(format!("fuzz::{name}")).arg("--test-threads=1").env(BOUND, (4 << 20).to_string());
        own.env("MALLOC_ARENA_MAX", "1").env("MALLOC_MMAP_THRESHOLD_", "65536");
        own.env_remove("GATEPOST_FUZZ_SECONDS");
        let ran = own.output().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        let why = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success() && said.contains("1 passed"), "{name}: {said}{why}");
    }
}
