//! Hostile bytes for the readers of this crate, in their own tests: all that are called
//! `any_bytes_…`. How they are made is in `fuzz/bytes.rs`, which the suite uses as well.

#[path = "../fuzz/bytes.rs"]
mod bytes;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::codec::{self, Kind};

pub use bytes::each;

/// A frame with `payload` behind a right check sum, which would stop nearly every input.
pub fn framed(kind: Kind, version: u8, payload: &[u8]) -> Option<Vec<u8>> {
    let mut frame = codec::open(kind, version);
    frame.extend_from_slice(payload);
    codec::close(frame).ok()
}

/// The fields of a head: a line each, as far as they can be ones.
pub fn fields(bytes: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(0);
        let (name, value) = (&line[..colon], line[colon..].trim_ascii_start());
        let value = HeaderValue::from_bytes(value.get(1..).unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), value) {
            headers.append(name, value);
        }
    }
    headers
}
