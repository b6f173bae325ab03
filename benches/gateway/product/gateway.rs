//! The release gateway as a process of its own.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::process::{peak_mib, resident_mib};
use super::support::shim::Shim;
use crate::report::progress::say;

const PATIENCE: Duration = Duration::from_secs(120);

/// How it is started; the rest are its defaults.
#[derive(Clone, Copy, Default)]
pub struct Settings<'a> {
    pub commit: Option<&'a str>,
    pub database_url: Option<&'a str>,
    /// More of its configuration.
    pub more: Option<&'a str>,
    /// The document of the token keys.
    pub token_keys: Option<&'a str>,
    /// Its name in Postgres; `bench` if it does not matter.
    pub node: Option<&'a str>,
    /// What stands between it and its disk.
    pub shim: Option<&'a Shim>,
}

impl Settings<'_> {
    fn document(&self, data: &Path) -> String {
        let commit = self.commit.map(|commit| format!("[journal]\ncommit = \"{commit}\"\n"));
        format!(
            "[server]\nlisten = \"127.0.0.1:0\"\naccess_log = \"off\"\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n[log]\nfilter = \"error\"\n\
             [data]\ndir = {:?}\nnode = \"{}\"\n{}{}",
            data.display().to_string(),
            self.node.unwrap_or("bench"),
            commit.unwrap_or_default(),
            self.more.unwrap_or_default()
        )
    }
}

/// A running gateway; dropping it kills it.
pub struct Gateway {
    child: Child,
    pub address: SocketAddr,
    admin: SocketAddr,
}

impl Gateway {
    /// Starts on the data directory `data`, and returns when it listens.
    pub fn start(data: &Path, settings: Settings<'_>) -> Result<Self> {
        let file = data.with_extension("toml");
        fs::write(&file, settings.document(data))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
        command.arg("--config").arg(&file).arg("serve");
        command.env_remove("DATABASE_URL").env_remove("RUST_LOG");
        if let Some(url) = settings.database_url {
            command.env("DATABASE_URL", url);
        }
        if let Some(keys) = settings.token_keys {
            command.env("GATEPOST_TOKEN_KEYS", keys);
        }
        if let Some(shim) = settings.shim {
            command.envs(shim.env());
        }
        let mut child = command.stderr(Stdio::piped()).spawn().context("the gateway starts")?;
        let mut said = BufReader::new(child.stderr.take().context("its stderr")?);
        let mut line = String::new();
        let addresses = loop {
            line.clear();
            if said.read_line(&mut line)? == 0 {
                bail!("the gateway ended before it listened");
            }
            match listening(&line) {
                Some(addresses) => break addresses,
                None => say(line.trim_end()),
            }
        };
        // Or its pipe fills up.
        std::thread::spawn(move || {
            // How to try it is for people.
            let worth = |line: &String| !line.contains("curl");
            said.lines().map_while(Result::ok).filter(worth).for_each(|line| say(&line));
        });
        let (address, admin) = addresses;
        Ok(Self { child, address, admin })
    }

    /// As [`Gateway::start`], with a Postgres that it has caught up with.
    pub fn following(data: &Path, database_url: &str) -> Result<Self> {
        let settings = Settings { database_url: Some(database_url), ..Settings::default() };
        let gateway = Self::start(data, settings)?;
        gateway.wait_for("gatepost_cache_revision", 1.0)?;
        Ok(gateway)
    }

    /// Status of a request with a key, on a connection of its own.
    pub fn ask(&self, key: &[u8]) -> Result<u16> {
        let headers = format!("Authorization: Bearer {}\r\n", String::from_utf8_lossy(key));
        Ok(get(self.address, "/authz/forward-auth", &headers)?.0)
    }

    /// One value of `/metrics`.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let (_, text) = get(self.admin, "/metrics", "")?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("no metric {name}"))?.trim().parse()?)
    }

    /// Waits until a metric is at least `least`; returns how long it took.
    pub fn wait_for(&self, name: &str, least: f64) -> Result<Duration> {
        let started = Instant::now();
        while self.metric(name)? < least {
            if started.elapsed() > PATIENCE {
                bail!("{name} did not reach {least}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(started.elapsed())
    }

    /// Resident memory in MiB.
    pub fn resident_mib(&self) -> Result<f64> {
        resident_mib(self.child.id())
    }

    /// The most that was resident so far, in MiB.
    pub fn peak_mib(&self) -> Result<f64> {
        peak_mib(self.child.id())
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM, and the end.
    pub fn stop(mut self) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The addresses in `gatepost: listening on http://…, control plane on http://…`.
fn listening(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let rest = line.trim().strip_prefix("gatepost: listening on http://")?;
    let (data, admin) = rest.split_once(", control plane on http://")?;
    Some((data.parse().ok()?, admin.parse().ok()?))
}

fn get(address: SocketAddr, path: &str, headers: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.get(9..12).context("a status")?.parse()?;
    Ok((status, answer))
}
