//! The ballast: room on the disk that is kept for bad times.
//!
//! It is a file of random bytes (a file system that compresses would keep nothing for zeros). When
//! a commit fails it is let go, so that open segments get their `end`, a revocation finds room, and
//! a shutdown can finish. Until it can be made again, with room for new segments beside it, the
//! disk counts as full.
//!
//! A disk is also full for whom a quota is used up. Nobody tells how much of it is left: that is
//! known by writing.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::disk;
use crate::entropy::SharedEntropy;

/// What must be free beside the ballast: sled takes half a MiB for each lane's new segment.
const BESIDE: u64 = 2 << 20;
const FILE: &str = "ballast";
const BLOCK: usize = 64 << 10;
/// The length of one that a start has given up. (A power cut may well leave an empty one.)
const GIVEN_UP: u64 = 1;
/// Calls to pass before the first attempt when a start needed the room: the cache is opened next.
const PASSED_AT_START: u32 = 3;
/// Calls to pass at most between two attempts that a quota ends.
const PASSED_MAX: u32 = 31;

/// See the module.
pub(super) struct Ballast {
    file: PathBuf,
    bytes: u64,
    entropy: SharedEntropy,
    held: bool,
    /// Calls to pass before the next attempt, and after the next one that a quota ends. Each takes
    /// all that is left for a moment, so they become rare.
    to_pass: u32,
    next_pass: u32,
}

impl Ballast {
    /// Of so many bytes in `data`; not made yet. Zero bytes are always held.
    pub fn new(data: &Path, bytes: u64, entropy: SharedEntropy) -> Self {
        let (file, held) = (data.join(FILE), bytes == 0);
        let given_up = file.metadata().is_ok_and(|known| known.len() == GIVEN_UP);
        let to_pass = if given_up { PASSED_AT_START } else { 0 };
        Self { file, bytes, entropy, held, to_pass, next_pass: 1 }
    }

    /// Whether it is there; if not, the disk counts as full.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Makes it if it is not held and there is room. Returns whether it is held now.
    pub fn make(&mut self) -> io::Result<bool> {
        if self.held {
            return Ok(true);
        }
        if self.file.metadata().is_ok_and(|known| known.len() == self.bytes) {
            self.held = true;
            return Ok(true);
        }
        let data = self.file.parent().unwrap_or(Path::new("."));
        if disk::free_bytes(data)? < self.bytes.saturating_add(BESIDE) {
            return Ok(false);
        }
        if self.to_pass > 0 {
            self.to_pass -= 1;
            return Ok(false);
        }
        if let Err(error) = self.write() {
            drop(fs::remove_file(&self.file));
            if !is_full(&error) {
                return Err(error);
            }
            self.to_pass = self.next_pass;
            self.next_pass = (2 * self.next_pass + 1).min(PASSED_MAX);
            return Ok(false);
        }
        self.next_pass = 1;
        self.held = true;
        Ok(true)
    }

    fn write(&self) -> io::Result<()> {
        let mut file = File::create(&self.file)?;
        write_bytes(&mut file, self.bytes + BESIDE, &|block| self.entropy.fill(block))?;
        // So much has room beside it.
        file.set_len(self.bytes)?;
        file.sync_all()
    }

    /// Gives its room back. Returns whether there was any to give.
    pub fn free(&mut self) -> bool {
        if self.bytes == 0 || !self.held {
            return false;
        }
        self.held = false;
        fs::remove_file(&self.file).is_ok()
    }
}

fn write_bytes(file: &mut File, bytes: u64, fill: &dyn Fn(&mut [u8])) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    let mut left = bytes;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
        fill(&mut block[..part]);
        file.write_all(&block[..part])?;
        left -= part as u64;
    }
    Ok(())
}

/// Whether the disk that `data` is on is full, or our quota there used up: a segment cannot be
/// opened or made. Writes, for a moment.
pub fn is_disk_full(data: &Path) -> bool {
    disk::free_bytes(data).is_ok_and(|free| free < BESIDE)
        || try_room(data).is_err_and(|error| is_full(&error))
}

/// Writes so much as a start needs, to a file without a name.
fn try_room(data: &Path) -> io::Result<()> {
    let mut file = tempfile::tempfile_in(data)?;
    write_bytes(&mut file, BESIDE, &|_zeros| ())?;
    // Some file systems say it only now.
    file.sync_all()
}

/// Gives the room of an earlier process's ballast back, for a start that has no journal thread yet;
/// what is left of the file tells that thread. Returns whether there was any to give.
pub fn give_up_ballast(data: &Path) -> bool {
    let file = data.join(FILE);
    let any = file.metadata().is_ok_and(|known| known.len() > GIVEN_UP);
    any && File::options().write(true).open(file).and_then(|f| f.set_len(GIVEN_UP)).is_ok()
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::entropy::SeededEntropy;

    fn ballast(data: &Path, bytes: u64) -> Ballast {
        Ballast::new(data, bytes, Arc::new(SeededEntropy::new(1)))
    }

    #[test]
    fn it_is_made_let_go_and_made_again() {
        let data = tempfile::TempDir::new().expect("temporary directory");
        let file = data.path().join("ballast");
        let mut kept = ballast(data.path(), 100_000);
        assert!(!kept.is_held() && kept.make().expect("room"));
        assert_eq!(file.metadata().expect("made").len(), 100_000);
        assert!(kept.free() && !kept.is_held() && !file.exists());
        assert!(!kept.free(), "only once");
        assert!(kept.make().expect("room") && file.exists());
    }

    #[test]
    fn half_of_one_is_made_anew_and_one_beyond_the_disk_is_not_begun() {
        let data = tempfile::TempDir::new().expect("temporary directory");
        let file = data.path().join("ballast");
        fs::write(&file, "half").expect("writable");
        assert!(ballast(data.path(), 70_000).make().expect("room"));
        assert_eq!(file.metadata().expect("made").len(), 70_000);
        fs::remove_file(&file).expect("there");
        assert!(!ballast(data.path(), u64::MAX / 2).make().expect("it can be asked"));
        assert!(!file.exists());
    }

    #[test]
    fn none_is_wanted_and_none_is_missed() {
        let data = tempfile::TempDir::new().expect("temporary directory");
        let mut none = ballast(data.path(), 0);
        assert!(none.is_held() && none.make().expect("nothing to do") && !none.free());
        assert!(!data.path().join("ballast").exists());
    }
}
