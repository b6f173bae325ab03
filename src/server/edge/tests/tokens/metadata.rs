//! What clients are told of the endpoints.

use super::*;

/// RFC 8414 §3.2 forbids what has no elements.
#[tokio::test(flavor = "multi_thread")]
async fn the_metadata_has_no_empty_members() {
    let gateway = Gateway::start(Config::default(), &[], &[]);
    let told = gateway.get("/.well-known/oauth-authorization-server", &[]).await.json();
    for (name, value) in told.as_object().expect("an object") {
        assert!(value.as_array().is_none_or(|list| !list.is_empty()), "{name}");
    }
    assert_eq!(told["authorization_endpoint"], Value::Null);
}
