//! Access tokens that were not made here, or not for now: each the same `None`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::*;

/// The keys of a deployment that somebody else can sign for: the forger knows the seed.
struct Forger {
    keys: Keys,
    kid: String,
    sign: EncodingKey,
    public: Vec<u8>,
    _data: TempDir,
}

const NOW: i64 = START.0 / 1_000_000;

impl Forger {
    fn new() -> Self {
        let data = TempDir::new().expect("temporary directory");
        let config = Config::default();
        let entropy: SharedEntropy = Arc::new(SeededEntropy::new(3));
        let keys = Keys::open(data.path(), &config, &entropy, START).expect("keys");
        let text = std::fs::read_to_string(data.path().join("token-keys")).expect("keys");
        let document: Value = serde_json::from_str(&text).expect("JSON");
        let key = &document["signing_keys"][0];
        let seed = URL_SAFE_NO_PAD.decode(key["seed"].as_str().expect("text")).expect("base64");
        let head = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
        let sign = EncodingKey::from_ed_der(&[head.as_slice(), &seed].concat());
        let public = keys.jwks()["keys"][0]["x"].as_str().expect("text").to_owned();
        let public = URL_SAFE_NO_PAD.decode(public).expect("base64");
        let kid = key["id"].as_str().expect("text").to_owned();
        Self { keys, kid, sign, public, _data: data }
    }

    fn header(&self) -> Header {
        let (typ, kid) = (Some("at+jwt".into()), Some(self.kid.clone()));
        Header { typ, kid, ..Header::new(Algorithm::EdDSA) }
    }

    fn accepts(&self, header: &Header, claims: &Value) -> bool {
        let text = jsonwebtoken::encode(header, claims, &self.sign).expect("signed");
        self.keys.verify(&text, START).is_some()
    }
}

fn claims() -> Value {
    json!({
        "iss": "http://127.0.0.1:8080", "aud": "http://127.0.0.1:8080", "sub": "alice",
        "client_id": "web", "jti": Uuid::from_u128(5), "iat": NOW, "nbf": NOW, "exp": NOW + 300,
        "scope": "orders.read", "sid": Uuid::from_u128(6),
    })
}

fn with(key: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[key] = value;
    claims
}

#[test]
fn what_is_in_order_is_accepted() {
    let forger = Forger::new();
    assert!(forger.accepts(&forger.header(), &claims()));
    assert!(forger.accepts(&forger.header(), &with("aud", json!(["x", "http://127.0.0.1:8080"]))));
    let long = Header { typ: Some("application/AT+jwt".into()), ..forger.header() };
    assert!(forger.accepts(&long, &claims()));
    let mut of_key = with("key_id", json!(Uuid::from_u128(7)));
    of_key.as_object_mut().expect("an object").remove("sid");
    assert!(forger.accepts(&forger.header(), &of_key));
}

#[test]
fn each_claim_is_needed_and_of_its_kind() {
    let forger = Forger::new();
    for key in ["iss", "aud", "sub", "client_id", "jti", "iat", "nbf", "exp", "sid"] {
        let mut without = claims();
        without.as_object_mut().expect("an object").remove(key);
        assert!(!forger.accepts(&forger.header(), &without), "without {key}");
        assert!(!forger.accepts(&forger.header(), &with(key, Value::Null)), "null {key}");
    }
    for (key, value) in [
        ("exp", json!((NOW + 300).to_string())),
        ("exp", json!(1e300)),
        ("exp", json!(i64::MAX)),
        ("exp", json!(NOW + 2 * 3600)),
        ("nbf", json!("now")),
        ("iss", json!("http://127.0.0.1:8080/")),
        ("iss", json!(["http://127.0.0.1:8080"])),
        ("aud", json!("http://elsewhere")),
        ("aud", json!([])),
        ("aud", json!({"x": "http://127.0.0.1:8080"})),
        ("sub", json!("")),
        ("sub", json!("a\u{0}b")),
        ("sub", json!("a".repeat(200))),
        ("scope", json!(["orders.read"])),
        ("scope", json!("a ".repeat(40))),
        ("jti", json!("../../etc/passwd")),
        ("sid", json!("not a uuid")),
        ("key_id", json!(Uuid::from_u128(7))),
    ] {
        assert!(!forger.accepts(&forger.header(), &with(key, value.clone())), "{key}: {value}");
    }
}

