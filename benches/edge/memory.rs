//! What a body that is much larger than memory may grow costs: nothing but its buffers.

use std::time::Instant;

use anyhow::Result;

use crate::client::Client;
use crate::report::{Goal, Report, Series};
use crate::upstream::Upstream;
use crate::{Effort, before, keys};

/// Growth of the process while one body goes through, down and up.
pub fn body(effort: Effort, report: &mut Report) -> Result<()> {
    let upstream = Upstream::start()?;
    let dir = tempfile::tempdir()?;
    let gateway = before(&dir.path().join("data"), upstream.address)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (keys, bytes) = (keys::texts(1), effort.body_mib << 20);
    let mut client = runtime.block_on(Client::connect(gateway.address))?;
    runtime.block_on(client.get(64, &keys[0]))?;
    for (way, up) in [("down", false), ("up", true)] {
        let (before, began) = (gateway.resident_mib()?, Instant::now());
        runtime.block_on(async {
            if up {
                client.put(bytes, &keys[0]).await
            } else {
                client.get(usize::try_from(bytes)?, &keys[0]).await
            }
        })?;
        let (mut growth, mut speed) = <(Series, Series)>::default();
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        speed.push(effort.body_mib as f64 / began.elapsed().as_secs_f64());
        report.figure(&format!("one body on its way {way}"), "MiB/s", &speed, Goal::None);
        growth.push(gateway.peak_mib()? - before);
        let figure = format!("growth while {} MiB go {way}", effort.body_mib);
        report.figure(&figure, "MiB", &growth, Goal::AtMost(20.0));
    }
    gateway.stop()
}
