//! What a gateway does beside answering: overlaps that end, limits that stand idle, backlogs that
//! are merged, partitions that come and go.

use std::io;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::calendar;
use super::parts::{Parts, record};
use super::quotas::open_book;
use crate::cache::Cache;
use crate::journal::{MergeError, Scope};
use crate::postgres;
use crate::steward::Steward;

impl Parts {
    /// What a running gateway does beside answering.
    pub fn tend(&self, retention: &postgres::Retention) {
        let (journal, closing) = (self.journal.clone(), self.closing.clone());
        self.tasks.spawn_blocking(move || journal.examine(&|| closing.is_cancelled()));
        let (book, journal) = (self.book.clone(), self.journal.clone());
        let closing = self.closing.clone();
        journal.quotas_will_be_read();
        self.tasks.spawn_blocking(move || open_book(&book, &journal, &|| closing.is_cancelled()));
        let (cache, closing) = (self.cache.clone(), self.closing.clone());
        self.tasks.spawn_blocking(move || tell_missing_policies(&cache, &closing));
        self.end_overlaps();
        self.tidy_limits();
        self.tend_sessions();
        self.keep_age();
        self.keep_merged();
        if let Some(linked) = &self.linked {
            let steward = Steward {
                node: self.node.clone(),
                cache: self.cache.clone(),
                journal: self.journal.clone(),
                directory: linked.postgres.directory(),
                kept: self.tokens.config().sessions_kept,
                clock: self.clock.clone(),
                metrics: self.metrics.clone(),
            };
            self.tasks.spawn(steward.run(self.closing.clone()));
            let (directory, kept) = (linked.postgres.directory(), retention.clone());
            self.tasks.spawn(keep_partitions(directory, kept, self.closing.clone()));
        }
    }

    /// Once a minute, and at the start: an overlap that has ended becomes a revocation "at once".
    fn end_overlaps(&self) {
        const EVERY: Duration = Duration::from_secs(60);
        let (journal, cache) = (self.journal.clone(), self.cache.clone());
        let closing = self.closing.clone();
        self.tasks.spawn(async move {
            loop {
                let (journal, seen) = (journal.clone(), cache.clone());
                let look = move || record(&journal, &seen, seen.reached());
                if let Err(error) = tokio::task::spawn_blocking(look).await {
                    tracing::error!(%error, "ended overlaps cannot be looked for");
                }
                tokio::select! {
                    () = closing.cancelled() => return,
                    () = tokio::time::sleep(EVERY) => {}
                }
            }
        });
    }

    /// Limits that stand as if nothing had ever been taken are let go of. And what is believed of
    /// the clock is kept, now and then and at the end.
    fn tidy_limits(&self) {
        const EVERY: Duration = Duration::from_secs(30);
        const KEEP_EVERY: Duration = Duration::from_secs(300);
        let (admission, clock) = (self.admission.clone(), self.clock.clone());
        let (closing, data) = (self.closing.clone(), self.data.path().to_owned());
        self.tasks.spawn(async move {
            let mut kept = None::<Duration>;
            loop {
                let (now, last) = (clock.monotonic(), closing.is_cancelled());
                if last || kept.is_none_or(|kept| now.saturating_sub(kept) >= KEEP_EVERY) {
                    kept = Some(now);
                    let (data, believed) = (data.clone(), admission.believed(now));
                    let write = move || calendar::write(&data, believed);
                    if let Ok(Err(error)) = tokio::task::spawn_blocking(write).await {
                        tracing::warn!(%error, "what is believed of the clock cannot be kept");
                    }
                }
                if last {
                    return;
                }
                tokio::select! {
                    () = closing.cancelled() => {}
                    () = tokio::time::sleep(EVERY) => {
                        admission.tidy(clock.now(), clock.monotonic());
                    }
                }
            }
        });
    }

    /// Once a second, and at the end: what sessions need kept on disk. A disk that fails stops
    /// nothing.
    fn tend_sessions(&self) {
        const EVERY: Duration = Duration::from_secs(1);
        let (tokens, closing) = (self.tokens.clone(), self.closing.clone());
        self.tasks.spawn(async move {
            let mut failing = false;
            loop {
                let last = closing.is_cancelled();
                let at_work = tokens.clone();
                let tended = tokio::task::spawn_blocking(move || at_work.tend()).await;
                let failed = tended.unwrap_or_else(|error| Err(io::Error::other(error)));
                if let Err(error) = &failed
                    && !failing
                {
                    tracing::warn!(%error, "a restart will open graces once more: not written");
                }
                failing = failed.is_err();
                if last {
                    return;
                }
                tokio::select! {
                    () = closing.cancelled() => {}
                    () = tokio::time::sleep(EVERY) => {}
                }
            }
        });
    }

