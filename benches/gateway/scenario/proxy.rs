//! The gateway as a reverse proxy, beside nginx and HAProxy as plain ones before the same upstream:
//! they neither check keys nor count.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::field::{Contestant, Field, embedded, rates};
use crate::effort::Effort;
use crate::load::Load;
use crate::load::connection::Connection;
use crate::load::keyed::Keyed;
use crate::load::socket::Socket;
use crate::product::gateway::{Gateway, Settings};
use crate::report::Report;
use crate::report::goal::Goal;
use crate::report::series::Rounds;
use crate::rivals::own::Own;
use crate::rivals::{haproxy, nginx};
use crate::stock::keys::{self, Keys};

const MIB: usize = 1 << 20;
/// Keys that the gateway knows.
const KEYS: usize = 10_000;
const GATEPOST: &str = "gatepost";
const NGINX: &str = "nginx, plain";
const UNBUFFERED: &str = "nginx, unbuffered";

const PARSERS: &str = "a second HTTP parser, the upstream client's pool and headers: a small \
    proxied request takes nearly three times the instructions of forward-auth";

/// A gateway on `data` before `upstream`, with keys.
pub fn before(data: &Path, upstream: SocketAddr) -> Result<Gateway> {
    let more = format!(
        "[[upstreams]]\nname = \"bench\"\ntargets = [\"http://{upstream}\"]\n\
         [[routes]]\npath = \"/{{*rest}}\"\nupstream = \"bench\"\n"
    );
    embedded(data, KEYS, Settings { more: Some(&more), ..Settings::default() })
}

/// Small answers: what is measured is the work per request.
pub fn small(effort: Effort, report: &mut Report) -> Result<()> {
    let goal = Goal::at_least(0.90).and_then(|goal| goal.bound_by(PARSERS));
    let load = |address, keys| Keyed::download(address, 64, keys);
    in_turns("small requests, 64 connections", 64, &[NGINX], load, goal, effort, report)
}

/// 1 MiB each: what is measured is the moving of bytes.
pub fn large(effort: Effort, report: &mut Report) -> Result<()> {
    let load = |address, keys| Keyed::download(address, MIB, keys);
    let goal = Goal::at_least(0.90);
    // By default nginx writes to a file what its client takes too slowly.
    let rivals = &[NGINX, UNBUFFERED];
    in_turns("1 MiB answers, 16 connections", 16, rivals, load, goal, effort, report)
}

/// Short messages there and back on WebSockets: after its beginning a tunnel only moves bytes.
pub fn websocket(effort: Effort, report: &mut Report) -> Result<()> {
    let goal = Goal::at_least(0.90);
    in_turns("WebSocket echo, 64 connections", 64, &[NGINX], Socket::new, goal, effort, report)
}

