//! A stock OAuth client from another language against the real program: Authlib, from PyPI, in an
//! environment of its own (`tests/oauth/setup.sh` makes it).

use std::path::PathBuf;
use std::process::Command;

use super::*;

/// Where the environment is, made by the first who asks.
fn python() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let made = Command::new("sh").arg(root.join("tests/oauth/setup.sh")).output().unwrap();
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(made.status.success(), "{said}");
    PathBuf::from(String::from_utf8(made.stdout).unwrap().trim())
}

#[tokio::test]
async fn a_stock_oauth_client_gets_refreshes_checks_and_revokes_tokens() {
    let python = tokio::task::spawn_blocking(python);
    // The issuer is where clients find it: the port must be known before.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let issuer = format!("http://127.0.0.1:{port}");
    let mut gateway = Gateway::new(None, &format!("[tokens]\nissuer = \"{issuer}\"\n"));
    gateway.set("GATEPOST__SERVER__LISTEN", &format!("127.0.0.1:{port}"));
    gateway.start().await;
    gateway.create_client("web app").await;
    let mut create = vec!["key", "create", "--client", "web app"];
    create.extend(["--scope", "orders.read", "--scope", "tokens.introspect"]);
    let made = gateway.run(&create).await.json();
    let key = made["key"].as_str().unwrap().to_owned();
    let body = json!({ "subject": "alice", "client": "web app", "scopes": ["orders.read"] });
    let made = gateway.control(Method::POST, "/sessions", &body.to_string()).await.unwrap();
    let refresh = made.json()["refresh_token"].as_str().unwrap().to_owned();

    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/oauth/client.py");
    let mut command = Command::new(python.await.unwrap());
    command.env("AUTHLIB_INSECURE_TRANSPORT", "1");
    command.arg(script).args([&issuer, "web app", &key, &refresh]);
    let ran = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success(), "{said}");
    assert_eq!(String::from_utf8_lossy(&ran.stdout).trim(), "all is well", "{said}");
    gateway.terminate().await;
}
