//! The gateway's process: started, listened to, and ended.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::reaper;

/// What a gateway wrote to stderr, line by line.
pub type Said = Arc<Mutex<Vec<String>>>;

/// Starts `serve` and waits for nothing; the addresses come when it listens.
pub fn spawn(mut command: Command, said: &Said) -> (Child, oneshot::Receiver<Addresses>) {
    command.arg("serve").stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    reaper::started(child.id());
    let (tell, told) = oneshot::channel();
    let (stderr, said) = (child.stderr.take().expect("its pipe"), Arc::clone(said));
    std::thread::spawn(move || listen(stderr, &said, tell));
    (child, told)
}

/// Where a gateway listens, as URLs.
pub struct Addresses {
    pub data: String,
    pub admin: String,
}

/// Collects what a process says, and tells where it listens.
fn listen(stderr: ChildStderr, said: &Mutex<Vec<String>>, tell: oneshot::Sender<Addresses>) {
    let mut tell = Some(tell);
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if let Some(addresses) = addresses(&line)
            && let Some(tell) = tell.take()
        {
            // The test may have given up waiting.
            drop(tell.send(addresses));
        }
        said.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

fn addresses(line: &str) -> Option<Addresses> {
    let rest = line.strip_prefix("gatepost: listening on ")?;
    let (data, admin) = rest.split_once(", control plane on ")?;
    Some(Addresses { data: data.to_owned(), admin: admin.to_owned() })
}

/// Sends a signal by its number's name, `-TERM`.
pub fn signal(child: &Child, signal: &str) {
    let sent = Command::new("kill").arg(signal).arg(child.id().to_string()).status();
    assert!(sent.expect("kill").success(), "it runs");
}

/// Sends a signal that cannot be caught, and waits for the end.
pub fn end(mut child: Child, with: &str) -> ExitStatus {
    signal(&child, with);
    let status = child.wait().expect("it is our child");
    reaper::ended(child.id());
    status
}

/// The most memory that a process ever had, in KiB, where the system tells.
pub fn peak_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// How many files a process has open.
#[cfg(target_os = "linux")]
pub fn files(pid: u32) -> u64 {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count() as u64
}

/// Resident memory of a process, in KiB.
#[cfg(target_os = "linux")]
pub fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
