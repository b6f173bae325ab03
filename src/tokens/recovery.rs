//! The recovery window: for how long a generation from beyond is taken on its proof. The operator
//! opens it after a lost or restored data directory; it survives a restart.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::disk;
use crate::model::Timestamp;

/// The window's end, in microseconds since the Unix epoch.
const FILE: &str = "session-recovery";

/// The longest window that can be opened.
pub const RECOVERY_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Whether the window is open, and until when.
#[derive(Debug)]
pub struct Recovery {
    file: PathBuf,
    until: AtomicI64,
}

impl Recovery {
    /// As it was left in `data`. What cannot be read is a closed window.
    pub fn open(data: &Path) -> Self {
        let file = data.join(FILE);
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let until = text.trim().parse().unwrap_or(i64::MIN);
        Self { file, until: AtomicI64::new(until) }
    }

    /// Opens it until `until`, or closes it when that is past. Blocks.
    ///
    /// # Errors
    /// When the disk fails; then nothing has changed.
    pub fn set(&self, until: Timestamp) -> io::Result<()> {
        disk::write_whole(&self.file, format!("{}\n", until.0).as_bytes())?;
        self.until.store(until.0, Ordering::Release);
        Ok(())
    }

    /// Until when it is open, if it is at `now`.
    pub fn until(&self, now: Timestamp) -> Option<Timestamp> {
        Some(Timestamp(self.until.load(Ordering::Acquire))).filter(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_survives_a_restart_and_ends_by_itself() {
        let data = tempfile::TempDir::new().expect("temporary directory");
        let now = Timestamp(1_000);
        assert_eq!(Recovery::open(data.path()).until(now), None);
        Recovery::open(data.path()).set(Timestamp(5_000)).expect("writable");
        let again = Recovery::open(data.path());
        assert_eq!(again.until(now), Some(Timestamp(5_000)));
        assert_eq!(again.until(Timestamp(5_000)), None);
        std::fs::write(data.path().join(FILE), "for ever").expect("writable");
        assert_eq!(Recovery::open(data.path()).until(now), None);
    }
}
