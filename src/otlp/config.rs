//! `[otlp]`

use axum::http::Uri;
use serde::{Deserialize, Serialize};

use crate::model::units::Span;

/// `[otlp]`: where spans go; absent: none are made. In builds with the feature `otlp`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The collector's address, without `/v1/traces`; also `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub endpoint: String,
    /// What the gateway calls itself.
    pub service_name: String,
    /// The share of requests that have a span, of those whose `traceparent` does not say, from 0 to
    /// 1.
    pub sample: f64,
    /// Spans that wait to be sent; beyond it they are dropped, and counted.
    pub max_waiting: usize,
    /// Spans that are sent at once at most.
    pub batch_max: usize,
    /// How long a span waits for others to be sent with.
    pub interval: Span,
    /// How long a batch may take, with all that is tried again; then it is dropped, and counted.
    pub deadline: Span,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoint: "http://127.0.0.1:4318".into(),
            service_name: "gatepost".into(),
            sample: 1.0,
            max_waiting: 2048,
            batch_max: 512,
            interval: Span::secs(5),
            deadline: Span::secs(10),
        }
    }
}

/// A key of `[otlp]`, and why it cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule}")]
pub struct ConfigError {
    /// The key.
    pub key: &'static str,
    /// Its rule.
    pub rule: &'static str,
}

impl Config {
    /// Checks what types alone do not.
    pub fn check(&self) -> Result<(), ConfigError> {
        let rules = [
            (
                self.traces().is_some(),
                "endpoint",
                "must be the address of a collector that takes OTLP over HTTP, like \
                 http://127.0.0.1:4318, without a name, a password and a query",
            ),
            (!self.service_name.is_empty(), "service_name", "must not be empty"),
            ((0.0..=1.0).contains(&self.sample), "sample", "must lie between 0 and 1"),
            (
                (1..=1_000_000).contains(&self.max_waiting),
                "max_waiting",
                "must lie between 1 and 1000000",
            ),
            ((1..=10_000).contains(&self.batch_max), "batch_max", "must lie between 1 and 10000"),
            (!self.interval.0.is_zero(), "interval", "must be more than zero"),
            (!self.deadline.0.is_zero(), "deadline", "must be more than zero"),
        ];
        match rules.into_iter().find(|(holds, ..)| !holds) {
            Some((_, key, rule)) => Err(ConfigError { key, rule }),
            None => Ok(()),
        }
    }

    /// Where batches are posted to.
    pub(super) fn traces(&self) -> Option<Uri> {
        let base: Uri = self.endpoint.parse().ok()?;
        let plain = matches!(base.scheme_str(), Some("http" | "https"))
            && base.query().is_none()
            && !base.authority()?.as_str().contains('@');
        let whole = format!("{}/v1/traces", self.endpoint.trim_end_matches('/'));
        if plain { whole.parse().ok() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_posted_below_the_endpoint() {
        let at = |endpoint: &str| {
            let config = Config { endpoint: endpoint.into(), ..Config::default() };
            config.traces().map(|uri| uri.to_string())
        };
        let traces = Some("http://127.0.0.1:4318/v1/traces".to_owned());
        assert_eq!(at(&Config::default().endpoint), traces);
        assert_eq!(at("http://127.0.0.1:4318/"), traces);
        assert_eq!(
            at("https://c.example/otlp").as_deref(),
            Some("https://c.example/otlp/v1/traces")
        );
        for bad in ["", "collector:4318", "grpc://c:4317", "http://u:p@c:4318", "http://c/?a=b"] {
            assert_eq!(at(bad), None, "{bad}");
        }
    }

    #[test]
    fn each_key_has_its_rule() {
        let good = Config::default;
        assert_eq!(good().check(), Ok(()));
        let bad = [
            Config { endpoint: "collector".into(), ..good() },
            Config { service_name: String::new(), ..good() },
            Config { sample: f64::NAN, ..good() },
            Config { max_waiting: 0, ..good() },
            Config { batch_max: 0, ..good() },
            Config { interval: Span::millis(0), ..good() },
            Config { deadline: Span::millis(0), ..good() },
        ];
        let keys = bad.map(|config| config.check().expect_err("it is wrong").key);
        let all = "endpoint service_name sample max_waiting batch_max interval deadline";
        assert_eq!(keys.join(" "), all);
    }
}
