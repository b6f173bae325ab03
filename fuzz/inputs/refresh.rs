//! What is done with an input of the reader of refresh tokens.
//!
//! The fuzz target and the ordinary tests share this. The MAC would stop nearly every input at the
//! door, so it is made right: what is tried is what comes behind it. Whatever an input says, it is
//! proven only if it is written as the gateway would have written it.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use gatepost::entropy::{SeededEntropy, SharedEntropy};
use gatepost::model::Timestamp;
use gatepost::tokens::{Config, Keys, REFRESH_MAX};
use secrecy::ExposeSecret;
use uuid::Uuid;

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let document = r#"{"version": 1,
        "secrets": [{"id": "s1", "created_at": "2026-01-01T00:00:00Z",
            "secret": "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc"}],
        "signing_keys": [{"id": "k1", "created_at": "2026-01-01T00:00:00Z",
            "seed": "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc"}]}"#;
    let config = Config { keys: Some(document.into()), ..Config::default() };
    let entropy: SharedEntropy = Arc::new(SeededEntropy::new(1));
    Keys::open(Path::new(""), &config, &entropy, Timestamp::EPOCH).expect("a key set")
});

fn minted(session: Uuid, generation: u64) -> String {
    KEYS.mint(session, generation, Timestamp::EPOCH).expose_secret().to_owned()
}

/// Reads `data` as a refresh token: as it is, and with the MAC that belongs to what it says.
pub fn read(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(proven) = KEYS.prove(text) {
        assert_eq!(minted(proven.session, proven.generation), text);
    }
    // Read generously: upper case, leading zeros and signs say something here.
    let Some((said, _)) = text.rsplit_once('_') else { return };
    let mut parts = said.split('_').skip(2);
    let session = parts.next().and_then(|session| Uuid::try_parse(session).ok());
    let generation = parts.next().and_then(|generation| generation.parse::<u64>().ok());
    let Some((session, generation)) = session.zip(generation) else { return };
    let canonical = minted(session, generation);
    let mac = canonical.rsplit_once('_').map_or("", |(_, mac)| mac);
    let text = format!("{said}_{mac}");
    // Postgres keeps generations in a bigint.
    let ours = text == canonical && i64::try_from(generation).is_ok();
    let proven = KEYS.prove(&text).map(|proven| (proven.session, proven.generation));
    assert_eq!(proven, ours.then_some((session, generation)), "{text}");
    assert!(proven.is_none() || text.len() <= REFRESH_MAX);
}
