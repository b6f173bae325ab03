//! Who is asking: from the headers of a request to the entry of an API key, or to the session that
//! an access token was made of.
//!
//! No I/O of its own: what a miss costs is the cache's affair. What cannot be a key by its shape
//! and check characters, and what was not signed here, is refused without a lookup, so junk never
//! reaches Postgres.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use uuid::Uuid;

use crate::cache::{Cache, Enforcement, Entry, HeldSession, Undecidable};
use crate::model::fact::RevocationKind;
use crate::model::{Name, Principal, SessionState, Standing, Timestamp, api_key};
use crate::tokens::{ACCESS_MAX, Bearer, Holder, Tokens};

/// The longest credential that is looked at, in bytes.
pub const CREDENTIAL_MAX: usize = ACCESS_MAX;

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const APIKEY: HeaderName = HeaderName::from_static("apikey");
const BEARER: &[u8] = b"bearer ";

/// When it is worth asking again for a session that is not in Postgres yet.
const NOT_HERE_YET: Duration = Duration::from_secs(1);

/// Why nobody was identified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthnError {
    /// No header carries a credential.
    #[error("the request carries no credential")]
    Missing,
    /// Two headers carry different credentials.
    #[error("the request carries two different credentials")]
    Ambiguous,
    /// Malformed, unknown or wrong: one answer for all, so that nothing can be learned from it.
    #[error("the credential is not valid")]
    Invalid,
    /// Nobody can say at the moment; never to be answered as if the key were wrong.
    #[error("the credential cannot be checked at the moment")]
    Undecidable {
        /// When it is worth asking again.
        retry_after: Duration,
    },
}

/// The credential that the headers present: `Authorization: Bearer`, `X-API-Key` or `apikey`.
///
/// An `Authorization` of another scheme is none of ours and is left alone. The same credential
/// given twice is fine; two different ones are not, because proxy and gateway might pick
/// differently.
pub fn presented(headers: &HeaderMap) -> Result<&str, AuthnError> {
    let mut found: Option<&[u8]> = None;
    // Once through them all: most requests have few, and three lookups would cost more.
    for (name, value) in headers {
        let presented = match name {
            name if *name == AUTHORIZATION => bearer(value),
            name if *name == X_API_KEY || *name == APIKEY => Some(value.as_bytes()),
            _ => None,
        };
        match (found, presented) {
            (Some(one), Some(another)) if one != another => return Err(AuthnError::Ambiguous),
            (None, Some(_)) => found = presented,
            _ => {}
        }
    }
    let found = found.ok_or(AuthnError::Missing)?;
    if found.is_empty() || found.len() > CREDENTIAL_MAX {
        return Err(AuthnError::Invalid);
    }
    std::str::from_utf8(found).map_err(|_| AuthnError::Invalid)
}

/// What a credential looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An API key.
    Key,
    /// Not that, so it can only be an access token.
    Token,
}

impl Kind {
    /// By shape alone; nothing is looked up.
    pub fn of(credential: &str) -> Self {
        if api_key::is_well_formed(credential) { Self::Key } else { Self::Token }
    }
}

/// Whether the one `Authorization: Bearer` is `secret`; compared in constant time.
pub fn carries(headers: &HeaderMap, secret: &SecretString) -> bool {
    let presented = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let Some((scheme, token)) = presented.and_then(|value| value.split_at_checked(BEARER.len()))
    else {
        return false;
    };
    scheme.eq_ignore_ascii_case(BEARER)
        && verify_slices_are_equal(token, secret.expose_secret().as_bytes()).is_ok()
}

/// Removes what [`presented`] reads, before a request goes on to an upstream.
pub fn strip(headers: &mut HeaderMap) {
    headers.remove(X_API_KEY);
    headers.remove(APIKEY);
    if headers.get_all(AUTHORIZATION).iter().any(|value| bearer(value).is_some()) {
        headers.remove(AUTHORIZATION);
    }
}

/// Who a credential turned out to be, with what decides about it.
#[derive(Clone, Debug)]
pub enum Caller {
    /// An API key.
    Key(Arc<Entry>),
    /// An access token of a session.
    Session(Arc<Bearer>, Arc<HeldSession>),
    /// An access token that was made of an API key, and until when its client was logged out.
    Exchanged(Arc<Bearer>, Arc<Entry>, Timestamp),
}

impl Caller {
    /// Who it is.
    pub fn principal(&self) -> &Principal {
        match self {
            Self::Key(entry) => entry.principal(),
            Self::Session(bearer, _) | Self::Exchanged(bearer, ..) => &bearer.principal,
        }
    }

    /// The scopes of the key or session that it is, or was made of.
    pub fn granted(&self) -> &[Name] {
        match self {
            Self::Key(entry) | Self::Exchanged(_, entry, _) => &entry.principal().scopes,
            Self::Session(_, held) => &held.session().scopes,
        }
    }

    /// What became of it by `now`, revocations included.
    pub fn standing(&self, tokens: &Tokens, now: Timestamp) -> Standing {
        let over = Standing::Session(SessionState::Revoked);
        match self {
            Self::Key(entry) => Standing::Key(entry.state(now)),
            // Its tokens are no older than it is: to log it out ends them.
            Self::Session(_, held) => {
                Standing::Session(held.state(tokens.config().session_rules(), now))
            }
            Self::Exchanged(bearer, _, not_before) if bearer.is_before(*not_before) => over,
            Self::Exchanged(_, entry, _) => Standing::Key(entry.state(now)),
        }
    }

    /// When what it presents will be over, as far as a key's own end is known.
    pub fn ends_at(&self) -> Option<Timestamp> {
        match self {
            Self::Key(entry) | Self::Exchanged(_, entry, _) => entry.ends_at(),
            Self::Session(..) => None,
        }
    }

