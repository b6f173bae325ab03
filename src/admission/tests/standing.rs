//! What callers are told of where they stand, and what quotas hold on to.

use super::*;
use crate::admission::quotas::Quotas;

#[test]
fn a_mapped_address_is_the_address_that_it_maps() {
    let (admission, principal, target) = (admission(), principal(&[]), orders());
    let deny = rules(r#"{"ip_deny":["10.9.0.0/16"]}"#);
    let allow = rules(r#"{"ip_allow":["10.9.0.0/16"]}"#);
    let ip = Some("::ffff:10.9.2.3".parse().expect("an address"));
    let check = |policy| {
        let caller = presented(&principal, policy);
        admission.check(caller, Ask::request(&target, ip), NOON).map(drop)
    };
    assert_eq!(check(&deny), Err(Denial::IpDenied));
    assert_eq!(check(&allow), Ok(()));
}

fn left(report: &Report) -> Vec<(String, u64)> {
    report.limits().map(|(name, _, left)| (name.to_owned(), left.remaining)).collect()
}

#[test]
fn a_refusal_by_one_quota_tells_the_others_as_they_stand() {
    let (admission, principal, target) = (admission(), principal(&[]), orders());
    let policy = rules(
        r#"{"rate_limits":[{"name":"r","limit":9,"window":"1h"}],
            "quotas":[{"name":"wide","limit":10,"period":"day"},
                      {"name":"narrow","limit":1,"period":"day","per":"key"},
                      {"name":"other","limit":7,"period":"year"}]}"#,
    );
    let ask = |cost| Ask { cost, ..Ask::request(&target, None) };
    let of = |cost| decide(&admission, presented(&principal, &policy), ask(cost), Duration::ZERO);
    assert!(of(1).is_ok());
    let told = |denial: &Denial| left(denial.report().expect("limits"));
    let stand = [("r", 8), ("wide", 9), ("narrow", 0), ("other", 6)].map(|(n, l)| (n.into(), l));
    let Err(denial @ Denial::QuotaExceeded(_)) = of(1) else { panic!("narrow is used up") };
    assert_eq!(told(&denial), stand);
    // Both refuse: the one that lasts longer is told.
    let Err(denial @ Denial::QuotaExceeded(_)) = of(9) else { panic!("narrow is used up") };
    assert_eq!(told(&denial), stand);
}

#[test]
fn what_never_fits_is_told_no_time() {
    let (admission, principal, target) = (admission(), principal(&[]), orders());
    let policy = rules(r#"{"quotas":[{"name":"q","limit":20,"period":"year"}]}"#);
    for (cost, never) in [(20, false), (20, false), (21, true)] {
        let ask = Ask { cost, ..Ask::request(&target, None) };
        match decide(&admission, presented(&principal, &policy), ask, Duration::ZERO) {
            Err(Denial::QuotaExceeded(told)) => assert_eq!(told.retry_after.is_none(), never),
            passed => assert!(cost == 20 && passed.is_ok()),
        }
    }
}

#[test]
fn of_what_nobody_can_say_nothing_is_told() {
    let (principal, target) = (principal(&[]), orders());
    let admission = Admission::new(Config::default(), NOON, AT, Arc::new(Metrics::new()));
    let open = rules(
        r#"{"on_undecidable":"allow","rate_limits":[{"name":"r","limit":2,"window":"1h"}],
            "quotas":[{"name":"q","limit":20,"period":"year"}]}"#,
    );
    let ask = Ask::request(&target, None);
    let permit = decide(&admission, presented(&principal, &open), ask, Duration::ZERO);
    let permit = permit.expect("it fails open");
    assert_eq!(left(permit.report().expect("limits")), [("r".into(), 1)]);
    let caller = Presented { stale: true, ..presented(&principal, &open) };
    assert!(admission.explain(&caller, &ask, NOON, AT).1, "it would be let through");
}

#[test]
fn explanations_say_whether_what_is_observed_passes() {
    let (admission, principal, target) = (admission(), principal(&["a"]), orders());
    let observes = rules(r#"{"mode":"observe","rights":[]}"#);
    let caller = presented(&principal, &observes);
    let ask = Ask::request(&target, None);
    assert!(admission.explain(&caller, &ask, NOON, AT).1);
    let asked = ["b".into()];
    assert!(!admission.explain(&caller, &Ask { scopes: &asked, ..ask }, NOON, AT).1, "scopes deny");
    let over = Presented { standing: Standing::Key(KeyState::Revoked), ..caller };
    assert!(!admission.explain(&over, &ask, NOON, AT).1);
}

#[test]
fn a_table_of_quotas_that_was_full_has_room_again() {
    let admission = admission_with(Config { max_quotas: 10, ..Config::default() });
    let (principal, target) = (principal(&[]), orders());
    let policy = rules(r#"{"quotas":[{"name":"q","limit":20,"period":"hour"}]}"#);
    let at_hour = |hour: u64| {
        let ask = Ask::request(&target, None);
        decide(&admission, presented(&principal, &policy), ask, Duration::from_secs(3600 * hour))
    };
    for hour in 0..10 {
        assert!(at_hour(hour).is_ok(), "{hour}");
    }
    // Clocks may go back: what was used is kept for a while, and there is no room.
    assert!(matches!(at_hour(10), Err(Denial::PolicyUnavailable { .. })));
    let full = "gatepost_admission_quotas_full_total 1";
    assert!(admission.metrics.encode().contains(full));
    for hour in (70..80).chain(200..210) {
        assert!(at_hour(hour).is_ok(), "{hour}");
    }
    let much_later = Duration::from_secs(3600 * 1000);
    admission.tidy(NOON.plus(much_later), AT + much_later);
    assert!(admission.quotas().is_empty());
}

/// A journal that knows what was used before, by whatever it is asked with.
struct Before(QuotaKey, u64);

impl Bases for Before {
    fn used(&self, key: &QuotaKey) -> Option<Used> {
        let own = if self.0 == *key { self.1 } else { 0 };
        Some(Used { own, ..Used::default() })
    }
}

#[test]
fn a_quota_whose_unit_changes_as_both_begin_keeps_what_was_used() {
    /// 2027-01-01T12:00:00Z, and the month and year that it lies in.
    const JANUARY: Timestamp = Timestamp(1_798_804_800_000_000);
    const MONTH: Timestamp = Timestamp(1_798_761_600_000_000);
    let (principal, target) = (principal(&[]), orders());
    let unit =
        |unit| rules(&format!(r#"{{"quotas":[{{"name":"q","limit":20,"period":"{unit}"}}]}}"#));
    let (monthly, yearly) = (unit("month"), unit("year"));
    let admission = Admission::new(Config::default(), JANUARY, AT, Arc::new(Metrics::new()));
    let key =
        QuotaKey { quota: "standard/q".into(), scope: "acme".into(), period: MONTH, until: MONTH };
    admission.quotas().based_on(Arc::new(Before(key, 5)));
    let ask = Ask::request(&target, None);
    let used = |policy: &Arc<Rules>| {
        let cleared = admission.check(presented(&principal, policy), ask, JANUARY);
        admission.charge(cleared.expect("no limit"), JANUARY, AT).expect("some is left");
        let standing = admission.standing(policy, Per::Client, &"acme".into(), JANUARY, AT);
        standing[0].used
    };
    assert_eq!(used(&monthly), Some(6), "what an earlier process counted is found");
    assert_eq!(used(&yearly), Some(7));
    assert_eq!(used(&monthly), Some(8));
    // And it lasts as long as the longer one.
    let quotas: &Quotas = admission.quotas();
    quotas.sweep(Some(JANUARY.plus(Duration::from_secs(90 * 24 * 3600))));
    assert_eq!(quotas.len(), 1);
}

#[test]
fn where_no_bucket_has_room_new_callers_are_undecidable_and_nothing_is_taken_of_theirs() {
    let admission = admission_with(Config { max_buckets: 1, ..Config::default() });
    let target = orders();
    let limits = r#""rate_limits":[{"name":"r","limit":2,"window":"1h","per":"key"}],
                    "quotas":[{"name":"q","limit":5,"period":"year","per":"key"}]"#;
    let closed = rules(&format!("{{{limits}}}"));
    let open = rules(&format!(r#"{{"on_undecidable":"allow",{limits}}}"#));
    let key = |id| Principal { key_id: Uuid::from_u128(id), ..principal(&[]) };
    let (known, new) = (key(7), key(8));
    let ask = Ask::request(&target, None);
    let of = |principal, policy, hours: u64| {
        let after = Duration::from_secs(3600 * hours);
        let decided = decide(&admission, presented(principal, policy), ask, after);
        decided.map(|permit| permit.uses().to_vec())
    };
    let used = |of: &[QuotaUse]| admission.quotas().used(&of[0].key).expect("known").own;
    let uses = of(&known, &closed, 0).expect("room");
    let refused = of(&new, &closed, 0);
    assert!(matches!(refused, Err(Denial::PolicyUnavailable { .. })), "{refused:?}");
    assert_eq!(admission.metrics.admission.buckets_full.get(), 1);
    let stranger = QuotaKey { scope: new.key_id.to_string().into(), ..uses[0].key.clone() };
    assert_eq!(admission.quotas().used(&stranger).map(|used| used.own), Some(0));
    // Whoever is known goes on, to the limit and not beyond.
    let uses = of(&known, &closed, 0).expect("the second");
    assert_eq!(used(&uses), 2);
    assert!(matches!(of(&known, &closed, 0), Err(Denial::RateLimited(_))));
    // Failing open is for policies that say so; its quotas are charged all the same.
    let uses = of(&new, &open, 0).expect("it fails open");
    assert_eq!((used(&uses), admission.metrics.admission.failed_open.get()), (1, 1));
    // When the other has become idle there is room.
    assert!(of(&new, &closed, 3).is_ok());
}

#[test]
fn a_jump_that_was_believed_and_put_right_gives_no_quota_twice() {
    let (admission, principal, target) = (admission(), principal(&[]), orders());
    let policy = rules(r#"{"quotas":[{"name":"q","limit":2,"period":"year"}]}"#);
    // The wall clock and the other do not go together: each step a minute.
    let mut at = AT;
    let mut ask = |wall: Duration| {
        at += Duration::from_secs(60);
        let now = NOON.plus(at - AT).plus(wall);
        admission.tidy(now, at);
        let cleared = admission.check(presented(&principal, &policy), request(&target), now);
        admission.charge(cleared.expect("no other limit"), now, at).is_ok()
    };
    assert!(ask(Duration::ZERO) && ask(Duration::ZERO) && !ask(Duration::ZERO));
    let decades = Duration::from_secs(74 * 365 * 24 * 3600);
    let ahead: Vec<_> = (0..15).map(|_| ask(decades)).collect();
    assert_eq!(ahead.iter().filter(|passed| **passed).count(), 2, "it is believed at last");
    for minute in 0..15 {
        assert!(!ask(Duration::ZERO), "{minute}");
    }
}

fn request(target: &Target) -> Ask<'_> {
    Ask::request(target, None)
}

/// Whether an explanation says that a request passes, and what is undecidable in it.
fn explained(admission: &Admission, caller: &Presented<'_>, hours: u64) -> (bool, Vec<String>) {
    let (target, after) = (orders(), Duration::from_secs(3600 * hours));
    let ask = Ask::request(&target, None);
    let (steps, passes) = admission.explain(caller, &ask, NOON.plus(after), AT + after);
    let steps = steps.into_iter().filter(|step| step.verdict == Verdict::Undecidable);
    (passes, steps.map(|step| step.check).collect())
}

#[test]
fn explanations_know_that_there_is_no_room_to_count() {
    let admission = admission_with(Config { max_buckets: 1, max_quotas: 1, ..Config::default() });
    let key = |id| Principal { key_id: Uuid::from_u128(id), ..principal(&[]) };
    let (known, new, target) = (key(7), key(8), orders());
    let rate = r#""rate_limits":[{"name":"r","limit":2,"window":"1h","per":"key"}]"#;
    let quota = r#""quotas":[{"name":"q","limit":5,"period":"year","per":"key"}]"#;
    let both = rules(&format!("{{{rate},{quota}}}"));
    let explained =
        |of, policy: &Arc<Rules>, hours| explained(&admission, &presented(of, policy), hours);
    let pass = (true, Vec::new());
    assert_eq!(
        [explained(&known, &both, 0), explained(&new, &both, 0)],
        [pass.clone(), pass.clone()]
    );
    let ask = Ask::request(&target, None);
    let used = decide(&admission, presented(&known, &both), ask, Duration::ZERO);
    assert!(used.is_ok());
    assert_eq!(explained(&known, &both, 0), pass, "it has its place");
    for (limits, undecidable) in [(rate, "rate_limits"), (quota, "quota q")] {
        for (more, passes) in [("", false), (r#","on_undecidable":"allow""#, true)] {
            let policy = rules(&format!("{{{limits}{more}}}"));
            let told = explained(&new, &policy, 0);
            assert_eq!(told, (passes, vec![undecidable.to_owned()]), "{limits}{more}");
            let decided = decide(&admission, presented(&new, &policy), ask, Duration::ZERO);
            assert_eq!(decided.is_ok(), passes, "{limits}{more}");
        }
    }
    // What is idle makes room, for a look as for a request.
    assert_eq!(explained(&new, &rules(&format!("{{{rate}}}")), 3), pass);
}
