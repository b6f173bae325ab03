//! Taking from the limits: rates, then a place and quotas under the locks of the rates; and nothing
//! of any where one of them denies. Of several that deny, the last to have enough is told.

use std::sync::Arc;
use std::time::Duration;

use super::permit::Standing;
use super::quotas::{Asked, Refusal, Slot};
use super::rate::{Bucket, Charge, Level, LimitId, Rate, TakeError, later};
use super::{
    Admission, Ask, Cleared, Denial, Left, Limited, Permit, Presented, QuotaUse, Report, Running,
    fails_open,
};
use crate::model::Timestamp;
use crate::model::fact::QuotaKey;
use crate::model::policy::{LIMITS_MAX, QuotaRule, Rules};

/// When it is: by the calendar that quotas follow, and by the monotonic clock.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub now: Timestamp,
    pub monotonic: Duration,
}

/// Who asks for what, when, and what that is held against.
#[derive(Clone, Copy)]
struct Claim<'a> {
    caller: &'a Presented<'a>,
    ask: &'a Ask<'a>,
    at: Moment,
    rules: &'a Rules,
}

/// A quota that has too little left, and when it will have enough; `None`: never.
struct Short {
    place: usize,
    retry_after: Option<Duration>,
}

/// What a request has of the limits besides its charges.
#[derive(Default)]
struct Taken {
    uses: Vec<QuotaUse>,
    running: Option<Running>,
    /// Nobody could say, and its policy fails open.
    failed_open: bool,
}

/// Why nothing was taken.
enum Untaken {
    Exceeded(Short),
    Denied(Denial),
}

