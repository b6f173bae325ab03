//! The bearer token: where it is kept, and the check of every request to the admin API.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use secrecy::SecretString;

use super::Problem;
use crate::authn;
use crate::entropy::Entropy;

/// The token's file in the data directory, made by the first start, mode 0600.
pub const TOKEN_FILE: &str = "admin-token";

/// The token in `dir`, if there is one.
///
/// # Errors
/// When it cannot be read, or is empty.
pub fn read_token(dir: &Path) -> io::Result<Option<SecretString>> {
    let path = dir.join(TOKEN_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) if text.trim().is_empty() => Err(io::Error::other(format!(
            "{} is empty; remove it, and the next start makes a new token",
            path.display()
        ))),
        Ok(text) => Ok(Some(text.trim().into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
    }
}

/// The token in `dir`; made when there is none yet.
///
/// # Errors
/// As [`read_token`], and when it cannot be written.
pub fn read_or_make_token(dir: &Path, entropy: &dyn Entropy) -> io::Result<SecretString> {
    if let Some(token) = read_token(dir)? {
        return Ok(token);
    }
    let mut random = [0; 32];
    entropy.fill(&mut random);
    let token = random.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    // A temporary file is 0600 from its first moment on.
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    writeln!(file, "{token}")?;
    file.as_file().sync_all()?;
    file.persist_noclobber(dir.join(TOKEN_FILE)).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()?;
    Ok(token.into())
}

/// Lets through who has the token.
#[derive(Clone)]
pub(super) struct Guard(Arc<SecretString>);

impl Guard {
    pub(super) fn new(token: SecretString) -> Self {
        Self(Arc::new(token))
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        authn::carries(headers, &self.0)
    }
}

pub(super) async fn require(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    if guard.admits(request.headers()) {
        return next.run(request).await;
    }
    let detail = "send `Authorization: Bearer …` with GATEPOST_ADMIN_TOKEN, or with the content of \
                  `admin-token` in the data directory";
    Problem::new(StatusCode::UNAUTHORIZED, "invalid_token", detail).into_response()
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::http::header;
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use secrecy::ExposeSecret;
    use tower::ServiceExt;

    use super::*;
    use crate::entropy::SeededEntropy;

    async fn status_with(authorization: Option<&str>) -> (StatusCode, HeaderMap) {
        let guard = Guard::new("s3cret".into());
        let router = Router::new()
            .route("/", get(|| async { "in" }))
            .layer(from_fn_with_state(guard, require));
        let mut request = Request::builder().uri("/");
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        let request = request.body(Body::empty()).expect("a request");
        let response = router.oneshot(request).await.expect("infallible");
        (response.status(), response.headers().clone())
    }

    #[tokio::test]
    async fn only_the_token_opens_the_api() {
        for allowed in ["Bearer s3cret", "bearer s3cret"] {
            assert_eq!(status_with(Some(allowed)).await.0, StatusCode::OK);
        }
        let refused =
            ["", "Bearer", "Bearer ", "Bearer s3cre", "Bearer s3cret ", "Basic s3cret", "s3cret"];
        for value in refused.map(Some).into_iter().chain([None]) {
            let (status, headers) = status_with(value).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{value:?}");
            assert!(headers.contains_key(header::WWW_AUTHENTICATE));
            assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json");
        }
    }

    #[test]
    fn the_token_is_made_once_and_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        assert!(read_token(dir.path()).expect("readable").is_none());
        let made = read_or_make_token(dir.path(), &SeededEntropy::new(1)).expect("written");
        let again = read_or_make_token(dir.path(), &SeededEntropy::new(2)).expect("read");
        assert_eq!(made.expose_secret(), again.expose_secret());
        assert_eq!(made.expose_secret().len(), 64);
        let meta = std::fs::metadata(dir.path().join(TOKEN_FILE)).expect("there");
        assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn an_empty_token_file_opens_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(TOKEN_FILE), "\n").expect("written");
        let error = read_token(dir.path()).expect_err("refused");
        assert!(error.to_string().contains("is empty; remove it"), "{error}");
    }
}
