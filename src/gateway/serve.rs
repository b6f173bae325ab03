//! `gatepost serve`: both listeners from start to an orderly end.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::Error;
use super::data::DataDir;
use super::lines::Lines;
use super::parts::Parts;
use super::reload::{Exchanged, Running};
use super::signals::Signals;
use super::spans::Spans;
use crate::admin::{self, Configuration};
use crate::clock::SystemClock;
use crate::config::{Config, Environment, Loaded, development_key};
use crate::journal::Reader;
use crate::metrics::Metrics;
use crate::server::{
    self, Certificates, Entry, Footing, Readiness, RouteTable, Routes, ServerParts, Worker, Workers,
};
use crate::usage::Meter;

/// How many polls of the feed may be missed before Postgres counts as away.
const POLLS_MISSED_MAX: u32 = 2;

/// Connections to the control plane at a time.
const ADMIN_CONNECTIONS_MAX: usize = 256;

/// How long who reads a long answer of the control plane (`gatepost log inspect`) may have stopped
/// reading it once the gateway is stopping.
const ADMIN_STALLED_MAX: Duration = Duration::from_secs(1);

/// Runs until SIGTERM or SIGINT, shuts down in order, and returns. A second signal ends it at once.
/// On SIGHUP the configuration is read again, with `environment` as it was. Segments of earlier
/// processes are read by `reader`. All that is said goes to `lines`; whoever calls flushes them.
///
/// # Errors
/// [`Error::Locked`] when another process has the data directory, [`Error::Config`] for addresses
/// that cannot be bound and a directory that cannot be used.
pub async fn serve(
    loaded: Loaded,
    environment: &Environment,
    reader: Reader,
    metrics: Arc<Metrics>,
    lines: Lines,
) -> Result<(), Error> {
    let config = loaded.config.clone();
    let routes = RouteTable::build(&config.upstreams, &config.routes, config.server.echo)
        .map_err(|error| Error::Config(error.to_string()))?;
    let routes = Arc::new(Routes::new(routes));
    let certificates = certificates(&config)?;
    let mut signals = Signals::new()?;
    // First, so that a second gateway on the same directory is told that, and not of a taken port.
    let data = DataDir::take(&config.data.dir)?;
    let data_listener = bind(config.server.listen, "server.listen")?;
    let admin_listener = bind(config.admin.listen, "admin.listen")?;
    let addresses = Addresses::of(&data_listener, &admin_listener)?;
    // To the end: what was begun on them may still be needed then.
    let workers = Workers::start(config.server.workers).map_err(|error| {
        Error::Failed(format!("the threads of `server.workers` cannot be started: {error}"))
    })?;
    let parts = Parts::open(&config, data, config.drain.clone(), reader, metrics.clone()).await?;

    let clock = parts.clock.clone();
    let exchanged = Exchanged { routes: routes.clone(), certificates: certificates.clone() };
    let running = Running::new(loaded, environment.clone(), exchanged, clock, metrics);
    let running: Arc<dyn Configuration> = Arc::new(running);
    let control = control_plane(&parts, &config, running.clone());
    let readiness = readiness(&control);
    let spans = Spans::start(&config, &parts)?;
    let plane = data_plane(&parts, &config, routes, readiness.clone(), (&lines, &spans));
    parts.tend(&config.retention);
    readiness.ready();
    announce(&config, &addresses, &parts.data, &lines);

    let entry = Entry { listener: data_listener, certificates, workers: workers.all() };
    let mut data = serve_data(&parts, &config, entry, plane);
    let mut admin = serve_admin(&parts, &config, admin_listener, control);
    let early = tokio::select! {
        name = signals.end_or_reload(&parts.tasks, &running) => {
            tracing::info!(signal = name, "stopping: finishing requests, then the journal");
            None
        }
        ended = &mut data => Some(ended),
        ended = &mut admin => Some(ended),
    };
    readiness.drain();
    parts.stopping.cancel();
    let orderly = async {
        if early.is_none() {
            drop(tokio::join!(data, admin));
        }
        let closed = parts.close().await;
        spans.end().await;
        closed
    };
    tokio::select! {
        closed = orderly => closed?,
        _ = signals.end() => return Err(Error::Failed("a second signal: stopped at once".into())),
    }
    match early {
        None => Ok(()),
        Some(ended) => Err(Error::Failed(format!("a listener ended: {ended:?}"))),
    }
}

/// The control plane, and the feed that it tells of.
fn control_plane(
    parts: &Parts,
    config: &Config,
    configuration: Arc<dyn Configuration>,
) -> Arc<admin::Control> {
    let feed = parts.linked.as_ref().map(|linked| linked.postgres.feed());
    let handle = feed.as_ref().map(|feed| {
        let poll = config.postgres.as_ref().map_or_else(Default::default, |p| p.poll_interval.0);
        (feed.handle(), poll * (POLLS_MISSED_MAX + 1))
    });
    let mut control = parts.control("admin", config.admin.listen.ip().is_loopback(), handle);
    control.configuration = Some(configuration);
    if let Some(feed) = feed {
        parts.follow(feed);
    }
    Arc::new(control)
}

