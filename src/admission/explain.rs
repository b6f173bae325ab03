//! Step by step, why: for operators. Looks and changes nothing.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::charge::{Counted, Moment, counted};
use super::rate::TakeError;
use super::{
    Admission, Ask, Denial, Presented, Report, by_policy, kept_by_scopes, provably_denied,
    within_scopes,
};
use crate::model::Timestamp;
use crate::model::policy::{OnUndecidable, Rules};

const STANDING: &str = "standing";
const SCOPES: &str = "scopes";
/// Checks that deny whether their policy enforces or observes.
const ALWAYS: [&str; 2] = [STANDING, SCOPES];

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It has nothing against it.
    Pass,
    /// It denies.
    Deny,
    /// Nobody can say.
    Undecidable,
    /// There is nothing to check.
    Skip,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Which.
    pub check: String,
    /// What it came to.
    pub verdict: Verdict,
    /// Why, for people.
    pub detail: String,
}

fn step(check: impl Into<String>, verdict: Verdict, detail: impl Into<String>) -> Step {
    Step { check: check.into(), verdict, detail: detail.into() }
}

impl Step {
    /// Whether what happens can be counted: what cannot does not happen.
    pub fn of_accounting(possible: bool) -> Self {
        if possible {
            step("accounting", Verdict::Pass, "there is room to count it")
        } else {
            let detail = "the journal is full or failing: 503 accounting_unavailable";
            step("accounting", Verdict::Undecidable, detail)
        }
    }
}

fn told(check: &str, result: Result<(), Denial>, passes: impl Into<String>) -> Step {
    match result {
        Ok(()) => step(check, Verdict::Pass, passes),
        Err(denial) => step(check, Verdict::Deny, denial.to_string()),
    }
}

impl Admission {
    /// Every check in its order, also beyond the first that denies; and whether the request would
    /// pass.
    pub fn explain(
        &self,
        caller: &Presented<'_>,
        ask: &Ask<'_>,
        now: Timestamp,
        monotonic: Duration,
    ) -> (Vec<Step>, bool) {
        let mut steps = vec![told(STANDING, provably_denied(caller), "active, client enabled")];
        let Some(rules) = &caller.rules else {
            steps.push(step("policy", Verdict::Undecidable, "it has a policy that nobody knows"));
            return (steps, false);
        };
        let observed = self.observes(caller, rules);
        let mode = if observed { "observes" } else { "enforces" };
        let detail = format!("`{}` {mode}", rules.name);
        steps.push(step("policy", Verdict::Pass, detail));
        steps.push(if caller.stale {
            step("staleness", Verdict::Undecidable, "what is known is older than may be")
        } else {
            step("staleness", Verdict::Pass, "what is known is fresh enough")
        });
        steps.push(told(SCOPES, within_scopes(caller.principal, ask.scopes), "none is missing"));
        let right = format!("`{}` from {}", ask.target.right(), ip(ask));
        let mut decided = told("address_and_rights", by_policy(caller, ask, rules), right);
        if decided.verdict == Verdict::Deny && kept_by_scopes(caller, ask) {
            decided.detail.push_str("; the scopes that read like rights do not cover it");
        }
        steps.push(decided);
        if let Some(rule) = &rules.concurrency {
            let running = self.running.count(rule.id, caller.scope(rule.per));
            let verdict = if running < rule.limit { Verdict::Pass } else { Verdict::Deny };
            let detail = format!("{running} of {} run, per {}", rule.limit, rule.per.as_str());
            steps.push(step("concurrency", verdict, detail));
        }
        let at = Moment { now: self.calendar.now(now, monotonic, &self.metrics), monotonic };
        self.explain_rates(caller, ask, rules, at, &mut steps);
        self.explain_quotas(caller, ask, rules, at, &mut steps);
        let open = rules.on_undecidable == OnUndecidable::Allow;
        let passes = |step: &Step| match step.verdict {
            Verdict::Pass | Verdict::Skip => true,
            Verdict::Deny => observed && !ALWAYS.contains(&&*step.check),
            Verdict::Undecidable => open || observed,
        };
        let valid = steps.iter().all(passes);
        (steps, valid)
    }

    fn explain_rates(
        &self,
        caller: &Presented<'_>,
        ask: &Ask<'_>,
        rules: &Arc<Rules>,
        at: Moment,
        steps: &mut Vec<Step>,
    ) {
        let mut report = Report::new(Arc::clone(rules));
        let peeked = self.peek_rates(caller, ask.cost, at.monotonic, &mut report);
        for (rule, (_, limit, left)) in rules.rates.iter().zip(report.limits()) {
            let passes = left.remaining >= u64::from(ask.cost);
            let verdict = if passes { Verdict::Pass } else { Verdict::Deny };
            let detail = format!("{} of {limit} left, per {}", left.remaining, rule.per.as_str());
            steps.push(step(format!("rate_limit {}", rule.name), verdict, detail));
        }
        if peeked == Err(TakeError::Full) {
            let detail = "no room to count for one more (admission.max_buckets)";
            steps.push(step("rate_limits", Verdict::Undecidable, detail));
        }
    }

    fn explain_quotas(
        &self,
        caller: &Presented<'_>,
        ask: &Ask<'_>,
        rules: &Rules,
        Moment { now, .. }: Moment,
        steps: &mut Vec<Step>,
    ) {
        for quota in counted(caller, rules, now) {
            let Counted { rule, until, slot, .. } = &quota;
            let (verdict, detail) = match self.quotas.used(&quota.key(caller)) {
                None => (Verdict::Undecidable, "nobody can say what was used".into()),
                Some(_) if !self.quotas.has_room(slot) => {
                    let detail = "no room to count for one more (admission.max_quotas)";
                    (Verdict::Undecidable, detail.into())
                }
                Some(used) => {
                    let left = rule.limit.saturating_sub(used.own.saturating_add(used.others));
                    let passes = left >= u64::from(ask.cost);
                    let verdict = if passes { Verdict::Pass } else { Verdict::Deny };
                    (verdict, format!("{left} of {} left until {until}", rule.limit))
                }
            };
            steps.push(step(format!("quota {}", rule.name), verdict, detail));
        }
    }
}

fn ip(ask: &Ask<'_>) -> String {
    ask.ip.map_or("an unknown address".into(), |ip| ip.to_string())
}
