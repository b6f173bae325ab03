//! Retention: what is settled stays for a while, and the while goes on over restarts.

use gatepost::clock::{Clock, ManualClock, SystemClock};
use gatepost::journal::{Config, Reader};
use gatepost::model::units::Span;
use tempfile::TempDir;

use super::*;
use crate::support::in_process::config;

const HOUR: Duration = Duration::from_secs(3600);
/// What Postgres would say two hours later.
const BY_POSTGRES: &str =
    "UPDATE gatepost.stream_ledger SET updated_at = updated_at - interval '2 hours'";
const BACK: &str = "UPDATE gatepost.stream_ledger SET updated_at = updated_at + interval '2 hours'";

#[tokio::test]
async fn a_settled_segment_goes_after_its_retention_however_often_the_gateway_starts() {
    let db = Database::new().await;
    let clock = Arc::new(ManualClock::new(SystemClock::new().now()));
    let start = |data| {
        let config = Config { retention: Span(HOUR), ..config() };
        Gateway::by(clock.clone(), Reader::InProcess, data, &db.url, None, config)
    };
    let restarted = async |gateway: Gateway| {
        let gateway = start(gateway.shut_down().await);
        drain(&gateway).await;
        let left = gateway.journal.segments(Lane::Usage).len();
        (gateway, left)
    };
    let gateway = start(TempDir::new().unwrap());
    count(&gateway, 1).await;
    drain(&gateway).await;
    let (gateway, left) = restarted(gateway).await;
    assert_eq!(left, 1, "it was settled just now");
    db.execute(BY_POSTGRES).await;
    let (gateway, left) = restarted(gateway).await;
    assert_eq!(left, 1, "only Postgres' clock was set: the stream is not as old");
    db.execute(BACK).await;
    clock.set(clock.now().plus(2 * HOUR));
    let (gateway, left) = restarted(gateway).await;
    assert_eq!(left, 1, "only this machine's clock was set");
    db.execute(BY_POSTGRES).await;
    let (gateway, left) = restarted(gateway).await;
    assert_eq!(left, 0, "two hours, of which this process has seen none");
    assert_eq!(db.number(TOTAL).await, 1);
    drop(gateway.shut_down().await);
}
