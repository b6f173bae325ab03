//! Routes: which upstream serves a path, and what a request to it touches.

mod current;
mod error;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::Method;
use serde::{Deserialize, Serialize};

use super::oauth;
use super::path::{self, PathError};
use super::pattern::Pattern;
use crate::model::{Name, Target, is_name};
use crate::proxy::{Upstream, UpstreamConfig};

pub use current::Routes;
pub use error::RouteError;

/// `[[routes]]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// The pattern: `/rest/v1/{table}`; `{name}` is any one segment, `{*rest}` all that follows.
    pub path: String,
    /// Only for this host name; for every host when absent.
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
}

/// One compiled route.
#[derive(Debug)]
pub struct Route {
    text: String,
    pattern: Pattern,
    host: Option<String>,
    methods: Option<Vec<Method>>,
    operation: Option<Name>,
    table: Name,
    /// Where its requests go.
    pub upstream: Arc<Upstream>,
    /// Whether the upstream sees the credential.
    pub forward_credential: bool,
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
        Ok(Self { routes: compiled, upstreams: known, read, write, delete })
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
                let operation = route.operation.as_ref().unwrap_or(self.operation(method)).clone();
                let table = captured.map_or(Ok(route.table.clone()), table_name)?;
                return Ok(Some(Hit { route, target: Target { table, operation } }));
            }
        }
        Ok(None)
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
            pattern,
            host: named(&path, "host", config.host.as_deref())?.map(|host| host.to_lowercase()),
            methods: methods(&path, config.methods.as_deref())?,
            operation: named(&path, "operation", config.operation.as_deref())?,
            table: named(&path, "table", config.table.as_deref())?.unwrap_or_else(|| "".into()),
            upstream,
            forward_credential: config.forward_credential,
            text: path,
        })
    }

    fn takes(&self, host: Option<&str>, method: &Method) -> bool {
        let host_fits = self.host.as_deref().is_none_or(|want| {
            host.is_some_and(|host| without_port(host).eq_ignore_ascii_case(want))
        });
        host_fits && self.methods.as_ref().is_none_or(|methods| methods.contains(method))
    }

    /// Hosts before none, then the pattern, then methods before none.
    fn order(&self, other: &Self) -> Ordering {
        self.site(other).then_with(|| self.methods.is_none().cmp(&other.methods.is_none()))
    }

    fn site(&self, other: &Self) -> Ordering {
        let hosts = (self.host.is_none(), &self.host).cmp(&(other.host.is_none(), &other.host));
        hosts.then_with(|| self.pattern.specificity(&other.pattern))
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

fn first_conflict(routes: &[Route]) -> Option<RouteError> {
    let conflict =
        |at: usize, one: &Route| {
            routes.get(at + 1..)?.iter().find(|two| one.conflicts(two)).map(|two| {
                RouteError::Conflict { first: one.text.clone(), second: two.text.clone() }
            })
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

/// The host without its port; an IPv6 address keeps its brackets.
fn without_port(host: &str) -> &str {
    match host.rfind(']') {
        Some(end) => &host[..=end],
        None => host.split(':').next().unwrap_or(host),
    }
}
