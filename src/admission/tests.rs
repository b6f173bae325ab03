//! Decisions: what denies, what is undecidable, what is taken and what is given back.

mod several;
mod standing;

use std::sync::Mutex;

use super::*;
use crate::model::fact::QuotaKey;
use crate::model::policy::LimitIds;
use crate::model::{DEFAULT_POLICY, Policy};

/// 2026-11-24T12:00:00Z
const NOON: Timestamp = Timestamp(1_795_521_600_000_000);
const AT: Duration = Duration::from_secs(1000);

struct Nothing;

impl Bases for Nothing {
    fn used(&self, _: &QuotaKey) -> Option<Used> {
        Some(Used::default())
    }
}

fn admission_with(config: Config) -> Admission {
    let admission = Admission::new(config, NOON, AT, Arc::new(Metrics::new()));
    admission.quotas().based_on(Arc::new(Nothing));
    admission
}

fn admission() -> Admission {
    admission_with(Config::default())
}

fn rules(spec: &str) -> Arc<Rules> {
    let policy = Policy { name: "standard".into(), spec: spec.into() };
    Arc::new(Rules::compile(&policy, &mut LimitIds::default()).expect("a policy"))
}

fn principal(scopes: &[&str]) -> Principal {
    Principal {
        client: "acme".into(),
        key_id: Uuid::from_u128(7),
        subject: "".into(),
        scopes: scopes.iter().map(|scope| Name::from(*scope)).collect(),
    }
}

fn presented<'a>(principal: &'a Principal, rules: &Arc<Rules>) -> Presented<'a> {
    Presented {
        principal,
        granted: &principal.scopes,
        standing: Standing::Key(KeyState::Active),
        client_enabled: true,
        rules: Some(rules.clone()),
        mode: None,
        own: principal.key_id,
        client_scope: 99,
        stale: false,
    }
}

fn orders() -> Target {
    Target { table: "orders".into(), operation: "read".into() }
}

/// One decision, `after` the beginning.
fn decide<'a>(
    admission: &Admission,
    caller: Presented<'a>,
    ask: Ask<'a>,
    after: Duration,
) -> Result<Permit<'a>, Denial> {
    let now = NOON.plus(after);
    let cleared = admission.check(caller, ask, now)?;
    admission.charge(cleared, now, AT + after)
}

fn unrestricted() -> Arc<Rules> {
    Arc::new(Rules::unrestricted(&DEFAULT_POLICY.into()))
}

#[test]
fn an_active_key_of_an_enabled_client_is_permitted() {
    let (admission, principal, target) = (admission(), principal(&[]), Target::access());
    let caller = presented(&principal, &unrestricted());
    let permit = decide(&admission, caller, Ask::request(&target, None), Duration::ZERO);
    let permit = permit.expect("a permit");
    assert_eq!(&*permit.principal().client, "acme");
    assert_eq!((permit.target(), permit.at()), (&target, NOON));
    assert!(permit.report().is_none() && permit.uses().is_empty());
}

