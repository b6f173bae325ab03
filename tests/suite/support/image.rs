//! What a power cut leaves of a directory: made from the record of the shim.
//!
//! What was synced is there. Of the rest a random part is: writes are dropped, kept or torn at
//! sectors, in any order; names come as a random prefix of what was done in each directory.

mod commits;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::dice::Dice;

const SECTOR: usize = 512;
/// Sizes of the shim's own heads: size, kind, three numbers.
const HEAD: usize = 32;

/// One call that changed something, or a sync. Files and directories are known by their inodes.
enum Call {
    Made { parent: u64, name: String, inode: u64, is_dir: bool },
    Resized { inode: u64, size: usize },
    Wrote { inode: u64, at: usize, bytes: Vec<u8> },
    Renamed { from: u64, to: u64, name: String, new: String },
    Removed { parent: u64, name: String },
    SyncBegan { id: u64 },
    SyncEnded { inode: u64, id: u64, well: bool },
}

/// What one process did to a directory.
pub struct Record {
    root: Tree,
    /// Each with the length of the record when it was done.
    calls: Vec<(u64, Call)>,
}

/// A directory as it was found, all of it on disk.
#[derive(Clone, Default)]
pub struct Tree {
    root: u64,
    dirs: HashMap<u64, BTreeMap<String, u64>>,
    files: HashMap<u64, Vec<u8>>,
}

impl Tree {
    /// What stands in `dir` now.
    pub fn of(dir: &Path) -> Self {
        let inode = dir.metadata().expect("it is there").ino();
        let mut tree = Self { root: inode, ..Self::default() };
        tree.walk(dir, inode);
        tree
    }

    fn walk(&mut self, dir: &Path, inode: u64) {
        let mut names = BTreeMap::new();
        for entry in fs::read_dir(dir).expect("readable").map(|entry| entry.expect("readable")) {
            let meta = entry.metadata().expect("readable");
            names.insert(entry.file_name().into_string().expect("text"), meta.ino());
            if meta.is_dir() {
                self.walk(&entry.path(), meta.ino());
            } else {
                self.files.insert(meta.ino(), fs::read(entry.path()).expect("readable"));
            }
        }
        self.dirs.insert(inode, names);
    }

    /// Every path below the root with its content; `None` is a directory.
    pub fn paths(&self) -> BTreeMap<PathBuf, Option<&[u8]>> {
        let mut paths = BTreeMap::new();
        self.collect(self.root, Path::new(""), &mut paths);
        paths
    }

    /// The paths at which it differs from another.
    pub fn unlike(&self, other: &Self) -> Vec<PathBuf> {
        let (these, those) = (self.paths(), other.paths());
        let all: BTreeSet<_> = these.keys().chain(those.keys()).collect();
        all.into_iter().filter(|path| these.get(*path) != those.get(*path)).cloned().collect()
    }

    fn collect<'a>(&'a self, dir: u64, at: &Path, paths: &mut BTreeMap<PathBuf, Option<&'a [u8]>>) {
        for (name, inode) in self.dirs.get(&dir).into_iter().flatten() {
            let path = at.join(name);
            match self.files.get(inode) {
                Some(content) => drop(paths.insert(path, Some(content))),
                None => {
                    self.collect(*inode, &path, paths);
                    paths.insert(path, None);
                }
            }
        }
    }

    /// Makes it anew in `dir`, which is there and empty.
    pub fn write(&self, dir: &Path) {
        for (path, content) in self.paths() {
            let path = dir.join(path);
            match content {
                Some(content) => {
                    fs::create_dir_all(path.parent().expect("below a root")).expect("writable");
                    fs::write(&path, content).expect("writable");
                    // As the program makes them.
                    let private = fs::Permissions::from_mode(0o600);
                    fs::set_permissions(path, private).expect("writable");
                }
                None => fs::create_dir_all(path).expect("writable"),
            }
        }
    }
}

impl Record {
    /// Reads what was recorded of a directory that was `root` before.
    pub fn read(root: Tree, record: &Path) -> Self {
        let bytes = fs::read(record).expect("a record");
        let (mut calls, mut at, mut known) = (Vec::new(), 0, Known::default());
        // A kill may leave half of the last one.
        while let Some((size, mut call)) = parse(&bytes[at..]) {
            at += size;
            known.tell_apart(&mut call);
            calls.push((at as u64, call));
        }
        Self { root, calls }
    }

