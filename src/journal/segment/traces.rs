//! Traces: chunks that still stand in a segment's `db` although sled does not find them any more.
//!
//! sled may lose records without an error. Chunks stand in its file as they were given to it, so
//! where the segment's end is not known, or something is missing, the bytes themselves are asked.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use uuid::Uuid;

use crate::journal::chunk::{self, Chunk};

/// A larger file is not looked through: many times what a segment takes.
const FILE_MAX: u64 = 512 << 20;

/// What the bytes of a `db` tell.
#[derive(Debug, Default)]
pub(super) struct Traces {
    /// Whole chunks, by sequence number.
    pub chunks: BTreeMap<u64, Chunk>,
    /// The highest sequence number that is named, also by a chunk that is not whole.
    pub last_seq: u64,
}

impl Traces {
    /// Looks through the `db` in `dir` for chunks of `stream`. Blocks.
    pub fn of(dir: &Path, stream: Uuid) -> io::Result<Self> {
        let mut traces = Self::default();
        let file = dir.join("db");
        if file.metadata()?.len() > FILE_MAX {
            return Ok(traces);
        }
        let bytes = fs::read(file)?;
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