#[test]
fn denials_win_over_staleness_and_over_observing() {
    let (admission, principal, target) = (admission(), principal(&[]), Target::access());
    let open = rules(r#"{"mode":"observe","on_undecidable":"allow"}"#);
    let revoked = Standing::Session(SessionState::Revoked);
    for stale in [false, true] {
        for (standing, client_enabled, denial) in [
            (Standing::Key(KeyState::Revoked), true, Denial::KeyRevoked),
            (Standing::Key(KeyState::Disabled), true, Denial::KeyDisabled),
            (Standing::Key(KeyState::Expired), false, Denial::KeyExpired),
            (Standing::Key(KeyState::Active), false, Denial::ClientDisabled),
            (revoked, true, Denial::SessionOver),
        ] {
            let base = presented(&principal, &open);
            let caller = Presented { standing, client_enabled, stale, ..base };
            let decided = admission.check(caller, Ask::request(&target, None), NOON);
            assert_eq!(decided.map(drop), Err(denial));
        }
    }
}

#[test]
fn what_is_stale_or_has_an_unknown_policy_is_undecidable() {
    let (admission, principal, target) = (admission(), principal(&[]), Target::access());
    let ask = Ask::request(&target, None);
    let unavailable = Err(Denial::PolicyUnavailable { retry_after: STALE_RETRY });
    let caller = presented(&principal, &unrestricted());
    let stale = Presented { stale: true, ..caller.clone() };
    assert_eq!(admission.check(stale, ask, NOON).map(drop), unavailable);
    let unknown = Presented { rules: None, ..caller };
    assert_eq!(admission.check(unknown, ask, NOON).map(drop), unavailable);

    let open = presented(&principal, &rules(r#"{"on_undecidable":"allow"}"#));
    let open = Presented { stale: true, ..open };
    let permit = decide(&admission, open, ask, Duration::ZERO).expect("it fails open");
    assert!(permit.failed_open());
    assert_eq!(admission.metrics.admission.failed_open.get(), 1);
    // Once for a request, however much nobody can say of it.
    let admission = Admission::new(Config::default(), NOON, AT, Arc::new(Metrics::new()));
    let quota = |name| format!(r#"{{"name":"{name}","limit":2,"period":"day"}}"#);
    let spec = r#"{"on_undecidable":"allow","quotas":["#.to_owned();
    let open = rules(&format!("{spec}{},{}]}}", quota("a"), quota("b")));
    let open = Presented { stale: true, ..presented(&principal, &open) };
    assert!(decide(&admission, open, ask, Duration::ZERO).expect("it fails open").failed_open());
    assert_eq!(admission.metrics.admission.failed_open.get(), 1);
}

#[test]
fn scopes_narrow_only_keys_that_have_some() {
    let asked = [Name::from("orders.read")];
    assert_eq!(within_scopes(&principal(&[]), &asked), Ok(()));
    assert_eq!(within_scopes(&principal(&["orders.read", "x"]), &asked), Ok(()));
    assert_eq!(within_scopes(&principal(&["orders.*"]), &asked), Ok(()));
    let refused = within_scopes(&principal(&["orders.write"]), &asked);
    assert_eq!(refused, Err(Denial::InsufficientScope));
}

#[test]
fn rights_and_networks_deny() {
    let (admission, target) = (admission(), orders());
    let policy = rules(
        r#"{"rights":["orders.read","gateway.*"],"ip_allow":["10.0.0.0/8","2001:db8::/32"],
            "ip_deny":["10.9.0.0/16"]}"#,
    );
    let narrowed = principal(&["orders.write"]);
    let wide = principal(&[]);
    let here = Some("10.1.2.3".parse().expect("an address"));
    let check = |principal, target: &Target, ip| {
        let caller = presented(principal, &policy);
        admission.check(caller, Ask::request(target, ip), NOON).map(drop)
    };
    assert_eq!(check(&wide, &target, here), Ok(()));
    assert_eq!(check(&wide, &Target::access(), here), Ok(()));
    let write = Target { operation: "write".into(), ..orders() };
    assert_eq!(check(&wide, &write, here), Err(Denial::MissingRight("orders.write".into())));
    assert_eq!(check(&narrowed, &target, here), Err(Denial::MissingRight("orders.read".into())));
    for ip in ["10.9.0.1", "192.0.2.1", "::1"] {
        let ip = Some(ip.parse().expect("an address"));
        assert_eq!(check(&wide, &target, ip), Err(Denial::IpDenied), "{ip:?}");
    }
    assert_eq!(check(&wide, &target, None), Err(Denial::IpDenied), "nobody can tell it");
    let six = Some("2001:db8::1".parse().expect("an address"));
    assert_eq!(check(&wide, &target, six), Ok(()));
}

#[test]
fn a_rate_limit_refuses_what_is_too_fast_and_says_when() {
    let (admission, principal, target) = (admission(), principal(&[]), orders());
    let policy = rules(r#"{"rate_limits":[{"name":"burst","limit":10,"window":"1s","burst":3}]}"#);
    let ask = Ask::request(&target, None);
    let mut remaining = Vec::new();
    for _ in 0..3 {
        let permit = decide(&admission, presented(&principal, &policy), ask, Duration::ZERO);
        let permit = permit.expect("within the burst");
        remaining
            .extend(permit.report().expect("limits").limits().map(|(_, _, left)| left.remaining));
    }
    assert_eq!(remaining, [2, 1, 0]);
    for _ in 0..5 {
        let refused = decide(&admission, presented(&principal, &policy), ask, Duration::ZERO);
        let Err(Denial::RateLimited(limited)) = refused else { panic!("{refused:?}") };
        assert_eq!(&*limited.name, "burst");
        // A refused call does not extend the penalty.
        assert_eq!(limited.retry_after, Some(Duration::from_millis(100)));
    }
    let later = Duration::from_millis(100);
    assert!(decide(&admission, presented(&principal, &policy), ask, later).is_ok());
}

#[test]
fn a_refusal_by_one_limit_never_eats_another() {
    let (admission, principal, target) = (admission(), principal(&[]), orders());
    let policy = rules(
        r#"{"rate_limits":[{"name":"fast","limit":1,"window":"1s"},
                           {"name":"slow","limit":5,"window":"1h"}],
            "quotas":[{"name":"daily","limit":4,"period":"day"}],"concurrency":{"limit":1}}"#,
    );
    let ask = Ask::request(&target, None);
    let left =
        |report: &Report| report.limits().map(|(_, _, left)| left.remaining).collect::<Vec<_>>();
    let try_at = |seconds| {
        let after = Duration::from_secs(seconds);
        match decide(&admission, presented(&principal, &policy), ask, after) {
            Ok(permit) => (true, left(permit.report().expect("limits"))),
            Err(denial) => (false, denial.report().map(left).unwrap_or_default()),
        }
    };
    assert_eq!(try_at(0), (true, vec![0, 4, 3]));
    for _ in 0..10 {
        assert_eq!(try_at(0), (false, vec![0, 4, 3]), "nothing is lent to what a rate refuses");
    }
    assert_eq!(try_at(1), (true, vec![0, 3, 2]), "nothing was taken by the refusals");
    assert_eq!(try_at(2), (true, vec![0, 2, 1]));
    assert_eq!(try_at(3), (true, vec![0, 1, 0]));
    for _ in 0..10 {
        let (passed, left) = try_at(4);
        assert_eq!(
            (passed, left),
            (false, vec![1, 1, 0]),
            "the quota refuses, the rates are whole"
        );
    }
    assert_eq!(admission.running.count(policy.concurrency.as_ref().expect("one").id, 99), 0);
}

#[test]
fn quotas_are_exact_across_threads_and_denied_requests_are_not_charged() {
    let (admission, principal, target) = (admission(), principal(&[]), orders());
    let policy = rules(r#"{"quotas":[{"name":"daily","limit":1000,"period":"day"}]}"#);
    let passed = Mutex::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..300 {
                    let caller = presented(&principal, &policy);
                    let ask = Ask::request(&target, None);
                    match decide(&admission, caller, ask, Duration::ZERO) {
                        Ok(permit) => *passed.lock().expect("no panic") += permit.uses()[0].used,
                        Err(denial) => assert!(matches!(denial, Denial::QuotaExceeded(_))),
                    }
                }
            });
        }
    });
    assert_eq!(passed.into_inner().expect("no panic"), 1000);
    let key = QuotaKey {
        quota: "standard/daily".into(),
        scope: "acme".into(),
        period: Timestamp(1_795_478_400_000_000),
        until: Timestamp(1_795_564_800_000_000),
    };
    assert_eq!(admission.quotas().used(&key).map(|used| used.own), Some(1000));
    // Tomorrow is another day.
    let tomorrow = Duration::from_secs(12 * 3600);
    let caller = presented(&principal, &policy);
    assert!(decide(&admission, caller, Ask::request(&target, None), tomorrow).is_ok());
}