    /// How many calls were recorded.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// A moment for a cut, after so many calls at least: every other one right after a name was
    /// made, changed or removed.
    pub fn moment(&self, from: usize, dice: &Dice) -> usize {
        let any = |bound: usize| dice.below(u32::try_from(bound).expect("few")) as usize;
        let names: Vec<_> = (self.calls.iter().enumerate().skip(from))
            .filter(|(_, (_, call))| !touched(call).is_empty())
            .map(|(number, _)| number + 1)
            .collect();
        let any_call = || from + any(self.calls.len() - from) + 1;
        if dice.one_in(2) && !names.is_empty() { names[any(names.len())] } else { any_call() }
    }

    /// The length of the record when so many calls were done.
    pub fn length_after(&self, calls: usize) -> u64 {
        if calls == 0 { 0 } else { self.calls[calls - 1].0 }
    }

    /// What was left if nothing got lost.
    pub fn whole(&self) -> Tree {
        self.replay(self.calls.len()).image(&mut |_| Fate::Kept, &mut || false)
    }

    /// What a power cut after so many calls may leave.
    pub fn cut(&self, calls: usize, dice: &Dice) -> Tree {
        let names = dice.below(3);
        let mut stops = || names == 0 || (names == 1 && dice.one_in(4));
        let mut mode = || dice.below(4);
        let mut modes = HashMap::new();
        let mut fate = |inode| match modes.entry(inode).or_insert_with(&mut mode) {
            0 => Fate::Lost,
            1 => Fate::Kept,
            _ => match dice.below(3) {
                0 => Fate::Lost,
                1 => Fate::Kept,
                _ => Fate::Torn(dice.below(u32::MAX)),
            },
        };
        self.replay(calls).image(&mut fate, &mut stops)
    }

    fn replay(&self, calls: usize) -> Disk<'_> {
        let mut disk = Disk { tree: self.root.clone(), ..Disk::default() };
        for (number, (_, call)) in self.calls[..calls].iter().enumerate() {
            disk.take(number, call);
        }
        disk
    }
}

/// Inodes are used again: every file and directory that is made gets a number of its own.
#[derive(Default)]
struct Known(HashMap<u64, u64>, u64);

impl Known {
    fn tell_apart(&mut self, call: &mut Call) {
        // Beyond all inodes.
        const OWN: u64 = 1 << 48;
        let known = |inode: &mut u64| *inode = self.0.get(inode).copied().unwrap_or(*inode);
        match call {
            Call::Made { parent, .. } | Call::Removed { parent, .. } => known(parent),
            Call::Resized { inode, .. }
            | Call::Wrote { inode, .. }
            | Call::SyncEnded { inode, .. } => known(inode),
            Call::Renamed { from, to, .. } => {
                known(from);
                known(to);
            }
            Call::SyncBegan { .. } => {}
        }
        if let Call::Made { inode, .. } = call {
            self.1 += 1;
            self.0.insert(*inode, OWN + self.1);
            *inode = OWN + self.1;
        }
    }
}

fn parse(bytes: &[u8]) -> Option<(usize, Call)> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let size = HEAD + word(0)? as usize;
    let text = bytes.get(HEAD..size)?;
    let name = || String::from_utf8(text.to_vec()).expect("names are text");
    let (inode, second) = (number(8)?, number(16)?);
    let kind = char::from_u32(word(4)?)?;
    let call = match kind {
        'C' | 'M' => Call::Made { parent: inode, name: name(), inode: second, is_dir: kind == 'M' },
        'T' => Call::Resized { inode, size: second as usize },
        'W' => Call::Wrote { inode, at: second as usize, bytes: text.to_vec() },
        'R' => {
            let names = name();
            let (name, new) = names.split_once('/').expect("two names");
            Call::Renamed { from: inode, to: second, name: name.into(), new: new.into() }
        }
        'U' => Call::Removed { parent: inode, name: name() },
        'S' => Call::SyncBegan { id: second },
        'E' | 'F' => Call::SyncEnded { inode, id: second, well: kind == 'E' },
        other => panic!("the shim does not write {other:?}"),
    };
    Some((size, call))
}

/// What becomes of a write that was not synced.
enum Fate {
    Lost,
    Kept,
    /// Of each sector, what the bits say.
    Torn(u32),
}

struct Pending<'a> {
    number: usize,
    call: &'a Call,
    /// For names: it is on disk. For files such changes are in the tree already.
    durable: bool,
    /// A sync failed on it: no later one brings it to the disk.
    doomed: bool,
}

