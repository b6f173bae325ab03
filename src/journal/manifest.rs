//! Which segments there are, through a restart: `journal/manifest`. A directory that is missing
//! altogether leaves nothing behind that could tell of it.
//!
//! ```text
//! for each segment a line: lane · blank · stream
//! at last: `crc32` · blank · the sum over all before it, eight hexadecimal digits
//! ```
//!
//! A segment is on the list from the moment it has its name on, and is taken off before its
//! directory goes: a kill in between leaves one that is there and not listed, never the other way.
//! The file is replaced whole. What cannot be read of it is not known, and where it cannot be
//! written it is removed: better no list than a wrong one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
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
    /// None before the list of the last process was compared; then what could not be reported, and
    /// stays on the list. Held while one is written: the newest is the last.
    unreported: Mutex<Option<Vec<(Lane, Uuid)>>>,
}

impl Manifest {
    /// The one of the journal in `dir`.
    pub fn new(dir: PathBuf) -> Self {
        Self { path: dir.join(FILE), unreported: Mutex::default() }
    }

    /// What was listed last.
    fn read(&self) -> Vec<(Lane, Uuid)> {
        match fs::read(&self.path) {
            Ok(bytes) => read(&bytes).unwrap_or_else(|| {
                let path = self.path.display();
                tracing::warn!(%path, "the file is damaged: nobody knows what was here");
                Vec::new()
            }),
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
        let unreported = lock(&self.manifest.unreported);
        let Some(unreported) = &*unreported else { return };
        let here: Vec<_> = self.streams().iter().map(|s| (s.lane, s.stream)).collect();
        let path = &self.manifest.path;
        let gone = unreported.iter().filter(|segment| !here.contains(segment));
        if let Err(error) = disk::write_whole(path, &write(here.iter().chain(gone))) {
            tracing::warn!(%error, "a segment that is lost as a whole will not be noticed");
            let removed = fs::remove_file(path)
                .and_then(|()| disk::sync_dir(path.parent().unwrap_or(Path::new("."))));
            if let Err(error) = removed
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
        let dir =
            |(lane, stream): &(Lane, Uuid)| self.dir.join(lane.as_str()).join(stream.to_string());
        let mut missed = self.shared.manifest.read();
        missed.retain(|segment| !dir(segment).exists());
        if !missed.is_empty() {
            let aside = self.names_aside();
            // An earlier version of the program lists nothing, and remembers what it removes.
            let removed = self.remembered().0;
            missed.retain(|(_, stream)| {
                let is_aside = aside.iter().any(|name| stream_of(name) == Some(*stream));
                let is_removed = removed.iter().any(|removed| removed.stream == *stream);
                // (A kill may have come between a merge and its being listed.)
                !is_aside && !is_removed && self.merged_into(*stream).is_none()
            });
        }
        // What cannot be reported is missed again.
        missed.retain(|segment| {
            let (lane, stream) = *segment;
            let dir = dir(segment);
            !self.set_aside(lane, stream, &dir, None, Applied::NONE, &SegmentError::Gone)
        });
        *lock(&self.shared.manifest.unreported) = Some(missed);
        self.shared.list();
    }
}

const SUM: &str = "crc32 ";

fn write<'a>(segments: impl Iterator<Item = &'a (Lane, Uuid)>) -> Vec<u8> {
    let mut text = String::new();
    for (lane, stream) in segments {
        text += &format!("{} {stream}\n", lane.as_str());
    }
    text += &format!("{SUM}{:08x}\n", crc32fast::hash(text.as_bytes()));
    text.into_bytes()
}

/// Nothing where it is not as it was written.
fn read(bytes: &[u8]) -> Option<Vec<(Lane, Uuid)>> {
    let text = str::from_utf8(bytes).ok()?;
    let (lines, sum) = text.split_at(text.rfind(SUM)?);
    let sum = u32::from_str_radix(sum.strip_prefix(SUM)?.trim_end(), 16).ok()?;
    if sum != crc32fast::hash(lines.as_bytes()) {
        return None;
    }
    let segment = |line: &str| {
        let (lane, stream) = line.split_once(' ')?;
        let lane = Lane::ALL.into_iter().find(|known| known.as_str() == lane)?;
        Some((lane, stream.parse::<Uuid>().ok()?))
    };
    lines.lines().map(segment).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_a_list_or_none() {
        let all = Lane::ALL.map(|lane| (lane, Uuid::from_u128(7)));
        let file = write(all.iter());
        assert_eq!(read(&file), Some(all.to_vec()));
        assert_eq!(read(&write([].iter())), Some(Vec::new()));
        for at in 0..file.len() * 8 {
            let mut damaged = file.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            assert!(read(&damaged).is_none_or(|list| list == all), "bit {at}");
        }
        for length in 0..file.len() - 1 {
            assert_eq!(read(&file[..length]), None, "{length}");
        }
        crate::fuzz::each("manifest", &[file], |bytes| {
            if let Some(list) = read(bytes) {
                assert!(list.len() * 37 <= bytes.len());
            }
        });
    }
}
