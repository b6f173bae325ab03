//! As much of the Postgres protocol as a proxy must understand to know what passes: the borders of
//! messages, and the text of queries (protocol 3.0, "Message Formats").

use std::collections::HashMap;
use std::io::{self, Read};

/// One message from the client, complete.
pub struct Message {
    pub bytes: Vec<u8>,
    /// The query that it runs, if it runs one.
    pub query: Option<String>,
}

/// Reads messages one by one.
pub struct Reader<R> {
    from: R,
    started: bool,
    prepared: HashMap<Vec<u8>, String>,
}

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;

impl<R: Read> Reader<R> {
    pub fn new(from: R) -> Self {
        Self { from, started: false, prepared: HashMap::new() }
    }

    pub fn next(&mut self) -> io::Result<Message> {
        let mut bytes = vec![0; if self.started { 5 } else { 4 }];
        self.from.read_exact(&mut bytes)?;
        let header = bytes.len();
        let length = u32::from_be_bytes(bytes[header - 4..].try_into().expect("four bytes"));
        bytes.resize(header + length as usize - 4, 0);
        self.from.read_exact(&mut bytes[header..])?;
        let query = if self.started {
            self.query(bytes[0], &bytes[5..])
        } else {
            let code = u32::from_be_bytes(bytes[4..8].try_into().expect("four bytes"));
            self.started = code != SSL_REQUEST && code != GSS_REQUEST;
            None
        };
        Ok(Message { bytes, query })
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
