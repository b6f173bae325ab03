//! The key set as it is kept: one JSON document with the server secrets that prove refresh tokens
//! and the keys that sign access tokens.
//!
//! ```json
//! {"version": 1,
//!  "secrets":      [{"id": "…", "created_at": "2026-01-01T00:00:00Z", "secret": "…"}],
//!  "signing_keys": [{"id": "…", "created_at": "2026-01-01T00:00:00Z", "seed": "…"}]}
//! ```
//!
//! `secret` and `seed` are 32 bytes in base64url. The newest whose time has come is in use; older
//! ones prove and verify what was made with them.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::config::ACCESS_TTL_MAX;
use crate::entropy::SharedEntropy;
use crate::model::Timestamp;

const VERSION: u32 = 1;
/// Secrets, and signing keys, in one set.
const EACH_MAX: usize = 16;
const ID_MAX: usize = 16;

/// Why a document is no key set. Never says what stands in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Not the document at the head of this file.
    #[error("the token keys are no key set: line {line}, column {column}")]
    Json {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// Written by a later version.
    #[error("the token keys are of version {0}, and this program knows {VERSION}")]
    Version(u32),
    /// None, or more than can be needed.
    #[error("the token keys must hold 1 to {EACH_MAX} secrets and 1 to {EACH_MAX} signing keys")]
    Count,
    /// An id that is taken, or cannot stand in a token.
    #[error("a token key's id is taken, empty, longer than {ID_MAX} or not of letters and digits")]
    Id,
    /// Not 32 bytes in base64url.
    #[error("the token key `{0}` is not 32 bytes in base64url without padding")]
    Bytes(String),
}

/// Why a set is not rotated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there are {EACH_MAX} secrets or signing keys already, and tokens that were made with the \
     oldest are still good until {until}; rotate after that"
)]
pub struct KeySetFull {
    /// When the oldest is needed no longer.
    pub until: Timestamp,
}

/// 32 bytes that nobody else may know.
pub(super) type Bytes = Zeroizing<[u8; 32]>;

/// One secret or signing key.
#[derive(Clone)]
pub(super) struct Item {
    pub id: String,
    pub created_at: Timestamp,
    pub bytes: Bytes,
}

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Item").field(&self.id).finish()
    }
}