/// The disk at one moment: what is durable, and what may be.
#[derive(Default)]
struct Disk<'a> {
    tree: Tree,
    names: Vec<Pending<'a>>,
    files: HashMap<u64, Vec<Pending<'a>>>,
    /// By the sync's number: the call at which it began.
    syncing: HashMap<u64, usize>,
}

impl<'a> Disk<'a> {
    fn take(&mut self, number: usize, call: &'a Call) {
        let pending = Pending { number, call, durable: false, doomed: false };
        match call {
            Call::Made { inode, is_dir, .. } => {
                if *is_dir {
                    self.tree.dirs.insert(*inode, BTreeMap::new());
                } else {
                    self.tree.files.insert(*inode, Vec::new());
                }
                self.names.push(pending);
            }
            Call::Renamed { .. } | Call::Removed { .. } => self.names.push(pending),
            Call::Resized { inode, .. } | Call::Wrote { inode, .. } => {
                self.files.entry(*inode).or_default().push(pending);
            }
            Call::SyncBegan { id, .. } => drop(self.syncing.insert(*id, number)),
            Call::SyncEnded { inode, id, well } => {
                let began = self.syncing.remove(id).expect("it began");
                self.synced(*inode, began, *well);
            }
        }
    }

    fn synced(&mut self, inode: u64, began: usize, well: bool) {
        if well && self.tree.dirs.contains_key(&inode) {
            let mut dirs = HashSet::from([inode]);
            for pending in self.names.iter_mut().rev().filter(|pending| pending.number < began) {
                let touched = touched(pending.call);
                if touched.iter().any(|dir| dirs.contains(dir)) {
                    pending.durable = true;
                    dirs.extend(touched);
                }
            }
            return;
        }
        let Some(content) = self.tree.files.get_mut(&inode) else { return };
        self.files.entry(inode).or_default().retain_mut(|pending| {
            if pending.number > began || pending.doomed {
                return true;
            }
            pending.doomed = !well;
            if well {
                apply(content, pending.call, &Fate::Kept);
            }
            !well
        });
    }

    fn image(mut self, fate: &mut dyn FnMut(u64) -> Fate, stops: &mut dyn FnMut() -> bool) -> Tree {
        let mut stopped = HashSet::new();
        for pending in &self.names {
            let touched = touched(pending.call);
            let behind = touched.iter().any(|dir| stopped.contains(dir));
            if !pending.durable && (behind || stops()) {
                stopped.extend(touched);
            } else {
                name(&mut self.tree.dirs, pending.call);
            }
        }
        for (inode, pending) in &self.files {
            let Some(content) = self.tree.files.get_mut(inode) else { continue };
            for pending in pending {
                apply(content, pending.call, &fate(*inode));
            }
        }
        self.tree
    }
}

/// The directories that a change of names concerns.
fn touched(call: &Call) -> Vec<u64> {
    match call {
        Call::Made { parent, .. } | Call::Removed { parent, .. } => vec![*parent],
        Call::Renamed { from, to, .. } => vec![*from, *to],
        _ => Vec::new(),
    }
}

fn name(dirs: &mut HashMap<u64, BTreeMap<String, u64>>, call: &Call) {
    match call {
        Call::Made { parent, name, inode, .. } => {
            dirs.entry(*parent).or_default().insert(name.clone(), *inode);
        }
        Call::Removed { parent, name } => {
            dirs.entry(*parent).or_default().remove(name);
        }
        Call::Renamed { from, to, name, new } => {
            if let Some(inode) = dirs.entry(*from).or_default().remove(name) {
                dirs.entry(*to).or_default().insert(new.clone(), inode);
            }
        }
        _ => {}
    }
}

fn apply(content: &mut Vec<u8>, call: &Call, fate: &Fate) {
    match (call, fate) {
        (_, Fate::Lost) => {}
        (Call::Resized { size, .. }, _) => content.resize(*size, 0),
        (Call::Wrote { at, bytes, .. }, fate) => {
            // The size may be on disk where the bytes are not.
            content.resize(content.len().max(at + bytes.len()), 0);
            let mut from = 0;
            while from < bytes.len() {
                let sector = (at + from) / SECTOR;
                let to = ((sector + 1) * SECTOR - at).min(bytes.len());
                if !matches!(fate, Fate::Torn(bits) if bits >> (sector % 32) & 1 == 0) {
                    content[at + from..at + to].copy_from_slice(&bytes[from..to]);
                }
                from = to;
            }
        }
        _ => {}
    }
}
