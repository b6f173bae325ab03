//! Step by step, why: for operators. Looks and changes nothing.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::charge::{Counted, counted};
use super::{Admission, Ask, Denial, Presented, Report, by_policy, provably_denied, within_scopes};
use crate::model::Timestamp;
use crate::model::policy::OnUndecidable;

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
        steps.push(told("address_and_rights", by_policy(caller, ask, rules), right));
        if let Some(rule) = &rules.concurrency {
            let running = self.running.count(rule.id, caller.scope(rule.per));
            let verdict = if running < rule.limit { Verdict::Pass } else { Verdict::Deny };
            let detail = format!("{running} of {} run, per {}", rule.limit, rule.per.as_str());
            steps.push(step("concurrency", verdict, detail));
        }
        let mut report = Report::new(Arc::clone(rules));
        self.peek_rates(caller, monotonic, &mut report);
        let cost = u64::from(ask.cost);
        for (rule, (_, limit, left)) in rules.rates.iter().zip(report.limits()) {
            let verdict = if left.remaining >= cost { Verdict::Pass } else { Verdict::Deny };
            let detail = format!("{} of {limit} left, per {}", left.remaining, rule.per.as_str());
            steps.push(step(format!("rate_limit {}", rule.name), verdict, detail));
        }
        let at = self.calendar.now(now, monotonic, &self.metrics);
        for quota in counted(caller, rules, at) {
            let used = self.quotas.used(&quota.key(caller));
            let Counted { rule, until, .. } = quota;
            let check = format!("quota {}", rule.name);
            steps.push(match used {
                Some(used) => {
                    let left = rule.limit.saturating_sub(used.own.saturating_add(used.others));
                    let verdict = if left >= cost { Verdict::Pass } else { Verdict::Deny };
                    let detail = format!("{left} of {} left until {until}", rule.limit);
                    step(check, verdict, detail)
                }
                None => step(check, Verdict::Undecidable, "nobody can say what was used"),
            });
        }
        let open = rules.on_undecidable == OnUndecidable::Allow;
        let passes = |step: &Step| match step.verdict {
            Verdict::Pass | Verdict::Skip => true,
            Verdict::Deny => observed && !ALWAYS.contains(&&*step.check),
            Verdict::Undecidable => open || observed,
        };
        let valid = steps.iter().all(passes);
        (steps, valid)
    }
}

fn ip(ask: &Ask<'_>) -> String {
    ask.ip.map_or("an unknown address".into(), |ip| ip.to_string())
}
