//! Taking from the limits: concurrency, then rates and quotas together; and nothing of any where
//! one of them denies.

use std::sync::Arc;
use std::time::Duration;

use super::permit::Standing;
use super::quotas::{Asked, Refusal, Slot};
use super::rate::{Bucket, Charge, Level, LimitId, Rate, TakeError};
use super::{
    Admission, Ask, Denial, Left, Limited, Permit, Presented, QuotaUse, Report, STALE_RETRY,
};
use crate::model::Timestamp;
use crate::model::fact::QuotaKey;
use crate::model::policy::{LIMITS_MAX, QuotaRule, Rules};

/// When it is: by the calendar that quotas follow, and by the monotonic clock.
#[derive(Clone, Copy)]
struct Moment {
    now: Timestamp,
    monotonic: Duration,
}

/// Why no quota was reserved.
enum Unreserved {
    /// The one in this place has too little left.
    Exceeded(usize),
    /// Nobody can say what is left of one, and its policy does not fail open.
    Undecidable(Denial),
}

impl Admission {
    pub(super) fn take(
        &self,
        caller: &Presented<'_>,
        ask: &Ask<'_>,
        rules: Arc<Rules>,
        now: Timestamp,
        monotonic: Duration,
        permit: &mut Permit<'_>,
    ) -> Result<(), Denial> {
        let running = rules.concurrency.as_ref().map(|rule| {
            self.running.enter(rule.id, caller.scope(rule.per), rule.limit).ok_or(rule.limit)
        });
        let running = running.transpose().map_err(Denial::ConcurrencyExceeded)?;
        if rules.has_limits() {
            let now = if rules.quotas.is_empty() {
                now
            } else {
                self.calendar.now(now, monotonic, &self.metrics)
            };
            let mut report = Box::new(Report::new(rules));
            permit.uses = self.take_all(caller, ask, Moment { now, monotonic }, &mut report)?;
            permit.report = Some(report);
        }
        permit.running = running;
        Ok(())
    }

    /// Takes from every rate and quota, or from none. Quotas are reserved while all rates would let
    /// it pass and are locked: so nothing is lent to a request that a rate refuses, which others
    /// would be refused for meanwhile.
    fn take_all(
        &self,
        caller: &Presented<'_>,
        ask: &Ask<'_>,
        at: Moment,
        report: &mut Report,
    ) -> Result<Vec<QuotaUse>, Denial> {
        let (rules, standing) = report.parts();
        let (charges, count) = charges(caller, rules);
        let mut levels = [Level::default(); LIMITS_MAX];
        let (charges, levels) = (&charges[..count], &mut levels[..count]);
        let mut reserved = Ok(Vec::new());
        let mut reserve = || {
            reserved = self.reserve(caller, ask, at, rules, standing);
            reserved.is_ok()
        };
        match self.limiter.take(charges, ask.cost, at.monotonic, levels, &mut reserve) {
            Ok(()) | Err(TakeError::Otherwise) => standing.put_rates(levels),
            Err(TakeError::Refused { at: place, retry_after }) => {
                standing.put_rates(levels);
                // What a quota says too lasts longer.
                if let Some(place) = self.look_at_quotas(caller, ask, at, rules, standing) {
                    return Err(exceeded(place, ask, report));
                }
                let name = rules.rates[place].name.clone();
                let limited = Limited { name, retry_after, report: report.clone() };
                return Err(Denial::RateLimited(Box::new(limited)));
            }
            Err(TakeError::Full) => {
                self.metrics.admission.buckets_full.inc();
                let denial = Denial::PolicyUnavailable { retry_after: STALE_RETRY };
                self.undecidable(rules, denial)?;
                reserved = self.reserve(caller, ask, at, rules, standing);
            }
        }
        match reserved {
            Ok(uses) => Ok(uses),
            Err(Unreserved::Undecidable(denial)) => Err(denial),
            Err(Unreserved::Exceeded(place)) => {
                let short = self.look_at_quotas(caller, ask, at, rules, standing);
                Err(exceeded(short.unwrap_or(place), ask, report))
            }
        }
    }

