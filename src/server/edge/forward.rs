//! From a request on a route to the answer of its upstream.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::header::HeaderValue;
use axum::response::Response;

use super::Edge;
use super::deadline::{self, Deadline, Patience};
use crate::admission::{Ask, Permit};
use crate::authn;
use crate::proxy::{Origin, ProxyError};
use crate::server::peers::Peer;
use crate::server::problem::{Code, Refusal};
use crate::server::request_id::X_REQUEST_ID;
use crate::server::routes::{Access, Route};
use crate::server::story::Telling;
use crate::server::{limits, original};
use crate::usage::Tally;

impl Edge {
    /// Sends a request on its route to its upstream.
    pub(super) async fn forward(
        &self,
        request: Request,
        story: &mut Telling,
    ) -> Result<Response, Refusal> {
        let mut patience = Patience::new(self.config.request_timeout.0);
        let (mut parts, body) = request.into_parts();
        let peer = self.trusted.peer(&parts.extensions);
        let ip = self.trusted.client(peer, &parts.headers);
        story.note(|story| story.ip = ip);
        let host = original::host(&parts.uri, &parts.headers)?;
        let routes = self.routes.current();
        let hit = routes.find(host, &parts.method, parts.uri.path())?.ok_or(Code::NotFound)?;
        let route = hit.route;
        story.note(|story| story.takes(route));
        let caller = match route.access {
            Access::Anonymous => None,
            access => {
                let caller = pin!(self.caller(access, &parts.headers, ip));
                Some(patience.with(caller).await.ok_or_else(Refusal::overdue)??)
            }
        };
        let (mut permit, room) = match &caller {
            Some(caller) => {
                story.note(|story| story.identified(caller));
                let admitted = pin!(self.admit(caller, Ask::forwarded(&hit.target, ip)));
                let (permit, room) =
                    patience.with(admitted).await.ok_or_else(Refusal::overdue)??;
                (permit, Some(room))
            }
            None => (self.admission.open(&self.nobody, &hit.target, self.clock.now()), None),
        };

        let id = parts.headers.get(X_REQUEST_ID);
        let line = self.sampled(&parts, permit.principal(), host, id);
        let origin = self.origin(peer, ip, host, route);
        if !route.forward_credential {
            authn::strip(&mut parts.headers);
        }
        let request = Request::from_parts(parts, body);
        let (record, receipt) = self.meter.open(room, &mut permit, line);
        let limits = route.limits(self.config.limits());
        let mut deadline = route.total_timeout().map(Deadline::new);
        let forwarded = pin!(self.proxy.forward(
            &permit,
            Arc::clone(&record),
            &route.upstream,
            &limits,
            &origin,
            request,
        ));
        // The admission is committed while the upstream works; only the reply waits for both.
        let both = pin!(async { tokio::join!(forwarded, receipt.settled()) });
        let both = deadline::within(&mut deadline, pin!(patience.with(both))).await;
        let both = both.ok_or_else(|| Refusal::from(Code::TotalTimeout));
        let both = both.and_then(|both| both.ok_or_else(Refusal::overdue));
        let (answer, settled) =
            both.map_err(|refusal| self.late(refusal, &permit, record.tally(), story))?;
        settled.map_err(|error| self.unheard(error.into(), &permit, record.tally(), story))?;
        let mut answer =
            answer.map_err(|error| self.unanswered(error, &permit, record.tally(), story))?;
        // From here on the end of the body is the end of the request.
        if let Some(story) = story.take() {
            record.at_end(move |ended| story.ended(&ended));
        }
        self.dress(&mut answer, route, &permit);
        Ok(deadline::bind(deadline, answer, record))
    }

    /// What is said when the time is over. Nothing came of the request, whoever was slow.
    fn late(
        &self,
        refusal: Refusal,
        permit: &Permit<'_>,
        tally: &Tally,
        story: &mut Telling,
    ) -> Refusal {
        tally.answered(refusal.status());
        self.unheard(refusal, permit, tally, story)
    }

    /// What is said although the upstream may have answered: the client never hears of that.
    fn unheard(
        &self,
        refusal: Refusal,
        permit: &Permit<'_>,
        tally: &Tally,
        story: &mut Telling,
    ) -> Refusal {
        story.note(|story| story.bytes_in = tally.bytes_in());
        tally.broke_off();
        self.permitted(refusal, permit)
    }

    /// What is said in the place of an upstream's answer.
    fn unanswered(
        &self,
        error: ProxyError,
        permit: &Permit<'_>,
        tally: &Tally,
        story: &mut Telling,
    ) -> Refusal {
        let refusal = self.permitted(error.into(), permit);
        story.note(|story| story.bytes_in = tally.bytes_in());
        if error == ProxyError::ClientGone {
            // Nobody hears it.
            drop(story.take());
        } else {
            tally.answered(refusal.status());
        }
        refusal
    }

    fn origin(
        &self,
        peer: Peer,
        client: Option<IpAddr>,
        host: Option<&str>,
        route: &Route,
    ) -> Origin {
        let party = client.filter(|ip| !self.trusted.contains(*ip));
        let Peer { ip: peer, trusted, secure } = peer;
        let host = host.and_then(|host| HeaderValue::from_str(host).ok());
        let additions = Arc::clone(&route.request_headers);
        let forwarding = self.config.forwarded;
        Origin { peer, party, secure, trusted, host, additions, forwarding }
    }

    /// What the gateway and the route say in an upstream's answer.
    fn dress(&self, answer: &mut Response, route: &Route, permit: &Permit<'_>) {
        limits::tell(answer.headers_mut(), self.admission.limit_headers(), permit);
        for (name, value) in route.response_headers.iter() {
            answer.headers_mut().insert(name, value.clone());
        }
    }
}
