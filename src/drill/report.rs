//! What a drill found, for who runs it and for who answers for it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use super::LOST;
use super::line::Lost;
use super::load::{Outcome, Seen};
use crate::postgres::scratch::Counted;

/// Whoever takes longer to start after a kill is not well.
const START_MAX: Duration = Duration::from_secs(30);

/// What a drill found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// In the order in which they came.
    pub phases: Vec<Phase>,
    /// Requests that were answered.
    pub answered: u64,
    /// Requests that a living gateway refused or did not answer. All keys were known to it.
    pub errors: u64,
    /// What was said to the first of them.
    pub first_error: Option<String>,
    /// How often the gateway was killed with SIGKILL.
    pub kills: u32,
    /// From a kill to where the gateway served again, the longest.
    pub slowest_start_seconds: f64,
    /// Requests that nobody could answer, because the gateway was killed and not yet back.
    pub unanswered: u64,
    /// Whether Postgres was asked under TLS. Then no single COMMIT can be lost on purpose.
    pub tls: bool,
    /// COMMITs of the drain that Postgres carried out, and whose answer was lost.
    pub commits_unanswered: u32,
    /// COMMITs of the drain that were lost on the way to Postgres.
    pub commits_unsent: u32,
    /// From Postgres' return until all that was counted in the outage was in it.
    pub outage_settled_seconds: f64,
    /// From the last request until all was in Postgres.
    pub settled_seconds: f64,
    /// Counters that were compared.
    pub counters: usize,
    /// Requests that were answered and are not in Postgres.
    pub lost: u64,
    /// Requests in Postgres beyond those that were sent.
    pub counted_twice: u64,
}

/// What callers saw in one phase. Latency counts from the moment at which a request was due.
#[derive(Clone, Debug, Serialize)]
pub struct Phase {
    /// What was going on.
    pub name: &'static str,
    /// Requests that were answered.
    pub answered: u64,
    /// Requests that were refused or not answered.
    pub errors: u64,
    /// Milliseconds in which half of them were answered.
    pub p50_ms: Option<f64>,
    /// Milliseconds in which 99 of 100 were answered.
    pub p99_ms: Option<f64>,
}

impl Report {
    /// Nothing lost, nothing twice, nobody refused, and all that was to be tried was tried.
    pub fn is_good(&self) -> bool {
        self.problems().is_empty()
    }

    /// What is not good, a sentence each.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.lost > 0 {
            problems.push("requests were answered and are not in Postgres".into());
        }
        if self.counted_twice > 0 {
            problems.push("requests were counted more than once".into());
        }
        if self.errors > 0 {
            problems.push("a living gateway refused requests with known keys".into());
        }
        for phase in self.phases.iter().filter(|phase| phase.answered == 0) {
            problems.push(format!("nothing was answered in \"{}\": it proves nothing", phase.name));
        }
        if self.slowest_start_seconds > START_MAX.as_secs_f64() {
            problems.push(format!("a start took more than {START_MAX:?}"));
        }
        let lost = Lost { unanswered: self.commits_unanswered, unsent: self.commits_unsent };
        if !self.tls && lost != LOST {
            problems.push(format!(
                "of the drain's COMMITs {} were to lose their answer and {} their way, and {} and \
                 {} did: what becomes of an unknown COMMIT was not tried",
                LOST.unanswered, LOST.unsent, lost.unanswered, lost.unsent
            ));
        }
        problems
    }

    /// For people; the last line says what it is all about.
    pub fn text(&self) -> String {
        let mut text =
            format!("{:<28}{:>10}{:>8}{:>12}{:>12}\n", "", "answered", "errors", "p50", "p99");
        for phase in &self.phases {
            let shown = |ms: Option<f64>| ms.map_or("-".into(), |ms| format!("{ms:.1} ms"));
            let (p50, p99) = (shown(phase.p50_ms), shown(phase.p99_ms));
            let Phase { name, answered, errors, .. } = phase;
            // Writing to a String cannot fail.
            writeln!(text, "{name:<28}{answered:>10}{errors:>8}{p50:>12}{p99:>12}")
                .unwrap_or_default();
        }
        let Self { answered, errors, kills, unanswered, counters, slowest_start_seconds, .. } =
            self;
        let commits = if self.tls {
            "none in particular: under TLS they cannot be seen".to_owned()
        } else {
            format!(
                "{} carried out and not answered, {} not arrived",
                self.commits_unanswered, self.commits_unsent
            )
        };
        let mut lines = vec![
            String::new(),
            format!("answered          {answered} requests, {errors} errors"),
            format!("killed            {kills} times; {unanswered} requests found no gateway"),
            format!("started again     in {slowest_start_seconds:.1} s at most"),
            format!("COMMITs lost      {commits}"),
            format!(
                "outage settled    {:.1} s after Postgres was back",
                self.outage_settled_seconds
            ),
            format!("all settled       {:.1} s after the last request", self.settled_seconds),
            format!("compared          {counters} counters, in four views"),
        ];
        lines.extend(self.first_error.iter().map(|error| format!("first error       {error}")));
        lines.push(format!("lost {}, counted twice {}", self.lost, self.counted_twice));
        text + &lines.join("\n") + "\n"
    }
}

