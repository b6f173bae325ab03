//! Many starts while Postgres is away: what each leaves is not merged with what another left, for
//! nobody can tell here whether it is a copy. So it is bounded, and told.

use super::*;

/// What a start leaves of counts and quotas at most, beside its facts: a segment each.
const PER_START: u64 = 2 * (512 << 10) + (16 << 10);

fn bounded(max: u64) -> Config {
    Config {
        max_bytes: Size::mib(max),
        segment_max_bytes: Size::mib(1),
        interval: Span::secs(3600),
        retention: Span::secs(0),
        ballast: Size(0),
        ..Config::default()
    }
}

/// One life that was attached once, and finds nobody: whether it had room for a request.
async fn life(data: &TempDir, max: u64) -> bool {
    let (journal, _) = open(data, bounded(max));
    journal.examine(&|| false);
    journal.attach().expect("a working disk");
    let room = journal.reserve();
    if let Ok(room) = room {
        let quota = QuotaKey {
            quota: "p/q".into(),
            scope: "acme".into(),
            period: Timestamp(0),
            until: Timestamp(i64::MAX),
        };
        let _unawaited = journal.use_quota(room, quota, 1);
        let _unawaited = journal.count(room, counter(1), ONE);
        journal.flush().durable().await.expect("a working disk");
    }
    // As a gateway does that has a Postgres, and as often as it likes.
    while journal.merge(Scope::Own, &|| false).expect("a working disk") {}
    journal.append(vec![revocation("k")]).expect("always").durable().await.expect("a disk");
    journal.shutdown().expect("a working disk");
    room.is_ok()
}

fn lane(journal: &Journal, lane: Lane) -> LaneStatus {
    let status = journal.status();
    status.lanes.into_iter().find(|of| of.lane == lane.as_str()).expect("every lane")
}

/// As many as are merged at least four times over, where they are.
#[tokio::test]
async fn many_starts_take_no_more_than_a_segment_of_sums_each() {
    const STARTS: u64 = 16;
    let data = TempDir::new().expect("temporary directory");
    for _ in 0..STARTS {
        assert!(life(&data, 1024).await);
    }
    let (journal, state) = open(&data, bounded(1024));
    // Four are merged into one when the next start looks.
    assert!(state.len() <= 4 + 1, "state is merged, whoever wrote it: {}", state.len());
    journal.examine(&|| false);
    for of in [Lane::Quota, Lane::Usage] {
        let status = lane(&journal, of);
        assert_eq!((status.inherited, status.merged), (STARTS, 0), "{status:?}");
        assert!(status.inherited_bytes <= STARTS * PER_START / 2, "{status:?}");
        let label = LaneLabel::of(of);
        let told = journal.metrics.journal.inherited_segments.get_or_create(&label).get();
        assert_eq!(told, STARTS.cast_signed());
    }
    let bytes = journal.status().bytes;
    assert!(bytes <= (STARTS + 1) * PER_START + (4 << 20), "{bytes}");
    assert_eq!(usage_on_disk(&journal), STARTS, "every one is there");
}

#[tokio::test]
async fn a_loop_of_starts_that_fills_the_journal_is_refused_at_once_and_recovers() {
    const MAX: u64 = 8;
    let data = TempDir::new().expect("temporary directory");
    let mut passed = 0;
    for _ in 0..20 {
        passed += u64::from(life(&data, MAX).await);
    }
    assert!((4..20).contains(&passed), "{passed} of 20");
    let (journal, _) = open(&data, bounded(MAX));
    journal.examine(&|| false);
    let status = journal.status();
    assert!(status.full && status.bytes_left == 0, "{status:?}");
    let told = &journal.metrics.journal;
    assert!(told.bytes_left.get() == 0 && told.bytes.get() >= (MAX << 20).cast_signed());
    assert!(status.bytes <= (MAX << 20) + PER_START + (4 << 20), "{status:?}");
    assert!(journal.reserve().is_err(), "from the first moment on");
    assert_eq!(usage_on_disk(&journal), passed, "nothing was dropped");
    // Postgres is back.
    for of in [Lane::Quota, Lane::Usage] {
        journal.segments(of).iter().for_each(|s| s.set_applied(s.durable_seq()));
        assert_eq!(lane(&journal, of).inherited, 0);
    }
    journal.reclaim(&|segment| segment.is_finished(), &mut |_| {});
    journal.shutdown().expect("a working disk");
    assert!(life(&data, MAX).await, "there is room again");
}

#[tokio::test]
async fn the_oldest_of_each_lane_are_listed() {
    let data = TempDir::new().expect("temporary directory");
    for _ in 0..5 {
        assert!(life(&data, 1024).await);
    }
    let (journal, _) = open(&data, bounded(1024));
    let listed = journal.streams(3);
    let of = |lane: Lane| listed.iter().filter(|stream| stream.lane == lane.as_str()).count();
    assert_eq!((of(Lane::Quota), of(Lane::Usage)), (3, 3));
    assert_eq!(listed.iter().rfind(|s| s.lane == "usage").map(|s| s.stream), {
        Some(journal.segments(Lane::Usage)[2].stream)
    });
}