fn in_turns<L: Load>(
    figure: &str,
    connections: usize,
    rivals: &[&'static str],
    load: impl Fn(SocketAddr, Keys) -> L,
    goal: Option<Goal>,
    effort: Effort,
    report: &mut Report,
) -> Result<()> {
    let upstream = Own::upstream()?;
    let (dir, keys) = (tempfile::tempdir()?, keys::texts(KEYS));
    let mut field = Field::default();
    for rival in rivals {
        let buffering = *rival != UNBUFFERED;
        field.program(rival, nginx::before(upstream.address, buffering), report)?;
    }
    let gateway = before(&dir.path().join("data"), upstream.address)?;
    field.add(Contestant::gateway(GATEPOST, gateway));
    field.program("HAProxy, plain", haproxy::before(upstream.address), report)?;
    let load = |one: &Contestant| load(one.address, keys.clone());
    let turns = field.turns(effort.rounds, effort.closed(connections), load)?;
    report.contest(figure, "/s", &turns);
    for rival in rivals {
        if let Some(rounds) = rates(&turns, GATEPOST, rival) {
            report.ratio(&format!("{figure}, against {rival}"), "/s", rival, &rounds, goal);
        }
    }
    Ok(())
}

/// Memory of the whole process with kept connections that have asked once.
pub fn idle(effort: Effort, report: &mut Report) -> Result<()> {
    const BUFFERS: &str = "two buffers of hyper's for each connection, and a future that could \
        also be HTTP/2's";
    let upstream = Own::upstream()?;
    let dir = tempfile::tempdir()?;
    let gateway = before(&dir.path().join("data"), upstream.address)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let key = keys::texts(1)[0];
    let held = runtime.block_on(async {
        let mut held = Vec::with_capacity(effort.idle);
        for _ in 0..effort.idle {
            let mut connection = Connection::small(gateway.address).await?;
            connection.get(&request("GET", 64, &key, 0), 64).await?;
            held.push(connection);
        }
        Ok::<_, anyhow::Error>(held)
    })?;
    let resident = gateway.resident_mib()?;
    drop(held);
    let goal = Goal::at_most(200.0).and_then(|goal| goal.bound_by(BUFFERS));
    report.once(&format!("resident with {} idle connections", effort.idle), "MiB", resident, goal);
    gateway.stop()
}

/// A good client's p99 beside connections that never finish their head, against without them.
pub fn slow(effort: Effort, report: &mut Report) -> Result<()> {
    let upstream = Own::upstream()?;
    let dir = tempfile::tempdir()?;
    let gateway = before(&dir.path().join("data"), upstream.address)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let load = Keyed::download(gateway.address, 64, keys::texts(KEYS));
    let mut rounds = Rounds::default();
    for _ in 0..effort.rounds {
        let alone = effort.closed(8).run(&load)?.whole()?;
        let crowd = runtime.block_on(async {
            let mut crowd = Vec::with_capacity(effort.slow);
            for _ in 0..effort.slow {
                let mut connection = Connection::small(gateway.address).await?;
                connection.send(b"GET /64 HTTP/1.1\r\nHost: be").await?;
                crowd.push(connection);
            }
            Ok::<_, anyhow::Error>(crowd)
        })?;
        let beside = effort.closed(8).run(&load)?.whole()?;
        drop(crowd);
        rounds.push(beside.latency.at(99.0), alone.latency.at(99.0));
    }
    let figure = format!("p99 beside {} slow connections", effort.slow);
    report.ratio(&figure, "µs", "without", &rounds, Goal::at_most(2.0));
    gateway.stop()
}

/// Growth of the process while one body that is larger than memory may grow goes through.
pub fn body(effort: Effort, report: &mut Report) -> Result<()> {
    let upstream = Own::upstream()?;
    let dir = tempfile::tempdir()?;
    let gateway = before(&dir.path().join("data"), upstream.address)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (key, bytes) = (keys::texts(1)[0], usize::try_from(effort.body_mib)? * MIB);
    let mut connection = runtime.block_on(Connection::open(gateway.address))?;
    runtime.block_on(connection.get(&request("GET", 64, &key, 0), 64))?;
    for (way, up) in [("down", false), ("up", true)] {
        let (before, began) = (gateway.resident_mib()?, Instant::now());
        runtime.block_on(async {
            if !up {
                return connection.get(&request("GET", bytes, &key, 0), bytes).await;
            }
            connection.send(&request("PUT", 0, &key, bytes)).await?;
            let piece = vec![0; 64 << 10];
            for at in (0..bytes).step_by(piece.len()) {
                connection.send(&piece[..piece.len().min(bytes - at)]).await?;
            }
            let answer = connection.answer().await?;
            ensure!(answer.status == 200, "refused: {}", connection.text());
            Ok(())
        })?;
        let speed = effort.body_mib as f64 / began.elapsed().as_secs_f64();
        report.once(&format!("one body on its way {way}"), "MiB/s", speed, None);
        let figure = format!("growth while {} MiB go {way}", effort.body_mib);
        report.once(&figure, "MiB", gateway.peak_mib()? - before, Goal::at_most(20.0));
    }
    gateway.stop()
}

fn request(method: &str, bytes: usize, key: &[u8], body: usize) -> Vec<u8> {
    let key = String::from_utf8_lossy(key);
    let length = if body > 0 { format!("Content-Length: {body}\r\n") } else { String::new() };
    format!(
        "{method} /{bytes} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n{length}\r\n"
    )
    .into_bytes()
}
