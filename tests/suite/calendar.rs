//! Limits of the real program while somebody sets its wall clock: a month in a zone that sets its
//! clocks in it.

use std::time::Duration;

use gatepost::model::Timestamp;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::support::gateway::{Gateway, Made};
use crate::support::http::Answer;
use crate::support::wall::WallClock;

const LIMIT: u64 = 200;
const ZONE: &str = "Europe/Berlin";

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Clocks are set an hour ahead on the 28th: this month ends at 22:00 in UTC, as the next one does.
const MARCH: &str = "2027-03-15T12:00:00Z";
const END_OF_MARCH: &str = "2027-03-31T22:00:00Z";
const END_OF_APRIL: &str = "2027-04-30T22:00:00Z";

fn moment(text: &str) -> Timestamp {
    OffsetDateTime::parse(text, &Rfc3339).expect("a moment").into()
}

/// Where the clock is set to, from where it is right.
const JUMPS: [fn(Timestamp) -> Timestamp; 5] = [
    |right| right.minus(HOUR),
    |right| right.plus(DAY),
    |_| moment("1970-01-01T00:01:00Z"),
    |_| moment("2100-01-01T00:00:00Z"),
    // The next month.
    |right| right.plus(DAY * 20),
];

/// A month's quota with plenty left, one that is used up, and a rate that is.
struct Keys {
    plenty: Made,
    used_up: Made,
    too_fast: Made,
    left: u64,
}

impl Keys {
    async fn make(gateway: &Gateway) -> Self {
        let key = async |policy: &str| {
            let args = ["key", "create", "--client", "acme", "--policy", policy];
            Made::of(&gateway.run(&args).await.json())
        };
        let (used_up, too_fast) = (key("tight").await, key("slow").await);
        for key in [&used_up, &too_fast] {
            assert_eq!(gateway.http().decided(&key.key).await.expect("an answer").status, 200);
        }
        Self { plenty: key("monthly").await, used_up, too_fast, left: LIMIT }
    }

    /// One request with each key: what is there is charged by exactly one, and what is used up is
    /// not there again. When the month ends, as it is told.
    async fn stand(&mut self, gateway: &Gateway, when: &str) -> Duration {
        self.left -= 1;
        let (left, end) = told(&self.ask(gateway).await);
        assert_eq!(left, self.left, "{when}");
        let refused = gateway.http().decided(&self.used_up.key).await.expect("an answer");
        assert_eq!((refused.status, &*refused.code()), (429, "quota_exceeded"), "{when}");
        assert!(retry_after(&refused).abs_diff(end) < MINUTE, "{when}");
        end
    }

    async fn ask(&self, gateway: &Gateway) -> Answer {
        let answer = gateway.http().decided(&self.plenty.key).await.expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
    }

    /// The rate, which is memory only.
    async fn is_still_too_fast(&self, gateway: &Gateway, when: &str) {
        let refused = gateway.http().authorize(&self.too_fast.key).await.expect("an answer");
        assert_eq!((refused.status, &*refused.code()), (429, "rate_limited"), "{when}");
        assert!(retry_after(&refused) <= HOUR, "{when}");
    }
}

fn retry_after(answer: &Answer) -> Duration {
    let seconds = answer.header("retry-after").expect("when to come again").parse();
    Duration::from_secs(seconds.expect("seconds"))
}

/// What is left of the only quota, and in what time all of it is there again.
fn told(answer: &Answer) -> (u64, Duration) {
    let told = answer.header("ratelimit").expect("a quota");
    let number = |name: &str| {
        let (_, rest) = told.split_once(name).expect("it is told");
        rest.split(';').next().expect("a number").parse::<u64>().expect("a number")
    };
    (number(";r="), Duration::from_secs(number(";t=")))
}

fn embedded(clock: &WallClock) -> Gateway {
    let quota = |name: &str, limit: u64| {
        format!(
            "[[policies]]\nname = \"{name}\"\ncommit = \"before_reply\"\n\
             quotas = [{{ name = \"q\", limit = {limit}, period = \"month\", \
             timezone = \"{ZONE}\", per = \"key\" }}]\n"
        )
    };
    let mut gateway = Gateway::new(
        None,
        &format!(
            "[[clients]]\nname = \"acme\"\n{}{}[[policies]]\nname = \"slow\"\n\
             rate_limits = [{{ name = \"r\", limit = 1, window = \"1h\", per = \"key\" }}]\n",
            quota("monthly", LIMIT),
            quota("tight", 1),
        ),
    );
    clock.hang_in(&mut gateway);
    gateway
}

