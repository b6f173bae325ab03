//! As many refreshes as there can be, against the usual way.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;

use crate::Effort;
use crate::client::Client;
use crate::gateway::{Gateway, Settings};
use crate::report::{Goal, Report, Rounds, progress};
use crate::rival::Rival;
use crate::sessions::{self, Deployment};
use crate::support::cluster::Cluster;

const CONNECTIONS: usize = 64;
/// Of each connection.
const SESSIONS: usize = 100;

pub fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // What is answered there must be on disk, as it is here.
    let cluster = Cluster::with_fsync(true);
    // Each has its own rows: neither finds the other's generations.
    let (ours, theirs) =
        runtime.block_on(async { (cluster.database().await, cluster.database().await) });
    let deployment = Deployment::new()?;
    for database in [&ours, &theirs] {
        runtime.block_on(sessions::into_postgres(&database.url, CONNECTIONS * SESSIONS))?;
    }
    let dir = tempfile::tempdir()?;
    let settings = Settings {
        database_url: Some(&ours.url),
        token_keys: Some(deployment.document()),
        ..Settings::default()
    };
    let gateway = Gateway::start(&dir.path().join("data"), settings)?;
    gateway.wait_for("gatepost_cache_revision", 1.0)?;
    let rival = Rival::start(&theirs.url)?;
    let mut one = runtime.block_on(connect(gateway.address, &deployment))?;
    let mut other = runtime.block_on(connect(rival.address, &deployment))?;
    let mut rounds = Rounds::default();
    for round in 0..=effort.rounds {
        let ours = runtime.block_on(refresh(&mut one, effort.span))?;
        let theirs = runtime.block_on(refresh(&mut other, effort.span))?;
        progress(&format!("round {round}: {ours:.0}/s, the usual way {theirs:.0}/s"));
        // The first fills caches on both sides.
        if round > 0 {
            rounds.push(ours, theirs);
        }
    }
    let figure =
        format!("refreshes, {CONNECTIONS} connections, against FOR UPDATE on a pool of 10");
    report.ratio(&figure, "/s", &rounds, Goal::AtLeast(10.0));
    gateway.stop()
}

async fn connect(address: SocketAddr, deployment: &Deployment) -> Result<Vec<Client>> {
    let mut clients = Vec::new();
    for connection in 0..CONNECTIONS {
        let own = connection * SESSIONS..(connection + 1) * SESSIONS;
        let tokens = own.map(|number| deployment.token(number)).collect();
        clients.push(Client::connect(address, tokens).await?);
    }
    Ok(clients)
}

async fn refresh(clients: &mut Vec<Client>, span: Duration) -> Result<f64> {
    let (started, mut running, mut answered) = (Instant::now(), JoinSet::new(), 0_u32);
    for mut client in std::mem::take(clients) {
        running.spawn(async move {
            let mut times = 0;
            while started.elapsed() < span {
                client.refresh(times as usize % SESSIONS).await?;
                times += 1;
            }
            Ok::<_, anyhow::Error>((client, times))
        });
    }
    while let Some(ended) = running.join_next().await {
        let (client, times) = ended??;
        clients.push(client);
        answered += times;
    }
    Ok(f64::from(answered) / started.elapsed().as_secs_f64())
}
