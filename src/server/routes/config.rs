//! `[[routes]]` as it is written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::authn::Kind;
use crate::model::units::{Size, Span};

/// `[[routes]]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// The pattern: `/rest/v1/{table}`; `{name}` is any one segment, `{*rest}` all that follows.
    pub path: String,
    /// Only for this host name, or `*.example.com` for all below it; for every host when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Only for these methods (`GET` includes `HEAD`); for all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub methods: Option<Vec<String>>,
    /// The name of one of `[[upstreams]]`.
    pub upstream: String,
    /// Overrides what the method says: `read`, `write` or `delete`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// The table, where the pattern captures none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// Lets the upstream see the credential.
    #[serde(default)]
    pub forward_credential: bool,
    /// Who is let through.
    #[serde(default)]
    pub access: Access,
    /// Overrides `server.upstream_response_timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_timeout: Option<Span>,
    /// How long a request may take in all, from its head to the end of its answer; tunnels
    /// excepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_timeout: Option<Span>,
    /// Overrides `server.body_max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_max: Option<Size>,
    /// Set in what the upstream gets, whatever the client says there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub request_headers: BTreeMap<String, String>,
    /// Set in what the client gets from the upstream.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub response_headers: BTreeMap<String, String>,
}

/// Who is let through on a route.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Everybody; no credential is looked at, and nobody is identified.
    Anonymous,
    /// Who has an API key.
    Key,
    /// Who has an access token.
    Token,
    /// Who has one of both.
    #[default]
    Any,
}

impl Access {
    /// Whether a credential of this kind is looked at.
    pub fn takes(self, kind: Kind) -> bool {
        match self {
            Self::Anonymous => false,
            Self::Key => kind == Kind::Key,
            Self::Token => kind == Kind::Token,
            Self::Any => true,
        }
    }
}
