//! The wall clock of one gateway and its commands, set while they run (`tests/shim/clock.c`).

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use gatepost::clock::{Clock, SystemClock};
use gatepost::model::Timestamp;
use tempfile::NamedTempFile;

use super::gateway::Gateway;
use super::shim::compiled;

/// See the module.
pub struct WallClock {
    real: SystemClock,
    offset: NamedTempFile,
    library: &'static PathBuf,
}

impl WallClock {
    /// One that stands at `now`, and goes on from there; `None` where [`compiled`] says so.
    pub fn at(now: Timestamp) -> Option<Self> {
        static LIBRARY: OnceLock<Option<PathBuf>> = OnceLock::new();
        let library = LIBRARY.get_or_init(|| compiled("clock")).as_ref()?;
        let offset = NamedTempFile::with_prefix("gp-clock-").expect("a file");
        let clock = Self { real: SystemClock::new(), offset, library };
        clock.set(now);
        Some(clock)
    }

    /// Is that of `gateway`, from its next start or command on.
    pub fn hang_in(&self, gateway: &mut Gateway) {
        gateway.set("LD_PRELOAD", self.library.to_str().expect("text"));
        gateway.set("CLOCK_OFFSET", self.offset.path().to_str().expect("text"));
    }

    /// Somebody sets it.
    pub fn set(&self, now: Timestamp) {
        let offset = now.0 - self.real.now().0;
        // In its place: it is mapped.
        self.offset.as_file().write_all_at(&offset.to_ne_bytes(), 0).expect("writable");
    }

    /// What it says.
    pub fn now(&self) -> Timestamp {
        let mut offset = [0; 8];
        self.offset.as_file().read_exact_at(&mut offset, 0).expect("readable");
        Timestamp(self.real.now().0 + i64::from_ne_bytes(offset))
    }

    /// It is set ahead by a little.
    pub fn ahead(&self, by: Duration) {
        self.set(self.now().plus(by));
    }
}
