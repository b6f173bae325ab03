//! `/admin/v1/log/replay`: a segment from quarantine, or a copy of one, is counted, exactly once.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::extract::Body;
use super::super::{Control, DirectoryError, LedgerRow, Problem};
use crate::journal::{LogError, Missing, Replay};
use crate::model::fact::Lane;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Asked {
    /// A stream in quarantine, a name below `quarantine/`, or a path on the gateway's machine.
    path: String,
}

/// What became of it.
#[derive(Serialize)]
pub(in super::super) struct Shown {
    /// `replayed`, or `nothing_to_replay`.
    outcome: &'static str,
    lane: &'static str,
    stream: Uuid,
    chunks: u64,
    facts: u64,
    missing: Missing,
    /// Where the source is now.
    source: Option<String>,
    detail: String,
}

impl Shown {
    fn of(replay: &Replay, outcome: &'static str, detail: &str) -> Self {
        Self {
            outcome,
            lane: replay.lane.as_str(),
            stream: replay.stream,
            chunks: replay.end.last_seq,
            facts: replay.end.facts,
            missing: replay.missing,
            source: None,
            detail: detail.into(),
        }
    }
}

pub(in super::super) async fn replay(
    State(control): State<Arc<Control>>,
    Body(asked): Body<Asked>,
) -> Result<Json<Shown>, Problem> {
    // One at a time, and to its end whoever hangs up.
    let turn = control.turn().await;
    let tasks = control.tasks.clone();
    let replayed = tasks.spawn(async move {
        let shown = run(&control, asked.path).await;
        drop(turn);
        shown
    });
    replayed.await.unwrap_or_else(|_| Err(failed())).map(Json)
}

fn failed() -> Problem {
    Problem::internal("the replay did not end; look with `gatepost log status` and try again")
}

async fn run(control: &Arc<Control>, path: String) -> Result<Shown, Problem> {
    let journal = control.journal.clone();
    let prepared = control.tasks.spawn_blocking(move || journal.prepare_replay(&path)).await;
    let replay = prepared.map_err(|_| failed())??;
    let known = ledger(control, replay.stream).await?;
    if let Some(row) = known.filter(|_| replay.lane != Lane::State) {
        if row.underway || row.last_seq >= replay.end.last_seq {
            let detail = "Postgres has all of it already";
            return Ok(Shown::of(&replay, "nothing_to_replay", detail));
        }
        if row.closed_seq.is_some_and(|end| end < replay.end.last_seq) {
            let detail = "Postgres knows an earlier end of this stream: what lies beyond was \
                          logged in another segment, and would be counted twice";
            return Err(Problem::conflict("another_end", detail));
        }
    }
    // Pinned first, as every change: the drainer must not settle a fact before it is pinned.
    for fact in &replay.state {
        control.cache.pin(fact);
    }
    let shown = Shown::of(&replay, "replayed", "it drains like any other segment");
    let (journal, stream, state) = (control.journal.clone(), replay.stream, replay.state.clone());
    let placed = control.tasks.spawn_blocking(move || journal.replay(&replay)).await;
    let source = placed.map_err(|_| failed())?.map_err(|error: LogError| {
        // Nothing of it is in the journal: nothing would ever let go of these.
        for fact in &state {
            control.cache.settle(fact);
        }
        Problem::from(error)
    })?;
    control.note("log.replay", stream.to_string().into());
    Ok(Shown { source: Some(source.display().to_string()), ..shown })
}

/// What Postgres knows of the stream; `None` also when it cannot be asked. Then the ledger decides
/// later.
async fn ledger(control: &Control, stream: Uuid) -> Result<Option<LedgerRow>, Problem> {
    let Some(directory) = &control.directory else { return Ok(None) };
    match directory.ledger(vec![stream]).await {
        Ok(ledger) => Ok(ledger.get(&stream).copied()),
        Err(DirectoryError::Unavailable(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
