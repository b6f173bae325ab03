//! The document: `[[policies]]` in a configuration or a file that is applied, `policies.spec` in
//! Postgres.

use bincode::{Decode, Encode};
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::network::networks;
use crate::model::units::Span;

/// When an answer may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Commit {
    /// At once; what it counted is on disk within one interval.
    Interval,
    /// When what it counted is on disk.
    BeforeReply,
}

/// Whether a policy's denials deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema, Encode, Decode)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// They do.
    Enforce,
    /// They are decided and recorded; the request passes.
    Observe,
}

impl Mode {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Observe => "observe",
        }
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Enforce, Self::Observe].into_iter().find(|mode| mode.as_str() == text)
    }
}

/// Who shares a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    /// Each key has its own; so has each session.
    Key,
    /// All keys and sessions of a client together.
    #[default]
    Client,
}

impl Per {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Client => "client",
        }
    }
}

/// What a request that cannot be decided gets: the policy, or what it is decided by, is too old.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnUndecidable {
    /// 503.
    #[default]
    Deny,
    /// It passes, and is counted: fail-open.
    Allow,
}

/// At most `limit` requests in each `window`, evenly, with a head start of `burst`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Its name in answers; a limit that keeps its name keeps its state.
    pub name: String,
    /// Requests per window.
    pub limit: u32,
    /// 1 ms to 31 days.
    pub window: Span,
    /// How many may come at once; `limit` when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// Who shares it.
    #[serde(default)]
    pub per: Per,
}

/// The calendar's unit that a quota counts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PeriodUnit {
    /// From minute 0 to minute 0.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From the first to the first.
    Month,
    /// From January to January.
    Year,
}

/// At most `limit` requests in each period of the calendar.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Its name in answers and in Postgres; a quota that keeps its name keeps what was used.
    pub name: String,
    /// Requests per period.
    pub limit: u64,
    /// The period.
    pub period: PeriodUnit,
    /// Where the calendar hangs: a name of the IANA time zone database.
    #[serde(default = "utc")]
    pub timezone: String,
    /// Who shares it.
    #[serde(default)]
    pub per: Per,
}

fn utc() -> String {
    "UTC".into()
}

/// At most `limit` forwarded requests at a time, to the end of their answers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Concurrency {
    /// Requests at a time.
    pub limit: u32,
    /// Who shares it.
    #[serde(default)]
    pub per: Per,
}

/// A policy without its name. What is not said does not restrict.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PolicySpec {
    /// Whether it denies or only says that it would. The client's own setting wins; without either
    /// `admission.mode` holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// What may be done, `<table>.<operation>` with `*` for any; `*` alone is everything. Without:
    /// everything. A request that no route names a table for asks for `gateway.access`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rights: Option<Vec<String>>,
    /// How fast.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rate_limits: Vec<RateLimit>,
    /// How many.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quotas: Vec<Quota>,
    /// How many at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// Networks that requests may come from; empty: any.
    #[serde(deserialize_with = "networks", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub ip_allow: Vec<IpNet>,
    /// Networks that they may not come from, whatever `ip_allow` says.
    #[serde(deserialize_with = "networks", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub ip_deny: Vec<IpNet>,
    /// How long what is known is good while Postgres cannot be reached; `cache.max_stale` when not
    /// set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_stale: Option<Span>,
    /// What happens beyond that.
    #[serde(skip_serializing_if = "is_deny")]
    pub on_undecidable: OnUndecidable,
    /// When an answer may leave; `journal.commit` when not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<Commit>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_deny(on_undecidable: &OnUndecidable) -> bool {
    *on_undecidable == OnUndecidable::Deny
}
