//! Upstreams: named groups of targets, taken in turn.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::Uri;
use serde::{Deserialize, Serialize};

use crate::model::{Name, is_name};

/// `[[upstreams]]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamConfig {
    /// What routes call it.
    pub name: String,
    /// Where it listens: `http://host:port`, taken in turn.
    pub targets: Vec<String>,
}

/// Why an upstream cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// The name is empty, too long or unprintable.
    #[error("an upstream needs a name of 1 to 128 printable characters, not `{0}`")]
    Name(String),
    /// Nothing to forward to.
    #[error("upstream `{0}` has no targets; give it at least one, like \"http://127.0.0.1:9000\"")]
    NoTargets(String),
    /// A target that is not a plain origin.
    #[error(
        "upstream `{upstream}`: `{target}` is not a target; write it like \
         \"http://127.0.0.1:9000\" (https and paths are not supported)"
    )]
    Target {
        /// The upstream.
        upstream: String,
        /// What was given.
        target: String,
    },
}

/// A group of targets that serve the same.
#[derive(Debug)]
pub struct Upstream {
    name: Name,
    config: Option<UpstreamConfig>,
    /// Empty for the built-in echo.
    targets: Vec<Uri>,
    next: AtomicUsize,
}

impl Upstream {
    /// The name of the built-in upstream that answers with what it got.
    pub const ECHO: &'static str = "echo";

    /// Checks and takes over a configured upstream.
    pub fn new(config: &UpstreamConfig) -> Result<Self, UpstreamError> {
        if !is_name(&config.name) {
            return Err(UpstreamError::Name(config.name.clone()));
        }
        if config.targets.is_empty() {
            return Err(UpstreamError::NoTargets(config.name.clone()));
        }
        let targets = config.targets.iter().map(|target| {
            origin(target).ok_or_else(|| UpstreamError::Target {
                upstream: config.name.clone(),
                target: without_password(target),
            })
        });
        let targets = targets.collect::<Result<Vec<_>, _>>()?;
        let (name, config) = (config.name.as_str().into(), Some(config.clone()));
        Ok(Self { name, config, targets, next: AtomicUsize::new(0) })
    }

    /// The built-in upstream.
    pub fn echo() -> Self {
        let targets = Vec::new();
        Self { name: Self::ECHO.into(), config: None, targets, next: AtomicUsize::new(0) }
    }

    /// What routes call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it was made of the same configuration.
    pub fn is_configured_as(&self, config: &UpstreamConfig) -> bool {
        self.config.as_ref() == Some(config)
    }

    /// The target whose turn it is; `None` for the built-in echo.
    pub(super) fn pick(&self) -> Option<&Uri> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.targets.get(turn.checked_rem(self.targets.len())?)
    }
}

fn origin(text: &str) -> Option<Uri> {
    let uri: Uri = text.parse().ok()?;
    let plain = uri.scheme_str() == Some("http")
        && uri.host().is_some_and(|host| !host.is_empty())
        && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
        && uri.path() == "/"
        && uri.query().is_none();
    plain.then_some(uri)
}

/// A target that was refused for its credentials must not show them in the log.
fn without_password(target: &str) -> String {
    let Some((before, host)) = target.rsplit_once('@') else { return target.to_owned() };
    let start = before.find("://").map_or(0, |at| at + 3);
    let (scheme, userinfo) = before.split_at(start);
    let user = userinfo.split(':').next().unwrap_or_default();
    format!("{scheme}{user}:***@{host}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(targets: &[&str]) -> Result<Upstream, UpstreamError> {
        let targets = targets.iter().map(|target| (*target).to_owned()).collect();
        Upstream::new(&UpstreamConfig { name: "orders".into(), targets })
    }

    #[test]
    fn targets_are_taken_in_turn() {
        let upstream = upstream(&["http://a:1", "http://b:2/"]).expect("valid");
        let hosts: Vec<_> = (0..4).filter_map(|_| upstream.pick()?.host()).collect();
        assert_eq!(hosts, ["a", "b", "a", "b"]);
        assert_eq!(Upstream::echo().pick(), None);
    }

    #[test]
    fn only_plain_http_origins_are_targets() {
        for bad in ["https://a", "http://a/base", "http://a?x", "a:1", "/x", "http://u:p@a", ""] {
            assert!(matches!(upstream(&[bad]), Err(UpstreamError::Target { .. })), "{bad}");
        }
        assert_eq!(upstream(&[]).err(), Some(UpstreamError::NoTargets("orders".into())));
    }
}