#[test]
fn what_nobody_can_say_of_a_quota_is_undecidable() {
    let (principal, target) = (principal(&[]), orders());
    let admission = Admission::new(Config::default(), NOON, AT, Arc::new(Metrics::new()));
    let closed = rules(r#"{"quotas":[{"name":"q","limit":20,"period":"year"}]}"#);
    let open =
        rules(r#"{"on_undecidable":"allow","quotas":[{"name":"q","limit":20,"period":"year"}]}"#);
    let ask = Ask::request(&target, None);
    let refused = decide(&admission, presented(&principal, &closed), ask, Duration::ZERO);
    assert!(matches!(refused, Err(Denial::PolicyUnavailable { .. })));
    let passed = decide(&admission, presented(&principal, &open), ask, Duration::ZERO);
    assert!(passed.expect("it fails open").uses().is_empty());
    admission.quotas().based_on(Arc::new(Nothing));
    assert!(decide(&admission, presented(&principal, &closed), ask, Duration::ZERO).is_ok());
}

#[test]
fn observing_decides_the_same_and_lets_pass() {
    let (admission, principal, target) = (admission(), principal(&[]), orders());
    let observe = rules(
        r#"{"mode":"observe","rights":["*.read"],
            "rate_limits":[{"name":"r","limit":2,"window":"1h"}]}"#,
    );
    let ask = Ask::request(&target, None);
    let mut would = Vec::new();
    for _ in 0..4 {
        let permit = decide(&admission, presented(&principal, &observe), ask, Duration::ZERO);
        would.push(permit.expect("it passes").would_deny().cloned());
    }
    assert_eq!(would[..2], [None, None]);
    for denial in &would[2..] {
        assert!(matches!(denial, Some(Denial::RateLimited(_))), "{denial:?}");
    }
    let write = Target { operation: "write".into(), ..orders() };
    let permit = decide(
        &admission,
        presented(&principal, &observe),
        Ask::request(&write, None),
        Duration::ZERO,
    );
    let right = Denial::MissingRight("orders.write".into());
    assert_eq!(permit.expect("it passes").would_deny(), Some(&right));
    // Also what is too old to decide by; scopes that are asked for deny all the same.
    let stale = Presented { stale: true, ..presented(&principal, &observe) };
    assert!(admission.explain(&stale, &ask, NOON, AT).1);
    let asked = ["x".into()];
    let narrow = Principal { scopes: vec!["orders.read".into()], ..principal.clone() };
    let scoped = Presented { principal: &narrow, ..stale.clone() };
    let refused = admission.check(scoped, Ask { scopes: &asked, ..ask }, NOON).map(drop);
    assert_eq!(refused, Err(Denial::InsufficientScope));
    let permit = decide(&admission, stale, ask, Duration::ZERO).expect("it passes");
    assert_eq!((permit.would_deny(), permit.failed_open()), (Some(&UNAVAILABLE), false));
}

#[test]
fn the_clients_mode_wins_over_the_policys_and_that_over_the_general_one() {
    let (principal, target) = (principal(&[]), orders());
    let none = r#"{"rights":[]}"#;
    let [silent, enforce, observe] = [
        rules(none),
        rules(r#"{"mode":"enforce","rights":[]}"#),
        rules(r#"{"mode":"observe","rights":[]}"#),
    ];
    for (general, policy, client, passes) in [
        (Mode::Enforce, &silent, None, false),
        (Mode::Observe, &silent, None, true),
        (Mode::Observe, &enforce, None, false),
        (Mode::Enforce, &observe, None, true),
        (Mode::Enforce, &observe, Some(Mode::Enforce), false),
        (Mode::Enforce, &enforce, Some(Mode::Observe), true),
    ] {
        let admission = admission_with(Config { mode: general, ..Config::default() });
        let caller = Presented { mode: client, ..presented(&principal, policy) };
        let decided = decide(&admission, caller, Ask::request(&target, None), Duration::ZERO);
        assert_eq!(decided.is_ok(), passes, "{general:?} {:?} {client:?}", policy.mode);
    }
}

#[test]
fn a_place_is_held_until_the_request_is_over() {
    let (admission, principal, target) = (admission(), principal(&[]), orders());
    let policy = rules(r#"{"concurrency":{"limit":2,"per":"key"}}"#);
    let enter = || {
        let ask = Ask::forwarded(&target, None);
        decide(&admission, presented(&principal, &policy), ask, Duration::ZERO)
    };
    let mut first = enter().expect("room");
    let second = enter().expect("room");
    assert_eq!(enter().err(), Some(Denial::ConcurrencyExceeded(2)));
    let running = first.take_running();
    drop(first);
    assert!(enter().is_err(), "its body runs on");
    drop((running, second));
    assert!(enter().is_ok());
}

#[test]
fn explanations_say_every_step_and_take_nothing() {
    let (admission, principal, target) = (admission(), principal(&[]), orders());
    let policy = rules(
        r#"{"rights":["*.write"],"rate_limits":[{"name":"r","limit":2,"window":"1s"}],
            "quotas":[{"name":"q","limit":20,"period":"day"}],"concurrency":{"limit":1}}"#,
    );
    let caller = presented(&principal, &policy);
    let told = || admission.explain(&caller, &Ask::request(&target, None), NOON, AT);
    let (first, passes) = told();
    assert_eq!(told(), (first.clone(), false));
    assert!(!passes);
    let verdicts: Vec<_> = first.iter().map(|step| (&*step.check, step.verdict)).collect();
    let pass = |check| (check, Verdict::Pass);
    assert_eq!(
        verdicts,
        [
            pass("standing"),
            pass("policy"),
            pass("staleness"),
            pass("scopes"),
            ("address_and_rights", Verdict::Deny),
            pass("concurrency"),
            pass("rate_limit r"),
            pass("quota q"),
        ]
    );
}
