//! Traces: chunks that still stand in a segment's `db` although sled does not find them any more.
//!
//! sled may lose records without an error. Chunks stand in its file as they were given to it, so
//! where the segment's end is not known, or something is missing, the bytes themselves are asked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use uuid::Uuid;

use crate::disk;
use crate::journal::chunk::{self, Chunk};

/// A larger file is not looked through: many times what a segment takes.
const FILE_MAX: u64 = 512 << 20;

/// What is read at a time where a whole file cannot be.
const SECTOR: usize = 4096;

/// The bytes of a file, nothing of one that is too large, and what it cannot be read whole for. A
/// bad sector costs itself only: it reads as zeros.
fn read_around(path: &Path) -> io::Result<(Vec<u8>, Option<io::Error>)> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    if len > FILE_MAX {
        return Ok((Vec::new(), None));
    }
    let mut bytes = Vec::new();
    let Err(error) = (&file).read_to_end(&mut bytes) else { return Ok((bytes, None)) };
    if disk::is_trouble(&error) {
        return Err(error);
    }
    bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    for (sector, at) in bytes.chunks_mut(SECTOR).zip((0_u64..).step_by(SECTOR)) {
        match file.read_exact_at(sector, at) {
            Err(error) if disk::is_trouble(&error) => return Err(error),
            Err(_) => sector.fill(0),
            Ok(()) => {}
        }
    }
    Ok((bytes, Some(error)))
}

/// What the bytes of a `db` tell.
#[derive(Debug, Default)]
pub(super) struct Traces {
    /// Whole chunks, by sequence number.
    pub chunks: BTreeMap<u64, Chunk>,
    /// The highest sequence number that is named, also by a chunk that is not whole.
    pub last_seq: u64,
    /// Why not all of it could be read: sled takes that for the end of its log, and says nothing.
    pub unreadable: Option<io::Error>,
}

impl Traces {
    /// Looks through the `db` in `dir` for chunks of `stream`. Blocks.
    pub fn of(dir: &Path, stream: Uuid) -> io::Result<Self> {
        let mut traces = Self::default();
        let bytes = match read_around(&dir.join("db")) {
            Ok((bytes, unreadable)) => {
                traces.unreadable = unreadable;
                bytes
            }
            Err(error) if disk::is_trouble(&error) => return Err(error),
            Err(error) => return Ok(Self { unreadable: Some(error), ..traces }),
        };
        let head = chunk::head_of(stream);
        // A flipped bit must not make a number that so many bytes cannot have reached.
        let most = (bytes.len() / head.len()) as u64;
        let places = bytes.windows(head.len()).enumerate().filter(|(_, window)| *window == head);
        for (at, _) in places {
            let Some(seq) = chunk::seq_behind(&bytes[at..]).filter(|seq| *seq <= most) else {
                continue;
            };
            traces.last_seq = traces.last_seq.max(seq);
            if let Some(whole) = Chunk::at_front(stream, &bytes[at..]) {
                traces.chunks.insert(seq, whole);
            }
        }
        Ok(traces)
    }

    /// Facts in the whole ones.
    pub fn facts(&self) -> u64 {
        self.chunks.values().map(|chunk| chunk.facts.len() as u64).sum()
    }
}
