//! What the configuration declares, as the cache takes it, and the development key.

use serde_json::Value;
use uuid::Uuid;

use super::{Config, DeclaredKey};
use crate::cache::Declared;
use crate::model::api_key::{ApiKey, SEED_BYTES};
use crate::model::{Client, Digest, Key, Name, Policy, Timestamp};

/// What stands in for the unknown readable start of a declared key.
pub const DECLARED_PREFIX: &str = "declared";

/// Fixed, and no secret: the key that it makes is in everybody's copy of the shipped configuration.
const DEVELOPMENT_SEED: [u8; SEED_BYTES] = {
    let mut seed = [0; SEED_BYTES];
    let mut at = 0;
    while at < SEED_BYTES {
        seed[at] = (at as u8).wrapping_mul(37).wrapping_add(11) % 248;
        at += 1;
    }
    seed
};

/// The key whose digest `config/gatepost.toml` declares for the client `demo`; the first start
/// prints it. Anybody can compute it: it is for development only.
pub fn development_key() -> ApiKey {
    ApiKey::make("dev", &DEVELOPMENT_SEED).expect("every byte of the seed is below 248")
}

/// A declared key's id: a uuid v8 (RFC 9562 §5.8) made of its digest, the same at every start.
pub fn declared_key_id(digest: &Digest) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.0[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

impl Config {
    /// `[[clients]]`, `[[keys]]` and `[[policies]]` of the gateway `node`; `load` has checked them.
    pub fn declared(&self, node: &Name) -> Declared {
        let clients = self.clients.iter().map(|client| Client {
            name: client.name.as_str().into(),
            policy: client.policy.as_deref().map(Name::from),
            enabled: true,
        });
        let modes = self.clients.iter().filter_map(|client| {
            let mode = client.mode?;
            Some((client.name.as_str().into(), mode))
        });
        let policies = self.policies.iter().map(|policy| Policy {
            name: policy.name.as_str().into(),
            spec: Value::Object(policy.spec.clone()).to_string(),
        });
        Declared {
            node: node.clone(),
            clients: clients.collect(),
            modes: modes.collect(),
            keys: self.keys.iter().filter_map(key).collect(),
            policies: policies.collect(),
        }
    }

    /// Whether the shipped development key is accepted.
    pub fn declares_development_key(&self) -> bool {
        let digest = development_key().digest();
        self.keys.iter().any(|key| Digest::from_hex(&key.digest) == Some(digest))
    }
}

fn key(declared: &DeclaredKey) -> Option<Key> {
    let digest = Digest::from_hex(&declared.digest)?;
    let hex = digest.to_string();
    Some(Key {
        id: declared_key_id(&digest),
        digest,
        prefix: DECLARED_PREFIX.into(),
        // The key's own last characters cannot be known; these tell declared keys apart.
        last4: hex[hex.len() - 4..].into(),
        client: declared.client.as_str().into(),
        policy: declared.policy.as_deref().map(Name::from),
        scopes: declared.scopes.iter().map(|scope| Name::from(scope.as_str())).collect(),
        enabled: true,
        expires_at: declared.expires_at.map(Timestamp::from),
        created_at: Timestamp::EPOCH,
    })
}
