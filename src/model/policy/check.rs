//! What a document must keep to beyond its types. Every message names the field.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use super::{Period, PolicySpec, Right};
use crate::model::network::mapped;
use crate::model::units::Span;

/// Rate limits and quotas of one policy: each request is held against all of them.
pub const LIMITS_MAX: usize = 8;
/// Rights of one policy.
pub const RIGHTS_MAX: usize = 64;
/// Networks in one list of a policy.
pub const NETWORKS_MAX: usize = 256;
/// The longest window of a rate limit; quotas are for longer ones.
pub const WINDOW_MAX: Span = Span::secs(31 * 24 * 3600);
const WINDOW_MIN: Span = Span::millis(1);
/// A burst that is used up is there again after so long at most.
const REFILL_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// The largest number that a header may hold (RFC 9651 §3.3.1).
const QUOTA_MAX: u64 = 999_999_999_999_999;
/// It stands in headers.
const LIMIT_NAME_MAX: usize = 64;

/// One thing that is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyProblem {
    /// Where: `rate_limits[0].window`; empty for the whole document.
    pub field: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for PolicyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.field, self.message)
        }
    }
}

impl PolicySpec {
    /// Reads a document.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(json: &str) -> Result<Self, Vec<PolicyProblem>> {
        if !json.trim_start().starts_with('{') {
            let message = "a policy is a table".to_owned();
            return Err(vec![PolicyProblem { field: String::new(), message }]);
        }
        let mut reader = serde_json::Deserializer::from_str(json);
        let read: Result<Self, _> = serde_path_to_error::deserialize(&mut reader);
        let spec = read.map_err(|error| {
            let path = error.path().to_string();
            let field = if path == "." { String::new() } else { path };
            // The place in a document that nobody has seen in this form helps nobody.
            let message = error.into_inner().to_string();
            let message = message.split(" at line ").next().unwrap_or_default().to_owned();
            vec![PolicyProblem { field, message }]
        })?;
        let problems = spec.problems();
        if problems.is_empty() { Ok(spec) } else { Err(problems) }
    }

    /// Everything that is wrong with it.
    pub fn problems(&self) -> Vec<PolicyProblem> {
        let mut found = Found(Vec::new());
        rights(self, &mut found);
        limits(self, &mut found);
        networks(self, &mut found);
        if let Some(concurrency) = &self.concurrency {
            found.unless(concurrency.limit > 0, "concurrency.limit", "must be at least 1");
        }
        found.0
    }
}

struct Found(Vec<PolicyProblem>);

impl Found {
    fn unless(&mut self, holds: bool, field: impl Into<String>, message: impl Into<String>) {
        if !holds {
            self.0.push(PolicyProblem { field: field.into(), message: message.into() });
        }
    }
}

fn rights(spec: &PolicySpec, found: &mut Found) {
    let rights = spec.rights.as_deref().unwrap_or_default();
    found.unless(rights.len() <= RIGHTS_MAX, "rights", format!("at most {RIGHTS_MAX} rights"));
    for (at, text) in rights.iter().enumerate() {
        if let Err(error) = Right::parse(text) {
            found.unless(false, format!("rights[{at}]"), error.to_string());
        }
    }
}

fn limits(spec: &PolicySpec, found: &mut Found) {
    let count = spec.rate_limits.len() + spec.quotas.len();
    let rule = format!("at most {LIMITS_MAX} rate limits and quotas together");
    let list = if spec.rate_limits.is_empty() { "quotas" } else { "rate_limits" };
    found.unless(count <= LIMITS_MAX, list, rule);
    let mut names = HashSet::new();
    let mut name = |found: &mut Found, name: &str, field: String| {
        let fits = (1..=LIMIT_NAME_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
        let rule = format!("must have 1 to {LIMIT_NAME_MAX} letters, digits, `_`, `-` or `.`");
        found.unless(fits, field.as_str(), rule);
        found.unless(names.insert(name.to_owned()), field, format!("`{name}` is there twice"));
    };
    for (at, rate) in spec.rate_limits.iter().enumerate() {
        name(found, &rate.name, format!("rate_limits[{at}].name"));
        found.unless(rate.limit > 0, format!("rate_limits[{at}].limit"), "must be at least 1");
        found.unless(
            (WINDOW_MIN..=WINDOW_MAX).contains(&rate.window),
            format!("rate_limits[{at}].window"),
            format!("must lie between {WINDOW_MIN} and {WINDOW_MAX}"),
        );
        let burst = rate.burst.unwrap_or(rate.limit);
        let refill = rate.window.0.as_nanos() * u128::from(burst) / u128::from(rate.limit.max(1));
        found.unless(
            refill <= REFILL_MAX.as_nanos(),
            format!("rate_limits[{at}].burst"),
            "would take more than a hundred years to come back",
        );
        let burst = rate.burst.is_none_or(|burst| burst > 0);
        found.unless(burst, format!("rate_limits[{at}].burst"), "must be at least 1");
    }
    for (at, quota) in spec.quotas.iter().enumerate() {
        name(found, &quota.name, format!("quotas[{at}].name"));
        let limit = (1..=QUOTA_MAX).contains(&quota.limit);
        let rule = format!("must lie between 1 and {QUOTA_MAX}");
        found.unless(limit, format!("quotas[{at}].limit"), rule);
        if let Err(error) = Period::new(quota.period, &quota.timezone) {
            found.unless(false, format!("quotas[{at}].timezone"), error.to_string());
        }
    }
}

fn networks(spec: &PolicySpec, found: &mut Found) {
    for (list, networks) in [("ip_allow", &spec.ip_allow), ("ip_deny", &spec.ip_deny)] {
        let rule = format!("at most {NETWORKS_MAX} networks");
        found.unless(networks.len() <= NETWORKS_MAX, list, rule);
        for (at, network) in networks.iter().enumerate() {
            let rule = format!("{network} has bits behind its prefix; write {}", network.trunc());
            found.unless(network.trunc() == *network, format!("{list}[{at}]"), rule);
            if let Some(plain) = mapped(network) {
                let rule =
                    format!("{network} maps IPv4 addresses, and would match none; write {plain}");
                found.unless(false, format!("{list}[{at}]"), rule);
            }
        }
    }
    let positive = spec.max_stale.is_none_or(|span| span.0 > Duration::ZERO);
    found.unless(positive, "max_stale", "must be more than zero");
}
