//! What the kernel says of a process (proc(5)).

use std::fs;

use anyhow::{Context, Result};

/// User and system time of a process so far, in microseconds (proc(5), `stat`; its unit is a
/// hundredth of a second on Linux).
pub fn cpu_micros(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2);
    ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() * 10_000.0
}

/// A process and those that it started.
pub fn family(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    std::iter::once(pid).chain(children).collect()
}

/// Resident memory of a process in MiB.
pub fn resident_mib(pid: u32) -> Result<f64> {
    mib(pid, "VmRSS:")
}

/// The most that was resident of a process so far, in MiB.
pub fn peak_mib(pid: u32) -> Result<f64> {
    mib(pid, "VmHWM:")
}

fn mib(pid: u32, field: &'static str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context(field)?;
    Ok(kib.trim().parse::<f64>()? / 1024.0)
}

/// Bytes that this process has caused to be written to a disk.
pub fn written_bytes() -> Result<u64> {
    let io = fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes:"));
    Ok(line.context("write_bytes")?.trim().parse()?)
}

/// Time on a processor of all threads of this process with this name, in nanoseconds.
pub fn thread_nanos(name: &str) -> Result<f64> {
    let mut nanos = 0.0;
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        if fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name) {
            let stat = fs::read_to_string(task.join("schedstat"))?;
            let own = stat.split_whitespace().next().context("schedstat")?;
            nanos += own.parse::<f64>()?;
        }
    }
    Ok(nanos)
}
