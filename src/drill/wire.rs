//! As much of the Postgres protocol as a proxy must understand to know what passes: the borders of
//! messages, and the text of queries (protocol 3.0, "Message Formats"). Under TLS that is nothing.

use std::collections::HashMap;
use std::io::{self, Read};

/// One message from the client, complete; under TLS, some bytes.
pub(super) struct Message {
    pub bytes: Vec<u8>,
    /// The query that it runs, if it runs one.
    pub query: Option<String>,
}

/// Reads messages one by one.
pub(super) struct Reader<R> {
    from: R,
    state: State,
    prepared: HashMap<Vec<u8>, String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Messages without a kind: may we encrypt, and who we are.
    Greeting,
    Plain,
    Encrypted,
}

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;

/// The longest message that is passed on, in bytes: far more than a batch of the drain.
const MESSAGE_MAX: usize = 64 << 20;

/// The most that is passed on at a time under TLS.
const PART: usize = 16 * 1024;

impl<R: Read> Reader<R> {
    pub fn new(from: R) -> Self {
        Self { from, state: State::Greeting, prepared: HashMap::new() }
    }

    /// Whether all that comes is under TLS.
    pub fn is_encrypted(&self) -> bool {
        self.state == State::Encrypted
    }

    /// # Errors
    /// At the end of the connection, and where a message is too long to be one.
    pub fn next(&mut self) -> io::Result<Message> {
        if self.state == State::Encrypted {
            return self.part(Vec::new());
        }
        let header = if self.state == State::Greeting { 4 } else { 5 };
        let mut bytes = vec![0; header];
        self.from.read_exact(&mut bytes)?;
        // A greeting is far shorter than 16 MiB; a record of TLS begins with 20 to 24.
        if self.state == State::Greeting && bytes[0] != 0 {
            self.state = State::Encrypted;
            return self.part(bytes);
        }
        let length = bytes[header - 4..].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        if !(4..=MESSAGE_MAX).contains(&length) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        bytes.resize(header + length - 4, 0);
        self.from.read_exact(&mut bytes[header..])?;
        let query = if self.state == State::Plain {
            self.query(bytes[0], &bytes[5..])
        } else {
            let code =
                bytes.iter().skip(4).take(4).fold(0, |sum, byte| sum << 8 | u32::from(*byte));
            if code != SSL_REQUEST && code != GSS_REQUEST {
                self.state = State::Plain;
            }
            None
        };
        Ok(Message { bytes, query })
    }

    fn part(&mut self, mut bytes: Vec<u8>) -> io::Result<Message> {
        if bytes.is_empty() {
            bytes.resize(PART, 0);
            let read = self.from.read(&mut bytes)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            bytes.truncate(read);
        }
        Ok(Message { bytes, query: None })
    }

    fn query(&mut self, kind: u8, body: &[u8]) -> Option<String> {
        let mut parts = body.split(|byte| *byte == 0);
        let first = parts.next()?.to_vec();
        let second = parts.next().unwrap_or_default().to_vec();
        match kind {
            b'Q' => Some(String::from_utf8_lossy(&first).into_owned()),
            b'P' => {
                self.prepared.insert(first, String::from_utf8_lossy(&second).into_owned());
                None
            }
            // Bind: portal, then statement. It comes once per execution.
            b'B' => self.prepared.get(&second).cloned(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: &[u8], body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("short").to_be_bytes();
        [kind, &length, body].concat()
    }

    fn read(bytes: &[u8]) -> (Vec<u8>, Vec<Option<String>>) {
        let (mut reader, mut passed, mut queries) = (Reader::new(bytes), Vec::new(), Vec::new());
        while let Ok(message) = reader.next() {
            passed.extend(message.bytes);
            queries.push(message.query);
        }
        (passed, queries)
    }

    #[test]
    fn queries_are_read_and_every_byte_passes() {
        let bytes = [
            message(b"", &SSL_REQUEST.to_be_bytes()),
            message(b"", b"\0\x03\0\0user\0postgres\0\0"),
            message(b"Q", b"COMMIT\0"),
            message(b"P", b"one\0SELECT 1\0\0\0"),
            message(b"B", b"\0one\0\0\0\0\0\0\0"),
        ]
        .concat();
        let (passed, queries) = read(&bytes);
        assert_eq!(passed, bytes);
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(queries, [None, None, text("COMMIT"), None, text("SELECT 1")]);
    }

    #[test]
    fn what_is_encrypted_passes_as_it_is() {
        let record = [&[22, 3, 1, 2, 0], b"COMMIT and so on".as_slice()].concat();
        let bytes = [message(b"", &SSL_REQUEST.to_be_bytes()), record].concat();
        let (passed, queries) = read(&bytes);
        assert_eq!(passed, bytes);
        assert!(queries.iter().all(Option::is_none));
    }

    #[test]
    fn no_length_is_believed_that_is_none() {
        for length in [0_u32, 3, 1 << 30, u32::MAX] {
            let greeting = message(b"", b"\0\x03\0\0\0");
            let bytes = [&greeting[..], b"Q", &length.to_be_bytes()].concat();
            assert_eq!(read(&bytes).0, greeting);
        }
    }

    #[test]
    fn any_bytes_pass_as_they_came() {
        let good = [
            message(b"", b"\0\x03\0\0user\0postgres\0\0"),
            message(b"Q", b"BEGIN READ ONLY\0"),
            message(b"P", b"one\0COMMIT\0\0\0"),
            message(b"B", b"\0one\0\0\0\0\0\0\0"),
        ];
        let good = [good.concat(), message(b"", &SSL_REQUEST.to_be_bytes())];
        crate::fuzz::each("Postgres' wire", &good, |bytes| {
            let (passed, _) = read(bytes);
            assert!(bytes.starts_with(&passed));
        });
    }
}
