//! What a merge left that was interrupted: looked for at the start, before anything is believed.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use uuid::Uuid;

use super::sources;
use crate::disk;
use crate::journal::{Reader, Segment, SegmentError};
use crate::model::fact::Lane;

/// What a start knows of merges.
pub(in crate::journal) struct Finished {
    /// Streams that are counted in another one, gone or not.
    pub counted: HashSet<Uuid>,
    /// Merged segments that could not be read. Their sources stay: if these were read the next
    /// moment, both would be counted.
    pub unreadable: HashMap<Uuid, SegmentError>,
}

/// Removes merged segments without `end`, and the sources of those that have one. Sources go only
/// after `end` is synced: where none of them is left, it is the `end` that was lost, and the
/// segment is all that there is. A list or an end that cannot be read is left to whoever looks at
/// the segment: it removes nothing.
pub(in crate::journal) fn finish(lane_dir: &Path, lane: Lane, streams: &[Uuid]) -> Finished {
    let (mut gone, mut unreadable) = (HashSet::new(), HashMap::new());
    for stream in streams {
        let dir = lane_dir.join(stream.to_string());
        if !sources::exist(&dir) {
            continue;
        }
        if !dir.join("end").exists() {
            // One that was merged before may be named, and be gone for long.
            let named = sources::read(&dir, *stream).ok().flatten().unwrap_or_default();
            if !named.iter().any(|source| streams.contains(&source.stream)) {
                tracing::error!(%stream, "the end of a merged segment was lost: it is kept");
                continue;
            }
            tracing::info!(%stream, "a merge was interrupted: it begins anew");
            gone.insert(*stream);
            continue;
        }
        match named(lane, *stream, &dir) {
            Ok(named) => gone.extend(named.into_iter().flatten()),
            Err(error) => drop(unreadable.insert(*stream, error)),
        }
    }
    for stream in streams.iter().filter(|stream| gone.contains(stream)) {
        if let Err(error) = disk::remove_dir(&lane_dir.join(stream.to_string())) {
            tracing::error!(
                %error, %stream,
                "what a merge has left cannot be removed: it is counted in another segment"
            );
        }
    }
    Finished { counted: gone, unreadable }
}

/// The sources of a merged segment whose end is whole.
fn named(lane: Lane, stream: Uuid, dir: &Path) -> Result<Option<Vec<Uuid>>, SegmentError> {
    let segment = Segment::inherit(lane, stream, dir.to_owned(), Reader::InProcess)?;
    let named = || segment.sources().iter().map(|source| source.stream).collect();
    Ok(segment.is_sealed().then(named))
}
