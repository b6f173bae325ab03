//! Bodies of any size pass through the real binary in both directions at once, piece by piece.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use super::support::house::{House, connect, declared, key, read_head, server};
use super::support::process::peak_kib;

const PIECE: usize = 64 << 10;
const PIECES: usize = 768;
/// Far less than what passes in either direction (48 MiB), far more than buffers need.
const GROWTH_MAX_KIB: u64 = 16 << 10;

fn write_piece(stream: &mut TcpStream, byte: u8) {
    let mut piece = format!("{PIECE:x}\r\n").into_bytes();
    piece.resize(piece.len() + PIECE, byte);
    piece.extend(b"\r\n");
    stream.write_all(&piece).expect("the other side reads");
}

/// Content of chunked coding (RFC 9112 §7.1), as it comes.
struct Chunks<R> {
    from: R,
    left: usize,
}

impl<R: BufRead> Chunks<R> {
    fn new(from: R) -> Self {
        Self { from, left: 0 }
    }

    /// So many bytes of content, all `byte`; `false` at the end.
    fn expect(&mut self, count: usize, byte: u8) -> bool {
        let mut missing = count;
        while missing > 0 {
            if self.left == 0 && !self.next_chunk() {
                return false;
            }
            let part = self.from.fill_buf().expect("it goes on");
            let length = part.len().min(self.left).min(missing);
            assert!(length > 0, "the stream broke off");
            assert!(part[..length].iter().all(|found| *found == byte));
            self.from.consume(length);
            self.left -= length;
            missing -= length;
            if self.left == 0 {
                self.line();
            }
        }
        true
    }

    fn next_chunk(&mut self) -> bool {
        let line = self.line();
        self.left = usize::from_str_radix(&line, 16).expect("a chunk's size");
        self.left > 0
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }
}

/// Answers each piece that it gets with one of its own, before it gets the next.
fn answer_by_pieces(stream: TcpStream) {
    let mut writing = stream.try_clone().expect("a second handle");
    let mut reading = BufReader::new(stream);
    read_head(&mut reading);
    let mut content = Chunks::new(reading);
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    let mut answered = false;
    while content.expect(PIECE, b'u') {
        if !answered {
            writing.write_all(head.as_bytes()).expect("the gateway reads");
            answered = true;
        }
        write_piece(&mut writing, b'd');
    }
    writing.write_all(b"0\r\n\r\n").expect("the gateway reads");
}

#[test]
fn both_bodies_pass_piece_by_piece_in_constant_memory() {
    let upstream = server(answer_by_pieces);
    let house = House::new(&format!(
        "{}[[upstreams]]\nname = \"u\"\ntargets = [\"http://{upstream}\"]\n\
         [[routes]]\npath = \"/up\"\nupstream = \"u\"\n",
        declared("shop", &key(1))
    ));
    let gateway = house.serve();
    let exchange = |pieces: usize| {
        let mut writing = connect(gateway.data);
        let mut reading = BufReader::new(writing.try_clone().expect("a second handle"));
        let head = format!(
            "POST /up HTTP/1.1\r\nHost: test\r\nX-API-Key: {}\r\n\
             Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
            key(1)
        );
        writing.write_all(head.as_bytes()).expect("the gateway reads");
        // No second piece is sent before the answer to the first is here.
        write_piece(&mut writing, b'u');
        let head = read_head(&mut reading);
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let mut content = Chunks::new(reading);
        assert!(content.expect(PIECE, b'd'));
        for _ in 1..pieces {
            write_piece(&mut writing, b'u');
            assert!(content.expect(PIECE, b'd'));
        }
        writing.write_all(b"0\r\n\r\n").expect("the gateway reads");
        assert!(!content.expect(1, b'd'), "nothing follows");
    };
    exchange(16);
    let before = peak_kib(gateway.program.pid());
    exchange(PIECES);
    let after = peak_kib(gateway.program.pid());
    if let (Some(before), Some(after)) = (before, after) {
        assert!(after - before < GROWTH_MAX_KIB, "from {before} to {after} KiB");
    }
    gateway.stop();
}

/// A body without an end is cut at its bound, and what it was sent to sees it break off.
#[test]
fn a_body_beyond_its_bound_is_refused_while_it_is_sent() {
    let upstream = server(|stream| {
        let mut reading = BufReader::new(stream);
        read_head(&mut reading);
        // Until the gateway gives up.
        drop(std::io::copy(&mut reading, &mut std::io::sink()));
    });
    let house = House::new(&format!(
        "body_max = \"1MiB\"\n{}[[upstreams]]\nname = \"u\"\ntargets = [\"http://{upstream}\"]\n\
         [[routes]]\npath = \"/up\"\nupstream = \"u\"\n",
        declared("shop", &key(1))
    ));
    let gateway = house.serve();
    let mut stream = connect(gateway.data);
    let head = format!(
        "POST /up HTTP/1.1\r\nHost: test\r\nX-API-Key: {}\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        key(1)
    );
    stream.write_all(head.as_bytes()).expect("the gateway reads");
    for _ in 0..16 {
        write_piece(&mut stream, b'u');
    }
    // One byte too many.
    stream.write_all(b"1\r\nu\r\n").expect("the gateway reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer and an end");
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body_too_large"), "{answer}");
    gateway.stop();
}
