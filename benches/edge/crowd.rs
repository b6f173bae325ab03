//! Many connections: what idle ones cost in memory, and slow ones in a good client's time.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::client::{Client, Load};
use crate::report::{Goal, Report, Rounds, Series, progress};
use crate::upstream::Upstream;
use crate::{Effort, before, keys};

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Memory of the whole process with kept connections that have asked once.
pub fn idle(effort: Effort, report: &mut Report) -> Result<()> {
    let upstream = Upstream::start()?;
    let dir = tempfile::tempdir()?;
    let gateway = before(&dir.path().join("data"), upstream.address)?;
    let (runtime, keys) = (runtime()?, keys::texts(1));
    let held = runtime.block_on(async {
        let mut held = Vec::with_capacity(effort.idle);
        for _ in 0..effort.idle {
            let mut client = Client::connect(gateway.address).await?;
            client.get(64, &keys[0]).await?;
            held.push(client);
        }
        Ok::<_, anyhow::Error>(held)
    })?;
    let mut resident = Series::default();
    resident.push(gateway.resident_mib()?);
    drop(held);
    let figure = format!("resident with {} idle connections", effort.idle);
    report.figure(&figure, "MiB", &resident, Goal::AtMost(200.0));
    gateway.stop()
}

/// A good client's p99 beside connections that never finish their head, against without them.
pub fn slow(effort: Effort, report: &mut Report) -> Result<()> {
    let upstream = Upstream::start()?;
    let dir = tempfile::tempdir()?;
    let gateway = before(&dir.path().join("data"), upstream.address)?;
    let (runtime, load) = (runtime()?, Load::new(64, 8, effort.span));
    let mut rounds = Rounds::default();
    for round in 1..=effort.rounds {
        let alone = load.run(gateway.address)?;
        let crowd = runtime.block_on(crawl(gateway.address, effort.slow))?;
        let beside = load.run(gateway.address)?;
        drop(crowd);
        progress(&format!(
            "round {round}: p99 {:.0} µs beside {} slow ones, {:.0} µs alone",
            beside.p99_micros, effort.slow, alone.p99_micros
        ));
        rounds.push(beside.p99_micros, alone.p99_micros);
    }
    let figure = format!("p99 beside {} slow connections, against without", effort.slow);
    report.ratio(&figure, "µs", &rounds, Goal::AtMost(2.0));
    gateway.stop()
}

async fn crawl(address: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
    let mut crowd = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /64 HTTP/1.1\r\nHost: be").await?;
        crowd.push(stream);
    }
    Ok(crowd)
}
