//! `wrk`, another closed loop, written by others: what the one here says is checked against it.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::program::installed;

/// Requests a second to forward-auth with one key, as `wrk` counts them.
pub fn run(address: SocketAddr, key: &[u8], connections: usize, span: Duration) -> Result<f64> {
    let wrk = installed("wrk").context("not installed: wrk")?;
    let key = String::from_utf8_lossy(key);
    let threads = std::thread::available_parallelism()?.get().min(connections);
    let output = Command::new(wrk)
        .args(["-t", &threads.to_string(), "-c", &connections.to_string()])
        .args(["-d", &format!("{}s", span.as_secs().max(1))])
        .args(["-H", &format!("Authorization: Bearer {key}")])
        .arg(format!("http://{address}/authz/forward-auth"))
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let failed = ["Non-2xx", "Socket errors"].iter().any(|word| text.contains(word));
    ensure!(!failed, "wrk was refused, or not answered: {text}");
    let line = text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    Ok(line.with_context(|| format!("wrk says no rate: {text}"))?.trim().parse()?)
}
