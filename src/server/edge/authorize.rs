//! From a request to a decision, for the proxies that ask and for all who are let through.

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;

use super::{EXT_AUTHZ, Edge, Endpoint};
use crate::admission::{self, Denial, Permit, Presented};
use crate::authn::{self, AuthnError, Caller};
use crate::model::{Name, Target, Timestamp};
use crate::proxy::headers;
use crate::server::original::{self, Original};
use crate::server::peers::Peer;
use crate::server::problem::Refusal;

impl Edge {
    /// Answers a proxy that asks whether it may let a request through.
    pub(super) async fn authorize(
        &self,
        endpoint: Endpoint,
        parts: &Parts,
    ) -> Result<Response, Refusal> {
        let peer = self.trusted.peer(&parts.extensions);
        let original = self.original_target(endpoint, parts, peer)?;
        let target = original.as_ref().unwrap_or(&self.access);
        let caller = self.identify(authn::presented(&parts.headers)?).await?;
        let permit = self.admit(&caller, target, &[]).await?;
        let room = self.meter.reserve()?;
        self.meter.allowed(room, &permit).settled().await?;
        let mut response = Response::new(Body::empty());
        if endpoint == Endpoint::AuthRequest {
            *response.status_mut() = StatusCode::NO_CONTENT;
        }
        headers::identify(response.headers_mut(), permit.principal());
        Ok(response)
    }

    /// What the request behind a forward-auth request touches, where a route says so. A peer whose
    /// word does not count, or that says nothing, asks for access as such.
    fn original_target(
        &self,
        endpoint: Endpoint,
        parts: &Parts,
        peer: Peer,
    ) -> Result<Option<Target>, Refusal> {
        if self.routes.is_empty() {
            return Ok(None);
        }
        let original = match endpoint {
            Endpoint::ExtAuthz => Some(original::ext_authz(parts, EXT_AUTHZ)?),
            _ if !peer.trusted => None,
            Endpoint::AuthRequest => original::auth_request(&parts.headers)?,
            _ => original::forward_auth(&parts.headers)?,
        };
        let Some(Original { method, host, path }) = original else {
            return Ok(None);
        };
        let hit = self.routes.find(host, &method, path)?;
        Ok(hit.map(|hit| hit.target))
    }

    /// Who presents a credential.
    pub(in crate::server) async fn identify(&self, credential: &str) -> Result<Caller, AuthnError> {
        authn::identify(&self.cache, &self.tokens, credential).await
    }

    /// The target of a request that no route leads anywhere.
    pub(in crate::server) fn access(&self) -> &Target {
        &self.access
    }

    pub(in crate::server) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Admits an identified caller, or counts its denial.
    pub(in crate::server) async fn admit<'a>(
        &self,
        caller: &'a Caller,
        target: &'a Target,
        scopes: &[Name],
    ) -> Result<Permit<'a>, Denial> {
        let now = self.clock.now();
        let decision = self.decide(caller, target, scopes, now);
        if decision.is_err()
            && self.meter.denied(caller.principal(), target, now).settled().await.is_err()
        {
            tracing::warn!("a denial was answered but could not be counted");
        }
        decision
    }

    /// Decides about a caller that asks about somebody else: that is not counted for it.
    pub(in crate::server) fn permit<'a>(
        &'a self,
        caller: &'a Caller,
    ) -> Result<Permit<'a>, Denial> {
        self.decide(caller, &self.access, &[], self.clock.now())
    }

    /// Whether a caller may do what its API key must be given the right to, by name: a key without
    /// scopes is not narrowed by them, but has none of these rights. Nor has an access token,
    /// which such a key could ask for with any scope.
    pub(in crate::server) fn entitled(&self, caller: &Caller, right: &str) -> Result<(), Denial> {
        let permit = self.permit(caller)?;
        let given = permit.principal().scopes.iter().any(|scope| &**scope == right);
        if given && matches!(caller, Caller::Key(_)) {
            Ok(())
        } else {
            Err(Denial::InsufficientScope)
        }
    }

    fn decide<'a>(
        &self,
        caller: &'a Caller,
        target: &'a Target,
        scopes: &[Name],
        now: Timestamp,
    ) -> Result<Permit<'a>, Denial> {
        let caller = Presented {
            principal: caller.principal(),
            standing: caller.standing(&self.tokens, now),
            client_enabled: caller.client_enabled(),
            stale: self.cache.is_stale(),
        };
        admission::decide(caller, target, scopes, now)
    }
}
