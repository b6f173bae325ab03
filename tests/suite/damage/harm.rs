//! What is done to a file, by seed.

use std::fs;
use std::path::{Path, PathBuf};

use gatepost::entropy::{Entropy, SeededEntropy};

/// Files of the journal, by what they are; their turn comes by seed.
pub const JOURNAL: &[&str] = &[
    "/db",
    "/conf",
    "/snap.",
    "/end",
    "/db",
    "/sent",
    "/sources",
    "/attached",
    "/blobs",
    "/db",
    "/removed",
    "/manifest",
];
/// What sums are read from.
pub const USAGE: &[&str] = &["/journal/usage/"];
/// Those that only the program reads, and some of the journal.
pub const PROGRAM: &[&str] = &[
    "/format",
    "/node",
    "/admin-token",
    "/lock",
    "cache/db",
    "cache/conf",
    "cache/",
    "/ballast",
    "/removed",
    "/manifest",
];

#[derive(Debug)]
enum Kind {
    Flip(u32),
    Zero,
    Truncate,
    Garbage,
    Gone,
    Append,
    /// All that stands beside the file is gone as well.
    Emptied,
}

/// One damage to one file.
#[derive(Debug)]
pub struct Harm {
    /// The file's directory, below the data directory.
    pub dir: String,
    pub file: String,
    kind: Kind,
    /// Where, as a part of the file's length.
    at: u32,
    seed: u64,
}

fn number(entropy: &SeededEntropy) -> u32 {
    let mut bytes = [0; 4];
    entropy.fill(&mut bytes);
    u32::from_le_bytes(bytes)
}

/// Files and directories named blobs, in order.
fn list(dir: &Path, into: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        match path.is_dir() {
            true if !path.ends_with("blobs") => list(&path, into),
            _ => into.push(path),
        }
    }
}

impl Harm {
    pub fn of(seed: u64, good: &Path, classes: &[&str]) -> Self {
        let (entropy, mut all) = (SeededEntropy::new(seed), Vec::new());
        list(good, &mut all);
        let class = classes[seed as usize % classes.len()];
        let cache = class.starts_with("cache");
        let of_class = |path: &PathBuf| {
            let text = path.strip_prefix(good).unwrap().to_str().unwrap().to_owned();
            format!("/{text}").contains(class) && text.starts_with("cache") == cache
        };
        all.retain(of_class);
        assert!(!all.is_empty(), "no file is {class}");
        let path = &all[number(&entropy) as usize % all.len()];
        let kind = match number(&entropy) % 7 {
            0 => Kind::Flip(1 + number(&entropy) % 8),
            1 => Kind::Zero,
            2 => Kind::Truncate,
            3 => Kind::Garbage,
            4 => Kind::Gone,
            5 => Kind::Append,
            _ => Kind::Emptied,
        };
        let dir = path.parent().unwrap().strip_prefix(good).unwrap();
        let of_segment = dir.starts_with("journal") && dir.components().count() == 3;
        let kind = if matches!(kind, Kind::Emptied) && !of_segment { Kind::Gone } else { kind };
        let dir = format!("/{}/", dir.to_str().unwrap());
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        Self { dir, file, kind, at: number(&entropy), seed }
    }

    /// The merged segment's `end` is gone.
    pub fn lost_end(good: &Path) -> Self {
        let merged = Self::of(0, good, &["/sources"]);
        Self { file: "end".into(), kind: Kind::Gone, ..merged }
    }

    /// To the copy in `data`.
    pub fn apply(&self, data: &Path) {
        let dir = data.join(self.dir.trim_matches('/'));
        if matches!(self.kind, Kind::Emptied) {
            fs::remove_dir_all(&dir).unwrap();
            return fs::create_dir(dir).unwrap();
        }
        let path = dir.join(&self.file);
        let entropy = SeededEntropy::new(!self.seed);
        let mut junk = vec![0; 512];
        entropy.fill(&mut junk);
        if path.is_dir() {
            match self.kind {
                Kind::Gone | Kind::Truncate => fs::remove_dir_all(path).unwrap(),
                _ => fs::write(path.join(self.at.to_string()), junk).unwrap(),
            }
            return;
        }
        let mut bytes = fs::read(&path).unwrap();
        // sled lays its file out in advance: what it wrote is at its beginning.
        let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let at = self.at as usize % written.max(1);
        let until = (at + junk.len()).min(bytes.len());
        match self.kind {
            Kind::Flip(_) if bytes.is_empty() => bytes = junk,
            Kind::Flip(count) => {
                for _ in 0..count {
                    let at = number(&entropy) as usize % written.max(1);
                    bytes[at] ^= 1 << (number(&entropy) % 8);
                }
            }
            Kind::Zero => bytes[at..until].fill(0),
            Kind::Truncate => bytes.truncate(at),
            Kind::Garbage => bytes[at..until].copy_from_slice(&junk[..until - at]),
            Kind::Gone => return fs::remove_file(path).unwrap(),
            Kind::Append => bytes.extend(junk),
            Kind::Emptied => unreachable!("done above"),
        }
        fs::write(path, bytes).unwrap();
    }
}
