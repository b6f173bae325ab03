//! Upstreams: named groups of targets, and which of them is asked next.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::Uri;

use super::budget::Budget;
use super::config::{Balance, HealthConfig, UpstreamConfig, UpstreamError};
use super::connector::{Connector, connector};
use super::error::Fault;
use super::target::{Taken, Target};
use crate::model::{Name, is_name};

/// A group of targets that serve the same.
#[derive(Debug)]
pub struct Upstream {
    name: Name,
    config: Option<UpstreamConfig>,
    /// Absent for the built-in echo.
    pub(super) pool: Option<Arc<Pool>>,
}

/// The targets, and the connections to them.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) name: Name,
    pub(super) targets: Vec<Arc<Target>>,
    pub(super) connector: Connector,
    pub(super) idle_timeout: Duration,
    pub(super) swept: AtomicBool,
    pub(super) health: Option<HealthConfig>,
    pub(super) watched: AtomicBool,
    pub(super) retries: u32,
    pub(super) budget: Budget,
    balance: Balance,
    next: AtomicUsize,
}

impl Upstream {
    /// The name of the built-in upstream that answers with what it got.
    pub const ECHO: &'static str = "echo";

    /// Checks and takes over a configured upstream. Reads the files that it names, and connects to
    /// nothing.
    pub fn new(config: &UpstreamConfig) -> Result<Self, UpstreamError> {
        if !is_name(&config.name) {
            return Err(UpstreamError::Name(config.name.clone()));
        }
        config.check()?;
        let name: Name = config.name.as_str().into();
        let pool = Some(Arc::new(Pool::new(Arc::clone(&name), config)?));
        Ok(Self { name, config: Some(config.clone()), pool })
    }

    /// The built-in upstream.
    pub fn echo() -> Self {
        Self { name: Self::ECHO.into(), config: None, pool: None }
    }

    /// What routes call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is what `config` would make: then it may stay, with its connections and with all
    /// that is known of its targets. One that was made of files is not: they may have changed.
    pub fn is_configured_as(&self, config: &UpstreamConfig) -> bool {
        let files = config.tls.as_ref().is_some_and(|tls| {
            tls.ca_file.is_some() || tls.cert_file.is_some() || tls.key_file.is_some()
        });
        !files && self.config.as_ref() == Some(config)
    }
}

impl Pool {
    fn new(name: Name, config: &UpstreamConfig) -> Result<Self, UpstreamError> {
        let target = |text: &String| {
            let uri = origin(text).ok_or_else(|| UpstreamError::Target {
                upstream: config.name.clone(),
                target: without_password(text),
            })?;
            Ok(Arc::new(Target::new(uri, config)))
        };
        let targets = config.targets.iter().map(target).collect::<Result<_, _>>()?;
        let connector = connector(config)
            .map_err(|reason| UpstreamError::Tls { upstream: config.name.clone(), reason })?;
        Ok(Self {
            name,
            targets,
            connector,
            idle_timeout: config.idle_timeout.0,
            swept: AtomicBool::new(false),
            health: config.health.clone(),
            watched: AtomicBool::new(false),
            retries: config.retries,
            budget: Budget::new(config.retry_budget),
            balance: config.balance,
            next: AtomicUsize::new(0),
        })
    }

    /// A place at the target whose turn it is; not at `tried`, unless there is no other.
    pub(super) fn take(&self, now: Duration, tried: Option<&Arc<Target>>) -> Result<Taken, Fault> {
        // A second attempt takes nobody's turn.
        let start = match tried {
            None => self.next.fetch_add(1, Ordering::Relaxed),
            Some(_) => self.next.load(Ordering::Relaxed),
        };
        let (before, after) = self.targets.split_at(start % self.targets.len().max(1));
        let alone = self.targets.len() == 1;
        let is_tried = |target: &Arc<Target>| tried.is_some_and(|tried| Arc::ptr_eq(tried, target));
        let turn = after.iter().chain(before).filter(|target| alone || !is_tried(target));
        if self.balance == Balance::LeastInFlight {
            let ready = turn.clone().filter(|target| target.may_be_asked(now));
            let idlest = ready.min_by_key(|target| target.in_flight());
            if let Some(Ok(taken)) = idlest.map(|target| target.take(now)) {
                return Ok(taken);
            }
        }
        let mut why = None;
        for target in turn {
            match target.take(now) {
                Ok(taken) => return Ok(taken),
                Err(fault) => why = Some(why.map_or(fault, |before| milder(before, fault))),
            }
        }
        Err(why.unwrap_or(Fault::Unreachable))
    }
}

/// Of two reasons why targets are not asked, the one that is over sooner.
fn milder(one: Fault, two: Fault) -> Fault {
    let rank = |fault| match fault {
        Fault::Busy => (0, Duration::ZERO),
        Fault::CircuitOpen { retry_after } => (1, retry_after),
        Fault::Unhealthy { retry_after } => (2, retry_after),
        _ => (3, Duration::ZERO),
    };
    if rank(two) < rank(one) { two } else { one }
}

fn origin(text: &str) -> Option<Uri> {
    let uri: Uri = text.parse().ok()?;
    let plain = matches!(uri.scheme_str(), Some("http" | "https"))
        && uri.host().is_some_and(|host| !host.is_empty())
        && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
        && uri.path() == "/"
        && uri.query().is_none();
    plain.then_some(uri)
}