impl From<Denial> for Untaken {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
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
        if !rules.has_limits() {
            let ((), running) = self.enter(caller, ask, &rules, || Ok::<_, Denial>(()))?;
            permit.running = running;
            return Ok(());
        }
        let now = if rules.quotas.is_empty() {
            now
        } else {
            self.calendar.now(now, monotonic, &self.metrics)
        };
        let mut report = Box::new(Report::new(rules));
        let taken = self.take_all(caller, ask, Moment { now, monotonic }, &mut report)?;
        permit.uses = taken.uses;
        permit.running = taken.running;
        permit.failed_open |= taken.failed_open;
        permit.report = Some(report);
        Ok(())
    }

    /// Takes from every limit, or from none. A place is entered and quotas are reserved while all
    /// rates would let it pass and are locked: so nothing is lent to a request that another limit
    /// refuses, which others would be refused for meanwhile.
    fn take_all(
        &self,
        caller: &Presented<'_>,
        ask: &Ask<'_>,
        at: Moment,
        report: &mut Report,
    ) -> Result<Taken, Denial> {
        let (rules, standing) = report.parts();
        let claim = Claim { caller, ask, at, rules };
        let (charges, count) = charges(caller, rules);
        let mut levels = [Level::default(); LIMITS_MAX];
        let (charges, levels) = (&charges[..count], &mut levels[..count]);
        let mut taken = Ok(Taken::default());
        let mut others = || {
            taken = self.take_others(claim, standing);
            taken.is_ok()
        };
        match self.limiter.take(charges, ask.cost, at.monotonic, levels, &mut others) {
            Ok(()) | Err(TakeError::Otherwise) => standing.put_rates(levels),
            Err(TakeError::Refused { at: place, retry_after }) => {
                standing.put_rates(levels);
                let short = self.look_at_quotas(claim, standing);
                if let Some(short) = short.filter(|short| !later(retry_after, short.retry_after)) {
                    return Err(exceeded(&short, report));
                }
                let name = rules.rates[place].name.clone();
                let limited = Limited { name, retry_after, report: report.clone() };
                return Err(Denial::RateLimited(Box::new(limited)));
            }
            Err(TakeError::Full) => {
                self.metrics.admission.buckets_full.inc();
                fails_open(rules)?;
                taken = self.take_others(claim, standing);
                taken = taken.map(|taken| Taken { failed_open: true, ..taken });
            }
        }
        let untaken = match taken {
            Ok(taken) => return Ok(taken),
            Err(untaken) => untaken,
        };
        // A quota that refuses too lasts longer than the wait for a place, and denies for certain
        // what could not be decided.
        let short = self.look_at_quotas(claim, standing);
        match (short, untaken) {
            (Some(short), _) | (None, Untaken::Exceeded(short)) => Err(exceeded(&short, report)),
            (None, Untaken::Denied(denial)) => Err(denial),
        }
    }

    /// Enters a place and reserves every quota, or nothing of them. (All quotas are looked at
    /// before any is reserved. What one lends to a request that another refuses, it lends only
    /// where the other's last was reserved between the look and this, and for as long.)
    fn take_others(&self, claim: Claim<'_>, standing: &mut Standing) -> Result<Taken, Untaken> {
        let Claim { caller, ask, rules, .. } = claim;
        if rules.quotas.len() > 1
            && let Some(short) = self.look_at_quotas(claim, standing)
        {
            return Err(Untaken::Exceeded(short));
        }
        let reserve = || self.reserve(claim, standing);
        let (taken, running) = self.enter(caller, ask, rules, reserve)?;
        Ok(Taken { running, ..taken })
    }

    /// Takes a place among what runs, if one is free and `also` agrees. What does not run until
    /// its answer ends only sees whether one is free.
    fn enter<T, E: From<Denial>>(
        &self,
        caller: &Presented<'_>,
        ask: &Ask<'_>,
        rules: &Rules,
        also: impl FnOnce() -> Result<T, E>,
    ) -> Result<(T, Option<Running>), E> {
        let Some(rule) = &rules.concurrency else { return Ok((also()?, None)) };
        let (scope, limit) = (caller.scope(rule.per), rule.limit);
        let crowded = Denial::ConcurrencyExceeded(limit);
        if ask.runs {
            let entered = self.running.enter(rule.id, scope, limit, also).ok_or(crowded)?;
            entered.map(|(taken, running)| (taken, Some(running)))
        } else if self.running.count(rule.id, scope) < limit {
            Ok((also()?, None))
        } else {
            Err(crowded.into())
        }
    }

    /// Reserves every quota, or none.
    fn reserve(&self, claim: Claim<'_>, standing: &mut Standing) -> Result<Taken, Untaken> {
        let Claim { caller, ask, at, rules } = claim;
        let mut taken = Taken { uses: Vec::with_capacity(rules.quotas.len()), ..Taken::default() };
        let Moment { now, monotonic } = at;
        let settled_now = || self.calendar.settled_at(monotonic);
        for quota in counted(caller, rules, now) {
            let Counted { place, rule, slot, until } = quota;
            let asked = Asked {
                rule,
                until,
                cost: u64::from(ask.cost),
                settled_now: &settled_now,
                monotonic,
            };
            let scope_name = || caller.scope_name(rule.per);
            let untaken = match self.quotas.reserve(slot, &asked, &scope_name) {
                Ok((used, remaining)) => {
                    let reset = until.since(now);
                    standing.put_quota(rules, place, Left { remaining, reset });
                    taken.uses.push(used);
                    continue;
                }
                Err(Refusal::Exceeded) => Untaken::Exceeded(quota.short(ask, now)),
                Err(refusal @ (Refusal::Full | Refusal::Unknown)) => {
                    if matches!(refusal, Refusal::Full) {
                        self.metrics.admission.quotas_full.inc();
                    }
                    match fails_open(rules) {
                        Ok(()) => {
                            taken.failed_open = true;
                            continue;
                        }
                        Err(denial) => denial.into(),
                    }
                }
            };
            self.quotas.give_back(&taken.uses);
            return Err(untaken);
        }
        Ok(taken)
    }

    /// How all quotas stand, and of those that have too little left the one that is the last to
    /// have enough. Takes nothing.
    fn look_at_quotas(&self, claim: Claim<'_>, standing: &mut Standing) -> Option<Short> {
        let Claim { caller, ask, at, rules } = claim;
        let mut last = None::<Short>;
        for quota in counted(caller, rules, at.now) {
            let Some(used) = self.quotas.look(&quota.slot, &|| quota.key(caller)) else { continue };
            let Counted { place, rule, until, .. } = quota;
            let remaining = rule.limit.saturating_sub(used.own.saturating_add(used.others));
            standing.put_quota(rules, place, Left { remaining, reset: until.since(at.now) });
            if remaining < u64::from(ask.cost) {
                let short = quota.short(ask, at.now);
                if last.as_ref().is_none_or(|last| later(short.retry_after, last.retry_after)) {
                    last = Some(short);
                }
            }
        }
        last
    }

    /// How the limits of a request stand that is refused for another reason; `None`: it has none.
    /// Takes nothing.
    pub fn look(
        &self,
        cleared: &Cleared<'_>,
        now: Timestamp,
        monotonic: Duration,
    ) -> Option<Box<Report>> {
        let Cleared { caller, ask, rules, .. } = cleared;
        if cleared.would.is_some() || !rules.has_limits() {
            return None;
        }
        let at = Moment { now: self.calendar.now(now, monotonic, &self.metrics), monotonic };
        let mut report = Box::new(Report::new(Arc::clone(rules)));
        let _whether_they_would_pass = self.peek_rates(caller, ask.cost, monotonic, &mut report);
        let (rules, standing) = report.parts();
        let _whether_they_would_pass =
            self.look_at_quotas(Claim { caller, ask, at, rules }, standing);
        Some(report)
    }

    /// How the rate limits stand, and whether they would pass. Takes nothing.
    pub(super) fn peek_rates(
        &self,
        caller: &Presented<'_>,
        cost: u32,
        monotonic: Duration,
        report: &mut Report,
    ) -> Result<(), TakeError> {
        let (rules, standing) = report.parts();
        let (charges, count) = charges(caller, rules);
        let mut levels = [Level::default(); LIMITS_MAX];
        let seen = self.limiter.peek(&charges[..count], cost, monotonic, &mut levels[..count]);
        standing.put_rates(&levels[..count]);
        seen
    }
}

/// A quota as it counts for one caller at one moment.
pub(super) struct Counted<'a> {
    /// Where it stands in its policy.
    place: usize,
    pub rule: &'a QuotaRule,
    pub slot: Slot,
    /// When its period ends.
    pub until: Timestamp,
}

impl Counted<'_> {
    /// It has too little left. What costs more than a whole period has never fits.
    fn short(&self, ask: &Ask<'_>, now: Timestamp) -> Short {
        let fits = u64::from(ask.cost) <= self.rule.limit;
        Short { place: self.place, retry_after: fits.then(|| self.until.since(now)) }
    }

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

fn exceeded(short: &Short, report: &mut Report) -> Denial {
    let name = report.rules().quotas[short.place].name.clone();
    let limited = Limited { name, retry_after: short.retry_after, report: report.clone() };
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
