//! Routes: which upstream serves a path, and what a request to it touches.

mod additions;
mod config;
mod current;
mod error;
mod host;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::oauth;
use super::path::{self, PathError};
use super::pattern::Pattern;
use crate::model::units::{Size, Span};
use crate::model::{Name, Target, is_name};
use crate::proxy::{Additions, Limits, Upstream, UpstreamConfig};
use axum::http::Method;
use host::HostPattern;

pub use config::{Access, RouteConfig};
pub use current::Routes;
pub use error::RouteError;
pub use host::is_host;

/// One compiled route.
#[derive(Debug)]
pub struct Route {
    text: Name,
    pattern: Pattern,
    folded: Pattern,
    host: Option<HostPattern>,
    methods: Option<Vec<Method>>,
    operation: Option<Name>,
    table: Name,
    /// Where its requests go.
    pub upstream: Arc<Upstream>,
    /// Whether the upstream sees the credential.
    pub forward_credential: bool,
    /// Who is let through.
    pub access: Access,
    /// What its upstream gets besides.
    pub request_headers: Additions,
    /// What its clients get besides.
    pub response_headers: Additions,
    response_timeout: Option<Span>,
    total_timeout: Option<Span>,
    body_max: Option<Size>,
}

/// A request's route and what it touches.
#[derive(Debug)]
pub struct Hit<'t> {
    /// The route.
    pub route: &'t Route,
    /// What rights and statistics are about.
    pub target: Target,
}

/// All routes, the most specific first.
#[derive(Debug)]
pub struct RouteTable {
    routes: Vec<Route>,
    /// Whether some are open to everybody and others are not.
    differ: bool,
    /// Whether all are spelled as folded paths are.
    folded: bool,
    upstreams: BTreeMap<String, Arc<Upstream>>,
    read: Name,
    write: Name,
    delete: Name,
}

impl RouteTable {
    /// Compiles the configured routes. With `echo` there is a built-in upstream of that name,
    /// behind `/echo` unless a route of the configuration leads to it.
    pub fn build(
        upstreams: &[UpstreamConfig],
        routes: &[RouteConfig],
        echo: bool,
    ) -> Result<Self, RouteError> {
        Self::after(None, upstreams, routes, echo)
    }

    /// The table that comes after this one. An upstream that is configured as before stays as it
    /// is, with all that is known of its targets.
    pub fn successor(
        &self,
        upstreams: &[UpstreamConfig],
        routes: &[RouteConfig],
        echo: bool,
    ) -> Result<Self, RouteError> {
        Self::after(Some(self), upstreams, routes, echo)
    }

    fn after(
        before: Option<&Self>,
        upstreams: &[UpstreamConfig],
        routes: &[RouteConfig],
        echo: bool,
    ) -> Result<Self, RouteError> {
        let kept = |config: &UpstreamConfig| {
            let known = before?.upstreams.get(&config.name)?;
            known.is_configured_as(config).then(|| Arc::clone(known))
        };
        let made = |config| match kept(config) {
            Some(upstream) => Ok(upstream),
            None => Upstream::new(config).map(Arc::new),
        };
        let mut known = BTreeMap::new();
        let built_in = echo.then(|| Ok(Arc::new(Upstream::echo())));
        for upstream in upstreams.iter().map(made).chain(built_in) {
            let upstream = upstream?;
            let name = upstream.name().to_owned();
            if known.insert(name.clone(), upstream).is_some() {
                return Err(RouteError::TwoUpstreams(name));
            }
        }
        let compiled = routes.iter().map(|route| Route::new(route, &known));
        let mut compiled = compiled.collect::<Result<Vec<_>, _>>()?;
        if echo && !routes.iter().any(|route| route.upstream == Upstream::ECHO) {
            compiled.push(Route::new(&echo_route(), &known)?);
        }
        compiled.sort_by(Route::order);
        if let Some(conflict) = first_conflict(&compiled) {
            return Err(conflict);
        }
        let (read, write, delete) = ("read".into(), "write".into(), "delete".into());
        let open = |route: &Route| route.access == Access::Anonymous;
        let differ = compiled.iter().any(open) && !compiled.iter().all(open);
        let folded = compiled.iter().all(|route| route.pattern.is_folded());
        Ok(Self { routes: compiled, differ, folded, upstreams: known, read, write, delete })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// How many upstreams there are.
    pub fn upstreams(&self) -> usize {
        self.upstreams.len()
    }

    /// Finds the route of a request. `raw` is the path as it came, without its query.
    pub fn find(
        &self,
        host: Option<&str>,
        method: &Method,
        raw: &str,
    ) -> Result<Option<Hit<'_>>, PathError> {
        let segments = path::segments(raw)?;
        for route in &self.routes {
            if !route.takes(host, method) {
                continue;
            }
            if let Some(captured) = route.pattern.matches(segments.clone()) {
                let open = route.access == Access::Anonymous;
                if open && self.differ && self.is_disguised(host, method, raw) {
                    return Err(PathError::Disguised);
                }
                let operation = route.operation.as_ref().unwrap_or(self.operation(method)).clone();
                let table = captured.map_or(Ok(route.table.clone()), table_name)?;
                return Ok(Some(Hit { route, target: Target { table, operation } }));
            }
        }
        Ok(None)
    }

