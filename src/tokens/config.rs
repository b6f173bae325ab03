//! `[tokens]`

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::keyset::{KeySet, KeySetError};
use crate::model::SessionRules;
use crate::model::units::Span;

/// The longest issuer, and the longest audience, in bytes: they stand in every access token.
const ISSUER_MAX: usize = 256;

/// `[tokens]`: sessions and the tokens made of them.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The name of this deployment, and the URL under which clients find it. Tokens of another one
    /// are not accepted.
    pub issuer: String,
    /// Whom access tokens are for; the issuer when not set.
    pub audience: Option<String>,
    /// How long after an advance the refresh token before it is answered with the same successor.
    pub grace: Span,
    /// How long an access token lives.
    pub access_ttl: Span,
    /// How long a session lives when nobody says.
    pub session_ttl: Span,
    /// The longest life that a session can be given.
    pub session_ttl_max: Span,
    /// A session that was not refreshed for so long is over.
    pub session_idle: Span,
    /// How long a session that has expired is kept in Postgres and on disk.
    pub sessions_kept: Span,
    /// By how much the clocks of gateways with the same keys may differ.
    pub clock_skew: Span,
    /// The key set's document, from `GATEPOST_TOKEN_KEYS` or `GATEPOST_TOKEN_KEYS_FILE` only; made
    /// in the data directory when not set.
    #[serde(skip)]
    pub keys: Option<SecretString>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            issuer: "http://127.0.0.1:8080".into(),
            audience: None,
            grace: Span::secs(30),
            access_ttl: Span::secs(5 * 60),
            session_ttl: Span::secs(30 * 24 * 3600),
            session_ttl_max: Span::secs(365 * 24 * 3600),
            session_idle: Span::secs(14 * 24 * 3600),
            sessions_kept: Span::secs(7 * 24 * 3600),
            clock_skew: Span::secs(5),
            keys: None,
        }
    }
}

/// Why `[tokens]` cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Clients could not find the metadata below it (RFC 8414 §2).
    #[error(
        "`tokens.issuer` is `{0}`; it must be an http or https URL without query, fragment or a \
         slash at its end, of at most 256 bytes"
    )]
    Issuer(String),
    /// It could not be told from none, or tokens would become longer than they may be.
    #[error(
        "`tokens.audience` must have 1 to {ISSUER_MAX} bytes and no control characters; leave it \
         out to use the issuer"
    )]
    Audience,
    /// What the environment gives is no key set.
    #[error("{0}; GATEPOST_TOKEN_KEYS takes what `gatepost token keys generate` prints")]
    Keys(KeySetError),
    /// A span outside of what makes sense.
    #[error("`tokens.{key}` is {span}; it must lie between {min} and {max}")]
    Span {
        /// The key.
        key: &'static str,
        /// What it is.
        span: Span,
        /// The least.
        min: Span,
        /// The most.
        max: Span,
    },
}

/// The longest life of an access token: until then a signing key that was rotated out is needed.
pub(super) const ACCESS_TTL_MAX: Duration = Duration::from_secs(3600);

impl Config {
    /// Checks what types alone do not.
    pub fn check(&self) -> Result<(), ConfigError> {
        const HOUR: u64 = 3600;
        const YEARS: u64 = 10 * 366 * 24 * HOUR;
        let rest = self.issuer.strip_prefix("https://").or(self.issuer.strip_prefix("http://"));
        let host = rest.is_some_and(|rest| {
            let strange = |c: char| c.is_whitespace() || c.is_control() || "?#\"\\<>".contains(c);
            !rest.is_empty() && !rest.ends_with('/') && !rest.contains(strange)
        });
        if !host || self.issuer.len() > ISSUER_MAX {
            return Err(ConfigError::Issuer(self.issuer.clone()));
        }
        let audience = self.audience();
        if !(1..=ISSUER_MAX).contains(&audience.len()) || audience.contains(char::is_control) {
            return Err(ConfigError::Audience);
        }
        if let Some(document) = &self.keys {
            KeySet::parse(document.expose_secret()).map_err(ConfigError::Keys)?;
        }
        let within = |key, span: Span, min: Span, max: Span| {
            let fits = (min..=max).contains(&span);
            if fits { Ok(()) } else { Err(ConfigError::Span { key, span, min, max }) }
        };
        let (second, years) = (Span::secs(1), Span::secs(YEARS));
        within("grace", self.grace, Span::secs(0), Span::secs(600))?;
        within("access_ttl", self.access_ttl, Span::secs(10), Span(ACCESS_TTL_MAX))?;
        within("session_ttl_max", self.session_ttl_max, second, years)?;
        within("session_ttl", self.session_ttl, second, self.session_ttl_max)?;
        within("session_idle", self.session_idle, second, years)?;
        within("clock_skew", self.clock_skew, Span::secs(0), Span::secs(300))
    }

    /// What sessions are judged by.
    pub fn session_rules(&self) -> SessionRules {
        SessionRules { idle: self.session_idle, skew: self.clock_skew }
    }

    /// Whom access tokens are for.
    pub fn audience(&self) -> &str {
        self.audience.as_deref().unwrap_or(&self.issuer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_hold_and_what_cannot_work_is_refused() {
        assert_eq!(Config::default().check(), Ok(()));
        for issuer in ["", "gate", "https://", "https://a/", "http://a?b", "ftp://a", "http://a b"]
        {
            let config = Config { issuer: issuer.into(), ..Config::default() };
            assert_eq!(config.check(), Err(ConfigError::Issuer(issuer.into())));
        }
        for audience in ["", "a\nb", &"a".repeat(ISSUER_MAX + 1)] {
            let config = Config { audience: Some(audience.into()), ..Config::default() };
            assert_eq!(config.check(), Err(ConfigError::Audience), "{audience}");
        }
        let long = Config { access_ttl: Span::secs(7200), ..Config::default() };
        assert!(matches!(long.check(), Err(ConfigError::Span { key: "access_ttl", .. })));
        let longer = Config { session_ttl: Span::secs(400 * 24 * 3600), ..Config::default() };
        assert!(matches!(longer.check(), Err(ConfigError::Span { key: "session_ttl", .. })));
        assert!(serde_json::from_str::<Config>(r#"{"keys":"x"}"#).is_err());
    }
}