/// A percentile of what is in order, in milliseconds.
fn percentile(micros: &[u32], percent: usize) -> Option<f64> {
    let at = (micros.len() * percent / 100).min(micros.len().checked_sub(1)?);
    Some(f64::from(micros[at]) / 1000.0)
}

fn phase(name: &'static str, mut seen: Seen) -> Phase {
    seen.micros.sort_unstable();
    Phase {
        name,
        answered: seen.micros.len() as u64,
        errors: seen.errors,
        p50_ms: percentile(&seen.micros, 50),
        p99_ms: percentile(&seen.micros, 99),
    }
}

/// What was done, and how long it took.
pub(super) struct Measured {
    pub kills: u32,
    pub slowest_start: Duration,
    /// Unknown under TLS.
    pub commits: Option<Lost>,
    /// From Postgres' return to where all of the outage was there.
    pub outage: Duration,
    /// From the last request to where all was.
    pub all: Duration,
}

/// Puts it together.
pub(super) fn report(
    names: &[&'static str],
    outcome: Outcome,
    measured: &Measured,
    (counters, verdict): (usize, Verdict),
) -> Report {
    let first_error = outcome.phases.iter().find_map(|seen| seen.first_error.clone());
    let commits = measured.commits.unwrap_or_default();
    let mut seen = outcome.phases;
    seen.resize_with(names.len(), Seen::default);
    let phases: Vec<Phase> = names.iter().zip(seen).map(|(name, seen)| phase(name, seen)).collect();
    Report {
        answered: phases.iter().map(|phase| phase.answered).sum(),
        errors: phases.iter().map(|phase| phase.errors).sum(),
        phases,
        first_error,
        kills: measured.kills,
        slowest_start_seconds: measured.slowest_start.as_secs_f64(),
        unanswered: outcome.down,
        tls: measured.commits.is_none(),
        commits_unanswered: commits.unanswered,
        commits_unsent: commits.unsent,
        outage_settled_seconds: measured.outage.as_secs_f64(),
        settled_seconds: measured.all.as_secs_f64(),
        counters,
        lost: verdict.lost,
        counted_twice: verdict.counted_twice,
    }
}

/// One counter as its callers know it.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub client: String,
    pub key: Uuid,
    pub table: &'static str,
    pub operation: &'static str,
    pub answered: u64,
    pub issued: u64,
}

/// The outcome of the comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub lost: u64,
    pub counted_twice: u64,
}

/// What a row of a view is about: client, key, table, operation, as far as it tells them apart.
type Subject = (Option<String>, Option<Uuid>, Option<String>, Option<String>);

/// The views, and what their rows tell apart: client, key, table and operation.
const VIEWS: [(&str, [bool; 3]); 4] = [
    ("usage_hourly", [true, true, true]),
    ("key_activity", [false, true, false]),
    ("client_table_statistics", [true, false, true]),
    ("client_statistics", [true, false, false]),
];

