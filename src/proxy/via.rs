//! `Via`: who has passed a message on (RFC 9110 §7.6.3), and that none goes in circles.

use axum::http::Version;
use axum::http::header::{HeaderMap, HeaderValue, VIA};

use crate::entropy::SharedEntropy;

/// This process's name in `Via`. It is made anew by each start, so that gateways one behind the
/// other are told apart, and nobody learns the name of a machine.
pub(super) struct Via {
    name: String,
    /// What is added to messages of HTTP/1.0, 1.1 and 2.
    said: [HeaderValue; 3],
}

impl Via {
    pub(super) fn new(entropy: &SharedEntropy) -> Self {
        let mut random = [0; 4];
        entropy.fill(&mut random);
        let name = format!("gatepost-{:08x}", u32::from_le_bytes(random));
        let said = ["1.0", "1.1", "2"].map(|version| {
            // Letters, digits and a few signs: it can stand in a header.
            let text = HeaderValue::from_str(&format!("{version} {name}"));
            text.unwrap_or(HeaderValue::from_static("1.1 gatepost"))
        });
        Self { name, said }
    }

    /// Whether a message has been here before.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        let lines = headers.get_all(VIA).iter().filter_map(|line| line.to_str().ok());
        let mut hops = lines.flat_map(|line| line.split(','));
        hops.any(|hop| hop.split_whitespace().nth(1).is_some_and(|by| by == self.name))
    }

    /// Says that a message, which came in that version, has been here.
    pub(super) fn add(&self, headers: &mut HeaderMap, version: Version) {
        let [old, usual, new] = &self.said;
        let said = match version {
            Version::HTTP_10 => old,
            Version::HTTP_2 => new,
            _ => usual,
        };
        headers.append(VIA, said.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::entropy::SeededEntropy;

    fn via(seed: u64) -> Via {
        let entropy: SharedEntropy = Arc::new(SeededEntropy::new(seed));
        Via::new(&entropy)
    }

    #[test]
    fn a_message_is_known_again_and_others_are_not() {
        let (here, other) = (via(1), via(2));
        let mut headers = HeaderMap::new();
        assert!(!here.is_in(&headers));
        headers.append(VIA, HeaderValue::from_static("1.0 fred, 1.1 p.example (gatepost-x)"));
        other.add(&mut headers, Version::HTTP_2);
        assert!(!here.is_in(&headers));
        assert!(other.is_in(&headers));
        here.add(&mut headers, Version::HTTP_11);
        assert!(here.is_in(&headers) && other.is_in(&headers));
        let lines: Vec<_> = headers.get_all(VIA).iter().collect();
        assert_eq!(lines.len(), 3, "appended, in order");
        assert!(lines[2].to_str().expect("text").starts_with("1.1 gatepost-"));
    }
}
