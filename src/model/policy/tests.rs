//! Documents as they are read, refused and written.

use super::*;
use crate::model::{Name, Policy};

const FULL: &str = r#"{
  "mode": "enforce", "rights": ["orders.read", "*.read", "gateway.*"],
  "rate_limits": [{"name": "burst", "limit": 50, "window": "1s", "burst": 100, "per": "key"},
                  {"name": "steady", "limit": 1000, "window": "1m", "per": "client"}],
  "quotas": [{"name": "monthly", "limit": 1000000, "period": "month", "timezone": "UTC"}],
  "concurrency": {"limit": 20, "per": "key"},
  "ip_allow": ["10.0.0.0/8"], "ip_deny": ["10.9.0.0/16"],
  "max_stale": "24h", "on_undecidable": "deny", "commit": "before_reply"
}"#;

fn compile(name: &str, spec: &str, ids: &mut LimitIds) -> Result<Rules, Vec<String>> {
    let policy = Policy { name: Name::from(name), spec: spec.into() };
    let told = |problems: Vec<PolicyProblem>| problems.iter().map(ToString::to_string).collect();
    Rules::compile(&policy, ids).map_err(told)
}

#[test]
fn a_full_policy_is_read_and_described() {
    let rules = compile("standard", FULL, &mut LimitIds::default()).expect("a policy");
    let described = r#""burst";q=100;w=2, "steady";q=1000;w=60, "monthly";q=1000000"#;
    assert_eq!(rules.described(), described);
    assert_eq!(&*rules.quotas[0].stored, "standard/monthly");
    assert_eq!((rules.rates[1].burst, rules.rates[1].per), (1000, Per::Client));
    let ip = |text: &str| text.parse().expect("an address");
    let allowed =
        ["10.1.2.3", "10.9.2.3", "192.0.2.1", "::1"].map(|at| rules.networks.allow(ip(at)));
    assert_eq!(allowed, [true, false, false, false]);
}

#[test]
fn what_a_document_says_is_written_as_it_was_read() {
    let spec = PolicySpec::parse(FULL).expect("a policy");
    let text = serde_json::to_string(&spec).expect("JSON");
    assert_eq!(PolicySpec::parse(&text), Ok(spec));
    assert_eq!(serde_json::to_string(&PolicySpec::default()).expect("JSON"), "{}");
}

#[test]
fn each_fault_is_told_with_its_field() {
    for (spec, told) in [
        ("[]", "a policy is a table"),
        (r#"{"rate_limit":[]}"#, "rate_limit: unknown field"),
        (
            r#"{"rate_limits":[{"name":"a","limit":0,"window":"1s"}]}"#,
            "rate_limits[0].limit: must be",
        ),
        (
            r#"{"rate_limits":[{"name":"a","limit":1,"window":"0s"}]}"#,
            "rate_limits[0].window: must lie",
        ),
        (
            r#"{"rate_limits":[{"name":"a","limit":1,"window":"32days"}]}"#,
            "rate_limits[0].window: ",
        ),
        (
            r#"{"rate_limits":[{"name":"a","limit":4294967296,"window":"1s"}]}"#,
            "rate_limits[0].limit: invalid value",
        ),
        (
            r#"{"rate_limits":[{"name":"a","limit":1,"window":"1s","burst":0}]}"#,
            "rate_limits[0].burst: ",
        ),
        (
            r#"{"rate_limits":[{"name":"a","limit":1,"window":"31days","burst":4000000000}]}"#,
            "rate_limits[0].burst: would take",
        ),
        (
            r#"{"rate_limits":[{"name":"a b","limit":1,"window":"1s"}]}"#,
            "rate_limits[0].name: must",
        ),
        (
            r#"{"rate_limits":[{"name":"a","limit":1,"window":"1s"}],
             "quotas":[{"name":"a","limit":1,"period":"day"}]}"#,
            "quotas[0].name: `a` is there twice",
        ),
        (
            r#"{"quotas":[{"name":"a","limit":1,"period":"week"}]}"#,
            "quotas[0].period: unknown variant",
        ),
        (r#"{"quotas":[{"name":"a","limit":0,"period":"day"}]}"#, "quotas[0].limit: must"),
        (
            r#"{"quotas":[{"name":"a","limit":1000000000000000,"period":"day"}]}"#,
            "quotas[0].limit: must",
        ),
        (
            r#"{"quotas":[{"name":"a","limit":1,"period":"day","timezone":"Mars"}]}"#,
            "quotas[0].timezone: there is no time zone `Mars`",
        ),
        (r#"{"concurrency":{"limit":0}}"#, "concurrency.limit: must"),
        (
            r#"{"rights":["orders.read","or ders.read"]}"#,
            "rights[1]: `or ders.read` is no right: ' '",
        ),
        (r#"{"max_stale":"0s"}"#, "max_stale: must"),
        (r#"{"on_undecidable":"maybe"}"#, "on_undecidable: unknown variant"),
        (r#"{"mode":"audit"}"#, "mode: unknown variant"),
    ] {
        let problems = compile("p", spec, &mut LimitIds::default()).expect_err(spec);
        assert!(problems[0].starts_with(told), "{spec}: {problems:?}");
    }
}

#[test]
fn each_network_that_means_two_things_is_told_with_its_place() {
    for (spec, told) in [
        (r#"{"ip_allow":["10.0.0.0/33"]}"#, "ip_allow[0]: "),
        (
            r#"{"ip_allow":["10.0.0.0/8","010.0.0.0/8"]}"#,
            "ip_allow[1]: `010.0.0.0/8` is not a network; write it like \"10.0.0.0/8\"",
        ),
        (r#"{"ip_deny":["10.0.0.0/08"]}"#, "ip_deny[0]: `10.0.0.0/08` is not a network"),
        (
            r#"{"ip_deny":["10.0.0.0/8","::ffff:10.9.0.0/112"]}"#,
            "ip_deny[1]: ::ffff:10.9.0.0/112 maps IPv4 addresses, and would match none; write \
             10.9.0.0/16",
        ),
        (r#"{"ip_deny":["10.0.0.1/8"]}"#, "ip_deny[0]: 10.0.0.1/8 has bits behind its prefix"),
    ] {
        let problems = compile("p", spec, &mut LimitIds::default()).expect_err(spec);
        assert!(problems[0].starts_with(told), "{spec}: {problems:?}");
    }
}

#[test]
fn a_limit_keeps_its_number_while_it_keeps_its_name() {
    let mut ids = LimitIds::default();
    let of = |name: &str, limit: u32, per: &str, ids: &mut LimitIds| {
        let spec = format!(
            r#"{{"rate_limits":[{{"name":"a","limit":{limit},"window":"1s","per":"{per}"}}]}}"#
        );
        compile(name, &spec, ids).expect("a policy").rates[0].id
    };
    let first = of("p", 5, "key", &mut ids);
    assert_eq!(of("p", 50, "key", &mut ids), first);
    assert_ne!(of("p", 5, "client", &mut ids), first);
    assert_ne!(of("q", 5, "key", &mut ids), first);
}