    /// Whether its client is enabled.
    pub fn client_enabled(&self) -> bool {
        match self {
            Self::Key(entry) | Self::Exchanged(_, entry, _) => entry.client_enabled(),
            Self::Session(_, held) => held.client_enabled(),
        }
    }

    /// What its requests are held against.
    pub fn enforcement(&self) -> Enforcement {
        match self {
            Self::Key(entry) | Self::Exchanged(_, entry, _) => entry.enforcement(),
            Self::Session(_, held) => held.enforcement(),
        }
    }

    /// What it is counted by where each key has a limit of its own: the key, or the session.
    pub fn own_id(&self) -> Uuid {
        match self {
            Self::Key(entry) | Self::Exchanged(_, entry, _) => entry.key().id,
            Self::Session(_, held) => held.session().id,
        }
    }
}

/// Who presents a credential of this [`Kind`]. Answers at once when what decides is in memory;
/// otherwise waits for the cache, which bounds the wait itself.
pub async fn identify(
    cache: &Arc<Cache>,
    tokens: &Tokens,
    credential: &str,
    kind: Kind,
) -> Result<Caller, AuthnError> {
    if kind == Kind::Token {
        let bearer = tokens.verify(credential).ok_or(AuthnError::Invalid)?;
        // On the heap, so that what is rare does not make every request's future larger.
        return Box::pin(of_token(cache, bearer)).await;
    }
    let digest = api_key::digest(credential);
    if let Some(entry) = cache.hot(&digest) {
        return Ok(Caller::Key(entry));
    }
    let entry = cache.find(digest).await.map_err(undecidable)?;
    Ok(Caller::Key(entry.ok_or(AuthnError::Invalid)?))
}

fn undecidable(undecidable: Undecidable) -> AuthnError {
    AuthnError::Undecidable { retry_after: undecidable.retry_after }
}

async fn of_token(cache: &Arc<Cache>, bearer: Arc<Bearer>) -> Result<Caller, AuthnError> {
    match bearer.of {
        Holder::Session(id) => match cache.find_session(id).await.map_err(undecidable)? {
            Some(held) => Ok(Caller::Session(bearer, held)),
            // It was signed minutes ago: the gateway that made it will bring it.
            None if cache.has_source() => {
                Err(AuthnError::Undecidable { retry_after: NOT_HERE_YET })
            }
            None => Err(AuthnError::Invalid),
        },
        Holder::Key(id) => {
            let entry = cache.find_key(id).await.map_err(undecidable)?;
            let entry = entry.ok_or(AuthnError::Invalid)?;
            let not_before = cache.not_before(RevocationKind::Client, &bearer.principal.client);
            Ok(Caller::Exchanged(bearer, entry, not_before.map_err(undecidable)?))
        }
    }
}

fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let bytes = value.as_bytes();
    if bytes.eq_ignore_ascii_case(BEARER.trim_ascii_end()) {
        return Some(b"");
    }
    let (scheme, token) = bytes.split_at_checked(BEARER.len())?;
    scheme.eq_ignore_ascii_case(BEARER).then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a header value");
            headers.append(*name, value);
        }
        headers
    }

    #[test]
    fn each_header_can_carry_the_credential() {
        for pair in [
            ("authorization", "Bearer k1"),
            ("authorization", "bEARER   k1"),
            ("x-api-key", "k1"),
            ("apikey", "k1"),
        ] {
            assert_eq!(presented(&headers(&[pair])), Ok("k1"), "{pair:?}");
        }
    }

    #[test]
    fn the_same_credential_twice_is_fine_and_two_are_ambiguous() {
        let same = headers(&[("authorization", "Bearer k1"), ("x-api-key", "k1")]);
        assert_eq!(presented(&same), Ok("k1"));
        for pairs in [
            [("authorization", "Bearer k1"), ("apikey", "k2")],
            [("x-api-key", "k1"), ("x-api-key", "k2")],
            [("authorization", "Bearer k1"), ("authorization", "Bearer k2")],
            [("x-api-key", "k1"), ("apikey", "")],
        ] {
            assert_eq!(presented(&headers(&pairs)), Err(AuthnError::Ambiguous), "{pairs:?}");
        }
    }

    #[test]
    fn other_schemes_are_not_ours() {
        let basic = headers(&[("authorization", "Basic dTpw")]);
        assert_eq!(presented(&basic), Err(AuthnError::Missing));
        let both = headers(&[("authorization", "Basic dTpw"), ("apikey", "k1")]);
        assert_eq!(presented(&both), Ok("k1"));
        assert_eq!(presented(&HeaderMap::new()), Err(AuthnError::Missing));
    }

    #[test]
    fn empty_oversized_and_unreadable_credentials_are_invalid() {
        let long = "k".repeat(CREDENTIAL_MAX + 1);
        for value in ["", long.as_str()] {
            assert_eq!(presented(&headers(&[("x-api-key", value)])), Err(AuthnError::Invalid));
        }
        assert_eq!(presented(&headers(&[("authorization", "Bearer")])), Err(AuthnError::Invalid));
        let mut bytes = HeaderMap::new();
        bytes.insert("apikey", HeaderValue::from_bytes(b"gp_\xff").expect("opaque bytes"));
        assert_eq!(presented(&bytes), Err(AuthnError::Invalid));
    }

    #[test]
    fn strip_takes_our_credentials_and_leaves_other_schemes() {
        let mut ours =
            headers(&[("authorization", "Bearer k"), ("x-api-key", "k"), ("apikey", "k")]);
        strip(&mut ours);
        assert!(ours.is_empty());
        let mut basic = headers(&[("authorization", "Basic dTpw")]);
        strip(&mut basic);
        assert_eq!(basic.len(), 1);
    }
}