#[test]
fn clocks_may_differ_by_the_skew_and_no_more() {
    let forger = Forger::new();
    let accepts = |key, at| forger.accepts(&forger.header(), &with(key, json!(at)));
    assert!(accepts("exp", NOW - 4) && !accepts("exp", NOW - 5));
    assert!(accepts("nbf", NOW + 5) && !accepts("nbf", NOW + 6));
    assert!(accepts("iat", NOW + 5) && !accepts("iat", NOW + 6));
}

#[test]
fn no_header_chooses_the_algorithm_or_the_key() {
    let forger = Forger::new();
    let jwk = serde_json::from_value(forger.keys.jwks()["keys"][0].clone()).expect("a JWK");
    let url = Some("http://127.0.0.1:1/keys".to_owned());
    for header in [
        Header { typ: None, ..forger.header() },
        Header { typ: Some("JWT".into()), ..forger.header() },
        Header { kid: None, ..forger.header() },
        Header { kid: Some("../../dev/null".into()), ..forger.header() },
        Header { kid: Some(String::new()), ..forger.header() },
        Header { jwk: Some(jwk), ..forger.header() },
        Header { jku: url.clone(), ..forger.header() },
        Header { x5u: url, ..forger.header() },
        Header { x5c: Some(vec!["AA==".into()]), ..forger.header() },
        Header { crit: Some(vec!["exp".into()]), ..forger.header() },
    ] {
        assert!(!forger.accepts(&header, &claims()), "{header:?}");
    }
    // Signed with the public key as if it were a shared secret, and not signed at all.
    let hs256 = Header { alg: Algorithm::HS256, ..forger.header() };
    let secret = EncodingKey::from_secret(&forger.public);
    let text = jsonwebtoken::encode(&hs256, &claims(), &secret).expect("signed");
    assert!(forger.keys.verify(&text, START).is_none());
    for alg in ["none", "None", "NONE", ""] {
        let header = json!({"alg": alg, "typ": "at+jwt", "kid": forger.kid});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        for signature in ["", "AAAA"] {
            let text = format!("{}.{}.{signature}", part(&header), part(&claims()));
            assert!(forger.keys.verify(&text, START).is_none(), "{alg}");
        }
    }
}

#[tokio::test]
async fn what_is_cut_altered_or_of_another_kind_is_nothing() {
    let bench = Bench::new();
    let (_, issued) = bench.session().await;
    let (access, refresh) = (access_text(&issued), refresh_text(&issued));
    assert!(bench.tokens.verify(&access).is_some());
    for at in 0..access.len() {
        assert!(bench.tokens.verify(&access[..at]).is_none(), "cut at {at}");
        let other = if access.as_bytes()[at] == b'A' { "B" } else { "A" };
        let altered = format!("{}{other}{}", &access[..at], &access[at + 1..]);
        // (The last character, too: the four bits of it that say nothing must be zero.)
        assert!(bench.tokens.verify(&altered).is_none(), "{at}");
    }
    assert!(bench.tokens.verify(&refresh).is_none());
    assert_eq!(bench.refresh(&access).await, Err(TokenError::Invalid));
    assert!(bench.tokens.verify(&"a.".repeat(5000)).is_none());
    assert!(bench.tokens.verify("").is_none());
    // Another deployment's, made with other keys of the same shape.
    let forger = Forger::new();
    let text = jsonwebtoken::encode(&forger.header(), &claims(), &forger.sign).expect("signed");
    assert!(bench.tokens.verify(&text).is_none());
}

#[tokio::test]
async fn a_remembered_token_still_expires() {
    let bench = Bench::new();
    let (_, issued) = bench.session().await;
    let access = access_text(&issued);
    assert!(bench.tokens.verify(&access).is_some());
    assert!(bench.tokens.verify(&access).is_some());
    assert_eq!(bench.metrics.tokens.verified.get(), 1, "its signature is checked once");
    bench.clock.advance(std::time::Duration::from_secs(304));
    assert!(bench.tokens.verify(&access).is_some());
    bench.clock.advance(std::time::Duration::from_secs(1));
    assert!(bench.tokens.verify(&access).is_none());
}
