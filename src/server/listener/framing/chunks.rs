//! A body in chunks (RFC 9112 §7.1): sizes and line ends are read, content is counted.

use super::{Fault, Found, Step};

/// More digits than any content has.
const DIGITS_MAX: u8 = 15;
/// The most that is passed over behind a size.
const EXTENSION_MAX: u16 = 256;
/// All trailers of a body.
const TRAILERS_MAX: u16 = 8 * 1024;

/// Where in the body the next byte stands.
#[derive(Clone, Copy)]
enum Place {
    Size { digits: u8, size: u64 },
    Extension { length: u16, size: u64 },
    SizeLf { size: u64 },
    Content { left: u64 },
    ContentCr,
    ContentLf,
    Trailer { begun: bool },
    TrailerLf,
    EndLf,
}

/// See the module.
pub(super) struct Chunks {
    place: Place,
    trailers: u16,
}

impl Default for Chunks {
    fn default() -> Self {
        Self { place: SIZE, trailers: 0 }
    }
}

const SIZE: Place = Place::Size { digits: 0, size: 0 };

impl Chunks {
    /// Follows bytes up to and with the last chunk and its trailers.
    pub fn follow(&mut self, bytes: &[u8]) -> Result<Step, Found> {
        let mut at = 0;
        while at < bytes.len() {
            if let Place::Content { left } = self.place {
                let length = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
                let left = left - length as u64;
                self.place = if left == 0 { Place::ContentCr } else { Place::Content { left } };
                at += length;
                continue;
            }
            let byte = bytes[at];
            at += 1;
            if matches!(self.place, Place::EndLf) && byte == b'\n' {
                return Ok(Step::Ends(at));
            }
            self.place = self.next(byte).ok_or((at - 1, Fault::Chunk))?;
        }
        Ok(Step::More)
    }

    /// Where `byte` leads, if it may stand here.
    fn next(&mut self, byte: u8) -> Option<Place> {
        Some(match (self.place, byte) {
            (Place::Size { digits: 1.., size }, b'\r') | (Place::Extension { size, .. }, b'\r') => {
                Place::SizeLf { size }
            }
            (Place::Size { digits: 1.., size }, b';') => Place::Extension { length: 0, size },
            (Place::Size { digits: digits @ ..DIGITS_MAX, size }, byte) => {
                let digit = char::from(byte).to_digit(16)?;
                Place::Size { digits: digits + 1, size: size * 16 + u64::from(digit) }
            }
            (Place::Extension { length: length @ ..EXTENSION_MAX, size }, byte) if text(byte) => {
                Place::Extension { length: length + 1, size }
            }
            (Place::SizeLf { size: 0 }, b'\n') | (Place::TrailerLf, b'\n') => {
                Place::Trailer { begun: false }
            }
            (Place::SizeLf { size: left }, b'\n') => Place::Content { left },
            (Place::ContentCr, b'\r') => Place::ContentLf,
            (Place::ContentLf, b'\n') => SIZE,
            (Place::Trailer { begun: false }, b'\r') => Place::EndLf,
            (Place::Trailer { begun: true }, b'\r') => Place::TrailerLf,
            (Place::Trailer { begun: false }, b' ' | b'\t') => return None,
            (Place::Trailer { .. }, byte) if text(byte) && self.trailers < TRAILERS_MAX => {
                self.trailers += 1;
                Place::Trailer { begun: true }
            }
            _ => return None,
        })
    }
}

/// What may stand in a line.
fn text(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}
