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
    let (turn, all) = (control.turn().await, Arc::clone(&control));
    // To its end, and noted, whether or not somebody waits for the answer.
    let rotate = move || {
        let rotated = all.tokens.keys().rotate(&all.entropy, all.clock.now());
        if rotated.is_ok() {
            all.note("token_keys.rotate", "token-keys".into());
        }
        drop(turn);
        rotated
    };
    match control.tasks.spawn_blocking(rotate).await {
        Ok(Ok(())) => Ok(list(State(control)).await),
        Ok(Err(error @ KeysError::Configured)) => {
            Err(Problem::conflict("keys_configured", error.to_string()))
        }
        Ok(Err(error @ KeysError::Full(_))) => {
            Err(Problem::conflict("keys_full", error.to_string()))
        }
        Ok(Err(error)) => Err(Problem::internal(error.to_string())),
        Err(_) => Err(Problem::internal("the token keys could not be rotated")),
    }
}
