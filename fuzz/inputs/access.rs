//! What is done with an input of the reader of access tokens: a header and claims, a line each.
//!
//! The fuzz target and the ordinary tests share this. The signature would stop nearly every input
//! at the door, so it is made right: what is tried is what comes behind it. Whatever a token says,
//! it is refused, or keeps to what is promised of those that are accepted.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gatepost::entropy::{SeededEntropy, SharedEntropy};
use gatepost::model::{Timestamp, are_scopes, is_name};
use gatepost::tokens::{ACCESS_MAX, Access, Config, Keys};
use serde_json::Value;

/// The moment at which tokens are read, in seconds, and by how much they may miss it.
const NOW: i64 = 1_700_000_000;
const SKEW: i64 = 5;

const ISSUER: &str = "http://127.0.0.1:8080";

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let document = r#"{"version": 1,
        "secrets": [{"id": "s1", "created_at": "2026-01-01T00:00:00Z",
            "secret": "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc"}],
        "signing_keys": [{"id": "k1", "created_at": "2026-01-01T00:00:00Z",
            "seed": "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc"}]}"#;
    let config = Config { keys: Some(document.into()), ..Config::default() };
    assert_eq!(config.issuer, ISSUER);
    let entropy: SharedEntropy = Arc::new(SeededEntropy::new(1));
    Keys::open(Path::new(""), &config, &entropy, Timestamp::EPOCH).expect("a key set")
});

static FORGER: LazyLock<Ed25519KeyPair> =
    LazyLock::new(|| Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed"));

fn verified(text: &str) -> Option<Access> {
    let access = KEYS.verify(text, Timestamp(NOW * 1_000_000));
    assert!(access.is_none() || text.len() <= ACCESS_MAX);
    access
}

/// Reads `data` as an access token: as it is, and signed as what it says.
pub fn read(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        assert_eq!(verified(text), None, "nobody signed it");
    }
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return };
    let (header, claims) = (&data[..end], &data[end + 1..]);
    let [head, body] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
    let message = format!("{head}.{body}");
    let signature = URL_SAFE_NO_PAD.encode(FORGER.sign(message.as_bytes()));
    if let Some(access) = verified(&format!("{message}.{signature}")) {
        keeps_to_it(header, claims, &access);
    }
}

fn keeps_to_it(header: &[u8], claims: &[u8], access: &Access) {
    // What the reader passes over need not be text: half a character in a claim that nobody reads.
    let read = |part| serde_json::from_slice::<Value>(part).ok();
    let (Some(header), Some(claims)) = (read(header), read(claims)) else { return };
    assert_eq!((&header["alg"], &header["kid"]), (&"EdDSA".into(), &"k1".into()));
    let typ = header["typ"].as_str().expect("text").to_ascii_lowercase();
    assert!(["at+jwt", "application/at+jwt"].contains(&&*typ), "{typ}");
    for name in ["jwk", "jku", "x5u", "x5c", "crit", "enc", "zip"] {
        assert!(header[name].is_null(), "{name}");
    }
    assert_eq!(claims["iss"], ISSUER);
    let audience = claims["aud"].as_array().cloned().unwrap_or(vec![claims["aud"].clone()]);
    assert!(audience.contains(&ISSUER.into()), "{audience:?}");
    let number = |name: &str| claims[name].as_i64().expect("a whole number");
    assert!(number("exp") > NOW - SKEW && number("exp") == access.expires_at);
    assert!(number("iat") <= NOW + SKEW && number("iat") == access.issued_at);
    assert!(number("nbf") <= NOW + SKEW && number("exp") - number("iat") <= 3600);
    assert!(claims["sid"].is_null() != claims["key_id"].is_null());
    assert!(is_name(&access.subject) && is_name(&access.client) && are_scopes(&access.scopes));
}
