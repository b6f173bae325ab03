//! The capped helper that request bodies are read through.

use std::time::Duration;

use axum::body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Bytes;

use super::problem::{Code, Refusal};

/// Reads a whole body of at most `max` bytes within `deadline`.
pub async fn read(body: Body, max: usize, deadline: Duration) -> Result<Bytes, Refusal> {
    match tokio::time::timeout(deadline, Limited::new(body, max).collect()).await {
        Err(_) => Err(Code::RequestTimeout.into()),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Code::BodyTooLarge.into()),
        Ok(Err(_)) => Err(Refusal::bad_request("The request body broke off.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn bodies_are_read_up_to_their_bound() {
        assert_eq!(read(Body::from("12345"), 5, LONG).await.as_deref(), Ok(&b"12345"[..]));
        let refused = read(Body::from("123456"), 5, LONG).await;
        assert_eq!(refused, Err(Code::BodyTooLarge.into()));
    }
}
