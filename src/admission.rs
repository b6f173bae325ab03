//! Whether an identified caller may do what it asks: a permit or a denial. No I/O.
//!
//! A [`Permit`] can be made here only, and nothing is forwarded without one. There are two steps:
//!
//! 1. [`Admission::check`] looks and changes nothing: what is provably denied first (deny wins),
//!    then what cannot be decided, then what the policy says about networks and rights.
//! 2. [`Admission::charge`] takes from the limits: all of them, or none. Whoever calls it has made
//!    sure before that what happens can be counted.
//!
//! A policy that observes decides the same, and says in the permit that it would have denied.

mod calendar;
mod charge;
mod concurrency;
mod config;
mod denial;
mod explain;
mod permit;
mod quotas;
mod rate;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::metrics::Metrics;
use crate::model::fact::QuotaKey;
use crate::model::policy::{
    Commit, Mode, OnUndecidable, Per, QuotaRule, Rules, covers, narrows, reads_like_right,
};
use crate::model::{KeyState, Name, Principal, SessionState, Standing, Target, Timestamp};
use calendar::Calendar;
use concurrency::Concurrency;
use rate::Limiter;

pub use calendar::Believed;
pub use concurrency::Running;
pub use config::{Config, LimitHeaders};
pub use denial::{Denial, Limited};
pub use explain::{Step, Verdict};
pub use permit::{Left, Permit, QuotaUse, Report};
pub use quotas::{Bases, QuotaStanding, Quotas, Used};

/// When a caller that met a stale cache should ask again.
const STALE_RETRY: Duration = Duration::from_secs(5);
const UNAVAILABLE: Denial = Denial::PolicyUnavailable { retry_after: STALE_RETRY };

/// What is known of an identified caller at the moment of the request.
#[derive(Clone, Debug)]
pub struct Presented<'a> {
    /// Who it is.
    pub principal: &'a Principal,
    /// The scopes of the key or session: those of a token that was made of it are some of them.
    pub granted: &'a [Name],
    /// Revocations included.
    pub standing: Standing,
    /// Whether its client is enabled.
    pub client_enabled: bool,
    /// Its policy; `None`: it has one that nobody knows.
    pub rules: Option<Arc<Rules>>,
    /// Its client's own mode.
    pub mode: Option<Mode>,
    /// The key or session: who has the limits that are per key.
    pub own: Uuid,
    /// Stands for its client: who has those that are per client.
    pub client_scope: u128,
    /// Whether what the cache knows is older than its policy allows.
    pub stale: bool,
}

impl Presented<'_> {
    fn scope(&self, per: Per) -> u128 {
        match per {
            Per::Key => self.own.as_u128(),
            Per::Client => self.client_scope,
        }
    }

    fn scope_name(&self, per: Per) -> Name {
        match per {
            Per::Key => self.own.to_string().into(),
            Per::Client => self.principal.client.clone(),
        }
    }
}

/// What a caller asks for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// What it touches.
    pub target: &'a Target,
    /// Scopes that it must have, if any are asked for.
    pub scopes: &'a [Name],
    /// How much it weighs on limits: 1 for a request.
    pub cost: u32,
    /// Where it comes from; `None` when that cannot be said.
    pub ip: Option<IpAddr>,
    /// Whether it runs here until its answer ends, and so takes a place among what does.
    pub runs: bool,
}

impl<'a> Ask<'a> {
    /// An ordinary request that is only decided here.
    pub fn request(target: &'a Target, ip: Option<IpAddr>) -> Self {
        Self { target, scopes: &[], cost: 1, ip, runs: false }
    }

    /// One that is forwarded too.
    pub fn forwarded(target: &'a Target, ip: Option<IpAddr>) -> Self {
        Self { runs: true, ..Self::request(target, ip) }
    }
}

/// A caller that nothing but its limits may deny any more.
#[derive(Debug)]
pub struct Cleared<'a> {
    caller: Presented<'a>,
    ask: Ask<'a>,
    rules: Arc<Rules>,
    observed: bool,
    would: Option<Denial>,
    undecided: bool,
}

