//! `POST /v1/keys/verify`: what a service asks that keeps its callers' keys to itself.
//!
//! An answer about a key is always 200; only who may not ask, and what nobody can say, is a
//! problem.

use std::net::IpAddr;
use std::num::NonZeroU32;

use axum::Json;
use axum::body::Body;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::body;
use super::edge::Edge;
use super::limits;
use super::problem::{Code, Refusal};
use super::story::Telling;
use crate::admission::{Ask, Step, Verdict};
use crate::authn::{self, AuthnError};
use crate::model::api_key::is_well_formed;
use crate::model::{Name, Principal, Target, is_name, is_scope};

/// The largest request document.
const BODY_MAX: usize = 16 * 1024;

/// The scope of keys that may ask.
const MAY_VERIFY: &str = "keys.verify";

/// What is asked. `cost` is what it weighs on limits; `ip` is where the caller in question comes
/// from, for policies that care; `explain` is for operators, and changes nothing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    key: String,
    #[serde(default)]
    table: String,
    operation: Option<String>,
    #[serde(default)]
    scopes: Vec<Name>,
    cost: Option<NonZeroU32>,
    ip: Option<IpAddr>,
    #[serde(default)]
    explain: bool,
}

/// What is answered. The last two are there where a limit refuses: which, and in how many seconds
/// to come again; the latter is missing where more is asked for than the limit ever holds.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Answer<'a> {
    valid: bool,
    code: &'static str,
    client: Option<&'a str>,
    key_id: Option<Uuid>,
    scopes: &'a [Name],
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

impl<'a> Answer<'a> {
    /// About a key that nobody knows.
    fn unknown() -> Self {
        Self { code: Code::InvalidCredential.as_str(), ..Self::default() }
    }

    /// About a key that is known; `code` is `ok` when it is valid.
    fn about(principal: &'a Principal, valid: bool, code: &'static str) -> Self {
        let (client, key_id) = (Some(&*principal.client), principal.key());
        Self { valid, code, client, key_id, scopes: &principal.scopes, ..Self::default() }
    }

    fn refused(principal: &'a Principal, refusal: &'a Refusal) -> Self {
        let (limit, retry_after) = (refusal.limit(), refusal.retry_after());
        Self { limit, retry_after, ..Self::about(principal, false, refusal.code().as_str()) }
    }
}

/// Answers one question, and counts it like a request of the key in question.
pub(super) async fn answer(
    edge: &Edge,
    parts: &Parts,
    body: Body,
    story: &mut Telling,
) -> Result<Response, Refusal> {
    story.note(|story| story.ip = edge.client_ip(parts));
    let operator = authn::carries(&parts.headers, &edge.admin_token);
    if !operator {
        may_ask(edge, parts).await?;
    }
    let body = body::read(body, BODY_MAX, edge.config.body_idle()).await?;
    let question = Question::parse(&body)?;
    if question.explain && !operator {
        return Err(Refusal::bad_request("`explain` needs the admin token as `Authorization`."));
    }
    let caller = match edge.identify(&question.key, question.ip).await {
        Ok(caller) => caller,
        Err(undecidable @ AuthnError::Undecidable { .. }) => return Err(undecidable.into()),
        Err(_) => {
            let code = Code::InvalidCredential.as_str();
            story.note(|story| story.decision = Some(code));
            return Ok(if question.explain {
                Json(Explanation::unknown(&question.key)).into_response()
            } else {
                Json(Answer::unknown()).into_response()
            });
        }
    };
    story.note(|story| story.identified(&caller));
    let (principal, target) = (caller.principal(), question.target());
    let ask = question.ask(&target);
    if question.explain {
        let (steps, valid) = edge.explain(&caller, &ask);
        return Ok(Json(Explanation::of(principal, steps, valid)).into_response());
    }
    let how = edge.admission.limit_headers();
    match edge.admit(&caller, ask).await {
        Ok((permit, room)) => {
            edge.settled(edge.meter.allowed(room, &permit), &permit).await?;
            let mut response = Json(Answer::about(principal, true, "ok")).into_response();
            limits::tell(response.headers_mut(), how, &permit);
            Ok(response)
        }
        Err(refusal) if refusal.status() == 503 => Err(refusal),
        Err(refusal) => {
            story.note(|story| story.decision = Some(refusal.code().as_str()));
            let mut response = Json(Answer::refused(principal, &refusal)).into_response();
            if let Some(report) = refusal.report() {
                limits::report_in(response.headers_mut(), how, report);
            }
            Ok(response)
        }
    }
}

