//! What a merge left that was interrupted: looked for at the start, before anything is believed.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

use uuid::Uuid;

use super::sources::{self, Source};
use crate::disk;
use crate::journal::{Reader, Segment, SegmentError};
use crate::model::fact::Lane;

/// Removes merged segments without `end`, and the sources of those that have one. Sources go only
/// after `end` is synced: where none of them is left, it is the `end` that was lost, and the
/// segment is all that there is. A list or an end that cannot be read is left to whoever looks at
/// the segment: it removes nothing.
pub(in crate::journal) fn finish(lane_dir: &Path, lane: Lane) -> io::Result<()> {
    let mut gone = HashSet::new();
    for entry in fs::read_dir(lane_dir).map_err(disk::at(lane_dir))? {
        let dir = entry?.path();
        let name = dir.file_name().and_then(|name| name.to_str()?.parse::<Uuid>().ok());
        let Some(stream) = name else { continue };
        if !sources::exist(&dir) {
            continue;
        }
        if !dir.join("end").exists() {
            // One that was merged before may be named, and be gone for long.
            let named = sources::read(&dir, stream).ok().flatten().unwrap_or_default();
            let there = |source: &Source| lane_dir.join(source.stream.to_string()).exists();
            if !named.iter().any(there) {
                tracing::error!(%stream, "the end of a merged segment was lost: it is kept");
                continue;
            }
            tracing::info!(%stream, "a merge was interrupted: it begins anew");
            gone.insert(stream);
        } else if let Ok(Some(named)) = named(lane, stream, &dir) {
            gone.extend(named);
        }
    }
    for stream in gone {
        match disk::remove_dir(&lane_dir.join(stream.to_string())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _removed_now_or_before => {}
        }
    }
    Ok(())
}

/// The sources of a merged segment whose end is whole.
fn named(lane: Lane, stream: Uuid, dir: &Path) -> Result<Option<Vec<Uuid>>, SegmentError> {
    let segment = Segment::inherit(lane, stream, dir.to_owned(), Reader::InProcess)?;
    let named = || segment.sources().iter().map(|source| source.stream).collect();
    Ok(segment.is_sealed().then(named))
}
