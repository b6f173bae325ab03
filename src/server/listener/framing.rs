//! What HTTP/1 may look like between two messages (RFC 9112 §2.2, §5, §6, §7), looked at before it
//! is parsed.
//!
//! A request is only safe to pass on when every reader agrees on where it ends. The parser behind
//! this one is lenient where others are not (a bare LF ends a line, `Transfer-Encoding` wins over
//! `Content-Length` in silence), and what it was lenient about cannot be seen in what it parsed. So
//! the bytes are followed here, without being held: a head line by line, a body by counting.

mod chunks;
mod head;

use chunks::Chunks;
use head::Head;

/// Why a connection is not read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A line of a head that ends or begins as none may, or cannot be told from two.
    Line,
    /// The request line: a version or a method that is not spoken here.
    Request,
    /// `Content-Length` more than once, or not a number.
    Length,
    /// `Transfer-Encoding` that is anything but one `chunked`, or beside a length.
    Coding,
    /// A chunk that has no size, more of it than a size, or an odd end.
    Chunk,
    /// A head that is larger than one may be.
    Large,
    /// A body that is larger than anybody can count.
    Endless,
}

impl Fault {
    /// The word for it in the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::Request => "request",
            Self::Length => "length",
            Self::Coding => "coding",
            Self::Chunk => "chunk",
            Self::Large => "head_too_large",
            Self::Endless => "body_too_large",
        }
    }

    /// What its sender hears.
    pub fn detail(self) -> &'static str {
        match self {
            Self::Line => "A line of the head begins or ends as none may.",
            Self::Request => "The request line asks for what is not spoken here.",
            Self::Length => "`Content-Length` is given more than once, or is not a number.",
            Self::Coding => "`Transfer-Encoding` is not `chunked` alone, or beside a length.",
            Self::Chunk => "A chunk of the body has no size, or an odd end.",
            Self::Large => "The head is larger than one may be.",
            Self::Endless => "The body is larger than one may be.",
        }
    }
}

/// How a request for another protocol was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// Not yet.
    Open,
    /// With 101: what follows is not HTTP.
    Granted,
    /// With something else: HTTP goes on.
    Declined,
}

/// How far a head's bytes lead.
enum Step {
    /// All were taken, and more is needed.
    More,
    /// The part that was read ends before this position.
    Ends(usize),
}

/// A fault, and the position of the byte that it shows in.
type Found = (usize, Fault);

/// What HTTP/2 begins with (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Where a connection is.
pub struct Framing {
    place: Place,
    /// The largest head, in bytes.
    head_max: usize,
    /// Whether the message that is being read asks for another protocol.
    switches: bool,
}

enum Place {
    /// So many bytes into what HTTP/2 begins with.
    Preface(usize),
    /// HTTP/2, which has lengths of its own.
    Frames,
    Head(Head),
    Sized(u64),
    Chunked(Chunks),
    /// Behind a request for another protocol.
    Asked,
    /// In the other protocol.
    Tunnel,
}

impl Framing {
    /// At the beginning of a connection that speaks HTTP/1, in heads of up to `head_max` bytes.
    pub fn new(head_max: usize) -> Self {
        Self { place: Place::Head(Head::new(head_max)), head_max, switches: false }
    }

    /// At the beginning of one that has agreed on HTTP/2.
    pub fn http2() -> Self {
        Self { place: Place::Preface(0), head_max: 0, switches: false }
    }

    /// Whether a head has begun and not ended.
    pub fn in_head(&self) -> bool {
        matches!(&self.place, Place::Head(head) if head.has_begun())
    }

    /// Whether a body has begun and not ended.
    pub fn in_body(&self) -> bool {
        matches!(self.place, Place::Sized(_) | Place::Chunked(_))
    }

    /// Whether what is read is a head, or about to be one: where it is wrong the parser says so.
    pub fn at_head(&self) -> bool {
        matches!(self.place, Place::Preface(_) | Place::Head(_))
    }

    /// Whether HTTP/1 is spoken: so far, and still.
    pub fn speaks_http1(&self) -> bool {
        !matches!(self.place, Place::Frames | Place::Tunnel)
    }

    /// Whether the connection has left HTTP.
    pub fn is_tunnel(&self) -> bool {
        matches!(self.place, Place::Tunnel)
    }

    /// Follows the next bytes and returns how many; those behind a request for another protocol
    /// wait until `switch` tells how it was answered.
    pub fn follow(&mut self, bytes: &[u8], switch: impl Fn() -> Switch) -> Result<usize, Found> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            at += match &mut self.place {
                Place::Tunnel | Place::Frames => break,
                Place::Preface(read) => {
                    let length = rest.len().min(PREFACE.len() - *read);
                    if rest[..length] != PREFACE[*read..*read + length] {
                        return Err((at, Fault::Request));
                    }
                    *read += length;
                    if *read == PREFACE.len() {
                        self.place = Place::Frames;
                    }
                    length
                }
                Place::Asked => {
                    self.place = match switch() {
                        Switch::Open => return Ok(at),
                        Switch::Granted => Place::Tunnel,
                        Switch::Declined => Place::Head(Head::new(self.head_max)),
                    };
                    0
                }
                Place::Head(head) => match head.follow(rest).map_err(|found| shift(at, found))? {
                    Step::More => break,
                    Step::Ends(length) => {
                        self.begin_body();
                        length
                    }
                },
                Place::Sized(left) => {
                    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= length as u64;
                    if *left == 0 {
                        self.begin_message();
                    }
                    length
                }
                Place::Chunked(chunks) => {
                    match chunks.follow(rest).map_err(|found| shift(at, found))? {
                        Step::More => break,
                        Step::Ends(length) => {
                            self.begin_message();
                            length
                        }
                    }
                }
            };
        }
        Ok(bytes.len())
    }

    fn begin_body(&mut self) {
        let Place::Head(head) = &self.place else { return };
        self.switches = head.switches();
        match head.length() {
            _ if head.is_chunked() => self.place = Place::Chunked(Chunks::default()),
            Some(length) if length > 0 => self.place = Place::Sized(length),
            _ => self.begin_message(),
        }
    }

    fn begin_message(&mut self) {
        let asked = std::mem::take(&mut self.switches);
        self.place = if asked { Place::Asked } else { Place::Head(Head::new(self.head_max)) };
    }
}

fn shift(by: usize, (at, fault): Found) -> Found {
    (by + at, fault)
}

#[cfg(test)]
mod tests;
