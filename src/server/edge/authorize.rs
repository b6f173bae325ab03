//! From a request to a decision, for the proxies that ask and for all who are let through.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::{EXT_AUTHZ, Edge, Endpoint};
use crate::admission::{Ask, Denial, Permit, Presented, Step};
use crate::authn::{self, AuthnError, Caller, Kind};
use crate::cache::Enforcement;
use crate::journal::Room;
use crate::model::{Target, Timestamp};
use crate::proxy::headers;
use crate::server::limits;
use crate::server::original::{self, Original};
use crate::server::peers::Peer;
use crate::server::problem::Refusal;
use crate::server::routes::Access;
use crate::server::story::Telling;
use crate::usage::Receipt;

/// How long a denial waits for the disk under `before_reply`: no permission depends on it.
const DENIAL_WAITS: Duration = Duration::from_secs(1);

impl Edge {
    /// Answers a proxy that asks whether it may let a request through.
    pub(super) async fn authorize(
        &self,
        endpoint: Endpoint,
        parts: &Parts,
        story: &mut Telling,
    ) -> Result<Response, Refusal> {
        let peer = self.trusted.peer(&parts.extensions);
        let ip = self.trusted.client(peer, &parts.headers);
        story.note(|story| story.ip = ip);
        let (access, original) = self.original_target(endpoint, parts, peer, story)?;
        let target = original.as_ref().unwrap_or(&self.access);
        if access == Access::Anonymous {
            story.note(|story| story.decision = Some("anonymous"));
            let permit = self.admission.open(&self.nobody, target, self.clock.now());
            return Ok(self.may_pass(endpoint, &permit));
        }
        let caller = self.caller(access, &parts.headers, ip).await?;
        story.note(|story| story.identified(&caller));
        let ask = Ask::request(target, ip);
        let (permit, room) = self.admit(&caller, ask).await?;
        self.settled(self.meter.allowed(room, &permit), &permit).await?;
        Ok(self.may_pass(endpoint, &permit))
    }

    /// Waits until what was admitted is as safe as its answer needs it.
    pub(in crate::server) async fn settled(
        &self,
        receipt: Receipt<'_>,
        permit: &Permit<'_>,
    ) -> Result<(), Refusal> {
        receipt.settled().await.map_err(|error| self.permitted(error.into(), permit))
    }

    /// A refusal of what was let through, and nothing came of it.
    pub(super) fn permitted(&self, mut refusal: Refusal, permit: &Permit<'_>) -> Refusal {
        let mut told = HeaderMap::new();
        limits::tell(&mut told, self.admission.limit_headers(), permit);
        refusal.told = Some(Box::new(told));
        refusal
    }

    /// Yes, in the words of who asks, and who it is.
    fn may_pass(&self, endpoint: Endpoint, permit: &Permit<'_>) -> Response {
        let mut response = Response::new(Body::empty());
        // All that will be in it, at once: a map that grows hashes anew.
        response.headers_mut().reserve(12);
        if endpoint == Endpoint::AuthRequest {
            *response.status_mut() = StatusCode::NO_CONTENT;
        }
        headers::identify(response.headers_mut(), permit.principal());
        limits::tell(response.headers_mut(), self.admission.limit_headers(), permit);
        response
    }

    /// Who asks on a route of this access, which is not open to everybody.
    pub(super) async fn caller(
        &self,
        access: Access,
        headers: &HeaderMap,
        ip: Option<IpAddr>,
    ) -> Result<Caller, AuthnError> {
        let credential = authn::presented(headers)?;
        let kind = Kind::of(credential);
        if access.takes(kind) {
            return self.identify_as(kind, credential, ip).await;
        }
        // Not even looked up: nobody learns here whether it is good elsewhere.
        self.unknown_credential(&AuthnError::Invalid, ip);
        Err(AuthnError::Invalid)
    }

    /// What the request behind a forward-auth request touches, where a route says so. A peer whose
    /// word does not count, or that says nothing, asks for access as such.
    fn original_target(
        &self,
        endpoint: Endpoint,
        parts: &Parts,
        peer: Peer,
        story: &mut Telling,
    ) -> Result<(Access, Option<Target>), Refusal> {
        let elsewhere = (Access::default(), None);
        let routes = self.routes.current();
        if routes.is_empty() {
            return Ok(elsewhere);
        }
        let original = match endpoint {
            Endpoint::ExtAuthz => Some(original::ext_authz(parts, EXT_AUTHZ)?),
            _ if !peer.trusted => None,
            Endpoint::AuthRequest => original::auth_request(&parts.headers)?,
            _ => original::forward_auth(&parts.headers)?,
        };
        let Some(Original { method, host, path }) = original else {
            return Ok(elsewhere);
        };
        story.note(|story| story.asks_about(&method, host, path));
        let hit = routes.find(host, &method, path)?;
        story.note(|story| story.route = hit.as_ref().map(|hit| Arc::clone(hit.route.pattern())));
        Ok(hit.map_or(elsewhere, |hit| (hit.route.access, Some(hit.target))))
    }

