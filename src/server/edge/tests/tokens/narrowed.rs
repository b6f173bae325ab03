//! Tokens for some of what was granted: never more than that.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_leaves_all_rights_out_has_none_of_them() {
    let gateway = Gateway::start(echo(), &[], &orders());
    let read = async |token: &str| {
        let bearer = format!("Bearer {token}");
        let answer = gateway.get("/rest/v1/orders", &[("authorization", &bearer)]).await;
        (answer.status.as_u16(), answer.code())
    };
    let denied = || (403, "insufficient_scope".to_owned());
    let owner = key(11);
    for (scope, orders) in [("openid orders.read", 200), ("orders.read", 200), ("openid", 403)] {
        let asked = [
            ("grant_type", "client_credentials"),
            ("client_secret", owner.reveal()),
            ("scope", scope),
        ];
        let answer = gateway.form("/oauth/token", &asked).await.json();
        assert_eq!(answer["scope"], scope);
        let token = answer["access_token"].as_str().expect("a token").to_owned();
        assert_eq!(read(&token).await.0, orders, "{scope}");
        assert_eq!(gateway.with_bearer(&token).await.status, StatusCode::OK, "gateway.access");
    }

    let scopes = vec!["openid".into(), "orders.read".into()];
    let (subject, client) = ("alice".into(), "acme".into());
    let session = gateway.tokens.begin(NewSession { subject, client, scopes, ttl: None });
    let fact = StateFact::Session(session.clone());
    gateway.cache.pin(&fact);
    gateway.journal.append(vec![fact]).expect("room").durable().await.expect("a disk");
    let whole = gateway.tokens.issue(&session);
    assert_eq!(read(&access_token(&whole)).await.0, 200);
    let answer = gateway.grant_to(&refresh_token(&whole), &[("scope", "openid")]).await.json();
    assert_eq!(read(answer["access_token"].as_str().expect("a token")).await, denied());
}
