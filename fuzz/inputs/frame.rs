//! What is done with an input of the frame decoder.
//!
//! The fuzz target and the ordinary tests share this. A check sum would stop nearly every input at
//! the door, so it is made right: what is tried is what comes behind it. Whatever an input says, it
//! is refused or read, and what is read is not more than the input can hold.

use gatepost::codec::{self, Kind};
use gatepost::journal::End;
use gatepost::model::Key;
use gatepost::model::fact::Fact;

/// Two numbers and a truth value.
const END_MAX: usize = 9 + 9 + 1;

/// Reads `data` as the payload of every kind of frame.
pub fn read(data: &[u8]) {
    for kind in [Kind::End, Kind::Row, Kind::Meta] {
        drop(codec::unseal::<Fact>(kind, 1, data));
        let mut frame = codec::open(kind, 1);
        frame.extend_from_slice(data);
        let Ok(frame) = codec::close(frame) else { return };
        assert_eq!(codec::payload(kind, 1, &frame), Ok(data));
        assert!(codec::unseal::<End>(kind, 1, &frame).is_err() || data.len() <= END_MAX);
        drop(codec::unseal::<Fact>(kind, 1, &frame));
        drop(codec::unseal::<Key>(kind, 1, &frame));
        if let Ok(texts) = codec::unseal::<Vec<String>>(kind, 1, &frame) {
            let bytes: usize = texts.iter().map(|text| text.len() + 1).sum();
            assert!(bytes <= data.len());
        }
    }
}
