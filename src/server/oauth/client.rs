//! Which client calls (RFC 6749 §2.3): an API key is a client's secret, its name the client's id.

use std::net::IpAddr;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::form::Form;
use crate::authn::{self, AuthnError, Caller};
use crate::model::Name;
use crate::server::edge::Edge;
use crate::server::problem::{Code, Refusal};
use crate::server::story::Telling;

/// What a client presents of itself, in one of the ways there are.
// It holds a secret: only tests can show it.
#[cfg_attr(test, derive(Debug, Default, PartialEq, Eq))]
pub struct Presented {
    client_id: Option<String>,
    key: Option<String>,
}

impl Presented {
    /// From `Authorization: Basic`, the form's `client_id` and `client_secret`, or an API key where
    /// any request may carry it.
    ///
    /// # Errors
    /// When a key comes in two ways, or cannot be read.
    pub fn find(headers: &HeaderMap, form: &Form) -> Result<Self, Refusal> {
        let basic = basic(headers)?;
        let in_form = form.get("client_secret");
        let plain = match authn::presented(headers) {
            Ok(key) => Some(key),
            Err(AuthnError::Missing) => None,
            Err(error) => return Err(error.into()),
        };
        let ways = [basic.is_some(), in_form.is_some(), plain.is_some()];
        if ways.iter().filter(|way| **way).count() > 1 {
            return Err(Code::AmbiguousCredential.into());
        }
        let named = form.get("client_id").map(str::to_owned);
        let Some((id, secret)) = basic else {
            let key = in_form.or(plain).map(str::to_owned);
            return Ok(Self { client_id: named, key });
        };
        if named.as_ref().is_some_and(|named| *named != id) {
            return Err(Code::InvalidClient.into());
        }
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        Ok(Self { client_id: some(id), key: some(secret) })
    }

    /// Who it is, if it presents a key; whether the key is still good is another question.
    ///
    /// # Errors
    /// When there is no such key, or it is not that of the client that is named.
    pub async fn identify(
        &self,
        edge: &Edge,
        ip: Option<IpAddr>,
        story: &mut Telling,
    ) -> Result<Option<Caller>, Refusal> {
        let Some(key) = &self.key else { return Ok(None) };
        let caller = edge.identify(key, ip).await?;
        // An access token must not be exchanged for another, which would live longer.
        if !matches!(caller, Caller::Key(_)) {
            return Err(Code::InvalidClient.into());
        }
        let client = &caller.principal().client;
        if self.client_id.as_deref().is_some_and(|id| *id != **client) {
            return Err(Code::InvalidClient.into());
        }
        story.note(|story| story.identified(&caller));
        Ok(Some(caller))
    }

    /// Which client calls, if it says so; proven if it presents a key.
    ///
    /// # Errors
    /// When the key is not good, or not that of the client that is named.
    pub async fn client(
        &self,
        edge: &Edge,
        ip: Option<IpAddr>,
        story: &mut Telling,
    ) -> Result<Option<Name>, Refusal> {
        let Some(caller) = self.identify(edge, ip, story).await? else {
            return Ok(self.client_id.as_deref().map(Name::from));
        };
        edge.may_ask(&caller, edge.access(), ip)?;
        Ok(Some(caller.principal().client.clone()))
    }
}

/// Id and secret of `Authorization: Basic`, both form-urlencoded within (RFC 6749 §2.3.1).
fn basic(headers: &HeaderMap) -> Result<Option<(String, String)>, Refusal> {
    const SCHEME: &[u8] = b"basic ";
    let mut found = None;
    for value in headers.get_all(AUTHORIZATION) {
        let Some((scheme, token)) = value.as_bytes().split_at_checked(SCHEME.len()) else {
            continue;
        };
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            continue;
        }
        let text = STANDARD.decode(token.trim_ascii()).ok().and_then(|t| String::from_utf8(t).ok());
        let pair = text.as_deref().and_then(|text| text.split_once(':'));
        let (id, secret) = pair.ok_or(Code::InvalidClient)?;
        if found.replace((decoded(id), decoded(secret))).is_some() {
            return Err(Code::AmbiguousCredential.into());
        }
    }
    Ok(found)
}

fn decoded(text: &str) -> String {
    // As the name of a parameter without a value.
    let parsed = form_urlencoded::parse(text.as_bytes()).next();
    parsed.map_or_else(String::new, |(name, _)| name.into_owned())
}

#[cfg(test)]
mod tests {
    use axum::http::header::{CONTENT_TYPE, HeaderValue};

    use super::*;

    fn find(authorization: Option<&str>, form: &str) -> Result<Presented, Refusal> {
        let mut headers = HeaderMap::new();
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(CONTENT_TYPE, kind);
        if let Some(text) = authorization {
            headers.insert(AUTHORIZATION, text.parse().expect("a header"));
        }
        let form = Form::read(&headers, form.as_bytes()).expect("a form");
        Presented::find(&headers, &form)
    }

    fn basic(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    fn presented(client_id: &str, key: &str) -> Presented {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Presented { client_id: some(client_id), key: some(key) }
    }

    proptest::proptest! {
        #[test]
        fn no_credential_makes_the_reader_panic(
            text: Vec<u8>,
            scheme in "(?i)(basic|bearer|ba)? {0,2}",
        ) {
            let form = Form::read(
                &HeaderMap::from_iter([(
                    CONTENT_TYPE,
                    HeaderValue::from_static("application/x-www-form-urlencoded"),
                )]),
                b"client_id=web",
            )
            .expect("a form");
            for text in [text.clone(), STANDARD.encode(&text).into_bytes()] {
                let value = [scheme.as_bytes(), &text].concat();
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
                    drop(Presented::find(&headers, &form));
                }
            }
        }
    }

    #[test]
    fn a_key_comes_in_one_of_three_ways() {
        let two_words = basic("my+web%2Fapp:gp_live_x");
        assert_eq!(find(Some(&two_words), ""), Ok(presented("my web/app", "gp_live_x")));
        assert_eq!(find(Some("Bearer k"), ""), Ok(presented("", "k")));
        assert_eq!(find(None, "client_id=web&client_secret=k"), Ok(presented("web", "k")));
        assert_eq!(find(None, "client_id=web"), Ok(presented("web", "")));
        assert_eq!(find(Some(&basic("web:")), "client_id=web"), Ok(presented("web", "")));
        assert_eq!(find(None, ""), Ok(Presented::default()));
    }

    #[test]
    fn two_ways_at_once_are_refused() {
        let twice = find(Some(&basic("web:k")), "client_secret=k").expect_err("two ways");
        assert_eq!(twice.code(), Code::AmbiguousCredential);
        let twice = find(Some("Bearer k"), "client_secret=k").expect_err("two ways");
        assert_eq!(twice.code(), Code::AmbiguousCredential);
        let other = find(Some(&basic("web:k")), "client_id=other").expect_err("another name");
        assert_eq!(other.code(), Code::InvalidClient);
        for junk in ["Basic ", "Basic !!!", "Basic d2Vi"] {
            assert_eq!(find(Some(junk), "").expect_err("junk").code(), Code::InvalidClient);
        }
    }
}
