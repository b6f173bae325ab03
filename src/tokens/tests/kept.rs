//! Keys as they are kept, announced, rotated and made known.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Value, json};

use super::*;
use crate::tokens::access::Grant;

/// The key of RFC 8037, appendix A.1 and A.2.
const SEED: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
const PUBLIC: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

const FIVE_MINUTES: Duration = Duration::from_secs(300);
const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn entropy(seed: u64) -> SharedEntropy {
    Arc::new(SeededEntropy::new(seed))
}

/// An item of a document; `bytes` stands under `name`.
fn item(id: &str, at: Timestamp, name: &str, bytes: &str) -> Value {
    json!({ "id": id, "created_at": at.to_string(), name: bytes })
}

fn document() -> Value {
    json!({
        "version": 1,
        "secrets": [item("s1", Timestamp::EPOCH, "secret", SEED)],
        "signing_keys": [item("rfc8037", Timestamp::EPOCH, "seed", SEED)],
    })
}

fn keys_of(config: Config) -> Result<Keys, KeysError> {
    // What is configured needs no directory.
    Keys::open(Path::new("/nonexistent"), &config, &entropy(1), START)
}

fn configured(document: &Value) -> Keys {
    let keys = Some(document.to_string().into());
    keys_of(Config { keys, ..Config::default() }).expect("a key set")
}

fn grant() -> Grant {
    Grant {
        subject: "alice".into(),
        client: "web".into(),
        scopes: vec!["orders.read".into(), "orders.write".into()],
        of: Holder::Session(Uuid::from_u128(6)),
    }
}

fn minted(keys: &Keys, at: Timestamp) -> String {
    keys.mint(Uuid::from_u128(6), 3, at).expose_secret().to_owned()
}

#[test]
fn the_key_of_rfc_8037_is_told_and_verifies_as_there() {
    let keys = configured(&document());
    let told = json!({ "keys": [{
        "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "rfc8037",
        "x": PUBLIC,
    }] });
    assert_eq!(keys.jwks(), told, "and nothing else");
    // Appendix A.4.
    let message = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvp\
                     Ar_MuM0KAg";
    let key = DecodingKey::from_ed_components(PUBLIC).expect("32 bytes");
    let verified = jsonwebtoken::crypto::verify(signature, message, &key, Algorithm::EdDSA);
    assert!(verified.expect("a signature"));
}

#[test]
fn a_token_is_what_another_program_makes_of_the_same_key() {
    let keys = configured(&document());
    let text = keys.sign(&grant(), Uuid::from_u128(5), START, FIVE_MINUTES);
    let text = text.expose_secret();
    let parts: Vec<&str> = text.split('.').collect();
    let decoded = |part| String::from_utf8(URL_SAFE_NO_PAD.decode(part).expect("base64"));
    let header = r#"{"typ":"at+jwt","alg":"EdDSA","kid":"rfc8037"}"#;
    assert_eq!(decoded(parts[0]).expect("text"), header);
    let claims = concat!(
        r#"{"iss":"http://127.0.0.1:8080","aud":"http://127.0.0.1:8080","sub":"alice","#,
        r#""client_id":"web","jti":"00000000-0000-0000-0000-000000000005","iat":1700000000,"#,
        r#""nbf":1700000000,"exp":1700000300,"scope":"orders.read orders.write","#,
        r#""sid":"00000000-0000-0000-0000-000000000006"}"#
    );
    assert_eq!(decoded(parts[1]).expect("text"), claims);
    // Made by `openssl pkeyutl -sign -rawin`: Ed25519 leaves nothing to chance.
    let signature = "oGK26AEXUXVFA5uGcFHsAneXUu32F9MTD8t-vqghxmSu5Hfk1Z6pnYGZkskkWryk7FTKufPmGMxo\
                     Hb8eQJ7MBg";
    assert_eq!(parts[2..], [signature]);
    let access = keys.verify(text, START).expect("one of ours");
    let grant = grant();
    assert_eq!((access.subject, access.client), (grant.subject, grant.client));
    assert_eq!((access.scopes, access.of), (grant.scopes, grant.of));
    assert_eq!((access.issued_at, access.expires_at), (1_700_000_000, 1_700_000_300));
}

#[test]
fn the_longest_token_that_is_made_is_read() {
    // Each of these bytes takes two in JSON.
    let long = |bytes| "\"".repeat(bytes);
    let issuer = format!("http://{}", "a".repeat(249));
    let keys = Some(document().to_string().into());
    let config = Config { issuer, audience: Some(long(256)), keys, ..Config::default() };
    assert_eq!(config.check(), Ok(()));
    let keys = keys_of(config).expect("a key set");
    let grant = Grant {
        subject: long(128).into(),
        client: long(128).into(),
        scopes: vec![long(32).into(); 16],
        of: Holder::Key(Uuid::max()),
    };
    let text = keys.sign(&grant, Uuid::max(), START, FIVE_MINUTES);
    let access = keys.verify(text.expose_secret(), START).expect("one of ours");
    assert_eq!((access.subject, access.scopes, access.of), (grant.subject, grant.scopes, grant.of));
}

