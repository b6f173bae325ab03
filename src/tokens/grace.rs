//! For how long the refresh token before is still answered: `tokens.grace` after the advance, not
//! counting the time in which nobody could be answered.
//!
//! Such a time is a *pause*: between two lives of the gateway, while what is cached is too old to
//! decide by, or while the machine slept, which is told by a wall clock that ran ahead of the
//! monotonic one. A grace that was open when the pause
//! began is open for its whole span after it; one that had run out stays so. Over a restart this
//! takes one moment on disk: up to when graces have run out. It is written about once a second
//! while there is one to run out, so a grace that ended less than that before a kill is opened once
//! more. Without the file, as after a lost disk, none is known to have run out.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::disk;
use crate::model::Timestamp;

/// The moment up to which graces have run out, in microseconds since the Unix epoch.
const FILE: &str = "session-grace";

/// By how much the wall clock must run ahead of the monotonic one to have jumped. Less is a clock
/// that is being adjusted.
const JUMP_MIN: Duration = Duration::from_secs(1);

/// A moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Wall clock.
    pub wall: Timestamp,
    /// Monotonic clock.
    pub monotonic: Duration,
}

/// For how long the generation before is still answered.
#[derive(Debug)]
pub struct Grace {
    file: PathBuf,
    span: Duration,
    /// The newest advance of this life, in microseconds.
    newest: AtomicI64,
    life: Mutex<Life>,
}

#[derive(Debug)]
struct Life {
    /// Graces that ended by then had run out when the last pause began.
    run_out: Timestamp,
    /// The end of the last pause; none: sessions cannot be answered yet.
    answering: Option<Timestamp>,
    /// When the clocks were last looked at.
    seen: Moment,
    /// What this life wrote to the file.
    kept: Timestamp,
}

impl Life {
    fn holds(&self, over: Timestamp, span: Duration, now: Timestamp) -> bool {
        now < over || (self.run_out < over && self.is_reopened(span, now))
    }

    /// Whether what was open before the last pause still is.
    fn is_reopened(&self, span: Duration, now: Timestamp) -> bool {
        self.answering.is_none_or(|since| now < since.plus(span))
    }

    /// Looks at the clocks: a jump ahead is a pause that ends now.
    fn look(&mut self, span: Duration, now: Moment) {
        let slept = now.wall.since(self.seen.wall);
        if slept > now.monotonic.saturating_sub(self.seen.monotonic) + JUMP_MIN
            && self.answering.is_some()
        {
            self.pause(span);
            self.answering = Some(now.wall);
        }
        self.seen = now;
    }

    /// A pause began when the clocks were last looked at.
    fn pause(&mut self, span: Duration) {
        if !self.is_reopened(span, self.seen.wall) {
            self.run_out = self.seen.wall;
        }
        self.answering = None;
    }
}

