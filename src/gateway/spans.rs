//! Spans on their way to a collector, where one is configured and this build can: with the feature
//! `otlp`. Without it the configuration has no such section.

use super::Error;
use super::parts::Parts;
use crate::config::Config;
#[cfg(feature = "otlp")]
use crate::otlp::Exporter;
use crate::server;

/// The way of spans, if they have one.
pub struct Spans {
    #[cfg(feature = "otlp")]
    exporter: Option<(f64, Exporter)>,
}

#[cfg(feature = "otlp")]
impl Spans {
    /// Begins to export, if that is configured.
    pub fn start(config: &Config, parts: &Parts) -> Result<Self, Error> {
        let start = |config: &crate::otlp::Config| {
            let (clock, entropy) = (parts.clock.clone(), parts.entropy.clone());
            let exporter =
                Exporter::start(config, &parts.node, clock, entropy, parts.metrics.clone());
            let exporter = exporter.map_err(|error| Error::Failed(error.to_string()))?;
            Ok::<_, Error>((config.sample, exporter))
        };
        Ok(Self { exporter: config.otlp.as_ref().map(start).transpose()? })
    }

    /// What records them.
    pub fn sink(&self) -> Option<server::Spans> {
        let (share, exporter) = self.exporter.as_ref()?;
        Some(server::Spans::new(*share, exporter.sink()))
    }

    /// Sends what waits, for a moment.
    pub async fn end(self) {
        if let Some((_, exporter)) = self.exporter {
            exporter.end().await;
        }
    }
}

#[cfg(not(feature = "otlp"))]
impl Spans {
    /// There is nothing to begin.
    pub fn start(_: &Config, _: &Parts) -> Result<Self, Error> {
        Ok(Self {})
    }

    /// Nothing records them.
    pub fn sink(&self) -> Option<server::Spans> {
        None
    }

    /// Nothing waits.
    pub async fn end(self) {}
}
