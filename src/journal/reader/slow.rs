//! A child that says nothing: does it hang, or its disk?
//!
//! Linux tells: who waits for a disk sleeps uninterruptibly. Elsewhere nobody does, and silence is
//! what it looks like.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// It is looked at so often: between two reads it works for a moment.
const LOOKS: u32 = 20;
const BETWEEN: Duration = Duration::from_millis(10);

/// Whether a thread of the process waits for a disk.
pub(super) fn waits_for_disk(pid: u32) -> bool {
    let tasks = format!("/proc/{pid}/task");
    (0..LOOKS).any(|look| {
        if look > 0 {
            std::thread::sleep(BETWEEN);
        }
        let tasks = fs::read_dir(&tasks).into_iter().flatten();
        tasks.filter_map(Result::ok).any(|task| is_stuck(&task.path()))
    })
}

fn is_stuck(task: &Path) -> bool {
    let Ok(stat) = fs::read_to_string(task.join("stat")) else { return false };
    // `pid (name) state …`; the name may hold anything.
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('D'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_stands_behind_the_name() {
        let task = tempfile::TempDir::new().expect("a directory");
        for (stat, stuck) in [("7 (a) D 1", true), ("7 (D) D) S 1", false), ("7 (a", false)] {
            fs::write(task.path().join("stat"), stat).expect("writable");
            assert_eq!(is_stuck(task.path()), stuck, "{stat}");
        }
        assert!(!is_stuck(&task.path().join("gone")));
    }
}
