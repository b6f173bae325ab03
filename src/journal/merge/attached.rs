//! What tells whether anything was ever sent from a directory: nobody else can know what is in one
//! that never was.

use std::sync::atomic::Ordering;

use crate::disk;
use crate::journal::{Journal, SegmentError};

/// The mark of [`Journal::attach`], beside the lanes.
const ATTACHED: &str = "attached";

impl Journal {
    /// Says durably that this directory was attached to Postgres: before the first `sent` mark.
    ///
    /// # Errors
    /// When the disk fails; nothing may be sent then.
    pub fn attach(&self) -> Result<(), SegmentError> {
        let attached = &self.shared.merging.attached;
        if !attached.load(Ordering::Acquire) {
            disk::make_mark(&self.dir.join(ATTACHED))?;
            self.begin_to_remember();
            attached.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Whether anything was ever sent from here, as far as the directory tells.
    pub(in crate::journal) fn look_whether_attached(&self) {
        let sent = self.shared.streams().iter().any(|segment| segment.is_sent());
        let attached = sent || self.dir.join(ATTACHED).exists();
        self.shared.merging.attached.store(attached, Ordering::Release);
    }
}
