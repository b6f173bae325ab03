//! Which segments there are, through a restart: `journal/manifest`. A directory that is missing
//! altogether leaves nothing behind that could tell of it.
//!
//! ```text
//! for each segment a line: lane · blank · stream
//! ```
//!
//! A segment is on the list from the moment it has its name on, and is taken off before its
//! directory goes: a kill in between leaves one that is there and not listed, never the other way.
//! The file is replaced whole. What cannot be read of it is not known, and where it cannot be
//! written it is removed: better no list than a wrong one.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;

use uuid::Uuid;

use super::quarantine::{Applied, stream_of};
use super::segment::SegmentError;
use super::ticket::Shared;
use super::{Journal, lock};
use crate::disk;
use crate::model::fact::Lane;

const FILE: &str = "manifest";

/// See the module.
#[derive(Debug)]
pub(super) struct Manifest {
    path: PathBuf,
    /// The newest list is written last, and none before the one of the last process was compared.
    compared: Mutex<bool>,
}

impl Manifest {
    /// The one of the journal in `dir`.
    pub fn new(dir: PathBuf) -> Self {
        Self { path: dir.join(FILE), compared: Mutex::default() }
    }

    /// What was listed last.
    fn read(&self) -> Vec<(Lane, Uuid)> {
        match fs::read(&self.path) {
            Ok(bytes) => read(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "nobody knows what was here");
                Vec::new()
            }
        }
    }
}

impl Shared {
    /// Lists the segments that there are now. Blocks.
    pub fn list(&self) {
        let compared = lock(&self.manifest.compared);
        if !*compared {
            return;
        }
        let lines = self.streams().iter().map(|s| line(s.lane, s.stream)).collect::<String>();
        let path = &self.manifest.path;
        if let Err(error) = disk::write_whole(path, lines.as_bytes()) {
            tracing::warn!(%error, "a segment that is lost as a whole will not be noticed");
            if let Err(error) = fs::remove_file(path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%error, path = %path.display(), "it may be wrong: remove it");
            }
        }
    }
}

impl Journal {
    /// Reports the segments that were listed and are nowhere now, and lists what is here. Blocks.
    pub(super) fn miss(&self) {
        let aside = self.names_aside();
        for (lane, stream) in self.shared.manifest.read() {
            let dir = self.dir.join(lane.as_str()).join(stream.to_string());
            let aside = aside.iter().any(|name| stream_of(name) == Some(stream));
            // A kill may have come between a merge and its being listed.
            if !dir.exists() && !aside && self.merged_into(stream).is_none() {
                self.set_aside(lane, stream, &dir, None, Applied::NONE, &SegmentError::Gone);
            }
        }
        *lock(&self.shared.manifest.compared) = true;
        self.shared.list();
    }
}

fn line(lane: Lane, stream: Uuid) -> String {
    format!("{} {stream}\n", lane.as_str())
}

fn read(bytes: &[u8]) -> Vec<(Lane, Uuid)> {
    let lines = bytes.split(|byte| *byte == b'\n').filter_map(|line| str::from_utf8(line).ok());
    let listed = lines.filter_map(|line| {
        let (lane, stream) = line.split_once(' ')?;
        let lane = Lane::ALL.into_iter().find(|known| known.as_str() == lane)?;
        let listed = stream.parse::<Uuid>().ok()?;
        (listed.to_string() == stream).then_some((lane, listed))
    });
    listed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_a_list_or_none() {
        let lines = Lane::ALL.map(|lane| line(lane, Uuid::from_u128(7))).concat();
        assert_eq!(read(lines.as_bytes()), Lane::ALL.map(|lane| (lane, Uuid::from_u128(7))));
        crate::fuzz::each("manifest", &[lines.clone().into_bytes()], |bytes| {
            let listed = read(bytes);
            assert!(
                listed.iter().map(|(lane, stream)| line(*lane, *stream).len()).sum::<usize>()
                    <= bytes.len() + 1
            );
        });
    }
}
