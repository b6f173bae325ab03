//! What a record tells of the journal below it: when its commits came, and when merging began.

use std::collections::{HashMap, HashSet};

use super::{Call, Record, Tree};

impl Record {
    /// The commits of a lane, as lengths of the record: where the sync of what a writer had written
    /// began, and where it had ended. What earlier lives left is synced as well, and what others
    /// are merged into: neither brings an answer to the disk.
    pub fn commits(&self, lane: &str) -> Vec<(u64, u64)> {
        let mut dirs = self.root.dir_paths();
        let (mut merged, mut written) = (HashSet::new(), HashSet::new());
        let (mut began, mut commits) = (HashMap::new(), Vec::new());
        let lane = format!("/data/journal/{lane}/");
        for (length, call) in &self.calls {
            match call {
                Call::Made { parent, name, inode, is_dir: true } => {
                    let above = dirs.get(parent).cloned().unwrap_or_default();
                    dirs.insert(*inode, format!("{above}/{name}"));
                }
                Call::Made { parent, name, inode, .. } => {
                    let of_lane = dirs.get(parent).is_some_and(|dir| dir.starts_with(&lane));
                    if name == "db" && of_lane && !merged.contains(parent) {
                        written.insert(*inode);
                    }
                }
                Call::Renamed { to, new, .. } if new == "sources" => drop(merged.insert(*to)),
                Call::SyncBegan { id, .. } => drop(began.insert(*id, *length)),
                Call::SyncEnded { inode, id, well: true } if written.contains(inode) => {
                    commits.push((began[id], *length));
                }
                _ => {}
            }
        }
        commits
    }

    /// After how many calls the first merge had named what it merges; none where nothing was.
    pub fn merging(&self) -> Option<usize> {
        let names = |call: &Call| matches!(call, Call::Renamed { new, .. } if new == "sources");
        self.calls.iter().position(|(_, call)| names(call))
    }

    /// How many calls the shim counts from there on.
    pub fn counted_from(&self, calls: usize) -> usize {
        let counts = |call: &Call| !matches!(call, Call::SyncEnded { .. });
        self.calls[calls..].iter().filter(|(_, call)| counts(call)).count()
    }
}

impl Tree {
    /// The path of every directory below the root, which has none.
    fn dir_paths(&self) -> HashMap<u64, String> {
        let mut paths = HashMap::from([(self.root, String::new())]);
        let mut left = vec![self.root];
        while let Some(dir) = left.pop() {
            for (name, inode) in &self.dirs[&dir] {
                if self.dirs.contains_key(inode) {
                    paths.insert(*inode, format!("{}/{name}", paths[&dir]));
                    left.push(*inode);
                }
            }
        }
        paths
    }
}
