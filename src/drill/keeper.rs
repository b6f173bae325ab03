//! Programs that end with the drill, however it ends.
//!
//! Each is the child of a small shell that waits on a pipe from this process. A word is the signal
//! that it sends; the end of the pipe, after a `kill -9` of the drill too, is the last one, and
//! then it removes what the program wrote. Only the shell's own child is ever signalled, and only
//! before it was waited for: no other process can have its number.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Output, Stdio};

const KEEPER: &str = r#"
  trap '' INT TERM HUP
  last=$1; scratch=$2; shift 2
  "$@" & program=$!
  exec 2>/dev/null
  if read -r signal; then gone=; else gone=1; signal=$last; fi
  kill -"$signal" "$program"
  wait "$program"
  code=$?
  [ -z "$gone" ] || rm -rf "$scratch"
  exit "$code"
"#;

/// The same for a program that ends by itself, whose code is the shell's then.
const ERRAND: &str = r#"
  trap '' INT TERM HUP
  scratch=$1; shift
  exec 3<&0
  "$@" </dev/null 3<&- & program=$!
  trap 'kill -TERM "$program"; wait "$program"; rm -rf "$scratch"; exit 1' USR1
  { read -r word <&3; kill -USR1 $$; } >/dev/null 2>&1 & watch=$!
  exec 3<&-
  wait "$program"
  code=$?
  trap '' USR1
  kill -KILL "$watch"
  exit "$code"
"#;

/// What a shell says whose child was killed by SIGKILL.
const KILLED: i32 = 128 + 9;

/// See the module. Dropping it sends the last signal, and waits for the end.
pub(super) struct Keeper {
    shell: Child,
    pipe: Option<ChildStdin>,
    last: &'static str,
}

impl Keeper {
    /// A shell that will run `program`, to which arguments are added; `last` is the signal at the
    /// end of the pipe, `scratch` what is removed then.
    pub fn command(last: &'static str, scratch: &Path, program: &Path) -> Command {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(KEEPER).arg("keeper").arg(last).arg(scratch).arg(program);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        command
    }

    /// A shell that will run `program`, to which arguments are added, to its end.
    pub fn errand(scratch: &Path, program: &Path) -> Command {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(ERRAND).arg("keeper").arg(scratch).arg(program);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Runs an errand; what it wrote to stderr is kept.
    pub fn run(mut errand: Command) -> io::Result<Output> {
        let mut shell = errand.spawn()?;
        // As long as it is open, this process is there.
        let pipe = shell.stdin.take();
        let ended = shell.wait_with_output();
        drop(pipe);
        ended
    }

    /// Starts it; `last` as it was told.
    pub fn start(mut command: Command, last: &'static str) -> io::Result<Self> {
        let mut shell = command.spawn()?;
        let pipe = shell.stdin.take();
        Ok(Self { shell, pipe, last })
    }

    /// What the program writes to stderr, where that is piped.
    pub fn stderr(&mut self) -> Option<std::process::ChildStderr> {
        self.shell.stderr.take()
    }

    /// SIGKILL to the program; returns when it has ended. `false`: it had ended by itself.
    pub fn kill(mut self) -> io::Result<bool> {
        Ok(self.end("KILL")? == Some(KILLED))
    }

    fn end(&mut self, signal: &str) -> io::Result<Option<i32>> {
        if let Some(mut pipe) = self.pipe.take() {
            // Where the shell itself was killed, there is nobody to read it.
            drop(writeln!(pipe, "{signal}"));
        }
        Ok(self.shell.wait()?.code())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if self.pipe.is_some() {
            let last = self.last;
            // It has nobody left to tell.
            drop(self.end(last));
        }
    }
}
