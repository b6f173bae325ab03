//! An answer of JSON lines, handed on as it comes.

use axum::body::Body;
use http_body_util::BodyExt;
use serde_json::Value;

use crate::cli::failure::Failure;

/// The longest line in bytes: a fact is at most 1 KiB where it is stored.
const LINE_MAX: usize = 64 << 10;

/// Hands on all lines but the last, which tells how it ended and is returned. (The lines of facts
/// begin with `seq`.)
pub(super) async fn hand_on(
    mut body: Body,
    each: &mut dyn FnMut(&str) -> Result<(), Failure>,
) -> Result<Value, Failure> {
    let broken = |reason: String| Failure::Unavailable(format!("the answer broke off{reason}"));
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(format!(": {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        rest.extend_from_slice(&data);
        // Everything up to the last line's end.
        let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in rest[..whole].split_inclusive(|byte| *byte == b'\n') {
            let text = String::from_utf8_lossy(line);
            if text.starts_with("{\"seq\":") {
                each(&text)?;
            } else {
                return serde_json::from_str(&text).map_err(|error| broken(format!(": {error}")));
            }
        }
        rest.drain(..whole);
        if rest.len() > LINE_MAX {
            return Err(broken(": a line is too long".into()));
        }
    }
    Err(broken(String::new()))
}
