//! What is done with an input of the policy reader: `policies.spec` in Postgres, what is applied.
//!
//! The fuzz target and the ordinary tests share this. A document is refused with what is wrong, or
//! read; what is read says the same when it is written and read again, and can be decided by.

use gatepost::model::policy::{LimitIds, PolicySpec, Rules};
use gatepost::model::{Policy, Timestamp};

/// Moments at the ends of what a number can say, and some in between.
const MOMENTS: [i64; 5] = [i64::MIN, -1, 0, 1_700_000_000_000_000, i64::MAX];

/// Reads `data` as a policy.
pub fn read(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let read = PolicySpec::parse(text);
    let policy = Policy { name: "fuzz".into(), spec: text.to_owned() };
    let compiled = Rules::compile(&policy, &mut LimitIds::default());
    let spec = match read {
        Ok(spec) => spec,
        Err(problems) => {
            assert!(!problems.is_empty() && compiled.is_err());
            return;
        }
    };
    assert!(compiled.is_ok(), "{text}");
    let written = serde_json::to_string(&spec).expect("what was read can be written");
    assert_eq!(PolicySpec::parse(&written).as_ref(), Ok(&spec), "{written}");
    for rule in compiled.iter().flat_map(|rules| &rules.quotas) {
        for moment in MOMENTS.map(Timestamp) {
            let (start, next) = rule.period.around(moment);
            assert!(start <= moment && (moment < next || next.0 == i64::MAX), "{text}");
        }
    }
}
