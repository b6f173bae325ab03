//! `X-Request-Id`: taken over from the caller when it is harmless, else a uuid v7.

use axum::http::header::{HeaderMap, HeaderName, HeaderValue};

use uuid::Uuid;

use crate::clock::SharedClock;
use crate::entropy::{Entropy, SeededEntropy, SharedEntropy};

/// The header.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is taken over.
const ID_MAX: usize = 128;

/// Gives requests their ids.
pub struct RequestIds {
    clock: SharedClock,
    /// Ids must differ, not be secret: a seeded sequence is enough and costs no system call.
    sequence: SeededEntropy,
}

impl RequestIds {
    /// A sequence that starts at random.
    pub fn new(clock: SharedClock, entropy: &SharedEntropy) -> Self {
        let mut seed = [0; 8];
        entropy.fill(&mut seed);
        Self { clock, sequence: SeededEntropy::new(u64::from_le_bytes(seed)) }
    }

    /// The id of a request with these headers.
    pub fn of(&self, headers: &HeaderMap) -> HeaderValue {
        match headers.get(X_REQUEST_ID) {
            Some(id) if is_harmless(id) => id.clone(),
            _ => self.make(),
        }
    }

    /// A uuid v7, for what needs to differ and not to be secret.
    pub fn uuid(&self) -> Uuid {
        (&self.sequence as &dyn Entropy).uuid_v7(self.clock.now())
    }

    /// A new id.
    pub fn make(&self) -> HeaderValue {
        let id = self.uuid();
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        let text = id.as_hyphenated().encode_lower(&mut text);
        // Hexadecimal digits and hyphens always make a header.
        HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("unknown"))
    }
}

/// Nothing that could confuse a log, a shell or a header.
fn is_harmless(id: &HeaderValue) -> bool {
    let safe = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
    let bytes = id.as_bytes();
    (1..=ID_MAX).contains(&bytes.len()) && bytes.iter().all(safe)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use super::*;
    use crate::clock::ManualClock;
    use crate::model::Timestamp;

    fn ids() -> RequestIds {
        let entropy: SharedEntropy = Arc::new(SeededEntropy::new(1));
        RequestIds::new(Arc::new(ManualClock::new(Timestamp(1_700_000_000_000_000))), &entropy)
    }

    #[test]
    fn made_ids_are_uuids_and_differ() {
        let ids = ids();
        let made: HashSet<_> = (0..1000).map(|_| ids.make()).collect();
        assert_eq!(made.len(), 1000);
        let text = ids.make();
        let id = uuid::Uuid::parse_str(text.to_str().expect("text")).expect("a uuid");
        assert_eq!(id.get_version_num(), 7);
    }

    #[test]
    fn harmless_ids_are_taken_over_and_others_replaced() {
        let ids = ids();
        let given = |value: &str| {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a header value");
            let headers = HeaderMap::from_iter([(X_REQUEST_ID, value.clone())]);
            ids.of(&headers) == value
        };
        assert!(given("abc-123_X.9:/+=@"));
        for bad in ["", "a b", "a\"b", "é", "<x>", &"x".repeat(129)] {
            assert!(!given(bad), "{bad}");
        }
    }
}
