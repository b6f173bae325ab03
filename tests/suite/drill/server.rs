//! The throw-away Postgres of a drill: nobody else comes in, and nothing of it stays.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use rustix::process::geteuid;
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

use super::drill;
use crate::support::gateway::until;
use crate::support::process::signal;

/// A directory for temporary files, into which Postgres' user may go or not.
fn scratch(mode: u32) -> TempDir {
    let scratch = tempfile::tempdir().unwrap();
    fs::set_permissions(scratch.path(), Permissions::from_mode(mode)).unwrap();
    scratch
}

/// A drill that keeps its files there.
fn begin(scratch: &Path) -> Child {
    let mut command = drill(&["--seconds", "60"]);
    command.env("TMPDIR", scratch).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn who_does_not_know_its_password_does_not_come_in() {
    let scratch = scratch(0o1777);
    let mut child = begin(scratch.path());
    let ready = || {
        let file = entries(scratch.path()).pop()?.join("data/postmaster.pid");
        let text = fs::read_to_string(file).ok()?;
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        (lines.get(7) == Some(&"ready")).then(|| lines[3].to_owned())
    };
    until("its Postgres is ready", async || ready().is_some()).await;
    let port = ready().unwrap();
    for user in ["postgres", "postgres:wrong"] {
        let url = format!("postgres://{user}@127.0.0.1:{port}/postgres?sslmode=disable");
        let refused = PgConnection::connect(&url).await.expect_err("a stranger").to_string();
        assert!(refused.contains("password"), "{refused}");
    }
    signal(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(entries(scratch.path()), Vec::<PathBuf>::new());
}

/// Whatever it is at: while `initdb` works there is no server yet.
#[tokio::test]
async fn what_is_killed_leaves_no_directory() {
    let scratch = scratch(0o1777);
    for begun in ["data/PG_VERSION", "data/postmaster.pid"] {
        let mut child = begin(scratch.path());
        until(begun, async || entries(scratch.path()).iter().any(|dir| dir.join(begun).is_file()))
            .await;
        signal(&child, "-KILL");
        child.wait().unwrap();
        until("its directories go", async || entries(scratch.path()).is_empty()).await;
    }
}

#[tokio::test]
async fn a_directory_that_postgres_may_not_enter_is_named() {
    if !geteuid().is_root() {
        return;
    }
    let scratch = scratch(0o700);
    let mut command = drill(&["--seconds", "5"]);
    command.env("TMPDIR", scratch.path());
    let ran = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let stderr = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{stderr}");
    for part in ["initdb as the user with id ", scratch.path().to_str().unwrap(), "TMPDIR"] {
        assert!(stderr.contains(part), "{stderr}");
    }
    assert_eq!(entries(scratch.path()), Vec::<PathBuf>::new());
}
