//! Reading the configuration again while requests run. Everything is checked first; then routes,
//! upstreams and certificates are exchanged whole, or what held before stays.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::admin::{self, ConfigurationStanding, Reloaded};
use crate::clock::SharedClock;
use crate::config::{self, Config, Environment, Loaded};
use crate::metrics::{Metrics, OutcomeLabel};
use crate::server::{Certificates, Routes};

/// What a reload exchanges.
pub struct Exchanged {
    pub routes: Arc<Routes>,
    /// None: plain HTTP.
    pub certificates: Option<Certificates>,
}

/// The configuration of a running gateway.
pub struct Running {
    /// What it was started with: everything that cannot be exchanged.
    started: Config,
    file: Option<PathBuf>,
    environment: Environment,
    exchanged: Exchanged,
    clock: SharedClock,
    metrics: Arc<Metrics>,
    /// One attempt at a time.
    standing: Mutex<ConfigurationStanding>,
}

impl Running {
    /// As it was read at the start.
    pub fn new(
        loaded: Loaded,
        environment: Environment,
        exchanged: Exchanged,
        clock: SharedClock,
        metrics: Arc<Metrics>,
    ) -> Self {
        let loaded_at = clock.now();
        metrics.reload.loaded_at.set(loaded_at.0 / 1_000_000);
        let standing =
            ConfigurationStanding { loaded_at, last_error: None, needs_restart: Vec::new() };
        let (Loaded { config, file }, standing) = (loaded, Mutex::new(standing));
        Self { started: config, file, environment, exchanged, clock, metrics, standing }
    }

    fn exchange(&self) -> Result<Reloaded, String> {
        let told = |error: &dyn std::fmt::Display| error.to_string();
        let loaded = config::load(self.file.as_deref(), &self.environment);
        let config = loaded.map_err(|error| told(&error))?.config;
        let Exchanged { routes, certificates } = &self.exchanged;
        let renewed = certificates.as_ref().map(Certificates::renewed).transpose();
        let renewed = renewed.map_err(|error| told(&error))?;
        let current = routes.current();
        let table = current.successor(&config.upstreams, &config.routes, config.server.echo);
        let table = table.map_err(|error| told(&error))?;
        let reloaded = Reloaded {
            routes: table.len(),
            upstreams: table.upstreams(),
            needs_restart: config::needs_restart(&self.started, &config),
        };
        // From here on nothing can fail.
        if let (Some(certificates), Some(renewed)) = (certificates, renewed) {
            certificates.replace(renewed);
        }
        routes.replace(table);
        Ok(reloaded)
    }
}

impl admin::Configuration for Running {
    fn reload(&self) -> Result<Reloaded, String> {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = self.exchange();
        let word = if outcome.is_ok() { "ok" } else { "failed" };
        self.metrics.reload.reloads.get_or_create(&OutcomeLabel { outcome: word }).inc();
        match &outcome {
            Ok(reloaded) => {
                let Reloaded { routes, upstreams, needs_restart } = reloaded;
                tracing::info!(routes, upstreams, ?needs_restart, "the configuration was reloaded");
                standing.loaded_at = self.clock.now();
                self.metrics.reload.loaded_at.set(standing.loaded_at.0 / 1_000_000);
                standing.last_error = None;
                standing.needs_restart.clone_from(needs_restart);
            }
            Err(reason) => {
                let what = "the configuration was not reloaded; the one before holds";
                tracing::error!(%reason, "{what}");
                standing.last_error = Some(reason.clone());
            }
        }
        outcome
    }

    fn standing(&self) -> ConfigurationStanding {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