/// A target that was refused for its credentials must not show them in the log.
fn without_password(target: &str) -> String {
    let Some((before, host)) = target.rsplit_once('@') else { return target.to_owned() };
    let start = before.find("://").map_or(0, |at| at + 3);
    let (scheme, userinfo) = before.split_at(start);
    let user = userinfo.split(':').next().unwrap_or_default();
    format!("{scheme}{user}:***@{host}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::TlsConfig;

    fn pool(targets: &[&str], more: UpstreamConfig) -> Result<Arc<Pool>, UpstreamError> {
        let targets = targets.iter().map(|target| (*target).to_owned()).collect();
        let upstream = Upstream::new(&UpstreamConfig { name: "orders".into(), targets, ..more })?;
        Ok(upstream.pool.expect("it is not the echo"))
    }

    const NOW: Duration = Duration::from_secs(1);

    fn host(taken: &Taken) -> String {
        taken.target().uri().host().expect("a host").to_owned()
    }

    #[test]
    fn targets_are_taken_in_turn() {
        let pool = pool(&["http://a:1", "http://b:2/"], UpstreamConfig::default()).expect("valid");
        let hosts: Vec<_> = (0..4).map(|_| host(&pool.take(NOW, None).expect("free"))).collect();
        assert_eq!(hosts, ["a", "b", "a", "b"]);
        let tried = Arc::clone(&pool.targets[0]);
        for _ in 0..3 {
            assert_eq!(host(&pool.take(NOW, Some(&tried)).expect("free")), "b");
        }
    }

    #[test]
    fn the_idlest_is_taken_and_ties_take_turns() {
        let least = UpstreamConfig { balance: Balance::LeastInFlight, ..Default::default() };
        let pool = pool(&["http://a", "http://b", "http://c"], least).expect("valid");
        let mut held: Vec<_> = (0..6).map(|_| pool.take(NOW, None).expect("free")).collect();
        assert!(pool.targets.iter().all(|target| target.in_flight() == 2));
        held.retain(|taken| host(taken) != "b");
        let next = [pool.take(NOW, None).expect("free"), pool.take(NOW, None).expect("free")];
        assert_eq!(next.each_ref().map(host), ["b", "b"]);
    }

    #[test]
    fn a_full_target_makes_way_and_all_full_is_busy() {
        let small = UpstreamConfig { max_in_flight: 1, ..Default::default() };
        let pool = pool(&["http://a", "http://b"], small).expect("valid");
        let both = [pool.take(NOW, None).expect("free"), pool.take(NOW, None).expect("free")];
        assert_eq!(pool.take(NOW, None).err(), Some(Fault::Busy));
        drop(both);
        assert!(pool.take(NOW, None).is_ok());
    }

    #[test]
    fn who_fails_in_a_row_is_left_out_and_all_of_them_may_be() {
        let second = Duration::from_secs(1);
        for balance in [Balance::RoundRobin, Balance::LeastInFlight] {
            let touchy = UpstreamConfig { breaker_failures: 1, balance, ..Default::default() };
            let pool = pool(&["http://a", "http://b"], touchy).expect("valid");
            assert!(pool.take(NOW, None).expect("free").failed(NOW), "it opens");
            let left: Vec<_> = (0..3).map(|_| host(&pool.take(NOW, None).expect("free"))).collect();
            assert_eq!(left, ["b", "b", "b"], "{balance:?}");
            let later = NOW + second / 2;
            assert!(pool.take(later, None).expect("free").failed(later), "it opens");
            let soonest = Fault::CircuitOpen { retry_after: second / 2 };
            assert_eq!(pool.take(later, None).err(), Some(soonest));
            let probe = pool.take(NOW + second, None).expect("one may try");
            assert!(pool.take(NOW + second, None).is_err(), "only one");
            probe.answered();
            assert!(pool.take(NOW + second, None).is_ok());
        }
    }

    #[test]
    fn only_origins_are_targets() {
        let made = |targets: &[&str]| pool(targets, UpstreamConfig::default()).err();
        for bad in ["ftp://a", "http://a/base", "http://a?x", "a:1", "/x", "http://u:p@a", ""] {
            assert!(matches!(made(&[bad]), Some(UpstreamError::Target { .. })), "{bad}");
        }
        assert_eq!(made(&[]), Some(UpstreamError::NoTargets("orders".into())));
        assert_eq!(made(&["https://a:8443"]), None);
    }

    #[test]
    fn bounds_and_files_that_cannot_work_are_refused_by_name() {
        let told = |more| pool(&["https://a"], more).expect_err("refused").to_string();
        let none = UpstreamConfig { max_in_flight: 0, ..Default::default() };
        assert_eq!(told(none), "upstream `orders`: `max_in_flight` must be at least 1");
        let much = UpstreamConfig { retry_budget: 1.5, ..Default::default() };
        assert!(told(much).contains("`retry_budget` must lie between 0 and 1"));
        let health = HealthConfig { path: "healthz".into(), ..HealthConfig::default() };
        let odd = UpstreamConfig { health: Some(health), ..Default::default() };
        assert!(told(odd).contains("`health.path`"));
        let tls = |tls| told(UpstreamConfig { tls: Some(tls), ..Default::default() });
        let missing = TlsConfig { ca_file: Some("nowhere.pem".into()), ..TlsConfig::default() };
        assert!(tls(missing).contains("nowhere.pem"));
        let half = TlsConfig { cert_file: Some("a.pem".into()), ..TlsConfig::default() };
        assert!(tls(half).contains("`cert_file` and `key_file`"));
        let name = TlsConfig { server_name: Some("a b".into()), ..TlsConfig::default() };
        assert!(tls(name).contains("`a b`"));
    }
}
