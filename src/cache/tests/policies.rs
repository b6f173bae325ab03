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
