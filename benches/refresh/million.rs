//! Many sessions: brought from Postgres once, and there after a restart without it.

use std::time::Instant;

use anyhow::Result;

use crate::Effort;
use crate::client::Client;
use crate::gateway::{Gateway, Settings};
use crate::report::{Goal, Report, Series, progress};
use crate::sessions::{self, Deployment};
use crate::support::cluster::Cluster;

pub fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cluster = Cluster::dedicated();
    let database = runtime.block_on(cluster.database());
    let (sessions, deployment) = (effort.million, Deployment::new()?);
    progress(&format!("inserting {sessions} sessions"));
    runtime.block_on(sessions::into_postgres(&database.url, sessions))?;
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    let settings = Settings {
        database_url: Some(&database.url),
        token_keys: Some(deployment.document()),
        ..Settings::default()
    };
    let one = |value: f64| {
        let mut series = Series::default();
        series.push(value);
        series
    };
    let gateway = Gateway::start(&data, settings)?;
    #[expect(clippy::cast_precision_loss, reason = "a million is exact")]
    let all = sessions as f64;
    let filled = gateway.wait_for("gatepost_token_sessions_compared_total", all)?;
    let figure = format!("{sessions} sessions: brought from Postgres");
    report.figure(&figure, "s", &one(filled.as_secs_f64()), Goal::None);
    let figure = format!("{sessions} sessions: resident after that");
    report.figure(&figure, "MiB", &one(gateway.resident_mib()?), Goal::None);
    std::thread::sleep(std::time::Duration::from_secs(2));
    gateway.stop()?;

    cluster.stop();
    let (mut starts, mut memory) = (Series::default(), Series::default());
    for round in 0..effort.rounds {
        let started = Instant::now();
        let gateway = Gateway::start(&data, settings)?;
        let number = sessions / (round + 2);
        runtime.block_on(async {
            let mut client =
                Client::connect(gateway.address, vec![deployment.token(number)]).await?;
            client.refresh(0).await
        })?;
        starts.push(started.elapsed().as_secs_f64());
        // More than the hot tier holds.
        let touched = (sessions / 2).min(150_000);
        let tokens = (0..touched).map(|number| deployment.token(number)).collect();
        runtime.block_on(async {
            let mut client = Client::connect(gateway.address, tokens).await?;
            for number in 0..if round == 0 { touched } else { 0 } {
                // (Those that were refreshed in another life of the gateway are answered again.)
                client.refresh(number).await?;
            }
            Ok::<_, anyhow::Error>(())
        })?;
        if round == 0 {
            memory.push(gateway.resident_mib()?);
        }
        gateway.stop()?;
    }
    let figure = format!("{sessions} sessions: restart to the first refresh, Postgres stopped");
    report.figure(&figure, "s", &starts, Goal::AtMost(2.0));
    let figure = format!("{sessions} sessions: resident after 150000 refreshes in an outage");
    report.figure(&figure, "MiB", &memory, Goal::None);
    Ok(())
}
