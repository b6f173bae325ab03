//! A request's head, line by line.

use memchr::{memchr, memchr2};

use super::{Fault, Found, Step};

/// As much as is kept of a line that was not read at once. No field that frames needs more.
const LINE_MAX: usize = 128;

/// The largest length that is one: the parser has other uses for the last few numbers.
const LENGTH_MAX: u64 = i64::MAX as u64;

/// What a head has said so far.
#[derive(Default)]
pub(super) struct Head {
    /// How many bytes of it may still come.
    left: usize,
    /// The beginning of a line that was not read at once.
    line: Vec<u8>,
    /// Whether the last byte was a CR, so that an LF must follow.
    cr: bool,
    /// Whether the request line has a fragment in what was not kept of it.
    fragment: bool,
    /// Whether the request line was read.
    started: bool,
    length: Option<u64>,
    chunked: bool,
    switches: bool,
}

impl Head {
    /// One of up to `max` bytes.
    pub fn new(max: usize) -> Self {
        Self { left: max, ..Self::default() }
    }

    /// Whether anything was read that belongs to it.
    pub fn has_begun(&self) -> bool {
        self.started || self.cr || !self.line.is_empty()
    }

    pub fn length(&self) -> Option<u64> {
        self.length
    }

    pub fn is_chunked(&self) -> bool {
        self.chunked
    }

    /// Whether it asks for another protocol.
    pub fn switches(&self) -> bool {
        self.switches
    }

    /// Follows bytes up to and with the empty line at its end.
    pub fn follow(&mut self, bytes: &[u8]) -> Result<Step, Found> {
        let within = &bytes[..bytes.len().min(self.left)];
        let step = self.lines(within)?;
        if matches!(step, Step::More) && within.len() < bytes.len() {
            return Err((within.len(), Fault::Large));
        }
        self.left -= within.len();
        Ok(step)
    }

    fn lines(&mut self, bytes: &[u8]) -> Result<Step, Found> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            if self.cr {
                if rest[0] != b'\n' {
                    return Err((at, Fault::Line));
                }
                self.cr = false;
                let mut line = std::mem::take(&mut self.line);
                let ended = self.end_line(&line).map_err(|fault| (at, fault))?;
                line.clear();
                self.line = line;
                at += 1;
                if ended {
                    return Ok(Step::Ends(at));
                }
                continue;
            }
            let Some(length) = memchr2(b'\r', b'\n', rest) else {
                self.keep(rest);
                break;
            };
            if rest[length] == b'\n' {
                return Err((at + length, Fault::Line));
            }
            if self.line.is_empty() && rest.get(length + 1) == Some(&b'\n') {
                let end = at + length + 1;
                let ended = self.end_line(&rest[..length]).map_err(|fault| (end, fault))?;
                at = end + 1;
                if ended {
                    return Ok(Step::Ends(at));
                }
            } else {
                self.keep(&rest[..length]);
                self.cr = true;
                at += length + 1;
            }
        }
        Ok(Step::More)
    }

    fn keep(&mut self, part: &[u8]) {
        self.fragment |= !self.started && part.contains(&b'#');
        let room = LINE_MAX - self.line.len();
        self.line.extend_from_slice(&part[..part.len().min(room)]);
    }

    /// Whether that was the empty line behind the last field.
    fn end_line(&mut self, line: &[u8]) -> Result<bool, Fault> {
        if self.started {
            return if line.is_empty() { Ok(true) } else { self.field(line).map(|()| false) };
        }
        // An empty line before a request is passed over (RFC 9112 §2.2).
        self.started = !line.is_empty();
        // HTTP/2 was not agreed on, and nobody is connected anywhere.
        let foreign = line.starts_with(b"PRI ") || line.starts_with(b"CONNECT ");
        // A fragment is never sent (RFC 9112 §3.2), and what is behind it is read in many ways.
        if foreign || self.fragment || memchr(b'#', line).is_some() {
            Err(Fault::Request)
        } else {
            Ok(false)
        }
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Fault> {
        // A line that begins with a blank once continued the one before it (§5.2).
        let Some(colon) = memchr(b':', line) else {
            return if blank(line[0]) { Err(Fault::Line) } else { Ok(()) };
        };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if blank(line[0]) || name.last().is_none_or(|byte| blank(*byte)) {
            return Err(Fault::Line);
        }
        // Only these are looked at, and told by their length first.
        match name.len() {
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.switches = true,
            14 if reads_as(name, b"content-length") => {
                let plain = name[7] == b'-' && self.length.is_none();
                let length = number(value.trim_ascii()).filter(|_| plain).ok_or(Fault::Length)?;
                if length > LENGTH_MAX {
                    return Err(Fault::Endless);
                }
                self.length = Some(length);
            }
            17 if reads_as(name, b"transfer-encoding") => {
                let plain = name[8] == b'-' && !self.chunked;
                if !plain || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    return Err(Fault::Coding);
                }
                self.chunked = true;
            }
            _ => {}
        }
        if self.chunked && self.length.is_some() { Err(Fault::Coding) } else { Ok(()) }
    }
}

fn blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Whether a name is `field`, or is taken for it by readers that make no difference between `-`
/// and `_`.
fn reads_as(name: &[u8], field: &[u8]) -> bool {
    let same = |(byte, want): (&u8, &u8)| {
        byte.eq_ignore_ascii_case(want) || (*byte == b'_' && *want == b'-')
    };
    name.iter().zip(field).all(same)
}

/// Digits and nothing else; more of them than can be counted are as many as can.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = std::str::from_utf8(text).ok()?;
    Some(digits.parse().unwrap_or(u64::MAX))
}
