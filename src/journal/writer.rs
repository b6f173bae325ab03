//! The writing end of a segment; the journal thread owns it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::chunk::{FactRef, Packer};
use super::reader::Reader;
use super::segment::{End, SLED_CACHE_BYTES, Segment, SegmentError};
use crate::codec::CodecError;
use crate::disk::{self, guarded};
use crate::model::fact::Lane;

/// Keys are laid out, empty, so far ahead of the chunks. sled writes a leaf of its tree anew, with
/// all values in it, when more than 16 keys split it or a tenth change is made to it. So it does
/// its splitting while the leaves are empty; each then takes as many changes as it has keys (nine),
/// and every chunk is written once instead of four times.
const LAID_OUT: u64 = 32;

/// The writing end of a segment; the journal thread owns it.
#[derive(Debug)]
pub struct Writer {
    segment: Arc<Segment>,
    db: sled::Db,
    data: File,
    packer: Packer,
    laid_out: u64,
    written_bytes: u64,
    facts: u64,
    born: Duration,
}

impl Writer {
    /// Makes a segment below `lane_dir`, unless a merge has begun to, its names durable before
    /// anything is written to it. `reader` reads it once it is closed.
    pub fn create(
        lane_dir: &Path,
        lane: Lane,
        stream: Uuid,
        reader: &Reader,
        now: Duration,
    ) -> Result<Self, SegmentError> {
        disk::make_private_dir(lane_dir)?;
        let dir = lane_dir.join(stream.to_string());
        let made = Self::create_in(dir.clone(), lane, stream, reader, now);
        if made.is_err() {
            // Attempts on a failing disk must not leave a directory each. Nothing was written to
            // it.
            drop(fs::remove_dir_all(&dir));
        }
        made
    }

    fn create_in(
        dir: PathBuf,
        lane: Lane,
        stream: Uuid,
        reader: &Reader,
        now: Duration,
    ) -> Result<Self, SegmentError> {
        if !dir.exists() {
            disk::make_new_dir(&dir)?;
        }
        let db = disk::open_sled(&dir, SLED_CACHE_BYTES)?;
        disk::end_making(&dir)?;
        // sled's flush is sync_file_range, which no power cut respects: our own handle does the
        // syncing.
        let data = File::options().write(true).open(dir.join("db"))?;
        let segment = Arc::new(Segment::own(lane, stream, dir, db.clone(), reader.clone()));
        let packer = Packer::new(stream, 1);
        Ok(Self { segment, db, data, packer, laid_out: 0, written_bytes: 0, facts: 0, born: now })
    }

    /// The segment that it writes.
    pub fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Bytes of chunks written so far.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// When it was made.
    pub fn born(&self) -> Duration {
        self.born
    }

    /// Writes facts as chunks. Nothing of it counts before [`Writer::sync`]. Returns how many
    /// chunks and facts were written.
    pub fn write<'a>(
        &mut self,
        facts: impl Iterator<Item = FactRef<'a>>,
    ) -> Result<(u64, u64), SegmentError> {
        let (mut chunks, before) = (0, self.facts);
        for fact in facts {
            match self.packer.push(fact) {
                Ok(None) => {}
                Ok(Some(full)) => {
                    self.insert(full)?;
                    chunks += 1;
                }
                // Its maker should have checked; one such fact must not hold up all others.
                Err(CodecError::TooLarge) => {
                    tracing::error!(?fact, "a fact of more than 1 KiB cannot be recorded");
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            self.facts += 1;
        }
        if let Some(last) = self.packer.finish()? {
            self.insert(last)?;
            chunks += 1;
        }
        Ok((chunks, self.facts - before))
    }

    fn insert(&mut self, (seq, frame): (u64, Vec<u8>)) -> Result<(), SegmentError> {
        self.written_bytes += frame.len() as u64;
        while self.laid_out < seq + LAID_OUT {
            self.laid_out += 1;
            guarded(|| self.db.insert(self.laid_out.to_be_bytes(), &[]))?;
        }
        // Single inserts: large batches leak, and stall every other sled user in the process.
        guarded(|| self.db.insert(seq.to_be_bytes(), frame))?;
        Ok(())
    }

    /// Brings what was written to the disk, and publishes it.
    pub fn sync(&mut self) -> Result<(), SegmentError> {
        guarded(|| self.db.flush())?;
        self.data.sync_data()?;
        self.segment.publish(End {
            last_seq: self.packer.next_seq() - 1,
            facts: self.facts,
            sealed: false,
        });
        Ok(())
    }

    /// Closes the segment at what is durable. A tail beyond it is never read.
    pub fn close(&self) -> Result<(), SegmentError> {
        self.segment.close()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::model::fact::{AuditEntry, Fact};

    #[test]
    fn every_chunk_is_written_once() {
        let dir = TempDir::new().expect("a directory");
        let stream = Uuid::from_u128(7);
        let writer =
            Writer::create(dir.path(), Lane::Events, stream, &Reader::InProcess, Duration::ZERO);
        let mut writer = writer.expect("a disk");
        let audit = |n: u128| {
            Fact::Audit(AuditEntry {
                event_id: Uuid::from_u128(n),
                actor: "cli".into(),
                action: "key.revoke".into(),
                subject: "s".repeat(900).into(),
            })
        };
        let facts: Vec<_> = (0..8000).map(audit).collect();
        writer.write(facts.iter().map(FactRef::from)).expect("a disk");
        writer.sync().expect("a disk");
        let bytes = fs::metadata(writer.segment().dir().join("db")).expect("there").len();
        let payload = writer.written_bytes();
        assert!(bytes * 4 <= payload * 5, "{bytes} bytes on disk for {payload} bytes of chunks");
        assert_eq!(writer.segment().read(0, usize::MAX).expect("readable").chunks.len(), 2000);
    }
}
