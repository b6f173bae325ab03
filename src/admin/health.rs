//! `/livez`, `/readyz`, `/metrics`: what machines ask.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Control;

/// Tells a gateway from any other program on the port, before the command line sends it a token.
pub const VERSION_HEADER: &str = "x-gatepost-version";

const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The process answers. The listener opens when keys are decided from disk and overlay.
pub(super) async fn livez() -> Response {
    ([(VERSION_HEADER, env!("CARGO_PKG_VERSION"))], "ok\n").into_response()
}

/// 200 while requests are answered, `degraded` when that is from local knowledge only.
pub(super) async fn readyz(
    State(control): State<Arc<Control>>,
    RawQuery(query): RawQuery,
) -> Response {
    let report = report(&Seen::of(&control));
    let verbose = query.as_deref().is_some_and(|query| {
        query.split('&').any(|pair| pair.split('=').next() == Some("verbose"))
    });
    let text =
        if verbose && control.open { report.text() } else { report.word().to_owned() + "\n" };
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response =
        (status, [(VERSION_HEADER, env!("CARGO_PKG_VERSION"))], text).into_response();
    if !report.ready {
        let soon = axum::http::HeaderValue::from_static("1");
        response.headers_mut().insert(header::RETRY_AFTER, soon);
    }
    response
}

pub(super) async fn metrics(State(control): State<Arc<Control>>) -> Response {
    (control.observe)();
    ([(header::CONTENT_TYPE, METRICS_TYPE)], control.metrics.encode()).into_response()
}

/// What readiness depends on.
#[derive(Clone, Copy)]
struct Seen {
    stopping: bool,
    stale: bool,
    journal_full: bool,
    postgres_away: bool,
}

impl Seen {
    fn of(control: &Control) -> Self {
        Self {
            stopping: control.stopping.is_cancelled(),
            stale: control.cache.is_stale(),
            journal_full: control.journal.refuses(),
            postgres_away: control.contact.as_ref().is_some_and(|ask| ask().away),
        }
    }
}

struct Report {
    ready: bool,
    degraded: bool,
    checks: [(&'static str, bool, &'static str); 4],
}

fn report(seen: &Seen) -> Report {
    Report {
        ready: !seen.stopping && !seen.stale && !seen.journal_full,
        degraded: seen.postgres_away,
        checks: [
            ("lifecycle", !seen.stopping, "shutting down"),
            ("cache", !seen.stale, "older than max_stale, or never caught up with Postgres"),
            ("journal", !seen.journal_full, "full or failing: requests are refused"),
            ("postgres", !seen.postgres_away, "away: known keys are answered from here"),
        ],
    }
}

impl Report {
    fn word(&self) -> &'static str {
        match (self.ready, self.degraded) {
            (false, _) => "unavailable",
            (true, true) => "degraded",
            (true, false) => "ok",
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (name, fine, otherwise) in self.checks {
            // Writing to a String cannot fail.
            let written = if fine {
                writeln!(text, "[+] {name}: ok")
            } else {
                writeln!(text, "[-] {name}: {otherwise}")
            };
            written.unwrap_or_default();
        }
        text + self.word() + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: Seen =
        Seen { stopping: false, stale: false, journal_full: false, postgres_away: false };

    #[test]
    fn postgres_away_is_degraded_but_ready() {
        let report = report(&Seen { postgres_away: true, ..FINE });
        assert!(report.ready);
        assert_eq!(report.word(), "degraded");
        assert!(report.text().contains("[-] postgres: away"), "{}", report.text());
    }

    #[test]
    fn whatever_refuses_requests_is_not_ready() {
        assert_eq!(report(&FINE).word(), "ok");
        for seen in [
            Seen { stopping: true, ..FINE },
            Seen { stale: true, ..FINE },
            Seen { journal_full: true, ..FINE },
        ] {
            assert!(!report(&seen).ready);
            assert_eq!(report(&seen).word(), "unavailable");
        }
    }
}
