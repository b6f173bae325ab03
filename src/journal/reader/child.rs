//! The gateway's side: starts a child, hears it out, and says what became of it.

use std::io::{self, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::slow::waits_for_disk;
use super::wire::{self, Record};
use crate::disk::StoreError;
use crate::journal::lock;
use crate::journal::segment::SegmentError;

/// How much of what a child writes to stderr is kept, in bytes.
const STDERR_MAX: u64 = 2048;

/// Why no child could read a segment.
#[derive(Debug, thiserror::Error)]
pub enum ReaderError {
    /// No child could be started. Not damage.
    #[error(
        "the process that reads segments cannot be started: {0}; check memory and the limit on \
         processes"
    )]
    Start(String),
    /// It said nothing for too long.
    #[error("the process that read it was silent for {} s and was ended", .0.as_secs())]
    Silent(Duration),
    /// It ended before it was done.
    #[error("the process that read it ended: {0}")]
    Ended(String),
    /// It said what makes no sense.
    #[error("the process that read it made no sense")]
    Nonsense,
}

/// Starts children, and keeps one that has nothing to do: starting takes longer than reading a
/// small segment.
#[derive(Debug)]
pub struct Children {
    program: Box<Path>,
    silence_max: Duration,
    idle: Mutex<Option<Child>>,
}

impl Children {
    pub(super) fn new(program: &Path, silence_max: Duration) -> Self {
        Self { program: program.into(), silence_max, idle: Mutex::new(None) }
    }

    /// A child that sends the frames of the segment in `dir` after `after` up to `to`.
    pub(super) fn ask(&self, dir: &Path, after: u64, to: u64) -> Result<Child, SegmentError> {
        let idle = lock(&self.idle).take();
        if let Some(mut child) = idle
            && wire::ask(&mut child.stdin, dir, after, to).is_ok()
        {
            return Ok(child);
        }
        let mut child = self.start()?;
        match wire::ask(&mut child.stdin, dir, after, to) {
            Ok(()) => Ok(child),
            Err(_) => Err(ReaderError::Ended(child.last_words()).into()),
        }
    }

    /// Keeps a child that has sent everything and let go of its segment.
    pub(super) fn take_back(&self, child: Option<Child>) {
        *lock(&self.idle) = child;
    }

    /// Ends the child that has nothing to do.
    pub(super) fn rest(&self) {
        self.take_back(None);
    }

    fn start(&self) -> Result<Child, ReaderError> {
        let mut command = Command::new(&*self.program);
        command.arg0("gatepost").arg("segment-frames");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let failed = |error: io::Error| ReaderError::Start(error.to_string());
        let mut process = command.spawn().map_err(failed)?;
        let pipes = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(ReaderError::Start("it has no pipes".into()));
        };
        let (silence_max, pid) = (self.silence_max, process.id());
        let stdout = BufReader::new(Timely { pipe: stdout, silence_max, pid });
        let stderr = Timely { pipe: stderr, silence_max, pid };
        let mut child = Child { process, stdin, stdout, stderr };
        let mut hello = [0; wire::HELLO.len()];
        match child.stdout.read_exact(&mut hello) {
            Ok(()) if hello == wire::HELLO => Ok(child),
            Ok(()) => Err(ReaderError::Start("another program answered".into())),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(ReaderError::Start(child.last_words()))
            }
            Err(error) => Err(failed(error)),
        }
    }
}

/// A child that sends frames. Dropping it ends it, and frees the segment.
#[derive(Debug)]
pub struct Child {
    process: process::Child,
    /// When it closes, the child exits.
    stdin: ChildStdin,
    stdout: BufReader<Timely<ChildStdout>>,
    stderr: Timely<ChildStderr>,
}

impl Child {
    /// The next frame, which must lie after `at`; `None` when all were sent.
    pub fn next(&mut self, at: u64) -> Result<Option<(u64, Vec<u8>)>, SegmentError> {
        match wire::hear(&mut self.stdout) {
            Ok(Some(Record::Frame(seq, frame))) if seq > at => Ok(Some((seq, frame))),
            Ok(Some(Record::Complete)) => Ok(None),
            Ok(Some(Record::Locked)) => Err(StoreError::Locked.into()),
            Ok(Some(Record::Trouble(words))) => Err(StoreError::Trouble(words).into()),
            Ok(Some(Record::Damaged(words))) => Err(StoreError::Sled(words).into()),
            Ok(Some(Record::Frame(..)) | None) => Err(ReaderError::Nonsense.into()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                Err(ReaderError::Silent(self.stderr.silence_max).into())
            }
            Err(_) => Err(ReaderError::Ended(self.last_words()).into()),
        }
    }

    /// How it ended, and what it said at that. It has closed its stdout.
    fn last_words(&mut self) -> String {
        let mut said = Vec::new();
        // Whatever was read until it ended, or fell silent, is what there is.
        drop((&mut self.stderr).take(STDERR_MAX).read_to_end(&mut said));
        let said = String::from_utf8_lossy(&said);
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let status = match self.end() {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        if said.is_empty() { status } else { format!("{status}: {said}") }
    }

    fn end(&mut self) -> io::Result<process::ExitStatus> {
        self.process.kill()?;
        self.process.wait()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself; what matters is that it is gone.
        drop(self.end());
    }
}

/// A pipe that is waited for so long, and longer only while the process behind it waits for its
/// disk.
#[derive(Debug)]
struct Timely<P> {
    pipe: P,
    silence_max: Duration,
    pid: u32,
}

impl<P: Read + AsFd> Read for Timely<P> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let timeout = Timespec::try_from(self.silence_max).map_err(io::Error::other)?;
        loop {
            let mut pipe = [PollFd::new(&self.pipe, PollFlags::IN)];
            if poll(&mut pipe, Some(&timeout))? > 0 {
                return self.pipe.read(buffer);
            }
            if !waits_for_disk(self.pid) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            tracing::warn!(
                silent_for = ?self.silence_max,
                "a segment is read very slowly: its disk does not answer, and is waited for"
            );
        }
    }
}
