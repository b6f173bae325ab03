//! Looking through segments wherever they stand: for `log verify` and `log inspect`.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use super::foreign::{Foreign, LogError};
use super::quarantine::lane_and_stream;
use super::segment::{EachChunk, End, Found};
use super::{Chunk, Journal, Missing, Segment};
use crate::model::fact::Lane;

/// Chunks read at a time.
const PAGE: usize = 64;

/// Where a segment stands.
#[derive(Clone, Debug)]
pub enum Place {
    /// In the journal.
    Journal(Arc<Segment>),
    /// In quarantine, or anywhere else.
    Aside(Foreign),
}

/// What a segment holds.
#[derive(Clone, Debug, Serialize)]
pub struct Survey {
    /// `journal`, `quarantine`, or `elsewhere`.
    pub place: &'static str,
    /// The name of its directory, where it is not in the journal: there may be several of a stream.
    pub name: Option<String>,
    /// Its lane, where that is known.
    pub lane: Option<&'static str>,
    /// Its stream.
    pub stream: Uuid,
    /// Readable chunks.
    pub chunks: u64,
    /// Facts in them.
    pub facts: u64,
    /// Where it ends.
    pub last_seq: u64,
    /// Whether its writer has said so.
    pub sealed: bool,
    /// What is missing up to there.
    pub missing: Missing,
    /// The first sequence number that is missing.
    pub first_missing: Option<u64>,
    /// Facts that do not belong to its lane.
    pub misplaced: u64,
    /// Why it could not be read to its end.
    pub error: Option<String>,
}

/// Watches chunks go by.
struct Watch {
    lane: Option<Lane>,
    next: u64,
    first_missing: Option<u64>,
    misplaced: u64,
}

impl Watch {
    fn new(lane: Option<Lane>) -> Self {
        Self { lane, next: 1, first_missing: None, misplaced: 0 }
    }

    fn see(&mut self, chunk: &Chunk) {
        if chunk.seq != self.next {
            self.first_missing.get_or_insert(self.next);
        }
        self.next = chunk.seq.saturating_add(1);
        for fact in &chunk.facts {
            let lane = *self.lane.get_or_insert(fact.lane());
            self.misplaced += u64::from(fact.lane() != lane);
        }
    }

    fn survey(self, place: &'static str, stream: Uuid, found: Found, end: End) -> Survey {
        let missing = found.missing(end);
        let tail = (missing.chunks > 0 && self.next <= end.last_seq).then_some(self.next);
        Survey {
            place,
            name: None,
            lane: self.lane.map(Lane::as_str),
            stream,
            chunks: found.chunks,
            facts: found.facts,
            last_seq: end.last_seq,
            sealed: end.sealed,
            missing,
            first_missing: self.first_missing.or(tail),
            misplaced: self.misplaced,
            error: None,
        }
    }
}

impl Journal {
    /// Everything that can be surveyed: the journal's segments, and what is in quarantine.
    pub fn places(&self) -> Vec<Place> {
        let here = Lane::ALL.into_iter().flat_map(|lane| self.segments(lane)).map(Place::Journal);
        let quarantine = self.quarantine_dir();
        let aside = self.quarantined().into_iter().map(|report| quarantine.join(report.name));
        here.chain(aside.filter_map(|dir| Foreign::of(dir).ok()).map(Place::Aside)).collect()
    }

    /// The segment that `what` names: a stream, a name below `quarantine/`, or a path.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(&self, what: &str) -> Result<Place, LogError> {
        let quarantine = self.quarantine_dir();
        if let Ok(stream) = what.parse::<Uuid>() {
            let streams = self.shared.streams();
            if let Some(segment) = streams.iter().find(|segment| segment.stream == stream) {
                return Ok(Place::Journal(Arc::clone(segment)));
            }
            drop(streams);
            let is_of = |name: &String| lane_and_stream(name).is_some_and(|(_, of)| of == stream);
            let names: Vec<_> = self.names_aside().into_iter().filter(is_of).collect();
            return match &names[..] {
                [] => Err(LogError::NotFound(what.into())),
                [name] => Foreign::of(quarantine.join(name)).map(Place::Aside),
                _ => Err(LogError::Several { stream, names: names.join(", ") }),
            };
        }
        let aside = quarantine.join(what);
        let path = PathBuf::from(what);
        let is_name = path.components().count() == 1 && aside.is_dir();
        Foreign::of(if is_name { aside } else { path }).map(Place::Aside)
    }

    /// Looks through a segment, and hands on what it holds. Blocks. What cannot be read, or not
    /// copied to be read, is said in the survey.
    pub fn survey(&self, place: &Place, each: EachChunk<'_>) -> Survey {
        match place {
            Place::Journal(segment) => self.survey_segment(segment, each),
            Place::Aside(foreign) => self.survey_foreign(foreign, each),
        }
    }

    fn survey_foreign(&self, foreign: &Foreign, each: EachChunk<'_>) -> Survey {
        let name = foreign.dir.file_name().unwrap_or_default().to_string_lossy();
        let mut watch = Watch::new(lane_and_stream(&name).map(|(lane, _)| lane));
        let looked = self.look_at(foreign, &mut |chunk| {
            watch.see(&chunk);
            each(chunk)
        });
        let (found, error) = match looked {
            Ok((found, read)) => (found, read.err().map(|error| error.to_string())),
            Err(error) => (Found::default(), Some(error.to_string())),
        };
        let open = End { last_seq: found.last_seq, facts: found.facts, sealed: false };
        let place = if self.is_in_quarantine(&foreign.dir) { "quarantine" } else { "elsewhere" };
        let mut survey = watch.survey(place, foreign.stream, found, foreign.end().unwrap_or(open));
        survey.name = Some(name.into_owned());
        survey.error = error;
        survey
    }

    fn survey_segment(&self, segment: &Segment, each: EachChunk<'_>) -> Survey {
        let mut watch = Watch::new(Some(segment.lane));
        let (mut found, mut after) = (Found::default(), 0);
        let mut to = segment.durable_seq();
        let error = loop {
            let page = match self.read_on(segment, after, PAGE) {
                Ok(page) => page,
                Err(error) => break Some(error.to_string()),
            };
            // Of an inherited one it is known after the first reading; what is written meanwhile is
            // left to the next survey.
            if after == 0 {
                to = segment.durable_seq();
            }
            let mut flow = ControlFlow::Continue(());
            for chunk in page.chunks.into_iter().filter(|chunk| chunk.seq <= to) {
                watch.see(&chunk);
                found.chunks += 1;
                found.facts += chunk.facts.len() as u64;
                flow = each(chunk);
                if flow.is_break() {
                    break;
                }
            }
            after = page.reached;
            if flow.is_break() || after >= to {
                break None;
            }
        };
        segment.release();
        found.last_seq = to;
        let known =
            if segment.is_closed() { End::read(segment.dir()).ok().flatten() } else { None };
        let end = known.unwrap_or(End { last_seq: to, facts: found.facts, sealed: false });
        let mut survey = watch.survey("journal", segment.stream, found, end);
        survey.error = error;
        survey
    }
}
