//! What is told of refused credentials, denials and a sample of requests. It may yield, and holds
//! nobody up.

use std::net::IpAddr;

use axum::http::HeaderValue;
use axum::http::request::Parts;

use super::Edge;
use crate::admission::{Denial, Permit};
use crate::authn::{AuthnError, Caller};
use crate::metrics::CodeLabel;
use crate::model::Principal;
use crate::model::fact::{AdmissionEvent, AuthAttempt, Event, Happened, RequestLine, event_text};
use crate::server::problem::Code;

impl Edge {
    fn tell(&self, what: Happened) {
        self.meter.happened(Event { event_id: self.ids.uuid(), what });
    }

    /// A credential that nobody knows. (One that is not there is no attempt.)
    pub(super) fn unknown_credential(&self, error: &AuthnError, ip: Option<IpAddr>) {
        if self.config.events.auth_attempts && matches!(error, AuthnError::Invalid) {
            let code = Code::InvalidCredential.as_str().into();
            let attempt = AuthAttempt { client: None, key_id: None, ip, code };
            self.tell(Happened::AuthAttempt(attempt));
        }
    }

    /// A caller that is known, and refused.
    pub(super) fn refused(&self, caller: &Caller, denial: &Denial, ip: Option<IpAddr>) {
        let Principal { client, .. } = caller.principal();
        let (code, key_id) = (Code::of(denial).as_str().into(), caller.principal().key());
        let of_credential = matches!(
            denial,
            Denial::KeyRevoked
                | Denial::KeyDisabled
                | Denial::KeyExpired
                | Denial::SessionOver
                | Denial::ClientDisabled
        );
        if of_credential && self.config.events.auth_attempts {
            let client = Some(client.clone());
            self.tell(Happened::AuthAttempt(AuthAttempt { client, key_id, ip, code }));
        } else if !of_credential && self.config.events.admissions {
            self.tell_admission(caller, denial, false);
        }
    }

    fn tell_admission(&self, caller: &Caller, denial: &Denial, observed: bool) {
        self.tell(Happened::Admission(AdmissionEvent {
            client: caller.principal().client.clone(),
            key_id: caller.principal().key(),
            policy: caller.enforcement().rules.map(|rules| rules.name.clone()),
            code: Code::of(denial).as_str().into(),
            observed,
            limit: denial.limit().cloned(),
        }));
    }

    /// A permit that a policy would not have given, had it not only observed.
    pub(super) fn admitted(&self, caller: &Caller, permit: &Permit<'_>) {
        if let Some(denial) = permit.would_deny() {
            let label = CodeLabel { code: Code::of(denial).as_str() };
            self.metrics.admission.would_deny.get_or_create(&label).inc();
            if self.config.events.admissions {
                self.tell_admission(caller, denial, true);
            }
        }
    }

    /// The line of a request that is one of the sample; the rest of it is filled in at its end.
    pub(super) fn sampled(
        &self,
        parts: &Parts,
        principal: &Principal,
        host: Option<&str>,
        id: Option<&HeaderValue>,
    ) -> Option<Box<Event>> {
        let share = self.config.events.requests;
        if share <= 0.0 {
            return None;
        }
        let event_id = self.ids.uuid();
        // Its last bits are random.
        let [.., a, b, c, d] = *event_id.as_bytes();
        let drawn = f64::from(u32::from_be_bytes([a, b, c, d])) / f64::from(u32::MAX);
        let line = || RequestLine {
            request_id: event_text(id.and_then(|id| id.to_str().ok()).unwrap_or_default()),
            client: principal.client.clone(),
            key_id: principal.key(),
            method: event_text(parts.method.as_str()),
            host: event_text(host.unwrap_or_default()),
            path: event_text(parts.uri.path()),
            status: 0,
            bytes_in: 0,
            bytes_out: 0,
            duration_us: 0,
        };
        (drawn < share).then(|| Box::new(Event { event_id, what: Happened::Request(line()) }))
    }
}