#[test]
fn what_is_no_key_set_is_refused_without_showing_what_it_is() {
    let with = |list: &str, value: Value| {
        let mut document = document();
        document[list] = value;
        document.to_string()
    };
    let secret = |id: &str, bytes: &str| item(id, START, "secret", bytes);
    let many = |count: usize| (0..count).map(|n| secret(&format!("s{n}"), SEED)).collect::<Value>();
    let cases = [
        ("", "line 1"),
        ("[]", "line 1"),
        (&with("more", json!(SEED)), "line 1"),
        (&format!("{} {SEED}", document()), "line 1"),
        (&with("secrets", json!(SEED)), "line 1"),
        (&with("secrets", json!([{ "id": "a", "secret": SEED }])), "line 1"),
        (&with("secrets", json!([{ "id": "a", "created_at": SEED, "secret": SEED }])), "line 1"),
        (&with("version", json!(2)), "version 2"),
        (&with("secrets", json!([])), "1 to 16"),
        (&with("secrets", many(17)), "1 to 16"),
        (&with("signing_keys", json!([])), "1 to 16"),
        (&with("secrets", json!([secret("a", SEED), secret("a", SEED)])), "taken"),
        (&with("secrets", json!([secret("", SEED)])), "empty"),
        (&with("secrets", json!([secret("a_b", SEED)])), "letters"),
        (&with("secrets", json!([secret(&"a".repeat(17), SEED)])), "longer"),
        (&with("secrets", json!([secret("a", &SEED[1..])])), "`a` is not 32 bytes"),
        (&with("secrets", json!([secret("a", &format!("{SEED}="))])), "`a` is not 32 bytes"),
        (&with("secrets", json!([secret("a", &format!("{SEED}AAAA"))])), "`a` is not 32 bytes"),
    ];
    for (text, expected) in cases {
        let error = KeySet::parse(text).expect_err(expected).to_string();
        assert!(error.contains(expected) && !error.contains(&SEED[1..]), "{text}: {error}");
    }
    KeySet::parse(&with("secrets", many(16))).expect("as many as there may be");
}

#[test]
fn a_set_is_written_as_it_is_read_and_debug_shows_no_secret() {
    let set = KeySet::generate(&entropy(1), START);
    let text = set.to_json();
    let again = KeySet::parse(text.expose_secret()).expect("a key set");
    assert_eq!(again.to_json().expose_secret(), text.expose_secret());
    let document: Value = serde_json::from_str(text.expose_secret()).expect("JSON");
    let (secret, seed) = (&document["secrets"][0], &document["signing_keys"][0]);
    assert_ne!(secret["secret"], seed["seed"]);
    let shown = format!("{set:?} {:?}", document_config(&text));
    for bytes in [&secret["secret"], &seed["seed"]] {
        let bytes = bytes.as_str().expect("text");
        let numbers = format!("{:?}", URL_SAFE_NO_PAD.decode(bytes).expect("base64"));
        assert!(!shown.contains(bytes) && !shown.contains(numbers.trim_matches(['[', ']'])));
    }
    assert!(shown.contains(secret["id"].as_str().expect("text")), "{shown}");
}

fn document_config(text: &secrecy::SecretString) -> Config {
    Config { keys: Some(text.clone()), ..Config::default() }
}

#[test]
fn a_key_that_is_announced_takes_over_when_its_time_comes() {
    let later = START.plus(HOUR);
    let mut document = document();
    // In any order.
    let next = item("s2", later, "secret", PUBLIC);
    document["secrets"].as_array_mut().expect("a list").insert(0, next);
    let next = item("k2", later, "seed", PUBLIC);
    document["signing_keys"].as_array_mut().expect("a list").insert(0, next);
    let keys = configured(&document);

    let told = |now| keys.list(now).into_iter().map(|key| (key.id, key.kind, key.state));
    let told = |now| told(now).collect::<Vec<_>>();
    let all = |states: [&'static str; 2]| {
        [("s2", "secret"), ("s1", "secret"), ("k2", "signing"), ("rfc8037", "signing")]
            .into_iter()
            .zip([states[0], states[1], states[0], states[1]])
            .map(|((id, kind), state)| (id.to_owned(), kind, state))
            .collect::<Vec<_>>()
    };
    assert_eq!(told(START), all(["next", "active"]));
    assert_eq!(told(later), all(["active", "old"]));
    let known = keys.jwks()["keys"].as_array().map(Vec::len);
    assert_eq!(known, Some(2), "known to whoever verifies, before it signs");

    let just_before = Timestamp(later.0 - 1);
    assert!(minted(&keys, just_before).starts_with("gpr_s1_"));
    assert!(minted(&keys, later).starts_with("gpr_s2_"));
    let signed_at = |now| {
        let text = keys.sign(&grant(), Uuid::from_u128(5), now, FIVE_MINUTES);
        jsonwebtoken::decode_header(text.expose_secret()).expect("a header").kid
    };
    assert_eq!(signed_at(just_before).as_deref(), Some("rfc8037"));
    assert_eq!(signed_at(later).as_deref(), Some("k2"));
    // What was made with the old one stays good.
    assert!(keys.prove(&minted(&keys, just_before)).is_some());
    // A clock before all of them: the oldest.
    assert!(minted(&keys, Timestamp(-1)).starts_with("gpr_s1_"));
}