    /// Reserves every quota, or none.
    fn reserve(
        &self,
        caller: &Presented<'_>,
        ask: &Ask<'_>,
        at: Moment,
        rules: &Rules,
        standing: &mut Standing,
    ) -> Result<Vec<QuotaUse>, Unreserved> {
        let mut uses = Vec::with_capacity(rules.quotas.len());
        let Moment { now, monotonic } = at;
        for Counted { place, rule, slot, until } in counted(caller, rules, now) {
            let asked = Asked { rule, until, cost: u64::from(ask.cost), now, monotonic };
            let scope_name = || caller.scope_name(rule.per);
            let refusal = match self.quotas.reserve(slot, &asked, &scope_name) {
                Ok((used, remaining)) => {
                    let reset = until.since(now);
                    standing.put_quota(rules, place, Left { remaining, reset });
                    uses.push(used);
                    continue;
                }
                Err(refusal) => refusal,
            };
            let unreserved = match self.passes_all_the_same(rules, place, refusal) {
                Ok(()) => continue,
                Err(unreserved) => unreserved,
            };
            self.quotas.give_back(&uses);
            return Err(unreserved);
        }
        Ok(uses)
    }

    fn passes_all_the_same(
        &self,
        rules: &Rules,
        place: usize,
        refusal: Refusal,
    ) -> Result<(), Unreserved> {
        match refusal {
            Refusal::Exceeded => return Err(Unreserved::Exceeded(place)),
            Refusal::Full => drop(self.metrics.admission.quotas_full.inc()),
            Refusal::Unknown => {}
        }
        let denial = Denial::PolicyUnavailable { retry_after: STALE_RETRY };
        self.undecidable(rules, denial).map_err(Unreserved::Undecidable)
    }

    /// How all quotas stand, and the first that has too little left. Takes nothing.
    fn look_at_quotas(
        &self,
        caller: &Presented<'_>,
        ask: &Ask<'_>,
        at: Moment,
        rules: &Rules,
        standing: &mut Standing,
    ) -> Option<usize> {
        let mut short = None;
        for quota in counted(caller, rules, at.now) {
            let Some(used) = self.quotas.look(&quota.slot, &|| quota.key(caller)) else { continue };
            let Counted { place, rule, until, .. } = quota;
            let remaining = rule.limit.saturating_sub(used.own.saturating_add(used.others));
            standing.put_quota(rules, place, Left { remaining, reset: until.since(at.now) });
            if remaining < u64::from(ask.cost) {
                short = short.or(Some(place));
            }
        }
        short
    }

    pub(super) fn peek_rates(
        &self,
        caller: &Presented<'_>,
        monotonic: Duration,
        report: &mut Report,
    ) {
        let (rules, standing) = report.parts();
        let (charges, count) = charges(caller, rules);
        let mut levels = [Level::default(); LIMITS_MAX];
        let _whether_it_would_pass =
            self.limiter.peek(&charges[..count], 1, monotonic, &mut levels[..count]);
        standing.put_rates(&levels[..count]);
    }
}

/// A quota as it counts for one caller at one moment.
pub(super) struct Counted<'a> {
    /// Where it stands in its policy.
    place: usize,
    pub rule: &'a QuotaRule,
    slot: Slot,
    /// When its period ends.
    pub until: Timestamp,
}

impl Counted<'_> {
    /// What Postgres calls it.
    pub fn key(&self, caller: &Presented<'_>) -> QuotaKey {
        let (quota, scope) = (self.rule.stored.clone(), caller.scope_name(self.rule.per));
        QuotaKey { quota, scope, period: self.slot.start, until: self.until }
    }
}

/// All quotas of a policy.
pub(super) fn counted<'a>(
    caller: &Presented<'_>,
    rules: &'a Rules,
    now: Timestamp,
) -> impl Iterator<Item = Counted<'a>> {
    rules.quotas.iter().enumerate().map(move |(place, rule)| {
        let (start, until) = rule.period.around(now);
        let slot = Slot { quota: rule.id, scope: caller.scope(rule.per), start };
        Counted { place, rule, slot, until }
    })
}

/// What costs more than a whole period has never fits.
fn exceeded(place: usize, ask: &Ask<'_>, report: &mut Report) -> Denial {
    let (rules, standing) = report.parts();
    let rule = &rules.quotas[place];
    let reset = standing.quota(rules, place).map(|left| left.reset);
    let limited = Limited {
        name: rule.name.clone(),
        retry_after: reset.filter(|_| u64::from(ask.cost) <= rule.limit),
        report: report.clone(),
    };
    Denial::QuotaExceeded(Box::new(limited))
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