/// Why a key would, or would not, be let through. Nothing is counted or taken.
#[derive(Debug, Serialize)]
struct Explanation<'a> {
    valid: bool,
    client: Option<&'a str>,
    key_id: Option<Uuid>,
    scopes: &'a [Name],
    steps: Vec<Step>,
}

impl<'a> Explanation<'a> {
    fn of(principal: &'a Principal, steps: Vec<Step>, valid: bool) -> Self {
        let (client, key_id) = (Some(&*principal.client), principal.key());
        Self { valid, client, key_id, scopes: &principal.scopes, steps }
    }

    /// Operators may know what others are not told.
    fn unknown(credential: &str) -> Self {
        let detail = if is_well_formed(credential) {
            "it is formed like an API key, and none that is known"
        } else {
            "it is neither formed like an API key (its check characters included) nor an access \
             token that holds"
        };
        let (check, verdict) = ("credential".into(), Verdict::Deny);
        let steps = vec![Step { check, verdict, detail: detail.into() }];
        Self { valid: false, client: None, key_id: None, scopes: &[], steps }
    }
}

/// A trusted peer that asks for itself, or a valid key with the scope. A request that a trusted
/// proxy carries for a stranger is the stranger's.
async fn may_ask(edge: &Edge, parts: &Parts) -> Result<(), Refusal> {
    let peer = edge.trusted.peer(&parts.extensions);
    let client = edge.trusted.client(peer, &parts.headers);
    if peer.trusted && client.is_some_and(|ip| edge.trusted.contains(ip)) {
        return Ok(());
    }
    let caller = edge.identify(authn::presented(&parts.headers)?, client).await?;
    Ok(edge.entitled(&caller, MAY_VERIFY, client)?)
}

impl Question {
    fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let question: Self = serde_json::from_slice(body).map_err(|_| {
            Refusal::bad_request(
                "The body is not a JSON object with `key` and optionally `table`, `operation`, \
                 `scopes`, `cost` (from 1), `ip` and `explain`.",
            )
        })?;
        let table = question.table.is_empty() || is_name(&question.table);
        let operation = question.operation.as_deref().is_none_or(is_name);
        if table && operation && question.scopes.iter().all(|scope| is_scope(scope)) {
            Ok(question)
        } else {
            Err(Refusal::bad_request(
                "`table`, `operation` or a scope is empty, too long or not printable, or a scope \
                 holds whitespace.",
            ))
        }
    }

    fn ask<'a>(&'a self, target: &'a Target) -> Ask<'a> {
        let cost = self.cost.map_or(1, NonZeroU32::get);
        Ask { scopes: &self.scopes, cost, ..Ask::request(target, self.ip) }
    }

    fn target(&self) -> Target {
        let operation = self.operation.as_deref().unwrap_or("access");
        Target { table: self.table.as_str().into(), operation: operation.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_read_strictly() {
        let full = br#"{"key":"k","table":"orders","operation":"read","scopes":["a"],"cost":3}"#;
        let question = Question::parse(full).expect("a question");
        let target = question.target();
        assert_eq!((&*target.table, &*target.operation), ("orders", "read"));
        let bare = Question::parse(br#"{"key":"k"}"#).expect("a question");
        assert_eq!(bare.target(), Target::access());
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"key":1}"#,
            r#"{"key":"k","kye":"k"}"#,
            r#"{"key":"k","operation":""}"#,
            r#"{"key":"k","table":"a\u0000b"}"#,
            r#"{"key":"k","scopes":["a b"]}"#,
            r#"{"key":"k","cost":-1}"#,
            r#"{"key":"k","cost":0}"#,
            r#"{"key":"k","ip":"here"}"#,
        ] {
            assert!(Question::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_unknown_key_reveals_nothing() {
        let text = serde_json::to_string(&Answer::unknown()).expect("JSON");
        let (start, rest) = text.split_at(42);
        assert_eq!(start, r#"{"valid":false,"code":"invalid_credential""#);
        assert_eq!(rest, r#","client":null,"key_id":null,"scopes":[]}"#);
    }

    #[test]
    fn any_bytes_are_a_question_of_names_or_refused() {
        let good = [
            r#"{"key":"k","table":"orders","operation":"read","scopes":["a"],"cost":3}"#,
            r#"{"key":"gp_live_","ip":"2001:db8::1","explain":true}"#,
        ];
        crate::fuzz::each("verify", &good.map(|text| text.as_bytes().to_vec()), |bytes| {
            let Ok(question) = Question::parse(bytes) else { return };
            let target = question.target();
            assert!(target.table.is_empty() || is_name(&target.table));
            assert!(is_name(&target.operation));
            assert!(question.ask(&target).cost > 0);
        });
    }
}