#[test]
fn rotation_keeps_what_tokens_live_of_and_no_more() {
    let count = |set: &KeySet| (set.secrets.len(), set.signing.len());
    let mut set = KeySet::generate(&entropy(1), START);
    let first = set.secrets[0].id.clone();
    set = set.rotate(&entropy(2), START.plus(HOUR), YEAR).expect("room");
    assert_eq!(count(&set), (2, 2));
    // The first ended an hour after the start, and is needed for two hours, and for a year.
    set =
        set.rotate(&entropy(3), START.plus(3 * HOUR - Duration::from_secs(1)), YEAR).expect("room");
    assert_eq!(count(&set), (3, 3));
    set = set.rotate(&entropy(4), START.plus(3 * HOUR), YEAR).expect("room");
    assert_eq!(count(&set), (4, 3));
    let last_day = START.plus(HOUR + YEAR - Duration::from_secs(1));
    let before = set.rotate(&entropy(5), last_day, YEAR).expect("room");
    assert!(before.secrets.iter().any(|secret| secret.id == first));
    let after = set.rotate(&entropy(5), START.plus(HOUR + YEAR), YEAR).expect("room");
    assert!(after.secrets.iter().all(|secret| secret.id != first));
}

#[test]
fn a_full_set_is_not_rotated_and_nothing_changes() {
    let data = TempDir::new().expect("temporary directory");
    let config = Config::default();
    let keys = Keys::open(data.path(), &config, &entropy(1), START).expect("keys");
    let token = minted(&keys, START);
    for hour in 1..16 {
        let now = START.plus(2 * hour * HOUR);
        keys.rotate(&entropy(100 + u64::from(hour)), now).expect("room");
    }
    let file = data.path().join("token-keys");
    let before = std::fs::read(&file).expect("the file");
    let error = keys.rotate(&entropy(200), START.plus(32 * HOUR)).expect_err("full");
    let until = START.plus(2 * HOUR + YEAR);
    assert!(matches!(&error, KeysError::Full(full) if full.until == until), "{error}");
    assert!(error.to_string().contains(&until.to_string()), "{error}");
    assert_eq!(std::fs::read(&file).expect("the file"), before);
    assert!(keys.prove(&token).is_some(), "its session goes on");
    keys.rotate(&entropy(200), until).expect("the oldest is not needed any more");
    assert_eq!(keys.prove(&token), None);
}

#[test]
fn a_successor_is_derived_as_before_when_keys_were_rotated_in_the_same_second() {
    let data = TempDir::new().expect("temporary directory");
    let keys = Keys::open(data.path(), &Config::default(), &entropy(1), START).expect("keys");
    let at = START.plus(Duration::from_millis(100));
    let successor = minted(&keys, at);
    keys.rotate(&entropy(2), START.plus(Duration::from_millis(200))).expect("room");
    assert_eq!(minted(&keys, at), successor);
    let again = Keys::open(data.path(), &Config::default(), &entropy(3), START).expect("keys");
    assert_eq!(minted(&again, at), successor, "after a restart, too");
}

#[test]
fn the_file_is_for_its_owner_only_and_is_never_replaced_in_silence() {
    let data = TempDir::new().expect("temporary directory");
    let open = || Keys::open(data.path(), &Config::default(), &entropy(1), START);
    let token = minted(&open().expect("made"), START);
    let file = data.path().join("token-keys");
    let mode = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode));
    let made = std::fs::metadata(&file).expect("the file").permissions().mode();
    assert_eq!(made & 0o777, 0o600);
    for open_to in [0o640, 0o604, 0o660] {
        mode(open_to).expect("ours");
        let error = open().err().expect("refused").to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }
    mode(0o400).expect("ours");
    assert_eq!(minted(&open().expect("kept"), START), token);
    mode(0o600).expect("ours");
    std::fs::write(&file, "{}").expect("ours");
    let error = open().err().expect("refused").to_string();
    assert!(error.contains("backup"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), "{}");
}
