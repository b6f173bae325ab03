//! Taking from the limits: concurrency, quotas, rates, in this order; and all of it back when one
//! of them denies.

use std::sync::Arc;
use std::time::Duration;

use super::rate::{Bucket, Charge, Level, LimitId, Rate, TakeError};
use super::{
    Admission, Ask, Denial, Left, Limited, Permit, Presented, QuotaUse, Report, STALE_RETRY, quotas,
};
use crate::model::Timestamp;
use crate::model::policy::{LIMITS_MAX, Rules};

impl Admission {
    pub(super) fn take(
        &self,
        caller: &Presented<'_>,
        ask: &Ask<'_>,
        rules: &Arc<Rules>,
        now: Timestamp,
        monotonic: Duration,
        permit: &mut Permit<'_>,
    ) -> Result<(), Denial> {
        let running = rules.concurrency.as_ref().map(|rule| {
            self.running.enter(rule.id, caller.scope(rule.per), rule.limit).ok_or(rule.limit)
        });
        let running = running.transpose().map_err(Denial::ConcurrencyExceeded)?;
        if rules.has_limits() {
            let mut report = Report::new(rules);
            let uses = self.reserve(caller, ask, now, monotonic, &mut report)?;
            if let Err(denial) = self.take_rates(caller, ask, monotonic, &mut report) {
                self.quotas.give_back(&uses);
                return Err(denial);
            }
            permit.uses = uses;
            permit.report = Some(Box::new(report));
        }
        permit.running = running;
        Ok(())
    }

    /// Reserves every quota, or none.
    fn reserve(
        &self,
        caller: &Presented<'_>,
        ask: &Ask<'_>,
        now: Timestamp,
        monotonic: Duration,
        report: &mut Report,
    ) -> Result<Vec<QuotaUse>, Denial> {
        let rules = Arc::clone(&report.rules);
        if rules.quotas.is_empty() {
            return Ok(Vec::new());
        }
        let at = self.calendar.now(now, monotonic, &self.metrics);
        let mut uses = Vec::with_capacity(rules.quotas.len());
        for (place, rule) in rules.quotas.iter().enumerate() {
            let (start, until) = rule.period.around(at);
            let scope_name = || caller.scope_name(rule.per);
            let slot = quotas::Slot { quota: rule.id, scope: caller.scope(rule.per), start };
            let asked = quotas::Asked { rule, until, cost: u64::from(ask.cost), now: at };
            let reserved = self.quotas.reserve(slot, &asked, &scope_name);
            let left = &mut report.left[rules.rates.len() + place];
            match reserved {
                Ok((used, remaining)) => {
                    *left = Left { remaining, reset: until.since(at) };
                    uses.push(used);
                }
                Err(quotas::Refusal::Exceeded { remaining }) => {
                    self.quotas.give_back(&uses);
                    *left = Left { remaining, reset: until.since(at) };
                    self.peek_rates(caller, monotonic, report);
                    let limited = Limited {
                        name: rule.name.clone(),
                        retry_after: Some(until.since(at)),
                        report: report.clone(),
                    };
                    return Err(Denial::QuotaExceeded(Box::new(limited)));
                }
                Err(quotas::Refusal::Unknown) => {
                    let denial = Denial::PolicyUnavailable { retry_after: STALE_RETRY };
                    if let Err(denial) = self.undecidable(&rules, denial) {
                        self.quotas.give_back(&uses);
                        return Err(denial);
                    }
                }
            }
        }
        Ok(uses)
    }

    fn take_rates(
        &self,
        caller: &Presented<'_>,
        ask: &Ask<'_>,
        monotonic: Duration,
        report: &mut Report,
    ) -> Result<(), Denial> {
        let rules = Arc::clone(&report.rules);
        let (charges, count) = charges(caller, &rules);
        let mut levels = [Level::default(); LIMITS_MAX];
        let charges = &charges[..count];
        let taken = self.limiter.take(charges, ask.cost, monotonic, &mut levels[..count]);
        report.put_rates(&levels[..count]);
        match taken {
            Ok(()) => Ok(()),
            Err(TakeError::Refused { at, retry_after }) => {
                let limited = Limited {
                    name: rules.rates[at].name.clone(),
                    retry_after,
                    report: report.clone(),
                };
                Err(Denial::RateLimited(Box::new(limited)))
            }
            Err(TakeError::Full) => {
                self.metrics.admission.buckets_full.inc();
                self.undecidable(&rules, Denial::PolicyUnavailable { retry_after: STALE_RETRY })
            }
        }
    }

    pub(super) fn peek_rates(
        &self,
        caller: &Presented<'_>,
        monotonic: Duration,
        report: &mut Report,
    ) {
        let rules = Arc::clone(&report.rules);
        let (charges, count) = charges(caller, &rules);
        let mut levels = [Level::default(); LIMITS_MAX];
        let _whether_it_would_pass =
            self.limiter.peek(&charges[..count], 1, monotonic, &mut levels[..count]);
        report.put_rates(&levels[..count]);
    }
}

const NO_CHARGE: Charge = Charge {
    bucket: Bucket { limit: LimitId(0), scope: 0 },
    rate: Rate { limit: 1, window: Duration::from_secs(1), burst: 1 },
};

/// On the stack: there are few, and every request has them.
fn charges(caller: &Presented<'_>, rules: &Rules) -> ([Charge; LIMITS_MAX], usize) {
    let mut charges = [NO_CHARGE; LIMITS_MAX];
    for (charge, rule) in charges.iter_mut().zip(&rules.rates) {
        *charge = Charge {
            bucket: Bucket { limit: LimitId(rule.id), scope: caller.scope(rule.per) },
            rate: Rate { limit: rule.limit, window: rule.window, burst: rule.burst },
        };
    }
    (charges, rules.rates.len())
}
