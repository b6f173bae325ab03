//! Makes sure that no process outlives the tests, even if these are killed: a small shell that
//! waits on a pipe from this process, and at its end kills what was started and has not ended.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

const REAPER: &str = r#"
  trap '' INT TERM HUP
  alive=
  while read -r what pid; do
    case $what in
      started) alive="$alive $pid" ;;
      ended) alive=$(for one in $alive; do [ "$one" = "$pid" ] || printf ' %s' "$one"; done) ;;
    esac
  done
  [ -z "$alive" ] || kill -KILL $alive
"#;

/// `pid` runs from now on.
pub fn started(pid: u32) {
    tell("started", pid);
}

/// `pid` has ended and was waited for: the number may be given to somebody else.
pub fn ended(pid: u32) {
    tell("ended", pid);
}

fn tell(what: &str, pid: u32) {
    static SHELL: OnceLock<Mutex<Child>> = OnceLock::new();
    let shell = SHELL.get_or_init(|| {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(REAPER).stdin(Stdio::piped());
        shell.stdout(Stdio::null()).stderr(Stdio::null());
        Mutex::new(shell.spawn().expect("a shell"))
    });
    let mut shell = shell.lock().unwrap_or_else(PoisonError::into_inner);
    let pipe = shell.stdin.as_mut().expect("its pipe");
    pipe.write_all(format!("{what} {pid}\n").as_bytes()).expect("the reaper reads");
}
