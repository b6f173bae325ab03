//! Why routes and upstreams of a configuration cannot be used.

use crate::proxy::UpstreamError;
use crate::server::pattern::PatternError;

/// Why the routes cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// An upstream is wrong.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// Two upstreams of one name.
    #[error("there are two upstreams named `{0}`; rename one (`echo` is taken by `server.echo`)")]
    TwoUpstreams(String),
    /// A route leads nowhere.
    #[error("route `{path}` names upstream `{upstream}`, which does not exist; there are: {known}")]
    NoUpstream {
        /// The route's pattern.
        path: String,
        /// What it names.
        upstream: String,
        /// What it could name.
        known: String,
    },
    /// The pattern is wrong.
    #[error("route `{path}`: {source}")]
    Pattern {
        /// The route's pattern.
        path: String,
        /// What is wrong with it.
        source: PatternError,
    },
    /// A host, method, table, operation or timeout is wrong.
    #[error("route `{path}`: `{value}` cannot be its {field}")]
    Field {
        /// The route's pattern.
        path: String,
        /// Which field.
        field: &'static str,
        /// Its value.
        value: String,
    },
    /// A header that a route must not add.
    #[error("route `{path}`: header `{name}` cannot be added: {reason}")]
    Header {
        /// The route's pattern.
        path: String,
        /// The header.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// A table is given and captured.
    #[error("route `{0}` captures `{{table}}` and sets `table`; drop one of the two")]
    TwoTables(String),
    /// The gateway answers there itself.
    #[error("route `{0}` would never be reached: the gateway answers there itself")]
    Reserved(String),
    /// Two routes that match the same requests.
    #[error("routes `{first}` and `{second}` match the same requests; drop one or set its methods")]
    Conflict {
        /// One of them.
        first: String,
        /// The other.
        second: String,
    },
}
