//! Leave to do one thing, and what it says about limits.

use std::sync::Arc;
use std::time::Duration;

use super::rate::Level;
use super::{Denial, Running};
use crate::model::fact::QuotaKey;
use crate::model::policy::{Commit, LIMITS_MAX, Rules};
use crate::model::{Principal, Target, Timestamp};

/// How a limit stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Requests that would pass now.
    pub remaining: u64,
    /// Until all of it is there again.
    pub reset: Duration,
}

/// How all limits of a policy stand after a decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    rules: Arc<Rules>,
    standing: Standing,
}

/// How each limit stands: rates first, then quotas; none of what nobody can say.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Standing([Option<Left>; LIMITS_MAX]);

impl Standing {
    pub fn put_rates(&mut self, levels: &[Level]) {
        for (left, level) in self.0.iter_mut().zip(levels) {
            *left = Some(Left { remaining: u64::from(level.remaining), reset: level.reset });
        }
    }

    pub fn put_quota(&mut self, rules: &Rules, place: usize, left: Left) {
        self.0[rules.rates.len() + place] = Some(left);
    }
}

impl Report {
    pub(super) fn new(rules: Arc<Rules>) -> Self {
        Self { rules, standing: Standing::default() }
    }

    /// The policy, and what is told of its limits. (Whoever writes the one reads the other: a
    /// policy is shared by all who have it, and counting its readers is felt by all of them.)
    pub(super) fn parts(&mut self) -> (&Rules, &mut Standing) {
        (&self.rules, &mut self.standing)
    }

    /// The policy.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Name, limit and standing of each: rate limits first, then quotas; without those of which
    /// nobody can say how they stand.
    pub fn limits(&self) -> impl Iterator<Item = (&str, u64, Left)> {
        let rates = self.rules.rates.iter().map(|rate| (&*rate.name, u64::from(rate.burst)));
        let quotas = self.rules.quotas.iter().map(|quota| (&*quota.name, quota.limit));
        let known = rates.chain(quotas).zip(&self.standing.0);
        known.filter_map(|((name, limit), left)| Some((name, limit, (*left)?)))
    }
}

/// What was reserved of a quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaUse {
    /// Which.
    pub key: QuotaKey,
    /// How much.
    pub used: u64,
    pub(super) slot: super::quotas::Slot,
}

/// Leave to do one thing. Only [`super::Admission`] makes it.
#[derive(Debug)]
pub struct Permit<'a> {
    principal: &'a Principal,
    target: &'a Target,
    at: Timestamp,
    commit: Option<Commit>,
    pub(super) would: Option<Denial>,
    pub(super) failed_open: bool,
    pub(super) report: Option<Box<Report>>,
    pub(super) uses: Vec<QuotaUse>,
    pub(super) running: Option<Running>,
}

impl<'a> Permit<'a> {
    pub(super) fn new(
        principal: &'a Principal,
        target: &'a Target,
        at: Timestamp,
        commit: Option<Commit>,
    ) -> Self {
        Self {
            principal,
            target,
            at,
            commit,
            would: None,
            failed_open: false,
            report: None,
            uses: Vec::new(),
            running: None,
        }
    }

    /// Who may.
    pub fn principal(&self) -> &'a Principal {
        self.principal
    }

    /// What may be touched.
    pub fn target(&self) -> &'a Target {
        self.target
    }

    /// When it was admitted; the hour that its counts belong to.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// When the answer may leave, where the policy says so.
    pub fn commit(&self) -> Option<Commit> {
        self.commit
    }

    /// Why it would have been denied by a policy that only observes.
    pub fn would_deny(&self) -> Option<&Denial> {
        self.would.as_ref()
    }

    /// Whether it was let through although nobody could say.
    pub fn failed_open(&self) -> bool {
        self.failed_open
    }

    /// How its limits stand, if it has any.
    pub fn report(&self) -> Option<&Report> {
        self.report.as_deref()
    }

    /// What it has taken of quotas.
    pub fn uses(&self) -> &[QuotaUse] {
        &self.uses
    }

    /// Its place among the requests that run at a time; given back when it is dropped.
    pub fn take_running(&mut self) -> Option<Running> {
        self.running.take()
    }
}
