//! The machine on which it was measured: absolute numbers say nothing without it.

use std::fs;
use std::process::Command;

use gatepost::clock::{Clock, SystemClock};
use serde::Serialize;

use crate::rivals::program::installed;

/// What is told of it.
#[derive(Serialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub memory_gib: f64,
    pub kernel: String,
    /// The other programs, as they name their versions.
    pub programs: Vec<String>,
    /// Of gatepost, as far as the sources are in a repository.
    pub version: String,
    /// When the run began.
    pub at: String,
    /// Load average at that time: what else was going on.
    pub load: String,
}

impl Machine {
    pub fn this() -> Self {
        let line = |file: &str, name: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let found = text.lines().find_map(|line| line.strip_prefix(name)?.split_once(':'));
            found.map_or_else(String::new, |(_, value)| value.trim().to_owned())
        };
        let kib = line("/proc/meminfo", "MemTotal").replace(" kB", "").parse().unwrap_or(0.0);
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let programs = [("psql", "-V"), ("nginx", "-v"), ("haproxy", "-v"), ("wrk", "-v")];
        Self {
            processor: line("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(0, Into::into),
            memory_gib: kib / 1024.0 / 1024.0,
            kernel: said("uname", &["-sr"]).unwrap_or_default(),
            programs: programs
                .into_iter()
                .map(|(name, flag)| {
                    said(name, &[flag]).unwrap_or_else(|| format!("{name}: not installed"))
                })
                .collect(),
            version: said("git", &["describe", "--always", "--dirty"]).unwrap_or_default(),
            at: SystemClock::new().now().to_string(),
            load: load.split(' ').take(3).collect::<Vec<_>>().join(" "),
        }
    }

    /// In one line.
    pub fn text(&self) -> String {
        let Self { processor, cores, memory_gib, kernel, .. } = self;
        format!("{processor}, {cores} cores, {memory_gib:.1} GiB, {kernel}")
    }
}

/// The first line that a program says.
fn said(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(installed(program)?).args(args).output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let line = said.lines().next()?;
    // What follows is an address, or whose it is.
    let line = line.split(" - ").next()?.split(" [").next()?;
    Some(line.trim().to_owned()).filter(|line| !line.is_empty())
}
