//! Rivals that are written for it, in a process of their own: this program again, with a hidden
//! argument.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{handlers, refresh, upstream};

/// The hidden argument.
pub const ROLE: &str = "--as";

/// A rival in its process; dropping it kills it.
pub struct Own {
    child: Child,
    pub address: SocketAddr,
}

impl Own {
    /// A handler that answers 200 and does nothing else.
    pub fn bare() -> Result<Self> {
        Self::start(&["bare"])
    }

    /// A handler that asks Postgres for every request and counts there.
    pub fn upserting(url: &str) -> Result<Self> {
        Self::start(&["upserting", url])
    }

    /// Refresh tokens by `SELECT … FOR UPDATE`.
    pub fn refreshing(url: &str) -> Result<Self> {
        Self::start(&["refreshing", url])
    }

    /// What stands behind all proxies.
    pub fn upstream() -> Result<Self> {
        Self::start(&["upstream"])
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn start(args: &[&str]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg(ROLE).args(args).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its stdout")?).read_line(&mut line)?;
        Ok(Self { child, address: line.trim().parse().context("the rival's address")? })
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The body of a rival's process.
pub fn run(args: &[&str]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match args {
            ["bare"] => handlers::bare().await,
            ["upserting", url] => handlers::upserting(url).await,
            ["refreshing", url] => refresh::serve(url).await,
            ["upstream"] => upstream::serve().await,
            _ => bail!("no such rival"),
        }
    })
}
