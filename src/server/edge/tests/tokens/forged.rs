//! Access tokens that this gateway never made, or not as they are: one answer for all of them, at
//! every endpoint, and no session ends by one.

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};

use super::*;

/// An Ed25519 seed as a PKCS #8 key (RFC 8410 §7): this, then the seed.
const PKCS8: &[u8; 16] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// Signs with the gateway's own key what the gateway never would.
struct Forger {
    kid: String,
    sign: EncodingKey,
    public: Vec<u8>,
    claims: Value,
}

impl Forger {
    fn new(gateway: &Gateway, session: &Session) -> Self {
        let keys = std::fs::read(gateway.dir.path().join("token-keys")).expect("keys");
        let keys: Value = serde_json::from_slice(&keys).expect("JSON");
        let key = &keys["signing_keys"][0];
        let bytes = |value: &Value| {
            URL_SAFE_NO_PAD.decode(value.as_str().expect("text")).expect("base64url")
        };
        let sign = EncodingKey::from_ed_der(&[PKCS8, &*bytes(&key["seed"])].concat());
        let public = bytes(&gateway.tokens.keys().jwks()["keys"][0]["x"]);
        let issuer = &gateway.tokens.config().issuer;
        let now = session.created_at.0 / 1_000_000;
        let claims = json!({
            "iss": issuer, "aud": issuer, "sub": "alice", "client_id": "acme",
            "jti": Uuid::from_u128(5), "iat": now, "nbf": now, "exp": now + 300,
            "scope": "orders.read", "sid": session.id,
        });
        Self { kid: key["id"].as_str().expect("text").into(), sign, public, claims }
    }

    fn header(&self) -> Header {
        let (typ, kid) = (Some("at+jwt".into()), Some(self.kid.clone()));
        Header { typ, kid, ..Header::new(Algorithm::EdDSA) }
    }

    fn signed(&self, header: &Header, claims: &Value) -> String {
        jsonwebtoken::encode(header, claims, &self.sign).expect("signed")
    }

    fn with(&self, claim: &str, value: Value) -> String {
        let mut claims = self.claims.clone();
        claims[claim] = value;
        self.signed(&self.header(), &claims)
    }

    fn without(&self, claim: &str) -> String {
        let mut claims = self.claims.clone();
        claims.as_object_mut().expect("an object").remove(claim);
        self.signed(&self.header(), &claims)
    }

    /// Under a header of any kind, with this for a signature.
    fn unsigned(&self, header: &Value, signature: &str) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.{signature}", part(header), part(&self.claims))
    }

    /// Each of them names a session that is good.
    fn forgeries(&self, gateway: &Gateway, issued: &Issued) -> Vec<String> {
        let now = self.claims["iat"].as_i64().expect("a number");
        let url = Some("http://127.0.0.1:1/keys".to_owned());
        let jwk = gateway.tokens.keys().jwks()["keys"][0].clone();
        let jwk = serde_json::from_value(jwk).expect("a JWK");
        let headers = [
            Header { jwk: Some(jwk), ..self.header() },
            Header { jku: url.clone(), ..self.header() },
            Header { x5u: url, ..self.header() },
            Header { kid: Some("../../../dev/null".into()), ..self.header() },
            Header { kid: None, ..self.header() },
            Header { typ: Some("JWT".into()), ..self.header() },
        ];
        let mut all: Vec<_> =
            headers.iter().map(|header| self.signed(header, &self.claims)).collect();
        let with_public = Header { alg: Algorithm::HS256, ..self.header() };
        let shared = EncodingKey::from_secret(&self.public);
        let hs256 = jsonwebtoken::encode(&with_public, &self.claims, &shared).expect("signed");
        all.push(hs256);
        for alg in ["none", "None", "nOnE"] {
            let header = json!({ "alg": alg, "typ": "at+jwt", "kid": self.kid });
            all.extend(["", "AAAA"].map(|signature| self.unsigned(&header, signature)));
        }
        all.extend(["iss", "aud", "exp", "nbf", "sub", "sid"].map(|claim| self.without(claim)));
        all.extend([
            self.with("exp", json!((now + 300).to_string())),
            self.with("exp", json!(now - 60)),
            self.with("exp", json!(i64::MAX)),
            self.with("nbf", json!(now + 60)),
            self.with("iss", json!("http://elsewhere")),
            self.with("aud", json!("http://elsewhere")),
            self.with("sid", json!("../../etc/passwd")),
        ]);
        let access = access_token(issued);
        all.push(access[..access.len() - 1].to_owned());
        all.push(access[..access.rfind('.').expect("three parts")].to_owned());
        all.push(format!("{access}A"));
        all.push(access.replacen('.', "..", 1));
        all.push("eyJ".repeat(2000));
        all
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_with_an_access_token_the_answer_is_the_same() {
    let gateway = Gateway::start(Config::default(), &[], &[]);
    let (session, issued) = gateway.session().await;
    let forger = Forger::new(&gateway, &session);
    let in_order = forger.signed(&forger.header(), &forger.claims);
    assert_eq!(gateway.with_bearer(&in_order).await.status, StatusCode::OK);

    let mut bad = forger.forgeries(&gateway, &issued);
    bad.push(refresh_token(&issued)[..60].to_owned());
    let other = Gateway::start(Config::default(), &[], &[]);
    bad.push(access_token(&other.session().await.1));
    let first = told(&gateway.with_bearer("x").await);
    assert_eq!(first.0, 401);
    let refresh = told(&gateway.refresh("x").await);
    let ended = told(&gateway.revoke("x").await);
    assert_eq!((ended.0, ended.2.as_str()), (200, "{}"));
    for token in &bad {
        assert_eq!(told(&gateway.with_bearer(token).await), first, "{token}");
        assert_eq!(told(&gateway.refresh(token).await), refresh, "{token}");
        assert_eq!(gateway.introspect(token).await.body, br#"{"active":false}"#, "{token}");
        assert_eq!(told(&gateway.revoke(token).await), ended, "{token}");
    }
    // One kind is not taken for the other.
    assert_eq!(told(&gateway.with_bearer(&refresh_token(&issued)).await), first);
    assert_eq!(gateway.revoked(), 0);
    assert_eq!(gateway.with_bearer(&in_order).await.status, StatusCode::OK);
    assert_eq!(gateway.refresh(&refresh_token(&issued)).await.status, StatusCode::OK);
}