/// Secrets and signing keys, oldest first.
#[derive(Clone, Debug)]
pub struct KeySet {
    pub(super) secrets: Vec<Item>,
    pub(super) signing: Vec<Item>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    secrets: Vec<Secret>,
    signing_keys: Vec<Seed>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Secret {
    id: String,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    secret: Zeroizing<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Seed {
    id: String,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    seed: Zeroizing<String>,
}

impl KeySet {
    /// A new set of one each.
    pub fn generate(entropy: &SharedEntropy, now: Timestamp) -> Self {
        Self { secrets: vec![draw(entropy, now)], signing: vec![draw(entropy, now)] }
    }

    /// Reads a document.
    ///
    /// # Errors
    /// See [`KeySetError`].
    pub fn parse(text: &str) -> Result<Self, KeySetError> {
        let read = serde_json::from_str(text);
        let Document { version, secrets, signing_keys } =
            read.map_err(|error| KeySetError::Json { line: error.line(), column: error.column() })?;
        if version != VERSION {
            return Err(KeySetError::Version(version));
        }
        let secrets = secrets.into_iter().map(|s| (s.id, s.created_at, s.secret));
        let seeds = signing_keys.into_iter().map(|s| (s.id, s.created_at, s.seed));
        Ok(Self { secrets: items(secrets)?, signing: items(seeds)? })
    }

    /// The document.
    pub fn to_json(&self) -> SecretString {
        let at = |at: Timestamp| at.to_datetime().unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let text = |bytes: &Bytes| Zeroizing::new(URL_SAFE_NO_PAD.encode(&bytes[..]));
        let secret = |item: &Item| Secret {
            id: item.id.clone(),
            created_at: at(item.created_at),
            secret: text(&item.bytes),
        };
        let seed = |item: &Item| Seed {
            id: item.id.clone(),
            created_at: at(item.created_at),
            seed: text(&item.bytes),
        };
        let document = Document {
            version: VERSION,
            secrets: self.secrets.iter().map(secret).collect(),
            signing_keys: self.signing.iter().map(seed).collect(),
        };
        // Plain fields: there is nothing that could fail.
        serde_json::to_string_pretty(&document).unwrap_or_default().into()
    }

    /// The set with a new secret and a new signing key, and without those that nothing lives of any
    /// more: a secret `sessions_live` after its successor came, a signing key after the longest
    /// life of an access token.
    ///
    /// # Errors
    /// When the set is full of keys that are still needed.
    pub fn rotate(
        &self,
        entropy: &SharedEntropy,
        now: Timestamp,
        sessions_live: Duration,
    ) -> Result<Self, KeySetFull> {
        Ok(Self {
            secrets: succeed(&self.secrets, entropy, now, sessions_live)?,
            signing: succeed(&self.signing, entropy, now, 2 * ACCESS_TTL_MAX)?,
        })
    }
}

fn draw(entropy: &SharedEntropy, now: Timestamp) -> Item {
    let (mut id, mut bytes) = ([0; 6], Bytes::default());
    entropy.fill(&mut id);
    entropy.fill(&mut bytes[..]);
    let id = id.iter().map(|byte| format!("{byte:02x}")).collect();
    // To the microsecond: what was made within the same second, but before, was made without it.
    Item { id, created_at: now, bytes }
}

/// `items` with a successor, and without those whose own came longer than `needed` ago.
fn succeed(
    items: &[Item],
    entropy: &SharedEntropy,
    now: Timestamp,
    needed: Duration,
) -> Result<Vec<Item>, KeySetFull> {
    let mut all = items.to_vec();
    all.push(draw(entropy, now));
    // One that was announced for later stays behind it.
    all.sort_by_key(|item| item.created_at);
    let until: Vec<_> = all.iter().skip(1).map(|next| next.created_at.plus(needed)).collect();
    let ended = until.iter().take_while(|until| **until <= now).count();
    let kept = all.split_off(ended);
    if kept.len() > EACH_MAX { Err(KeySetFull { until: until[ended] }) } else { Ok(kept) }
}

fn items(
    parts: impl ExactSizeIterator<Item = (String, OffsetDateTime, Zeroizing<String>)>,
) -> Result<Vec<Item>, KeySetError> {
    if !(1..=EACH_MAX).contains(&parts.len()) {
        return Err(KeySetError::Count);
    }
    let mut items = Vec::with_capacity(parts.len());
    for (id, created_at, text) in parts {
        let word = !id.is_empty()
            && id.len() <= ID_MAX
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !word || items.iter().any(|item: &Item| item.id == id) {
            return Err(KeySetError::Id);
        }
        let mut bytes = Bytes::default();
        let read = URL_SAFE_NO_PAD.decode_slice(text.as_bytes(), &mut bytes[..]);
        if read != Ok(bytes.len()) {
            return Err(KeySetError::Bytes(id));
        }
        items.push(Item { id, created_at: created_at.into(), bytes });
    }
    items.sort_by_key(|item| item.created_at);
    Ok(items)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use secrecy::ExposeSecret;

    use super::*;
    use crate::entropy::SeededEntropy;

    #[test]
    fn any_bytes_are_a_key_set_that_is_written_as_it_was_read_or_none() {
        let entropy: SharedEntropy = Arc::new(SeededEntropy::new(1));
        let made = KeySet::generate(&entropy, Timestamp(1_700_000_000_000_000));
        let more = made.rotate(&entropy, Timestamp(1_700_000_001_000_000), Duration::from_secs(9));
        let good =
            [made, more.expect("few")].map(|set| set.to_json().expose_secret().as_bytes().to_vec());
        crate::fuzz::each("key set", &good, |bytes| {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            let Ok(set) = KeySet::parse(text) else { return };
            for items in [&set.secrets, &set.signing] {
                assert!((1..=EACH_MAX).contains(&items.len()));
            }
            let written = set.to_json();
            let again = KeySet::parse(written.expose_secret()).expect("it was written just now");
            assert_eq!(again.to_json().expose_secret(), written.expose_secret());
        });
    }
}