    /// Who presents a credential from `ip`.
    pub(in crate::server) async fn identify(
        &self,
        credential: &str,
        ip: Option<IpAddr>,
    ) -> Result<Caller, AuthnError> {
        self.identify_as(Kind::of(credential), credential, ip).await
    }

    async fn identify_as(
        &self,
        kind: Kind,
        credential: &str,
        ip: Option<IpAddr>,
    ) -> Result<Caller, AuthnError> {
        let identified = authn::identify(&self.cache, &self.tokens, credential, kind).await;
        identified.inspect_err(|error| self.unknown_credential(error, ip))
    }

    /// Who really asks, as far as that can be said.
    pub(in crate::server) fn client_ip(&self, parts: &Parts) -> Option<IpAddr> {
        self.trusted.client(self.trusted.peer(&parts.extensions), &parts.headers)
    }

    /// The target of a request that no route leads anywhere.
    pub(in crate::server) fn access(&self) -> &Target {
        &self.access
    }

    pub(in crate::server) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Admits an identified caller, with room to count it, or counts its denial.
    pub(in crate::server) async fn admit<'a>(
        &self,
        caller: &'a Caller,
        ask: Ask<'a>,
    ) -> Result<(Permit<'a>, Room), Refusal> {
        let now = self.clock.now();
        let denial = match self.admission.check(self.presented(caller, now), ask, now) {
            Ok(cleared) => {
                // Before anything is taken: what cannot be counted does not happen.
                let room = self.meter.reserve(cleared.commit()).map_err(|error| {
                    let report = self.admission.look(&cleared, now, self.clock.monotonic());
                    Refusal::from(error).with_report(report)
                })?;
                if cleared.asks_quotas() && !self.admission.quotas().is_based() {
                    // The quota lane is being read: a moment after the start.
                    let based = self.admission.quotas().based();
                    drop(tokio::time::timeout(self.cache.miss_deadline(), based).await);
                }
                match self.admission.charge(cleared, now, self.clock.monotonic()) {
                    Ok(permit) => {
                        self.admitted(caller, &permit);
                        return Ok((permit, room));
                    }
                    Err(denial) => denial,
                }
            }
            Err(denial) => denial,
        };
        self.refused(caller, &denial, ask.ip);
        let commit = caller.enforcement().rules.and_then(|rules| rules.commit);
        let counted = self.meter.denied(caller.principal(), ask.target, now, commit);
        // Whoever is denied must be told so, whatever becomes of the disk.
        let settled = tokio::time::timeout(DENIAL_WAITS, counted.settled()).await;
        if !matches!(settled, Ok(Ok(()))) && self.unkept.is_due(self.clock.monotonic()) {
            tracing::warn!("denials were answered that are on no disk yet");
        }
        Err(denial.into())
    }

    /// Whether a caller that asks about somebody else may be answered; it is not counted for that,
    /// and none of its limits is charged.
    pub(in crate::server) fn may_ask(
        &self,
        caller: &Caller,
        target: &Target,
        ip: Option<IpAddr>,
    ) -> Result<(), Denial> {
        let now = self.clock.now();
        let ask = Ask::request(target, ip);
        self.admission.check(self.presented(caller, now), ask, now).map(drop)
    }

    /// Whether a caller may do what its API key must be given the right to, by name: a key without
    /// scopes is not narrowed by them, but has none of these rights. Nor has an access token,
    /// which such a key could ask for with any scope.
    pub(in crate::server) fn entitled(
        &self,
        caller: &Caller,
        right: &str,
        ip: Option<IpAddr>,
    ) -> Result<(), Denial> {
        let (table, operation) = right.split_once('.').unwrap_or((right, ""));
        let target = Target { table: table.into(), operation: operation.into() };
        self.may_ask(caller, &target, ip)?;
        let given = caller.principal().scopes.iter().any(|scope| &**scope == right);
        if given && matches!(caller, Caller::Key(_)) {
            Ok(())
        } else {
            Err(Denial::InsufficientScope)
        }
    }

    /// Every check of a request that is not made, step by step.
    pub(in crate::server) fn explain(&self, caller: &Caller, ask: &Ask<'_>) -> (Vec<Step>, bool) {
        let (now, monotonic) = (self.clock.now(), self.clock.monotonic());
        let presented = self.presented(caller, now);
        let commit = presented.rules.as_ref().and_then(|rules| rules.commit);
        let (mut steps, valid) = self.admission.explain(&presented, ask, now, monotonic);
        let possible = self.meter.has_room(commit);
        steps.push(Step::of_accounting(possible));
        (steps, valid && possible)
    }

    fn presented<'a>(&self, caller: &'a Caller, now: Timestamp) -> Presented<'a> {
        let Enforcement { rules, mode, client_scope } = caller.enforcement();
        let max_stale = rules.as_ref().and_then(|rules| rules.max_stale);
        Presented {
            principal: caller.principal(),
            granted: caller.granted(),
            standing: caller.standing(&self.tokens, now),
            client_enabled: caller.client_enabled(),
            stale: self.cache.is_older_than(max_stale.unwrap_or(self.cache.max_stale())),
            rules,
            mode,
            own: caller.own_id(),
            client_scope,
        }
    }
}
