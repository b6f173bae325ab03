//! What the operating system asks for: SIGTERM and SIGINT end the gateway, SIGHUP has it read its
//! configuration again.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::task::TaskTracker;

use super::Error;
use crate::admin::Configuration;

/// Signals that do not end the process by themselves any more.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// From now on they are heard.
    pub fn new() -> Result<Self, Error> {
        let on = |kind| signal(kind).map_err(|error| Error::Failed(error.to_string()));
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hang_up: on(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal that ends the gateway.
    pub async fn end(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// The same, and has the configuration read again meanwhile, as often as is asked.
    pub async fn end_or_reload(
        &mut self,
        tasks: &TaskTracker,
        configuration: &Arc<dyn Configuration>,
    ) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hang_up.recv() => {
                    let configuration = Arc::clone(configuration);
                    // Log and metrics tell how it went.
                    tasks.spawn_blocking(move || drop(configuration.reload()));
                }
            }
        }
    }
}
