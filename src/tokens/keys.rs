//! The keys at work: prepared once, swapped when they are rotated, and read without a lock.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::access::{self, Access, Grant, Realm};
use super::keyset::{Item, KeySet, KeySetError, KeySetFull};
use super::{Config, refresh};
use crate::disk;
use crate::entropy::SharedEntropy;
use crate::model::Timestamp;

/// The key set's file in the data directory, made by the first start, mode 0600.
const FILE: &str = "token-keys";

/// Why the token keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// What is configured, or stands in the file, is no key set.
    #[error("{0}; restore it from your backup: with other keys, all sessions are over")]
    Set(KeySetError),
    /// Another key would push out one that tokens live of.
    #[error(transparent)]
    Full(#[from] KeySetFull),
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could read it.
    #[error("{} can be read by others: `chmod 600` it", .0.display())]
    Open(PathBuf),
    /// The library refuses a key.
    #[error("the signing key `{0}` cannot sign")]
    Unusable(String),
    /// They are somebody else's to change.
    #[error(
        "the token keys come from the configuration: make the next document with `gatepost token \
         keys generate --from FILE`, hand it to every gateway, and restart them"
    )]
    Configured,
}

/// What is told of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyInfo {
    /// Stands in refresh tokens, or as `kid` in access tokens.
    pub id: String,
    /// `secret` or `signing`.
    pub kind: &'static str,
    /// `active`, `old` (proves what was made with it), or `next` (its time has not come).
    pub state: &'static str,
    /// From when on it is used.
    pub created_at: Timestamp,
}

struct Secret {
    id: String,
    from: Timestamp,
    key: hmac::Key,
}

struct SigningKey {
    id: String,
    from: Timestamp,
    sign: Ed25519KeyPair,
    /// What its tokens begin with.
    header: String,
    verify: DecodingKey,
    /// The public half, in base64url.
    public: String,
}

/// A key set, prepared.
struct Ring {
    set: KeySet,
    secrets: Vec<Secret>,
    signing: Vec<SigningKey>,
    jwks: Value,
}

/// Server secrets and signing keys.
pub struct Keys {
    ring: ArcSwap<Ring>,
    /// Where they are kept; none: they come from the configuration.
    file: Option<PathBuf>,
    config: Config,
}

/// What a refresh token turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proven {
    /// The session.
    pub session: Uuid,
    /// The generation.
    pub generation: u64,
}

/// The newest whose time has come by `at`; the oldest if none has.
fn in_use<T>(items: &[T], from: impl Fn(&T) -> Timestamp, at: Timestamp) -> &T {
    items.iter().rev().find(|item| from(item) <= at).unwrap_or(&items[0])
}

impl Ring {
    fn new(set: KeySet) -> Result<Self, KeysError> {
        let secrets = set.secrets.iter().map(|Item { id, created_at, bytes }| Secret {
            id: id.clone(),
            from: *created_at,
            key: hmac::Key::new(hmac::HMAC_SHA256, &bytes[..]),
        });
        let secrets = secrets.collect();
        let signing = set.signing.iter().map(signing_key).collect::<Result<Vec<_>, _>>()?;
        let jwk = |key: &SigningKey| {
            json!({
                "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig",
                "kid": key.id, "x": key.public,
            })
        };
        let jwks = json!({ "keys": signing.iter().map(jwk).collect::<Vec<_>>() });
        Ok(Self { set, secrets, signing, jwks })
    }
}

fn signing_key(Item { id, created_at, bytes }: &Item) -> Result<SigningKey, KeysError> {
    let pair = Ed25519KeyPair::from_seed_unchecked(&bytes[..]);
    let pair = pair.map_err(|_| KeysError::Unusable(id.clone()))?;
    let public = pair.public_key().as_ref();
    Ok(SigningKey {
        id: id.clone(),
        from: *created_at,
        header: access::header(id),
        verify: DecodingKey::from_ed_der(public),
        public: URL_SAFE_NO_PAD.encode(public),
        sign: pair,
    })
}

impl Keys {
    /// The configured keys, or those in the data directory `data`, where they are made when there
    /// are none yet. Blocks.
    ///
    /// # Errors
    /// See [`KeysError`].
    pub fn open(
        data: &Path,
        config: &Config,
        entropy: &SharedEntropy,
        now: Timestamp,
    ) -> Result<Self, KeysError> {
        if let Some(keys) = Self::find(data, config)? {
            return Ok(keys);
        }
        let (set, file) = (KeySet::generate(entropy, now), data.join(FILE));
        write(&file, &set)?;
        Self::new(set, Some(file), config)
    }

