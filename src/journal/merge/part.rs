//! What a segment is to a merge, and to the drain that must not meet one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::sources::Source;
use crate::journal::Segment;

/// A segment's part in merges.
#[derive(Debug)]
pub(in crate::journal) struct Part {
    /// This process wrote it.
    own: bool,
    /// The drain or a merge has it in hand: one of them at a time.
    claimed: AtomicBool,
    /// A merge could not read it whole.
    unfit: AtomicBool,
    /// What was half made of it cannot be removed, or it is damaged and cannot be moved: only a
    /// start can tell what is to be sent.
    stranded: AtomicBool,
    /// What was merged into it; unset where nothing was.
    sources: OnceLock<Arc<[Source]>>,
}

impl Part {
    pub fn new(own: bool) -> Self {
        Self {
            own,
            claimed: AtomicBool::new(false),
            unfit: AtomicBool::new(false),
            stranded: AtomicBool::new(false),
            sources: OnceLock::new(),
        }
    }
}

impl Segment {
    /// Whether this process wrote it.
    pub(in crate::journal) fn is_own(&self) -> bool {
        self.part.own
    }

    /// Whether nobody can know it but we: whole, never sent, and not known to Postgres.
    pub(super) fn may_be_merged(&self) -> bool {
        let whole = self.is_examined() && self.missing().chunks == 0;
        let fit = whole && !self.part.unfit.load(Ordering::Acquire);
        fit && !self.is_stranded()
            && !self.is_sent()
            && !self.is_blocked()
            && self.applied_seq() == 0
    }

    /// It could not be read whole: it stays as it is.
    pub(super) fn never_merge(&self) {
        self.part.unfit.store(true, Ordering::Release);
    }

    /// Whether it waits for a restart: neither sent nor merged before.
    pub fn is_stranded(&self) -> bool {
        self.part.stranded.load(Ordering::Acquire)
    }

    /// It is damaged, and cannot be moved out of the way.
    pub(in crate::journal) fn strand(&self) {
        self.part.stranded.store(true, Ordering::Release);
    }

    /// The streams that were merged into it, transitively; empty where none were.
    pub fn sources(&self) -> Arc<[Source]> {
        self.part.sources.get().cloned().unwrap_or_default()
    }

    /// Says so, once.
    pub(in crate::journal) fn stands_for(&self, sources: Arc<[Source]>) {
        // It is said where the segment is made, by one thread.
        let _said_before = self.part.sources.set(sources);
    }

    /// Takes it in hand, for sending or for merging; `None` while somebody else has it.
    pub fn claim(self: &Arc<Self>) -> Option<Claim> {
        let free = !self.part.claimed.swap(true, Ordering::AcqRel);
        free.then(|| Claim(Some(self.clone())))
    }
}

/// A segment in hand: nobody else sends or merges it meanwhile. Let go of when dropped.
#[derive(Debug)]
pub struct Claim(Option<Arc<Segment>>);

impl Claim {
    /// Never lets go: what is in it is to be found elsewhere.
    pub(super) fn keep(mut self) {
        self.0 = None;
    }

    /// Never lets go, for nobody can say where what is in it is to be found before a restart.
    pub(super) fn strand(self) {
        if let Some(segment) = &self.0 {
            segment.strand();
        }
        self.keep();
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(segment) = &self.0 {
            segment.part.claimed.store(false, Ordering::Release);
        }
    }
}
