//! `/admin/v1/token-keys`: what is told of server secrets and signing keys, and their rotation.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::{Control, Problem};
use crate::tokens::{KeyInfo, KeysError};

pub(super) async fn list(State(control): State<Arc<Control>>) -> Json<Vec<KeyInfo>> {
    Json(control.tokens.keys().list(control.clock.now()))
}

pub(super) async fn rotate(
    State(control): State<Arc<Control>>,
) -> Result<Json<Vec<KeyInfo>>, Problem> {
    let turn = control.turn().await;
    let (tokens, entropy) = (Arc::clone(&control.tokens), Arc::clone(&control.entropy));
    let now = control.clock.now();
    let rotated = move || tokens.keys().rotate(&entropy, now);
    let rotated = control.tasks.spawn_blocking(rotated).await;
    drop(turn);
    match rotated {
        Ok(Ok(())) => control.note("token_keys.rotate", "token-keys".into()),
        Ok(Err(error @ KeysError::Configured)) => {
            return Err(Problem::conflict("keys_configured", error.to_string()));
        }
        Ok(Err(error @ KeysError::Full(_))) => {
            return Err(Problem::conflict("keys_full", error.to_string()));
        }
        Ok(Err(error)) => return Err(Problem::internal(error.to_string())),
        Err(_) => return Err(Problem::internal("the token keys could not be rotated")),
    }
    Ok(list(State(control)).await)
}