    /// The configured keys, or those in the data directory; none before its first start. Blocks.
    ///
    /// # Errors
    /// See [`KeysError`].
    pub fn find(data: &Path, config: &Config) -> Result<Option<Self>, KeysError> {
        let (set, file) = match &config.keys {
            Some(document) => (parsed(document.expose_secret())?, None),
            None => {
                let file = data.join(FILE);
                let Some(set) = read(&file)? else { return Ok(None) };
                (set, Some(file))
            }
        };
        Self::new(set, file, config).map(Some)
    }

    fn new(set: KeySet, file: Option<PathBuf>, config: &Config) -> Result<Self, KeysError> {
        let ring = ArcSwap::from_pointee(Ring::new(set)?);
        Ok(Self { ring, file, config: config.clone() })
    }

    /// Where they are kept; none: they come from the configuration.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Adds a new secret and a new signing key, in use from now on. Blocks.
    ///
    /// # Errors
    /// When they come from the configuration, cannot be written, or the set is full of keys that
    /// are still needed; then nothing has changed.
    pub fn rotate(&self, entropy: &SharedEntropy, now: Timestamp) -> Result<(), KeysError> {
        let file = self.file.as_ref().ok_or(KeysError::Configured)?;
        let set = self.ring.load().set.rotate(entropy, now, self.config.session_ttl_max.0)?;
        let ring = Ring::new(set)?;
        write(file, &ring.set)?;
        self.ring.store(Arc::new(ring));
        Ok(())
    }

    /// What is told of the keys at `now`, newest first.
    pub fn list(&self, now: Timestamp) -> Vec<KeyInfo> {
        let ring = self.ring.load();
        let tell = |kind, items: &[Item]| {
            let active = in_use(items, |item| item.created_at, now).id.clone();
            let tell = move |item: &Item| KeyInfo {
                id: item.id.clone(),
                kind,
                state: match item.id == active {
                    true => "active",
                    false if item.created_at > now => "next",
                    false => "old",
                },
                created_at: item.created_at,
            };
            items.iter().rev().map(tell).collect::<Vec<_>>()
        };
        let mut all = tell("secret", &ring.set.secrets);
        all.extend(tell("signing", &ring.set.signing));
        all
    }

    /// The public halves (RFC 7517, RFC 8037).
    pub fn jwks(&self) -> Value {
        self.ring.load().jwks.clone()
    }

    /// A refresh token, with the secret that was in use at `at`: the moment of the session's
    /// advance, so that the same successor is made again after a rotation.
    pub fn mint(&self, session: Uuid, generation: u64, at: Timestamp) -> SecretString {
        let ring = self.ring.load();
        let secret = in_use(&ring.secrets, |secret| secret.from, at);
        let with = (secret.id.as_str(), &secret.key);
        refresh::mint(with, &self.config.issuer, session, generation).into()
    }

    /// What a refresh token proves; the same `None` whatever is wrong with it.
    pub fn prove(&self, text: &str) -> Option<Proven> {
        let claimed = refresh::parse(text)?;
        let ring = self.ring.load();
        let secret = ring.secrets.iter().find(|secret| secret.id == claimed.secret)?;
        let proven = refresh::is_proven(&claimed, &secret.key, &self.config.issuer);
        proven.then_some(Proven { session: claimed.session, generation: claimed.generation })
    }

    fn realm(&self) -> Realm<'_> {
        let Config { issuer, clock_skew, .. } = &self.config;
        Realm { issuer, audience: self.config.audience(), skew: clock_skew.0 }
    }

    /// An access token with the id `id`, good for `ttl` from `now` on, in whole seconds.
    pub fn sign(&self, grant: &Grant, id: Uuid, now: Timestamp, ttl: Duration) -> SecretString {
        let ring = self.ring.load();
        let key = in_use(&ring.signing, |key| key.from, now);
        let with = (key.header.as_str(), &key.sign);
        access::sign(with, self.realm(), grant, id, now, ttl).into()
    }

    /// What an access token of ours says; the same `None` whatever is wrong with it.
    pub fn verify(&self, text: &str, now: Timestamp) -> Option<Access> {
        let ring = self.ring.load();
        let key = |kid: &str| ring.signing.iter().find(|key| key.id == kid).map(|key| &key.verify);
        access::verify(text, self.realm(), key, now)
    }
}

fn read(path: &Path) -> Result<Option<KeySet>, KeysError> {
    let failed = |source| KeysError::File { path: path.to_owned(), source };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => zeroize::Zeroizing::new(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(KeysError::Open(path.to_owned()));
    }
    parsed(&text).map(Some)
}

fn parsed(text: &str) -> Result<KeySet, KeysError> {
    KeySet::parse(text).map_err(KeysError::Set)
}

/// What is written whole is written to a temporary file first, which is 0600 from its first moment.
fn write(path: &Path, set: &KeySet) -> Result<(), KeysError> {
    let written = disk::write_whole(path, set.to_json().expose_secret().as_bytes());
    written.map_err(|source| KeysError::File { path: path.to_owned(), source })
}