    /// Whether a lenient upstream could take a path for one of a route that is not open to
    /// everybody.
    fn is_disguised(&self, host: Option<&str>, method: &Method, raw: &str) -> bool {
        if self.folded && path::is_folded(raw) {
            return false;
        }
        let path = path::folded(raw);
        let segments = || path.split('/').filter(|segment| !segment.is_empty());
        let takes = |route: &&Route| {
            route.takes(host, method) && route.folded.matches(segments()).is_some()
        };
        self.routes.iter().find(takes).is_some_and(|route| route.access != Access::Anonymous)
    }

    fn operation(&self, method: &Method) -> &Name {
        match *method {
            Method::GET | Method::HEAD => &self.read,
            Method::DELETE => &self.delete,
            _ => &self.write,
        }
    }
}

impl Route {
    fn new(
        config: &RouteConfig,
        upstreams: &BTreeMap<String, Arc<Upstream>>,
    ) -> Result<Self, RouteError> {
        let path = config.path.clone();
        let pattern = Pattern::parse(&path)
            .map_err(|source| RouteError::Pattern { path: path.clone(), source })?;
        if is_reserved(&pattern) {
            return Err(RouteError::Reserved(path));
        }
        if pattern.has_table() && config.table.is_some() {
            return Err(RouteError::TwoTables(path));
        }
        let Some(upstream) = upstreams.get(&config.upstream).map(Arc::clone) else {
            let known: Vec<&str> = upstreams.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(RouteError::NoUpstream { path, upstream: config.upstream.clone(), known });
        };
        Ok(Self {
            folded: pattern.folded(),
            pattern,
            host: host(&path, config.host.as_deref())?,
            methods: methods(&path, config.methods.as_deref())?,
            operation: named(&path, "operation", config.operation.as_deref())?,
            table: named(&path, "table", config.table.as_deref())?.unwrap_or_else(|| "".into()),
            upstream,
            forward_credential: config.forward_credential,
            access: config.access,
            request_headers: additions::compile(&path, &config.request_headers)?,
            response_headers: additions::compile(&path, &config.response_headers)?,
            response_timeout: positive(&path, "response_timeout", config.response_timeout)?,
            total_timeout: positive(&path, "total_timeout", config.total_timeout)?,
            body_max: config.body_max,
            text: path.into(),
        })
    }

    /// The path as it is configured.
    pub fn pattern(&self) -> &Name {
        &self.text
    }

    /// The bounds of its requests, where `usual` are those of `[server]`.
    pub fn limits(&self, usual: Limits) -> Limits {
        Limits {
            response_timeout: self.response_timeout.map_or(usual.response_timeout, |span| span.0),
            body_max: self.body_max.map_or(usual.body_max, |size| size.0),
            ..usual
        }
    }

    /// How long a request may take, from its head to its answer's end.
    pub fn total_timeout(&self) -> Option<Duration> {
        self.total_timeout.map(|span| span.0)
    }

    fn takes(&self, host: Option<&str>, method: &Method) -> bool {
        let host_fits =
            self.host.as_ref().is_none_or(|want| host.is_some_and(|host| want.takes(host)));
        host_fits && self.methods.as_ref().is_none_or(|methods| methods.contains(method))
    }

