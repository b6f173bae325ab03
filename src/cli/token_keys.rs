//! `token keys generate`: a key set's document for the configuration, made without a gateway.

use std::path::Path;
use std::sync::Arc;

use secrecy::ExposeSecret;

use super::failure::Failure;
use super::output::Output;
use crate::clock::{Clock, SystemClock};
use crate::config::Loaded;
use crate::entropy::{SharedEntropy, SystemEntropy};
use crate::tokens::KeySet;

/// Prints a new document, or that of `from` with a new secret and signing key. Only for the latter
/// the configuration is needed: it says how long old secrets are.
pub(super) fn generate(
    from: Option<&Path>,
    load: impl FnOnce() -> Result<Loaded, Failure>,
    output: &Output,
) -> Result<(), Failure> {
    let entropy: SharedEntropy = Arc::new(SystemEntropy::new());
    let now = SystemClock::new().now();
    let set = match from {
        None => KeySet::generate(&entropy, now),
        Some(path) => {
            let failed = |why: String| Failure::Failed(format!("{}: {why}", path.display()));
            let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
            let set = KeySet::parse(&text).map_err(|error| failed(error.to_string()))?;
            let live = load()?.config.tokens.session_ttl_max;
            let rotated = set.rotate(&entropy, now, live.0);
            rotated.map_err(|full| failed(full.to_string()))?
        }
    };
    output.text(&format!("{}\n", set.to_json().expose_secret()))
}