/// The data plane's listener, until `stopping`.
fn serve_data(
    parts: &Parts,
    config: &Config,
    entry: Entry,
    plane: server::DataPlane,
) -> JoinHandle<std::io::Result<()>> {
    let (config, metrics) = (config.server.clone(), parts.metrics.clone());
    let (stop, stalled_max) = (parts.stopping.clone(), config.shutdown_deadline.0);
    parts.tasks.spawn(async move {
        server::serve(entry, plane, &config, stalled_max, metrics, stop).await
    })
}

/// The control plane's listener, until `stopping`.
fn serve_admin(
    parts: &Parts,
    config: &Config,
    listener: TcpListener,
    control: Arc<admin::Control>,
) -> JoinHandle<std::io::Result<()>> {
    let config = server::Config { max_connections: ADMIN_CONNECTIONS_MAX, ..config.server.clone() };
    let (router, stop) = (admin::router(control), parts.stopping.clone());
    // Metrics of its own: the gauges are those of the data plane.
    let metrics = Arc::new(Metrics::new());
    parts.tasks.spawn(async move {
        let stalled_max = ADMIN_STALLED_MAX;
        let entry = Entry { listener, certificates: None, workers: vec![Worker::here()] };
        server::serve(entry, router, &config, stalled_max, metrics, stop).await
    })
}

fn data_plane(
    parts: &Parts,
    config: &Config,
    routes: Arc<Routes>,
    readiness: Arc<Readiness>,
    (lines, spans): (&Lines, &Spans),
) -> server::DataPlane {
    let config = server::Config { events: config.events.clone(), ..config.server.clone() };
    server::service(ServerParts {
        config,
        routes,
        cache: parts.cache.clone(),
        tokens: parts.tokens.clone(),
        admission: parts.admission.clone(),
        admin_token: parts.token.clone(),
        meter: Arc::new(Meter::new(parts.journal.clone(), parts.clock.clone())),
        clock: parts.clock.clone(),
        entropy: parts.entropy.clone(),
        metrics: parts.metrics.clone(),
        readiness,
        tasks: parts.tasks.clone(),
        stopping: parts.stopping.clone(),
        write_line: lines.sink(),
        spans: spans.sink(),
    })
}

fn readiness(control: &Arc<admin::Control>) -> Arc<Readiness> {
    let (cache, journal) = (control.cache.clone(), control.journal.clone());
    let contact = control.contact.clone();
    Arc::new(Readiness::new(move || {
        if cache.is_stale() || journal.refuses() {
            Footing::Lost
        } else if contact.as_ref().is_some_and(|ask| ask().away) {
            Footing::Degraded
        } else {
            Footing::Firm
        }
    }))
}

fn certificates(config: &Config) -> Result<Option<Certificates>, Error> {
    let http2 = config.server.http2.enabled;
    let open = |tls| Certificates::open(tls, http2, Arc::new(SystemClock::new()));
    let opened = config.server.tls.as_ref().map(open).transpose();
    opened.map_err(|error| Error::Config(error.to_string()))
}

fn bind(address: SocketAddr, key: &str) -> Result<TcpListener, Error> {
    TcpListener::bind(address).map_err(|error| {
        Error::Config(format!("{key}: {address} cannot be bound: {error}; choose another address"))
    })
}

struct Addresses {
    data: SocketAddr,
    admin: SocketAddr,
}

impl Addresses {
    fn of(data: &TcpListener, admin: &TcpListener) -> Result<Self, Error> {
        let local = |listener: &TcpListener| {
            listener.local_addr().map_err(|error| Error::Failed(error.to_string()))
        };
        Ok(Self { data: local(data)?, admin: local(admin)? })
    }
}

/// Says where it listens and what to try.
fn announce(config: &Config, addresses: &Addresses, dir: &DataDir, lines: &Lines) {
    let Addresses { data, admin } = addresses;
    let first_start = dir.is_first_start();
    let scheme = if config.server.tls.is_some() { "https" } else { "http" };
    let mut said =
        format!("gatepost: listening on {scheme}://{data}, control plane on http://{admin}\n");
    let key = config.declares_development_key().then(development_key);
    if let Some(key) = &key
        && first_start
    {
        said += &format!(
            "gatepost: development key, shown this once: {}\ngatepost: remove it from the \
             configuration before others can reach this gateway\n",
            key.reveal()
        );
    }
    let shown = match &key {
        Some(key) if first_start => key.reveal(),
        _ => "$KEY",
    };
    let path = if config.server.echo { "/echo/hello" } else { "/authz/forward-auth" };
    said += &format!(
        "gatepost: try  curl -i -H 'Authorization: Bearer {shown}' {scheme}://{data}{path}\n"
    );
    lines.log(said.into_bytes());
    if first_start && let Err(error) = dir.served() {
        tracing::warn!(%error, "the next start will take itself for the first");
    }
}