    /// Hosts before none, then the pattern, then methods before none.
    fn order(&self, other: &Self) -> Ordering {
        self.site(other).then_with(|| self.methods.is_none().cmp(&other.methods.is_none()))
    }

    fn site(&self, other: &Self) -> Ordering {
        fn rank(route: &Route) -> impl Ord {
            (route.host.is_none(), route.host.as_ref().map(HostPattern::order))
        }
        rank(self).cmp(&rank(other)).then_with(|| self.pattern.specificity(&other.pattern))
    }

    fn conflicts(&self, other: &Self) -> bool {
        self.site(other) == Ordering::Equal
            && match (&self.methods, &other.methods) {
                (None, None) => true,
                (Some(ours), Some(theirs)) => ours.iter().any(|method| theirs.contains(method)),
                // The one with methods comes first; the other takes what it leaves.
                _ => false,
            }
    }
}

/// As it is told apart from others: `GET,HEAD api.example.com/a/{x}`.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, method) in self.methods.iter().flatten().enumerate() {
            write!(f, "{}{method}", if at == 0 { "" } else { "," })?;
        }
        let space = if self.methods.is_some() { " " } else { "" };
        let host = self.host.as_ref().map(HostPattern::to_string).unwrap_or_default();
        write!(f, "{space}{host}{}", self.text)
    }
}

fn first_conflict(routes: &[Route]) -> Option<RouteError> {
    let conflict = |at: usize, one: &Route| {
        routes
            .get(at + 1..)?
            .iter()
            .find(|two| one.conflicts(two))
            .map(|two| RouteError::Conflict { first: one.to_string(), second: two.to_string() })
    };
    routes.iter().enumerate().find_map(|(at, one)| conflict(at, one))
}

fn echo_route() -> RouteConfig {
    let path = "/echo/{*rest}".to_owned();
    RouteConfig { path, upstream: Upstream::ECHO.to_owned(), ..RouteConfig::default() }
}

fn is_reserved(pattern: &Pattern) -> bool {
    let answered =
        |path: &str| !pattern.is_open() && pattern.matches(path[1..].split('/')).is_some();
    pattern.starts_with("authz")
        || ["/livez", "/readyz", "/v1/keys/verify"].into_iter().any(answered)
        || oauth::PATHS.into_iter().any(|(path, _)| answered(path))
}

fn named(path: &str, field: &'static str, value: Option<&str>) -> Result<Option<Name>, RouteError> {
    match value {
        Some(value) if !is_name(value) => {
            Err(RouteError::Field { path: path.to_owned(), field, value: value.to_owned() })
        }
        value => Ok(value.map(Name::from)),
    }
}

fn host(path: &str, value: Option<&str>) -> Result<Option<HostPattern>, RouteError> {
    let wrong = |value: &str| {
        let (path, value) = (path.to_owned(), value.to_owned());
        RouteError::Field { path, field: "host", value }
    };
    value.map(|text| HostPattern::parse(text).ok_or_else(|| wrong(text))).transpose()
}

fn positive(
    path: &str,
    field: &'static str,
    span: Option<Span>,
) -> Result<Option<Span>, RouteError> {
    match span {
        Some(span) if span.0.is_zero() => {
            Err(RouteError::Field { path: path.to_owned(), field, value: span.to_string() })
        }
        span => Ok(span),
    }
}

fn methods(path: &str, values: Option<&[String]>) -> Result<Option<Vec<Method>>, RouteError> {
    let Some(values) = values else { return Ok(None) };
    let mut methods = Vec::with_capacity(values.len() + 1);
    for value in values {
        let wrong =
            || RouteError::Field { path: path.to_owned(), field: "method", value: value.clone() };
        let method: Method = value.to_ascii_uppercase().parse().map_err(|_| wrong())?;
        if method == Method::GET {
            methods.push(Method::HEAD);
        }
        methods.push(method);
    }
    Ok(Some(methods))
}

fn table_name(raw: &str) -> Result<Name, PathError> {
    let text = path::text(raw).ok_or(PathError::NotAName)?;
    if is_name(&text) { Ok(Name::from(&*text)) } else { Err(PathError::NotAName) }
}