impl Grace {
    /// As it was left in `data`. Blocks.
    pub fn open(data: &Path, span: Duration, now: Moment) -> Self {
        let file = data.join(FILE);
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        // What cannot be read revokes nothing.
        let run_out = text.trim().parse().map_or(Timestamp::NEG_INFINITY, Timestamp);
        let (answering, kept) = (None, Timestamp::NEG_INFINITY);
        let life = Mutex::new(Life { run_out, answering, seen: now, kept });
        Self { file, span, newest: AtomicI64::new(i64::MIN), life }
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sessions can be answered from now on.
    pub fn answering(&self, now: Timestamp) {
        self.life().answering.get_or_insert(now);
    }

    /// No session can be answered until further notice.
    pub fn pause(&self) {
        self.life().pause(self.span);
    }

    /// A session advances.
    pub fn advanced(&self, at: Timestamp) {
        self.newest.fetch_max(at.0, Ordering::Relaxed);
    }

    /// Whether a retry after an advance at `at` is answered.
    pub fn holds(&self, at: Timestamp, now: Moment) -> bool {
        let over = at.plus(self.span);
        if now.wall < over {
            return true;
        }
        let mut life = self.life();
        // Before the answer is no: nobody has looked for up to a second.
        if !life.holds(over, self.span, now.wall) {
            life.look(self.span, now);
        }
        life.holds(over, self.span, now.wall)
    }

    /// Looks at the clocks, and writes down up to when graces have run out, if one has since. To be
    /// called about once a second. Blocks.
    ///
    /// # Errors
    /// When the disk fails; then a restart opens more of them once more.
    pub fn keep(&self, now: Moment) -> io::Result<()> {
        let newest = Timestamp(self.newest.load(Ordering::Relaxed));
        {
            let mut life = self.life();
            life.look(self.span, now);
            // What is open again has not run out. And when nothing has advanced since, all had run
            // out by what the file says, unless a clock that was ahead said it.
            let all_over = newest.plus(self.span) <= life.kept && life.kept <= now.wall;
            if life.is_reopened(self.span, now.wall) || all_over {
                return Ok(());
            }
        }
        disk::write_whole(&self.file, format!("{}\n", now.wall.0).as_bytes())?;
        self.life().kept = now.wall;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(30);

    /// Both clocks at so many seconds.
    fn at(secs: u64) -> Moment {
        Moment { wall: wall(secs), monotonic: Duration::from_secs(secs) }
    }

    fn wall(secs: u64) -> Timestamp {
        Timestamp::EPOCH.plus(Duration::from_secs(secs))
    }

    struct Bench(tempfile::TempDir);

    impl Bench {
        fn new() -> Self {
            Self(tempfile::TempDir::new().expect("temporary directory"))
        }

        /// A life that begins at so many seconds and answers at once.
        fn life(&self, secs: u64) -> Grace {
            let grace = Grace::open(self.0.path(), SPAN, at(secs));
            grace.answering(wall(secs));
            grace
        }

        fn kept(&self) -> Option<String> {
            std::fs::read_to_string(self.0.path().join(FILE)).ok()
        }
    }

    #[test]
    fn grace_ends_on_time() {
        let bench = Bench::new();
        let grace = bench.life(0);
        assert!(grace.holds(wall(100), at(129)));
        assert!(!grace.holds(wall(100), at(130)));
        assert!(grace.holds(wall(100), at(90)), "a clock that was set back revokes nothing");
    }

    #[test]
    fn a_restart_reopens_what_was_open_and_nothing_else() {
        let bench = Bench::new();
        let first = bench.life(0);
        first.advanced(wall(80));
        first.advanced(wall(100));
        first.keep(at(115)).expect("a disk");
        let second = bench.life(1000);
        assert!(!second.holds(wall(80), at(1001)), "it was over before");
        assert!(second.holds(wall(100), at(1029)), "it was open when the gateway went away");
        assert!(!second.holds(wall(100), at(1030)));
        // Killed again before that, and again: it is still open, and the other still over.
        second.advanced(wall(1005));
        second.keep(at(1010)).expect("a disk");
        let third = bench.life(2000);
        assert!(third.holds(wall(100), at(2029)) && third.holds(wall(1005), at(2029)));
        assert!(!third.holds(wall(80), at(2001)));
        third.keep(at(2030)).expect("a disk");
        let fourth = bench.life(3000);
        assert!(!fourth.holds(wall(100), at(3000)) && !fourth.holds(wall(1005), at(3000)));
    }

    #[test]
    fn after_a_lost_disk_grace_begins_when_sessions_can_be_answered() {
        let bench = Bench::new();
        let grace = Grace::open(bench.0.path(), SPAN, at(1000));
        assert!(grace.holds(wall(100), at(1500)), "nobody could be answered yet");
        grace.keep(at(1500)).expect("a disk");
        assert_eq!(bench.kept(), None);
        grace.answering(wall(1500));
        assert!(grace.holds(wall(100), at(1529)));
        assert!(!grace.holds(wall(100), at(1530)));
        std::fs::write(bench.0.path().join(FILE), "\u{0}\u{0}").expect("writable");
        assert!(bench.life(2000).holds(wall(100), at(2001)), "a damaged file is a lost one");
    }

    #[test]
    fn a_jump_of_the_clock_ends_no_grace() {
        let bench = Bench::new();
        let grace = bench.life(0);
        for secs in [50, 51, 52] {
            grace.keep(at(secs)).expect("a disk");
        }
        let later = |secs| Moment { wall: wall(secs + 3600), monotonic: Duration::from_secs(secs) };
        assert!(grace.holds(wall(40), later(53)), "it slept for an hour");
        assert!(grace.holds(wall(40), later(82)));
        assert!(!grace.holds(wall(40), later(83)));
        assert!(!grace.holds(wall(10), later(54)), "it was over before");
        grace.keep(later(60)).expect("a disk");
        assert!(!bench.life(9000).holds(wall(10), at(9000)));
        assert!(bench.life(9000).holds(wall(40), at(9000)), "over a restart, too");
    }

    #[test]
    fn while_nobody_can_be_answered_grace_does_not_run() {
        let bench = Bench::new();
        let grace = bench.life(0);
        grace.keep(at(100)).expect("a disk");
        for _again in 0..2 {
            grace.pause();
            assert!(grace.holds(wall(90), at(5000)));
            assert!(!grace.holds(wall(60), at(5000)), "it was over before");
        }
        grace.answering(wall(5000));
        assert!(grace.holds(wall(90), at(5029)));
        assert!(!grace.holds(wall(90), at(5030)));
    }

    #[test]
    fn nothing_is_written_while_nothing_can_run_out() {
        let bench = Bench::new();
        let grace = bench.life(0);
        grace.keep(at(29)).expect("a disk");
        assert_eq!(bench.kept(), None, "what was left is open again");
        grace.keep(at(30)).expect("a disk");
        let first = bench.kept();
        assert!(first.is_some());
        grace.keep(at(500)).expect("a disk");
        assert_eq!(bench.kept(), first);
        grace.advanced(wall(510));
        for secs in [511, 540] {
            grace.keep(at(secs)).expect("a disk");
            assert_eq!(bench.kept(), Some(format!("{}\n", wall(secs).0)));
        }
        let last = bench.kept();
        grace.keep(at(900)).expect("a disk");
        assert_eq!(bench.kept(), last);
        // A clock that was ahead is set back: what it said would end graces that are open.
        let back = Moment { monotonic: Duration::from_secs(901), ..at(530) };
        grace.keep(back).expect("a disk");
        assert_eq!(bench.kept(), Some(format!("{}\n", wall(530).0)));
        std::fs::remove_dir_all(bench.0.path()).expect("there");
        grace.advanced(wall(540));
        let later = |secs| Moment { wall: wall(secs), monotonic: Duration::from_secs(secs + 371) };
        assert!(grace.keep(later(541)).is_err());
        assert!(grace.holds(wall(540), later(542)), "a failing disk stops nothing");
    }

    #[test]
    fn any_bytes_are_a_moment_or_a_lost_file() {
        let bench = Bench::new();
        let good = ["1700000000000000\n", "-9223372036854775808", "9223372036854775807"];
        crate::fuzz::each("grace", &good.map(|text| text.as_bytes().to_vec()), |bytes| {
            std::fs::write(bench.0.path().join(FILE), bytes).expect("writable");
            let grace = bench.life(1000);
            assert!(grace.holds(wall(999), at(1001)), "it was over by no clock");
            for moment in [Timestamp::NEG_INFINITY, Timestamp(i64::MAX)] {
                let _holds = grace.holds(moment, at(2000));
            }
        });
    }
}