/// A gateway that was started in the middle of March, with its keys; `None` where its clock cannot
/// be set.
async fn in_march() -> Option<(WallClock, Gateway, Keys)> {
    let clock = WallClock::at(moment(MARCH))?;
    let mut gateway = embedded(&clock);
    gateway.start().await;
    let keys = Keys::make(&gateway).await;
    Some((clock, gateway, keys))
}

/// What is left of the month, by the right clock.
fn left_of(month: &str, clock: &WallClock) -> Duration {
    moment(month).since(clock.now())
}

#[tokio::test]
async fn a_clock_that_is_set_while_it_runs_neither_opens_nor_locks_a_limit() {
    let Some((clock, gateway, mut keys)) = in_march().await else { return };
    keys.stand(&gateway, "before").await;
    for (at, jump) in JUMPS.iter().enumerate() {
        let right = clock.now();
        let monotonic = std::time::Instant::now();
        clock.set(jump(right));
        let end = keys.stand(&gateway, &format!("jump {at}")).await;
        keys.is_still_too_fast(&gateway, &format!("jump {at}")).await;
        clock.set(right.plus(monotonic.elapsed()));
        assert!(end.abs_diff(left_of(END_OF_MARCH, &clock)) < MINUTE, "jump {at}: {end:?}");
        keys.stand(&gateway, &format!("back from {at}")).await;
        keys.is_still_too_fast(&gateway, &format!("back from {at}")).await;
    }
    let shown = gateway.run(&["usage", "--client", "acme"]).await.json();
    let quotas = shown[0]["quotas"].as_array().expect("a list");
    let used = quotas.iter().find(|quota| quota["of"] == *keys.plenty.id).expect("it is there");
    assert_eq!(used["used"], json!(LIMIT - keys.left));
    assert_eq!(used["period_end"], END_OF_MARCH);
    let metrics = gateway.admin().get("/metrics").await.body;
    let (_, jumps) = metrics.split_once("\ngatepost_admission_clock_jumps_total ").unwrap();
    let jumps: f64 = jumps.lines().next().unwrap().parse().unwrap();
    assert!(jumps >= 5.0, "{jumps}");
}

#[tokio::test]
async fn a_start_that_finds_a_wrong_clock_neither_opens_nor_loses_a_month() {
    let Some((clock, mut gateway, mut keys)) = in_march().await else { return };
    keys.stand(&gateway, "before").await;
    gateway.terminate().await;
    // (A gateway that was away for 20 days finds the next month, and is right.)
    for (at, jump) in JUMPS[..4].iter().enumerate() {
        let right = clock.now();
        let monotonic = std::time::Instant::now();
        clock.set(jump(right));
        gateway.start().await;
        let end = keys.stand(&gateway, &format!("started in jump {at}")).await;
        gateway.kill9();
        clock.set(right.plus(monotonic.elapsed()));
        // The day ahead was believed: it might have been away for so long.
        let off = left_of(END_OF_MARCH, &clock).abs_diff(end);
        assert!(off < MINUTE || off.abs_diff(DAY) < MINUTE, "jump {at}: {off:?}");
        gateway.start().await;
        keys.stand(&gateway, &format!("started after {at}")).await;
        gateway.terminate().await;
    }
}

#[tokio::test]
async fn a_month_ends_when_it_does_in_its_zone_and_none_is_lost() {
    let Some((clock, mut gateway, mut keys)) = in_march().await else { return };
    keys.stand(&gateway, "in the middle of March").await;
    gateway.terminate().await;
    // Sixteen days later, and after the hour that was skipped.
    let end = moment(END_OF_MARCH);
    clock.set(end.minus(MINUTE * 5));
    gateway.start().await;
    keys.stand(&gateway, "at the end of March").await;
    // By less than what is taken for a jump, until it is over.
    let april = loop {
        let before = clock.now();
        let (left, resets) = told(&keys.ask(&gateway).await);
        let after = clock.now();
        if left == keys.left - 1 {
            assert!(before < end, "March goes on in April");
            keys.left = left;
            clock.ahead(Duration::from_secs(50));
            continue;
        }
        assert!(after >= end, "April begins in March");
        assert_eq!(left, LIMIT - 1);
        assert!(resets.abs_diff(left_of(END_OF_APRIL, &clock)) < MINUTE, "{resets:?}");
        break left;
    };
    // Back in March nobody gets anything that was not there, at once and after a start...
    clock.set(moment(MARCH));
    assert_eq!(told(&keys.ask(&gateway).await).0, april - 1);
    gateway.terminate().await;
    gateway.start().await;
    assert_eq!(told(&keys.ask(&gateway).await).0, april - 2);
    gateway.terminate().await;
    // ...and where nothing tells of April, March is as it was left.
    std::fs::remove_file(gateway.data_dir().join("calendar")).unwrap();
    gateway.start().await;
    keys.stand(&gateway, "March again").await;
}
