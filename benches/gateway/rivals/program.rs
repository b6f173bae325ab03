//! Programs of others: found where distributions put them, started on a loopback port with a
//! configuration that is written here, ended by their process number.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::product::process::family;

const PATIENCE: Duration = Duration::from_secs(10);

/// Where a program is, if it is.
pub fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.extend(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    places.into_iter().map(|place| place.join(name)).find(|file| file.is_file())
}

/// A program that runs; dropping it ends it and what it started.
pub struct Program {
    child: Child,
    pub address: SocketAddr,
    _dir: TempDir,
}

impl Program {
    /// Starts `name` with what `write` puts into a directory of its own; `args` follow from there.
    pub fn start(
        name: &str,
        write: impl FnOnce(&Path, SocketAddr) -> Result<()>,
        args: impl FnOnce(&Path, &mut Command),
    ) -> Result<Self> {
        let program = installed(name).with_context(|| format!("not installed: {name}"))?;
        let dir = tempfile::tempdir()?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        write(dir.path(), address)?;
        let mut command = Command::new(program);
        args(dir.path(), &mut command);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let program = Self { child, address, _dir: dir };
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            ensure!(began.elapsed() < PATIENCE, "{name} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(program)
    }

    /// Its processes.
    pub fn pids(&self) -> Vec<u32> {
        family(self.child.id())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // TERM, so that a master ends its workers.
        if kill_process(Pid::from_child(&self.child), Signal::TERM).is_ok() {
            drop(self.child.wait());
        }
    }
}
