//! Rules: a policy as requests are held against it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use hyper::header::HeaderValue;
use ipnet::IpNet;

use super::{
    Commit, Mode, OnUndecidable, Per, Period, PolicyProblem, PolicySpec, Quota, RateLimit, Right,
    Rights,
};
use crate::model::{Name, Policy};

/// A rate limit.
#[derive(Clone, Debug, PartialEq)]
pub struct RateRule {
    /// Tells its state from that of all others.
    pub id: u32,
    /// Its name.
    pub name: Name,
    /// Requests per window.
    pub limit: u32,
    /// The window.
    pub window: Duration,
    /// How many may come at once.
    pub burst: u32,
    /// Who shares it.
    pub per: Per,
}

/// A quota.
#[derive(Debug, PartialEq)]
pub struct QuotaRule {
    /// Tells its state from that of all others.
    pub id: u32,
    /// Its name.
    pub name: Name,
    /// Its name in Postgres: `policy/quota`.
    pub stored: Name,
    /// Requests per period.
    pub limit: u64,
    /// The period.
    pub period: Period,
    /// Who shares it.
    pub per: Per,
}

/// The bound on requests at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct ConcurrencyRule {
    /// Tells its state from that of all others.
    pub id: u32,
    /// Requests at a time.
    pub limit: u32,
    /// Who shares it.
    pub per: Per,
}

/// Where requests may come from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Networks {
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
}

impl Networks {
    /// Whether any address may be denied.
    pub fn restrict(&self) -> bool {
        !(self.allow.is_empty() && self.deny.is_empty())
    }

    /// Whether an address may be used. Deny wins. One that maps an IPv4 address is that address.
    pub fn allow(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let within = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&ip));
        !within(&self.deny) && (self.allow.is_empty() || within(&self.allow))
    }
}

/// A policy as requests are held against it.
#[derive(Debug, PartialEq)]
pub struct Rules {
    /// The policy's name.
    pub name: Name,
    /// Whether it denies; `None`: as configured for all.
    pub mode: Option<Mode>,
    /// What may be done; `None`: everything.
    pub rights: Option<Rights>,
    /// How fast.
    pub rates: Vec<RateRule>,
    /// How many.
    pub quotas: Vec<QuotaRule>,
    /// How many at a time.
    pub concurrency: Option<ConcurrencyRule>,
    /// From where.
    pub networks: Networks,
    /// How long what is known is good; `None`: as configured for all.
    pub max_stale: Option<Duration>,
    /// What happens beyond that.
    pub on_undecidable: OnUndecidable,
    /// When an answer may leave; `None`: as configured for all.
    pub commit: Option<Commit>,
    described: HeaderValue,
}

impl Rules {
    /// Of the policy `default` where nobody declared or stored one: no restriction.
    pub fn unrestricted(name: &Name) -> Self {
        Self::new(name, &PolicySpec::default(), &mut LimitIds::default())
            .unwrap_or_else(|_| unreachable!("what says nothing says nothing wrong"))
    }

    /// Reads a stored or declared policy.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn compile(policy: &Policy, ids: &mut LimitIds) -> Result<Self, Vec<PolicyProblem>> {
        Self::new(&policy.name, &PolicySpec::parse(&policy.spec)?, ids)
    }

    fn new(name: &Name, spec: &PolicySpec, ids: &mut LimitIds) -> Result<Self, Vec<PolicyProblem>> {
        let problems = spec.problems();
        if !problems.is_empty() {
            return Err(problems);
        }
        let rights = spec.rights.as_ref().map(|rights| {
            Rights::new(rights.iter().filter_map(|text| Right::parse(text).ok()).collect())
        });
        let rates = spec.rate_limits.iter().map(|rate| rate_rule(name, rate, ids)).collect();
        let quotas = spec.quotas.iter().filter_map(|quota| quota_rule(name, quota, ids)).collect();
        let concurrency = spec.concurrency.as_ref().map(|concurrency| ConcurrencyRule {
            id: ids.of(name, "concurrency", "", concurrency.per),
            limit: concurrency.limit,
            per: concurrency.per,
        });
        let mut rules = Self {
            name: name.clone(),
            mode: spec.mode,
            rights,
            rates,
            quotas,
            concurrency,
            networks: Networks { allow: spec.ip_allow.clone(), deny: spec.ip_deny.clone() },
            max_stale: spec.max_stale.map(|span| span.0),
            on_undecidable: spec.on_undecidable,
            commit: spec.commit,
            described: HeaderValue::from_static(""),
        };
        // Names of limits are made of letters, digits and a few signs.
        if let Ok(described) = HeaderValue::try_from(rules.describe()) {
            rules.described = described;
        }
        Ok(rules)
    }

    /// The value of `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10 §3): limits in the
    /// order of `rates`, then `quotas`. Empty without any. Checked once: it is in every answer.
    pub fn described(&self) -> &HeaderValue {
        &self.described
    }

    /// Whether any limit is counted.
    pub fn has_limits(&self) -> bool {
        !(self.rates.is_empty() && self.quotas.is_empty())
    }

    /// `q` is what may be used at once, `w` the time in which all of it comes back.
    fn describe(&self) -> String {
        let mut text = String::new();
        for rate in &self.rates {
            let refill = rate.window.as_nanos() * u128::from(rate.burst) / u128::from(rate.limit);
            let seconds = refill.div_ceil(1_000_000_000).max(1);
            let separator = if text.is_empty() { "" } else { ", " };
            let _infallible =
                write!(text, "{separator}\"{}\";q={};w={seconds}", rate.name, rate.burst);
        }
        for quota in &self.quotas {
            let separator = if text.is_empty() { "" } else { ", " };
            let _infallible = write!(text, "{separator}\"{}\";q={}", quota.name, quota.limit);
        }
        text
    }
}

fn rate_rule(policy: &Name, rate: &RateLimit, ids: &mut LimitIds) -> RateRule {
    RateRule {
        id: ids.of(policy, "rate", &rate.name, rate.per),
        name: rate.name.as_str().into(),
        limit: rate.limit,
        window: rate.window.0,
        burst: rate.burst.unwrap_or(rate.limit),
        per: rate.per,
    }
}

fn quota_rule(policy: &Name, quota: &Quota, ids: &mut LimitIds) -> Option<QuotaRule> {
    Some(QuotaRule {
        id: ids.of(policy, "quota", &quota.name, quota.per),
        name: quota.name.as_str().into(),
        stored: format!("{policy}/{}", quota.name).into(),
        limit: quota.limit,
        period: Period::new(quota.period, &quota.timezone).ok()?,
        per: quota.per,
    })
}

/// Small numbers for limits: a limit that keeps its policy, name and sharers keeps its number, and
/// with it its state, however often the policy is edited. Grows with every limit there ever was
/// since the start.
#[derive(Debug, Default)]
pub struct LimitIds(HashMap<(Name, &'static str, String, Per), u32>);

impl LimitIds {
    fn of(&mut self, policy: &Name, kind: &'static str, name: &str, per: Per) -> u32 {
        let next = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        *self.0.entry((policy.clone(), kind, name.to_owned(), per)).or_insert(next)
    }
}
