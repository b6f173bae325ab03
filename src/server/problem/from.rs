//! What each error of the other rooms becomes.

use super::{Code, DEFAULT_RETRY, Refusal};
use crate::admission::Denial;
use crate::authn::AuthnError;
use crate::proxy::{Fault, ProxyError};
use crate::server::path::PathError;
use crate::tokens::TokenError;
use crate::usage::Unaccountable;

impl From<Code> for Refusal {
    fn from(code: Code) -> Self {
        Self { code, detail: None, retry_after: None, limit: None, report: None, told: None }
    }
}

impl From<AuthnError> for Refusal {
    fn from(error: AuthnError) -> Self {
        match error {
            AuthnError::Missing => Code::MissingCredential.into(),
            AuthnError::Ambiguous => Code::AmbiguousCredential.into(),
            AuthnError::Invalid => Code::InvalidCredential.into(),
            AuthnError::Undecidable { retry_after } => {
                Self { retry_after: Some(retry_after), ..Code::ValidationUnavailable.into() }
            }
        }
    }
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        let refusal = Self::from(Code::of(&denial));
        match denial {
            Denial::PolicyUnavailable { retry_after } => {
                Self { retry_after: Some(retry_after), ..refusal }
            }
            Denial::MissingRight(right) => {
                let detail = format!("The right `{right}` is not given to this credential.");
                Self { detail: Some(detail.into()), ..refusal }
            }
            Denial::ConcurrencyExceeded(limit) => {
                let detail =
                    format!("{limit} requests run at a time already. Wait for one to end.");
                let (detail, limit) = (Some(detail.into()), Some("concurrency".into()));
                Self { detail, retry_after: Some(DEFAULT_RETRY), limit, ..refusal }
            }
            Denial::RateLimited(limited) => {
                let name = &limited.name;
                let detail = format!("The rate limit `{name}` is used up. Slow down.");
                refusal.limited(detail, limited)
            }
            Denial::QuotaExceeded(limited) => {
                let name = &limited.name;
                let detail = format!("The quota `{name}` is used up until its period ends.");
                refusal.limited(detail, limited)
            }
            _ => refusal,
        }
    }
}

impl From<TokenError> for Refusal {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Invalid => Code::InvalidGrant.into(),
            TokenError::Scope => Code::InvalidScope.into(),
            TokenError::ClientDisabled => Code::ClientDisabled.into(),
            TokenError::Undecidable { retry_after } => {
                Self { retry_after: Some(retry_after), ..Code::SessionUnavailable.into() }
            }
            TokenError::Stale => {
                let detail = "What is known of the session is too old to decide by. Try again.";
                Self { detail: Some(detail.into()), ..Code::PolicyUnavailable.into() }
            }
            TokenError::Elsewhere(node) => {
                let detail = format!("The session belongs to the gateway `{node}`. Ask it there.");
                Self { detail: Some(detail.into()), ..Code::SessionElsewhere.into() }
            }
            TokenError::Unrecorded(_) => {
                let detail = "It could not be recorded. Try again with the same token.";
                Self { detail: Some(detail.into()), ..Code::AccountingUnavailable.into() }
            }
            TokenError::RevokedUnrecorded(_) => {
                let detail = "The session is revoked here, but that could not be recorded: a \
                              restart may undo it. Try again until this works.";
                Self { detail: Some(detail.into()), ..Code::AccountingUnavailable.into() }
            }
        }
    }
}

impl From<Unaccountable> for Refusal {
    fn from(_: Unaccountable) -> Self {
        Code::AccountingUnavailable.into()
    }
}

impl From<ProxyError> for Refusal {
    fn from(error: ProxyError) -> Self {
        match error {
            ProxyError::Upstream(fault) => {
                let retry_after = match fault {
                    Fault::CircuitOpen { retry_after } | Fault::Unhealthy { retry_after } => {
                        Some(retry_after)
                    }
                    _ => None,
                };
                Self { retry_after, ..Code::Upstream(fault).into() }
            }
            ProxyError::BodyTooLarge => Code::BodyTooLarge.into(),
            ProxyError::BodyStalled => Code::RequestTimeout.into(),
            ProxyError::BodyBroken | ProxyError::ClientGone => {
                Self::bad_request("The request body broke off.")
            }
            ProxyError::Connect => Code::ConnectUnsupported.into(),
            ProxyError::Trace => Code::TraceUnsupported.into(),
            ProxyError::Loop => Code::LoopDetected.into(),
            ProxyError::TunnelsFull => Code::TunnelsFull.into(),
        }
    }
}

impl From<PathError> for Refusal {
    fn from(error: PathError) -> Self {
        Self::bad_request(error.detail())
    }
}