/// Compares each counter in each view: what was answered is there, and no more than was sent. What
/// is in a view that nobody sent was counted twice. The views tell of the same requests, so the
/// worst of them counts.
pub(super) fn compare(expected: &[Expected], counted: &[Counted]) -> Verdict {
    let mut worst = Verdict::default();
    for (view, [client, key, table]) in VIEWS {
        // Answered, sent, counted.
        let mut rows: BTreeMap<Subject, [u64; 3]> = BTreeMap::new();
        for one in expected {
            let subject = (
                client.then(|| one.client.clone()),
                key.then_some(one.key),
                table.then(|| one.table.to_owned()),
                table.then(|| one.operation.to_owned()),
            );
            let row = rows.entry(subject).or_default();
            row[0] += one.answered;
            row[1] += one.issued;
        }
        for one in counted.iter().filter(|one| one.view == view) {
            let subject = (one.client.clone(), one.key, one.table.clone(), one.operation.clone());
            rows.entry(subject).or_default()[2] += one.requests;
        }
        let lost = rows.values().map(|[answered, _, there]| answered.saturating_sub(*there));
        let twice = rows.values().map(|[_, issued, there]| there.saturating_sub(*issued));
        worst.lost = worst.lost.max(lost.sum());
        worst.counted_twice = worst.counted_twice.max(twice.sum());
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Uuid = Uuid::from_u128(7);

    fn expected(table: &'static str, answered: u64, issued: u64) -> Expected {
        Expected { client: "acme".into(), key: KEY, table, operation: "read", answered, issued }
    }

    /// What Postgres says of `orders` and `items`, in every view.
    fn counted(orders: u64, items: u64) -> Vec<Counted> {
        let row = |view: &str, client: bool, key: bool, table: Option<&str>, requests| Counted {
            view: view.into(),
            client: client.then(|| "acme".into()),
            key: key.then_some(KEY),
            table: table.map(str::to_owned),
            operation: table.map(|_| "read".into()),
            requests,
        };
        vec![
            row("usage_hourly", true, true, Some("orders"), orders),
            row("usage_hourly", true, true, Some("items"), items),
            row("key_activity", false, true, None, orders + items),
            row("client_table_statistics", true, false, Some("orders"), orders),
            row("client_table_statistics", true, false, Some("items"), items),
            row("client_statistics", true, false, None, orders + items),
        ]
    }

    fn verdict(lost: u64, counted_twice: u64) -> Verdict {
        Verdict { lost, counted_twice }
    }

    #[test]
    fn between_what_was_answered_and_what_was_sent_all_is_well() {
        let known = [expected("orders", 10, 12), expected("items", 5, 5)];
        for orders in 10..=12 {
            assert_eq!(compare(&known, &counted(orders, 5)), verdict(0, 0));
        }
        assert_eq!(compare(&known, &counted(9, 5)), verdict(1, 0));
        assert_eq!(compare(&known, &counted(13, 5)), verdict(0, 1));
    }

    #[test]
    fn what_one_counter_lacks_no_other_makes_up_for() {
        let known = [expected("orders", 10, 10), expected("items", 5, 5)];
        assert_eq!(compare(&known, &counted(8, 7)), verdict(2, 2));
    }

    #[test]
    fn each_view_is_looked_at() {
        let known = [expected("orders", 10, 10), expected("items", 5, 5)];
        for at in 0..6 {
            let mut less = counted(10, 5);
            less[at].requests -= 3;
            assert_eq!(compare(&known, &less), verdict(3, 0), "{:?}", less[at]);
            let mut gone = counted(10, 5);
            let requests = gone.remove(at).requests;
            assert_eq!(compare(&known, &gone), verdict(requests, 0));
            let mut more = counted(10, 5);
            more[at].requests += 2;
            assert_eq!(compare(&known, &more), verdict(0, 2), "{:?}", more[at]);
        }
    }

    #[test]
    fn what_nobody_sent_was_counted_twice() {
        let mut strange = counted(10, 5);
        strange[0].operation = Some("delete".into());
        let known = [expected("orders", 10, 10), expected("items", 5, 5)];
        assert_eq!(compare(&known, &strange), verdict(10, 10));
    }

    #[test]
    fn the_last_line_is_the_verdict() {
        let good = good();
        assert!(good.is_good(), "{:?}", good.problems());
        assert!(good.text().ends_with("\nlost 0, counted twice 0\n"), "{}", good.text());
        assert_eq!((good.answered, good.phases[0].p50_ms), (4, Some(2.0)));
    }

    fn good() -> Report {
        let second = Duration::from_secs(1);
        let (slowest_start, commits) = (second, Some(LOST));
        let measured =
            Measured { kills: 2, slowest_start, commits, outage: second, all: Duration::ZERO };
        let seen = |micros| Seen { micros, errors: 0, first_error: None };
        let phases = vec![seen(vec![3000, 1000, 2000]), seen(vec![1000])];
        let outcome = Outcome { phases, down: 4 };
        report(&["before", "cut"], outcome, &measured, (8, verdict(0, 0)))
    }

    #[test]
    fn a_drill_that_has_not_tried_everything_is_not_good() {
        let mut silent = good();
        silent.phases[1].answered = 0;
        for (bad, why) in [
            (Report { lost: 1, ..good() }, "are not in Postgres"),
            (Report { counted_twice: 1, ..good() }, "more than once"),
            (Report { errors: 1, ..good() }, "refused"),
            (Report { slowest_start_seconds: 31.0, ..good() }, "a start took"),
            (Report { commits_unanswered: 0, ..good() }, "was not tried"),
            (Report { commits_unanswered: 1, ..good() }, "was not tried"),
            (Report { commits_unsent: 0, ..good() }, "was not tried"),
            (silent, "nothing was answered in \"cut\""),
        ] {
            assert!(!bad.is_good());
            let problems = bad.problems();
            assert!(problems.len() == 1 && problems[0].contains(why), "{problems:?}");
        }
    }

    #[test]
    fn under_tls_no_commit_is_lost_and_the_report_says_so() {
        let report = Report { tls: true, commits_unanswered: 0, commits_unsent: 0, ..good() };
        assert!(report.is_good());
        assert!(report.text().contains("COMMITs lost      none"), "{}", report.text());
    }
}
