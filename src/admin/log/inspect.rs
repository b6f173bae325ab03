//! `/admin/v1/log/facts`: what a segment holds, a line of JSON per fact, as it is read. The last
//! line is `{"end": …}` with what was found, or `{"error": …}`. A shutdown ends it: a reader that
//! has stopped reading must not hold it up.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::super::extract::Params;
use super::super::{Control, Problem};
use super::{STOPPING, fact};
use crate::journal::Chunk;

/// Chunks on their way to a slow reader, each with its facts.
const CHUNKS_MAX: usize = 8;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Asked {
    /// A stream, a name below `quarantine/`, or a path on the gateway's machine.
    of: String,
}

pub(in super::super) async fn facts(
    State(control): State<Arc<Control>>,
    Params(asked): Params<Asked>,
) -> Result<Response, Problem> {
    let place = control.journal.find(&asked.of)?;
    let (sender, mut lines) = mpsc::channel::<Bytes>(CHUNKS_MAX);
    let (journal, stopping) = (control.journal.clone(), control.stopping.clone());
    let runtime = Handle::current();
    control.tasks.spawn_blocking(move || {
        // `None`: nobody shall, or will, read on.
        let send = |lines| runtime.block_on(stopping.run_until_cancelled(sender.send(lines)));
        let survey = journal.survey(&place, &mut |chunk| match send(text(&chunk)) {
            Some(Ok(())) => ControlFlow::Continue(()),
            Some(Err(_)) | None => ControlFlow::Break(()),
        });
        let last = if stopping.is_cancelled() {
            json!({ "error": STOPPING })
        } else {
            json!({ "end": survey })
        };
        let last = line(&last).into();
        if stopping.is_cancelled() {
            // Who reads on has left room for it.
            drop(sender.try_send(last));
        } else {
            drop(send(last));
        }
    });
    let lines = stream::poll_fn(move |context| lines.poll_recv(context));
    let body = Body::from_stream(futures_util::StreamExt::map(lines, Ok::<_, std::io::Error>));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

fn text(chunk: &Chunk) -> Bytes {
    chunk.facts.iter().map(|fact| line(&fact::line(chunk.seq, fact))).collect::<String>().into()
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}
