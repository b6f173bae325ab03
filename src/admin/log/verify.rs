//! `/admin/v1/log/verify`: reads every segment, quarantine included, and compares with the ledger.
//! A shutdown ends it.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use uuid::Uuid;

use super::super::{Control, DirectoryError, LIST_MAX, LedgerRow, Problem};
use super::STOPPING;
use crate::journal::{Place, Report, Survey};
use crate::model::fact::Lane;

/// What was found. `ok` is false when any stream has a problem, or something is not known for a
/// stream.
#[derive(Serialize)]
pub(in super::super) struct Shown {
    ok: bool,
    /// `compared`; `embedded` without a Postgres; or why it could not be asked.
    ledger: String,
    /// Streams that were read.
    read: u64,
    /// Chunks and facts in them.
    chunks: u64,
    facts: u64,
    /// Streams with problems.
    bad: u64,
    /// Those with problems first, at most [`LIST_MAX`].
    streams: Vec<Row>,
    /// What stands among the segments and is none, at most [`LIST_MAX`]: nothing of it was read.
    strangers: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    survey: Survey,
    ledger: Option<LedgerRow>,
    problems: Vec<String>,
}

type Ledger = Option<HashMap<Uuid, LedgerRow>>;

pub(in super::super) async fn verify(
    State(control): State<Arc<Control>>,
) -> Result<Json<Shown>, Problem> {
    let places = control.journal.places();
    let streams = places.iter().map(|place| match place {
        Place::Journal(segment) => segment.stream,
        Place::Aside(foreign) => foreign.stream,
    });
    // Before the segments: what drains meanwhile must not look as if Postgres were ahead.
    let (told, ledger) = match &control.directory {
        None => ("embedded".to_owned(), None),
        Some(directory) => match directory.ledger(streams.collect()).await {
            Ok(ledger) => ("compared".to_owned(), Some(ledger)),
            Err(DirectoryError::Unavailable(reason)) => (reason, None),
            Err(error) => return Err(error.into()),
        },
    };
    let strangers = control.journal.clone();
    let strangers = control.tasks.spawn_blocking(move || strangers.strangers());
    let (journal, stopping) = (control.journal.clone(), control.stopping.clone());
    let read = control.tasks.spawn_blocking(move || {
        let here: HashSet<Uuid> = Lane::ALL
            .into_iter()
            .flat_map(|lane| journal.segments(lane))
            .map(|s| s.stream)
            .collect();
        let with_gaps = journal.quarantined().into_iter().filter(Report::passed_a_gap);
        let gaps: HashSet<String> = with_gaps.map(|report| report.name).collect();
        let mut rows = Vec::new();
        for place in &places {
            let survey = journal.survey(place, &mut |_| match stopping.is_cancelled() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            });
            if stopping.is_cancelled() {
                return Err(Problem::unavailable("stopping", STOPPING));
            }
            // Settled and removed while this ran.
            let gone = matches!(place, Place::Journal(segment) if !segment.dir().exists());
            if !gone {
                let twin = survey.place != "journal" && here.contains(&survey.stream);
                let gap = survey.name.as_ref().is_some_and(|name| gaps.contains(name));
                rows.push(row(survey, &ledger, twin, gap));
            }
        }
        Ok(rows)
    });
    let rows = read.await.map_err(|_| Problem::internal("the journal cannot be read"))?;
    let strangers = strangers.await.map_err(|_| Problem::internal("the lanes cannot be read"))?;
    Ok(Json(shown(told, rows?, strangers)))
}

fn shown(ledger: String, mut rows: Vec<Row>, mut strangers: Vec<PathBuf>) -> Shown {
    let sum = |of: fn(&Survey) -> u64| rows.iter().map(|row| of(&row.survey)).sum();
    let bad = rows.iter().filter(|row| !row.problems.is_empty()).count();
    let (read, chunks, facts) = (rows.len() as u64, sum(|s| s.chunks), sum(|s| s.facts));
    rows.sort_by_key(|row| row.problems.is_empty());
    rows.truncate(LIST_MAX);
    let ok = bad == 0 && strangers.is_empty();
    strangers.truncate(LIST_MAX);
    Shown { ok, ledger, read, chunks, facts, bad: bad as u64, streams: rows, strangers }
}

/// `twin`: its facts are in the journal too, and counted there. `gap`: it was set aside because of
/// what was missing when all the rest had been sent.
fn row(survey: Survey, ledger: &Ledger, twin: bool, gap: bool) -> Row {
    let known = ledger.as_ref().and_then(|ledger| ledger.get(&survey.stream)).copied();
    let mut problems = Vec::new();
    // Postgres knows its end and has come to it: what became of its files is no loss, unless
    // something was missing by then.
    let has_all = |row: &LedgerRow| row.closed_seq.is_some_and(|end| row.last_seq >= end);
    let settled = known.filter(has_all).is_some_and(|row| row.last_seq >= survey.last_seq);
    if survey.place == "quarantine" && settled && !gap {
        return Row { survey, ledger: known, problems };
    }
    if let Some(error) = &survey.error {
        problems.push(format!("it cannot be read to its end: {error}"));
    }
    if survey.missing.chunks > 0 {
        let least = if survey.missing.exact { "" } else { "at least " };
        problems.push(format!(
            "{least}{} chunks with {} facts are missing, the first is {}",
            survey.missing.chunks,
            survey.missing.facts,
            survey.first_missing.unwrap_or(0)
        ));
    } else if survey.missing.facts > 0 {
        problems.push(format!("its end tells {} more facts than it holds", survey.missing.facts));
    }
    if survey.misplaced > 0 {
        problems.push(format!("{} facts belong to another lane", survey.misplaced));
    }
    let applied = known.is_some_and(|row| row.underway || row.last_seq >= survey.last_seq);
    // State is sent whatever the ledger says; there it only marks progress.
    let sums = survey.lane != Some(Lane::State.as_str());
    if survey.place == "quarantine" && !twin && !(applied && survey.error.is_none()) {
        problems.push("it is in quarantine, and not all of it is known to be in Postgres".into());
    }
    if let Some(row) = known.filter(|row| sums && !row.underway && survey.error.is_none()) {
        if row.last_seq > survey.last_seq {
            problems.push(format!(
                "Postgres has taken it up to {}, and here it ends at {}",
                row.last_seq, survey.last_seq
            ));
        }
        if row.closed_seq.is_some_and(|end| end < survey.last_seq) {
            problems.push("Postgres knows an earlier end: a copy of it was drained".into());
        }
    }
    Row { survey, ledger: known, problems }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Missing;

    #[test]
    fn what_postgres_came_to_the_end_of_is_lost_only_where_it_passed_a_gap() {
        let stream = Uuid::from_u128(1);
        let ended = LedgerRow { last_seq: 10, closed_seq: Some(10), underway: false };
        let ledger: Ledger = Some([(stream, ended)].into());
        let of = |missing: Missing, gap: bool| {
            let survey = Survey {
                place: "quarantine",
                name: Some(format!("usage-{stream}")),
                lane: Some("usage"),
                stream,
                chunks: 9,
                facts: 90,
                last_seq: 10,
                sealed: true,
                missing,
                first_missing: Some(4),
                misplaced: 0,
                error: None,
            };
            row(survey, &ledger, false, gap).problems
        };
        let gap = Missing { chunks: 1, facts: 10, exact: true };
        let told = of(gap, true);
        assert_eq!(told, ["1 chunks with 10 facts are missing, the first is 4"]);
        // Damaged after all of it had been sent.
        assert!(of(gap, false).is_empty());
    }
}