    /// At the start, now and then, and at the end: how old the cache is, while nobody catches up.
    fn keep_age(&self) {
        const EVERY: Duration = Duration::from_secs(30);
        let (cache, closing) = (self.cache.clone(), self.closing.clone());
        self.tasks.spawn(async move {
            loop {
                let last = closing.is_cancelled();
                let at_work = cache.clone();
                let noted = tokio::task::spawn_blocking(move || at_work.note_age()).await;
                if let Ok(Err(error)) = noted {
                    tracing::warn!(%error, "the cache's age cannot be written down");
                }
                if last {
                    return;
                }
                tokio::select! {
                    () = closing.cancelled() => {}
                    () = tokio::time::sleep(EVERY) => {}
                }
            }
        });
    }

    /// What may be merged: without Postgres nobody else can have it.
    fn scope(&self) -> impl Fn() -> Scope + Send + 'static {
        let (linked, admission) = (self.linked.is_some(), self.admission.clone());
        let clock = self.clock.clone();
        move || {
            if linked {
                Scope::Own
            } else {
                Scope::All(admission.settled_now(clock.now(), clock.monotonic()))
            }
        }
    }

    /// Merges a backlog whenever it is worth while.
    fn keep_merged(&self) {
        const EVERY: Duration = Duration::from_secs(1);
        const AFTER_FAILURE: Duration = Duration::from_secs(60);
        let journal = self.journal.clone();
        let (closing, scope) = (self.closing.clone(), self.scope());
        self.tasks.spawn(async move {
            while !closing.is_cancelled() {
                let (journal, stop) = (journal.clone(), closing.clone());
                let scope = scope();
                let merge = move || journal.merge(scope, &|| stop.is_cancelled());
                let pause = match tokio::task::spawn_blocking(merge).await {
                    Ok(Ok(true)) => continue,
                    Ok(Ok(false) | Err(MergeError::Stopped)) => EVERY,
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "the backlog is not merged now");
                        AFTER_FAILURE
                    }
                    Err(error) => {
                        tracing::error!(%error, "the backlog cannot be merged");
                        AFTER_FAILURE
                    }
                };
                tokio::select! {
                    () = closing.cancelled() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
        });
    }

    /// Reads what was used of quotas, for a command that may show it.
    pub async fn open_book(&self) {
        let (book, journal) = (self.book.clone(), self.journal.clone());
        let opened = tokio::task::spawn_blocking(move || book.open(&journal, &|| false)).await;
        let opened = opened.map_err(|error| error.to_string());
        if let Err(error) = opened.and_then(|opened| opened.map_err(|error| error.to_string())) {
            tracing::error!(error, "what was used of quotas cannot be read");
        }
    }

    /// Merges once, where there is no Postgres: commands leave a segment each.
    pub async fn merge_local(&self) {
        if self.linked.is_none() {
            let (journal, scope) = (self.journal.clone(), self.scope()());
            let merge = move || journal.merge(scope, &|| false);
            match tokio::task::spawn_blocking(merge).await {
                Ok(Ok(_worth_while)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the journal's segments are not merged"),
                Err(error) => tracing::error!(%error, "the journal's segments are not merged"),
            }
        }
    }
}

/// Whoever took a policy out of the configuration may not know who has it.
fn tell_missing_policies(cache: &Cache, closing: &CancellationToken) {
    const TOLD_MAX: usize = 20;
    let missing = cache.missing_policies(&|| closing.is_cancelled());
    let names: Vec<_> = missing.iter().take(TOLD_MAX).map(|name| &**name).collect();
    if !names.is_empty() {
        tracing::warn!(
            policies = names.join(", "),
            count = missing.len(),
            "keys or clients have policies that nobody knows: they are refused with 503 \
             api_key_policy_unavailable; declare these, or apply them"
        );
    }
}

/// Once a day, and at the first contact: next months' partitions, and an end to what is old.
async fn keep_partitions(
    directory: postgres::Directory,
    retention: postgres::Retention,
    closing: CancellationToken,
) {
    const EVERY: Duration = Duration::from_secs(24 * 3600);
    const AFTER_FAILURE: Duration = Duration::from_secs(60);
    // Rows of the default partitions go in bounded batches: more of them wait.
    const MORE: Duration = Duration::from_secs(1);
    loop {
        let pause = match directory.keep_partitions(&retention).await {
            Ok(gone) if gone >= 10_000 => MORE,
            Ok(gone) => {
                tracing::debug!(gone, "partitions are kept");
                EVERY
            }
            Err(error) => {
                tracing::debug!(%error, "partitions cannot be kept now");
                AFTER_FAILURE
            }
        };
        tokio::select! {
            () = closing.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