impl Cleared<'_> {
    /// When an answer may leave, where the policy says so.
    pub fn commit(&self) -> Option<Commit> {
        self.rules.commit
    }

    /// Whether a quota is asked: what was used before the start must be known then.
    pub fn asks_quotas(&self) -> bool {
        self.would.is_none() && !self.rules.quotas.is_empty()
    }
}

/// Decides, and keeps the state of all limits.
pub struct Admission {
    config: Config,
    limiter: Limiter,
    quotas: Quotas,
    running: Arc<Concurrency>,
    calendar: Calendar,
    metrics: Arc<Metrics>,
}

impl Admission {
    /// Nothing counted yet; `now` and `monotonic` are the moment.
    pub fn new(config: Config, now: Timestamp, monotonic: Duration, metrics: Arc<Metrics>) -> Self {
        Self {
            limiter: Limiter::new(config.max_buckets, config::SHARDS),
            quotas: Quotas::new(config.max_quotas),
            running: Arc::default(),
            calendar: Calendar::new(now, monotonic, None),
            config,
            metrics,
        }
    }

    /// Goes on from what an earlier process believed of the clock.
    pub fn after(mut self, last: Believed, now: Timestamp, monotonic: Duration) -> Self {
        self.calendar = Calendar::new(now, monotonic, Some(last));
        self
    }

    /// What is believed of the clock, for the next process.
    pub fn believed(&self, monotonic: Duration) -> Believed {
        self.calendar.believed(monotonic)
    }

    /// What time it is, if the clock has not been set for long: for what cannot be undone.
    pub fn settled_now(&self, now: Timestamp, monotonic: Duration) -> Option<Timestamp> {
        self.calendar.settled(now, monotonic, &self.metrics)
    }

    /// How much of which quota was used.
    pub fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// How the quotas stand that a policy gives each key or client, for one of them.
    pub fn standing(
        &self,
        rules: &Rules,
        per: Per,
        of: &Name,
        now: Timestamp,
        monotonic: Duration,
    ) -> Vec<QuotaStanding> {
        let at = self.calendar.now(now, monotonic, &self.metrics);
        let quotas = rules.quotas.iter().filter(|quota| quota.per == per);
        let standing = |quota: &QuotaRule| {
            let (period, until) = quota.period.around(at);
            let key = QuotaKey { quota: quota.stored.clone(), scope: of.clone(), period, until };
            let used = self.quotas.used(&key).map(|used| used.own.saturating_add(used.others));
            QuotaStanding {
                quota: quota.name.clone(),
                policy: rules.name.clone(),
                per: per.as_str(),
                of: of.clone(),
                period_start: period,
                period_end: until,
                limit: quota.limit,
                used,
                remaining: used.map(|used| quota.limit.saturating_sub(used)),
            }
        };
        quotas.map(standing).collect()
    }

    /// How limits are told in answers.
    pub fn limit_headers(&self) -> LimitHeaders {
        self.config.limit_headers
    }

