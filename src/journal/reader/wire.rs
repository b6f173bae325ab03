//! What a gateway and the child that reads segments for it say to each other.
//!
//! ```text
//! child:    hello (4)                                                       once
//! gateway:  after (8) · to (8) · length (4) · directory                     per segment
//! child:    seq (8, not 0) · length (4) · frame                             any number of times
//!           0 (8) · length (4) · verdict (1) · words                        once, at its end
//! ```
//!
//! All numbers are big-endian. What ends without a verdict has crashed.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::disk::StoreError;
use crate::journal::CHUNK_MAX;

/// Said before anything is opened: whoever says something else never was a child of ours.
pub const HELLO: [u8; 4] = *b"GPF1";

/// The longest verdict in bytes, its words included.
const VERDICT_MAX: usize = 1024;

/// The longest path of a directory in bytes.
const DIR_MAX: usize = 1 << 16;

/// What a gateway asks for: the frames of the segment in `dir` after `after` up to `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub dir: PathBuf,
    pub after: u64,
    pub to: u64,
}

/// Asks.
pub fn ask(out: &mut dyn Write, dir: &Path, after: u64, to: u64) -> io::Result<()> {
    let dir = dir.as_os_str().as_bytes();
    let mut said = Vec::with_capacity(20 + dir.len());
    said.extend(after.to_be_bytes());
    said.extend(to.to_be_bytes());
    said.extend(length(dir).to_be_bytes());
    said.extend(dir);
    out.write_all(&said)
}

/// Hears what is asked for; fails when nobody asks any more.
pub fn asked(from: &mut dyn Read) -> io::Result<Request> {
    let (mut after, mut to) = ([0; 8], [0; 8]);
    from.read_exact(&mut after)?;
    from.read_exact(&mut to)?;
    let dir = bytes(from, DIR_MAX)?.ok_or(io::ErrorKind::InvalidData)?;
    let (after, to) = (u64::from_be_bytes(after), u64::from_be_bytes(to));
    Ok(Request { dir: OsString::from_vec(dir).into(), after, to })
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// A length and so many bytes; `None` where it is more than `max`.
fn bytes(from: &mut dyn Read, max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > max {
        return Ok(None);
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}

/// One piece of an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Record {
    /// A frame of the segment; empty in place of one that is too long to be ours.
    Frame(u64, Vec<u8>),
    /// Everything was sent.
    Complete,
    /// Another process holds the segment.
    Locked,
    /// The segment cannot be read at the moment.
    Trouble(String),
    /// The segment is damaged.
    Damaged(String),
}

/// Says one frame.
pub fn send(out: &mut dyn Write, seq: u64, frame: &[u8]) -> io::Result<()> {
    let frame = if frame.len() > CHUNK_MAX { &[] } else { frame };
    out.write_all(&seq.to_be_bytes())?;
    out.write_all(&length(frame).to_be_bytes())?;
    out.write_all(frame)
}

/// Says how it ended.
pub fn conclude(out: &mut dyn Write, result: &Result<(), StoreError>) -> io::Result<()> {
    let (verdict, words) = match result {
        Ok(()) => (b'c', ""),
        Err(StoreError::Locked) => (b'l', ""),
        Err(StoreError::Trouble(words)) => (b't', words.as_str()),
        Err(StoreError::Sled(words)) => (b'd', words.as_str()),
    };
    let mut said = vec![verdict];
    said.extend(words.bytes().take(VERDICT_MAX - 1));
    send(out, 0, &said)?;
    out.flush()
}

/// Hears one piece; `None` where it makes no sense.
pub fn hear(from: &mut dyn Read) -> io::Result<Option<Record>> {
    let mut seq = [0; 8];
    from.read_exact(&mut seq)?;
    let seq = u64::from_be_bytes(seq);
    let max = if seq == 0 { VERDICT_MAX } else { CHUNK_MAX };
    let Some(bytes) = bytes(from, max)? else { return Ok(None) };
    if seq > 0 {
        return Ok(Some(Record::Frame(seq, bytes)));
    }
    let words = || String::from_utf8_lossy(&bytes[1..]).into_owned();
    Ok(match bytes.first() {
        Some(b'c') => Some(Record::Complete),
        Some(b'l') => Some(Record::Locked),
        Some(b't') => Some(Record::Trouble(words())),
        Some(b'd') => Some(Record::Damaged(words())),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_heard() {
        let mut asked_for = Vec::new();
        ask(&mut asked_for, Path::new("a\nb"), 3, u64::MAX).expect("memory");
        let request = Request { dir: "a\nb".into(), after: 3, to: u64::MAX };
        assert_eq!(asked(&mut asked_for.as_slice()).expect("whole"), request);
        let mut said = Vec::new();
        send(&mut said, 7, b"frame").expect("memory");
        send(&mut said, 8, &[1; CHUNK_MAX + 1]).expect("memory");
        conclude(&mut said, &Err(StoreError::Sled("broken".into()))).expect("memory");
        let mut from = said.as_slice();
        let mut next = || hear(&mut from).expect("whole");
        assert_eq!(next(), Some(Record::Frame(7, b"frame".to_vec())));
        assert_eq!(next(), Some(Record::Frame(8, Vec::new())), "too long to be ours");
        assert_eq!(next(), Some(Record::Damaged("broken".into())));
        assert!(from.is_empty());
    }

    #[test]
    fn what_is_broken_off_or_makes_no_sense_is_no_piece_and_takes_no_memory() {
        let mut said = Vec::new();
        send(&mut said, 7, b"frame").expect("memory");
        for length in 0..said.len() {
            let error = hear(&mut &said[..length]).expect_err("broken off");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
        said[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(hear(&mut said.as_slice()).expect("refused by its length"), None);
        let mut last = vec![0; 12];
        assert_eq!(hear(&mut last.as_slice()).expect("whole"), None, "no verdict");
        last[11] = 1;
        last.push(b'?');
        assert_eq!(hear(&mut last.as_slice()).expect("whole"), None, "an unknown verdict");
    }

    #[test]
    fn any_bytes_are_heard_or_refused_on_both_sides() {
        let (mut said, mut asked_for) = (Vec::new(), Vec::new());
        send(&mut said, 7, b"frame").expect("memory");
        conclude(&mut said, &Err(StoreError::Trouble("for a while".into()))).expect("memory");
        ask(&mut asked_for, Path::new("/data/journal/usage/one"), 3, 9).expect("memory");
        crate::fuzz::each("reader's wire", &[said, asked_for], |bytes| {
            let mut from = bytes;
            while let Ok(Some(record)) = hear(&mut from) {
                match record {
                    Record::Frame(seq, frame) => assert!(seq > 0 && frame.len() <= CHUNK_MAX),
                    Record::Trouble(words) | Record::Damaged(words) => {
                        // What is no text takes more room as a sign of that.
                        assert!(words.len() <= 3 * VERDICT_MAX);
                    }
                    Record::Complete | Record::Locked => {}
                }
            }
            let mut from = bytes;
            while let Ok(request) = asked(&mut from) {
                let mut again = Vec::new();
                ask(&mut again, &request.dir, request.after, request.to).expect("memory");
                assert_eq!(asked(&mut again.as_slice()).expect("whole"), request);
            }
        });
    }
}
