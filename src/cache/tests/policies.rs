//! Policies that cannot be read: never mistaken for none.

use super::*;
use crate::cache::source::PolicyRow;
use crate::model::Policy;

const LATER: &str = r#"{"rights":[],"a_field_of_a_later_version":1}"#;

fn row(name: &str, spec: &str, revision: i64) -> PolicyRow {
    PolicyRow { policy: Policy { name: name.into(), spec: spec.into() }, revision }
}

fn default_row(spec: &str, revision: i64) -> Change {
    Change::Policy(row("default", spec, revision))
}

/// Whether requests are held against what `default` says.
fn is_decidable(bench: &Bench) -> bool {
    let rules = bench.cache.rules(&"default".into()).expect("a working disk");
    assert!(rules.as_ref().is_none_or(|rules| rules.rights.is_some()), "it opens to everybody");
    rules.is_some()
}

#[tokio::test]
async fn a_default_that_cannot_be_read_is_not_taken_for_none() {
    let bench = Bench::new();
    bench.feed_all(1, true, vec![default_row(LATER, 1), fed("k", 1)]);
    assert!(!is_decidable(&bench));
    let entry = bench.cache.load(&api_key::digest("k")).expect("it is known");
    assert!(entry.enforcement().rules.is_none(), "its keys are undecidable");
    let bench = bench.restart(patient(), Duration::from_secs(1));
    assert!(!is_decidable(&bench));
    bench.feed(2, vec![default_row(r#"{"rights":[]}"#, 2)]);
    assert!(is_decidable(&bench), "it was mended");
    bench.feed(3, vec![default_row(LATER, 3)]);
    assert!(is_decidable(&bench), "what held before holds on");
    let bench = bench.restart(patient(), Duration::from_secs(1));
    assert!(is_decidable(&bench));
    bench.feed_all(4, true, vec![default_row(LATER, 3)]);
    assert!(is_decidable(&bench), "also when all is compared");
}

#[tokio::test]
async fn a_fill_that_brings_what_cannot_be_read_is_undecidable() {
    let bench = Bench::new();
    let asking = bench.find("k");
    let found = Found {
        key: key_row("k", 1),
        client: Some(client_row(true, 1)),
        policies: vec![row("default", LATER, 1)],
        revocation: None,
    };
    let answer = Ok(Lookup { revision: 1, found: Some(found) });
    bench.hand.asked().await.send(answer).expect("somebody waits");
    let entry = asking.await.expect("no panic").expect("an answer").expect("it is known");
    assert!(entry.enforcement().rules.is_none());
    assert!(!is_decidable(&bench));
}

#[tokio::test]
async fn a_policy_is_missed_and_kept_by_who_may_still_come_with_it() {
    let bench = Bench::new();
    let with = |text: &str, policy: &str| Key { policy: Some(policy.into()), ..key(text) };
    let stored = |key: Key| Change::Key(KeyRow { key, revision: 1 });
    let over = |text: &str| Key { expires_at: Some(START), ..with(text, "expired") };
    bench.feed(
        1,
        vec![
            Change::Policy(row("known", "{}", 1)),
            stored(with("a", "known")),
            stored(with("b", "missed")),
            stored(with("c", "revoked")),
            stored(over("d")),
            stored(Key { enabled: false, ..with("e", "disabled") }),
            Change::Revocation(revocation("c", AT_ONCE)),
        ],
    );
    for fact in [
        StateFact::KeyCreated(with("f", "pinned")),
        StateFact::KeyCreated(with("g", "pinned_and_revoked")),
        StateFact::KeyCreated(Key { expires_at: Some(START), ..with("h", "pinned_and_expired") }),
        revoked("g"),
    ] {
        bench.cache.pin(&fact);
    }
    let missing = bench.cache.missing_policies(&|| false);
    let missing: Vec<_> = missing.iter().map(|name| &**name).collect();
    assert_eq!(missing, ["disabled", "missed", "pinned"]);
    let here = |name| bench.cache.has_policy_here(name);
    assert_eq!(here("pinned"), Some(format!("key {}", id("f"))));
    assert_eq!([here("pinned_and_revoked"), here("pinned_and_expired")], [None, None]);
    assert!(bench.cache.missing_policies(&|| true).len() < 3, "it ends when it is told to");
}
