//! Traces to a collector: what a span is, and, in builds with the feature `otlp`, its way there in
//! OTLP over HTTP.
//!
//! Whoever records a span never waits: it goes into a bounded queue, and from there in batches.
//! What finds the queue full, or what the collector does not take in time, is dropped and counted.

#[cfg(feature = "otlp")]
mod collector;
mod config;
#[cfg(feature = "otlp")]
mod export;
#[cfg(feature = "otlp")]
mod message;
mod span;

#[cfg(feature = "otlp")]
pub use collector::Unusable;
pub use config::{Config, ConfigError};
#[cfg(feature = "otlp")]
pub use export::Exporter;
pub use span::{Span, Value, WriteSpan};
