//! Bodies, query strings and ids, read with our own words for what is wrong with them.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::Problem;
use super::distinct::Distinct;
use crate::model::{NAME_MAX, Name, is_name};

/// A JSON body of at most [`super::BODY_MAX_BYTES`], or [`super::POLICIES_MAX_BYTES`] of policies;
/// an empty one is `{}`. No field stands twice.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                let detail =
                    "the body is larger than 64 KiB (a file of policies: 1 MiB)".to_owned();
                Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
            } else {
                Problem::bad_request(rejection.body_text())
            }
        })?;
        let bytes = if bytes.is_empty() { b"{}" } else { bytes.as_ref() };
        let parsed =
            serde_json::from_slice::<Distinct>(bytes).and_then(|_| serde_json::from_slice(bytes));
        parsed.map(Self).map_err(|error| Problem::bad_request(format!("the body: {error}")))
    }
}

/// The query string.
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query
            .map(|Query(params)| Self(params))
            .map_err(|rejection| Problem::bad_request(rejection.body_text()))
    }
}

/// The `{id}` of a path.
pub(super) struct Id(pub(super) Uuid);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = segment(parts, state).await?;
        text.parse().map(Self).map_err(|_| {
            let hint = "is not an id; `gatepost key list` or `session list` shows them";
            Problem::bad_request(format!("`{text}` {hint}"))
        })
    }
}

/// The `{name}` of a path.
pub(super) struct Named(pub(super) Name);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        name(&segment(parts, state).await?, "name").map(Self)
    }
}

async fn segment<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<String, Problem> {
    let path = Path::<String>::from_request_parts(parts, state).await;
    path.map(|Path(text)| text).map_err(|rejection| Problem::bad_request(rejection.body_text()))
}

/// `text` as a name, or what is wrong with the field `field`.
pub(super) fn name(text: &str, field: &str) -> Result<Name, Problem> {
    if is_name(text) {
        return Ok(text.into());
    }
    let rule = format!("must have 1 to {NAME_MAX} bytes and no control characters");
    Err(Problem::bad_request(format!("`{field}` {rule}")))
}