    /// Looks at everything that no limit counts. Changes nothing.
    ///
    /// # Errors
    /// Why not.
    pub fn check<'a>(
        &self,
        mut caller: Presented<'a>,
        ask: Ask<'a>,
        now: Timestamp,
    ) -> Result<Cleared<'a>, Denial> {
        let _at = now;
        provably_denied(&caller)?;
        let Some(rules) = caller.rules.take() else { return Err(UNAVAILABLE) };
        let observed = self.observes(&caller, &rules);
        let decided = if caller.stale { fails_open(&rules) } else { Ok(()) };
        let undecided = caller.stale && decided.is_ok();
        let would = match decided {
            Err(denial) if !observed => return Err(denial),
            decided => decided,
        };
        within_scopes(caller.principal, ask.scopes)?;
        let would = would.and_then(|()| by_policy(&caller, &ask, &rules)).err();
        match would {
            Some(denial) if !observed => Err(denial),
            would => Ok(Cleared { caller, ask, rules, observed, would, undecided }),
        }
    }

    /// Leave to do what is open to everybody. Nobody is identified, so there is no policy and no
    /// limit, and nobody to count it for.
    pub fn open<'a>(
        &self,
        nobody: &'a Principal,
        target: &'a Target,
        now: Timestamp,
    ) -> Permit<'a> {
        self.metrics.admission.anonymous.inc();
        Permit::new(nobody, target, now, None)
    }

    fn observes(&self, caller: &Presented<'_>, rules: &Rules) -> bool {
        caller.mode.or(rules.mode).unwrap_or(self.config.mode) == Mode::Observe
    }

    /// Takes from every limit, or from none: then it says which one denies.
    ///
    /// # Errors
    /// The first limit that has too little left, unless its policy observes.
    pub fn charge<'a>(
        &self,
        cleared: Cleared<'a>,
        now: Timestamp,
        monotonic: Duration,
    ) -> Result<Permit<'a>, Denial> {
        let Cleared { caller, ask, rules, observed, would, undecided } = cleared;
        let (principal, target) = (caller.principal, ask.target);
        let mut permit = Permit::new(principal, target, now, rules.commit);
        permit.failed_open = undecided;
        permit.would = would;
        if permit.would.is_none() {
            match self.take(&caller, &ask, rules, now, monotonic, &mut permit) {
                Err(denial) if !observed => return Err(denial),
                Err(denial) => permit.would = Some(denial),
                Ok(()) => {}
            }
        }
        // Explicit, and counted once, however much nobody could say.
        if permit.failed_open {
            self.metrics.admission.failed_open.inc();
        }
        if let Some(denial) = &permit.would {
            permit.report = permit.report.take().or_else(|| denial.report().cloned().map(Box::new));
        }
        Ok(permit)
    }

    /// Lets go of limits that stand as if nothing had ever been taken, and of quotas that can be
    /// asked for again; brings gauges up to date.
    pub fn tidy(&self, now: Timestamp, monotonic: Duration) {
        self.limiter.sweep(monotonic);
        self.quotas.sweep(self.settled_now(now, monotonic));
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.admission.buckets.set(gauge(self.limiter.len()));
        self.metrics.admission.quotas.set(gauge(self.quotas.len()));
    }
}

/// What nobody can decide is denied, unless its policy says otherwise.
fn fails_open(rules: &Rules) -> Result<(), Denial> {
    if rules.on_undecidable == OnUndecidable::Allow { Ok(()) } else { Err(UNAVAILABLE) }
}

fn provably_denied(caller: &Presented<'_>) -> Result<(), Denial> {
    match caller.standing {
        Standing::Key(KeyState::Revoked) => Err(Denial::KeyRevoked),
        Standing::Key(KeyState::Disabled) => Err(Denial::KeyDisabled),
        Standing::Key(KeyState::Expired) => Err(Denial::KeyExpired),
        Standing::Session(SessionState::Revoked | SessionState::Expired) => {
            Err(Denial::SessionOver)
        }
        Standing::Key(KeyState::Active) | Standing::Session(SessionState::Active) => {
            if caller.client_enabled { Ok(()) } else { Err(Denial::ClientDisabled) }
        }
    }
}

/// A key without scopes is not narrowed by them. One that reads like a right stands for all that it
/// covers.
fn within_scopes(principal: &Principal, asked: &[Name]) -> Result<(), Denial> {
    let has = &principal.scopes;
    let covered = |scope: &Name| {
        let right = scope.rsplit_once('.').filter(|_| reads_like_right(scope));
        has.contains(scope)
            || right.is_some_and(|(table, operation)| {
                let target = Target { table: table.into(), operation: operation.into() };
                has.iter().any(|has| has.contains('*') && covers(has, &target))
            })
    };
    if has.is_empty() || asked.iter().all(covered) {
        Ok(())
    } else {
        Err(Denial::InsufficientScope)
    }
}

/// Whether the scopes keep it from the right that it asks for.
fn kept_by_scopes(caller: &Presented<'_>, ask: &Ask<'_>) -> bool {
    narrows(caller.granted, &caller.principal.scopes, ask.target)
}

fn by_policy(caller: &Presented<'_>, ask: &Ask<'_>, rules: &Rules) -> Result<(), Denial> {
    // An address that nobody can tell is none that is allowed.
    if rules.networks.restrict() && !ask.ip.is_some_and(|ip| rules.networks.allow(ip)) {
        return Err(Denial::IpDenied);
    }
    let granted = rules.rights.as_ref().is_none_or(|rights| rights.allow(ask.target));
    if granted && !kept_by_scopes(caller, ask) {
        Ok(())
    } else {
        Err(Denial::MissingRight(ask.target.right()))
    }
}
