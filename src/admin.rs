//! The control plane: admin API, health and metrics, on a listener of its own.
//!
//! The command line speaks to the same router, over TCP when a gateway runs and in process when
//! none does, so that there is one way in which things are created, revoked and shown. Creating and
//! revoking go through the journal: committed before the answer, in force here at once, with or
//! without Postgres. What does not merge (disabling, enabling) is written to Postgres through
//! [`Directory`] and comes back by the feed.

mod clients;
mod control;
mod directory;
mod distinct;
mod extract;
mod health;
mod keys;
mod log;
mod policies;
mod problem;
mod reload;
mod sessions;
mod status;
mod token;
mod token_keys;
mod usage;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;

pub use control::{AskContact, Contact, Control};
pub use directory::{Answered, Directory, DirectoryError, LedgerRow, PolicyChange, SettledUsage};
pub use health::VERSION_HEADER;
pub use problem::Problem;
pub use reload::{Configuration, ConfigurationStanding, Reloaded};
pub use token::{TOKEN_FILE, read_or_make_token, read_token};

/// The largest request body.
const BODY_MAX_BYTES: usize = 64 << 10;

/// The largest file of policies: room for as many as one may have.
const POLICIES_MAX_BYTES: usize = 1 << 20;

/// The longest list in one answer.
pub const LIST_MAX: usize = 1000;

/// The whole control plane.
pub fn router(control: Arc<Control>) -> Router {
    let guard = token::Guard::new(control.token.clone());
    let api = Router::new()
        .route("/clients", post(clients::create).get(clients::list))
        .route("/clients/{name}", get(clients::show))
        .route("/clients/{name}/disable", post(clients::disable))
        .route("/clients/{name}/enable", post(clients::enable))
        .route("/clients/{name}/mode", post(clients::set_mode))
        .route("/policies", get(policies::list))
        .route(
            "/policies/apply",
            post(policies::apply).layer(DefaultBodyLimit::max(POLICIES_MAX_BYTES)),
        )
        .route("/policies/{name}", get(policies::show))
        .route("/keys", post(keys::create).get(keys::list))
        .route("/keys/{id}", get(keys::show))
        .route("/keys/{id}/revoke", post(keys::revoke))
        .route("/keys/{id}/disable", post(keys::disable))
        .route("/keys/{id}/enable", post(keys::enable))
        .route("/keys/{id}/rotate", post(keys::rotate))
        .route("/sessions", post(sessions::create).get(sessions::list))
        .route("/sessions/revoke", post(sessions::revoke_all))
        .route("/sessions/recover", post(sessions::recover))
        .route("/sessions/{id}", get(sessions::show))
        .route("/sessions/{id}/revoke", post(sessions::revoke))
        .route("/token-keys", get(token_keys::list))
        .route("/token-keys/rotate", post(token_keys::rotate))
        .route("/usage", get(usage::show))
        .route("/log", get(log::status))
        .route("/log/drain", post(log::drain))
        .route("/log/streams", get(log::streams))
        .route("/log/facts", get(log::facts))
        .route("/log/verify", get(log::verify))
        .route("/log/replay", post(log::replay))
        .route("/reload", post(reload::reload))
        .route("/status", get(status::show))
        .route("/cache/removals", post(status::accept_removals))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .layer(from_fn_with_state(guard.clone(), token::require));

    let mut metrics = Router::new().route("/metrics", get(health::metrics));
    if !control.open {
        metrics = metrics.layer(from_fn_with_state(guard, token::require));
    }
    Router::new()
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .merge(metrics)
        .nest("/admin/v1", api)
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(CatchPanicLayer::custom(problem::panicked))
        .with_state(control)
}

#[cfg(test)]
mod tests;
