//! The shim between a gateway and its disk (`tests/shim/disk.c`): built, set up, switched.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

/// What a process is started with so that the shim stands between it and one directory.
pub struct Shim {
    env: Vec<(&'static str, OsString)>,
    /// Record and switches: outside of what is watched.
    own: TempDir,
}

impl Shim {
    /// Between a process and what stands below `root`; `None` where [`compiled`] says so.
    pub fn below(root: &Path) -> Option<Self> {
        static LIBRARY: OnceLock<Option<PathBuf>> = OnceLock::new();
        let library = LIBRARY.get_or_init(|| compiled("disk")).as_ref()?;
        let own = TempDir::with_prefix("gp-shim-").expect("a directory");
        let control = own.path().to_owned();
        let shim = Self { env: Vec::new(), own };
        let root = root.canonicalize().expect("it is there");
        Some(shim.with("LD_PRELOAD", library).with("SHIM_ROOT", root).with("SHIM_CONTROL", control))
    }

    fn with(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// Writes down what is done; see [`Shim::recorded`].
    pub fn recording(self) -> Self {
        let record = self.record();
        self.with("SHIM_RECORD", record)
    }

    /// Syncs are done, and not written down.
    pub fn forgetful(self) -> Self {
        self.with("SHIM_FORGET", "1")
    }

    /// Counts, and breaks, only what concerns paths with `part` in them.
    pub fn only(self, part: &str) -> Self {
        self.with("SHIM_ONLY", part)
    }

    /// Counts from the first call on that concerns a path with `part` in it, or in its new name.
    pub fn since(self, part: &str) -> Self {
        self.with("SHIM_SINCE", part)
    }

    /// SIGKILL before the call with this number, or right after it.
    pub fn killing_at(self, number: usize, after: bool) -> Self {
        self.with("SHIM_KILL", format!("{number}{}", if after { ":after" } else { "" }))
    }

    /// EIO: `sync:3` is the third one, `write:3+` all from the third on.
    pub fn failing(self, which: &str) -> Self {
        self.with("SHIM_FAIL", which)
    }

    /// Every sync takes so much longer.
    pub fn slow(self, millis: u64) -> Self {
        self.with("SHIM_DELAY", millis.to_string())
    }

    /// What the process gets into its environment.
    pub fn env(&self) -> impl Iterator<Item = (&'static str, &OsString)> {
        self.env.iter().map(|(name, value)| (*name, value))
    }

    /// Where the record is.
    pub fn record(&self) -> PathBuf {
        self.own.path().join("record")
    }

    /// Bytes of the record by now: everything that was done before this call is in them.
    pub fn recorded(&self) -> u64 {
        self.record().metadata().map_or(0, |meta| meta.len())
    }

    /// From now on syncs wait, until [`Shim::release`].
    pub fn hold(&self) {
        std::fs::write(self.own.path().join("hold"), "").expect("writable");
    }

    pub fn release(&self) {
        std::fs::remove_file(self.own.path().join("hold")).expect("it was held");
    }

    /// So many bytes have room, entries with 4 KiB each; `None`: as many as the disk has.
    pub fn quota(&self, bytes: Option<u64>) {
        self.bound(bytes.map(|bytes| bytes.to_string()));
    }

    /// As [`Shim::quota`], for one user on a disk that has room for others.
    pub fn user_quota(&self, bytes: Option<u64>) {
        self.bound(bytes.map(|bytes| format!("{bytes} user")));
    }

    fn bound(&self, quota: Option<String>) {
        let (new, file) = (self.own.path().join("new"), self.own.path().join("quota"));
        match quota {
            Some(quota) => {
                std::fs::write(&new, quota).expect("writable");
                std::fs::rename(new, file).expect("writable");
            }
            None => drop(std::fs::remove_file(file)),
        }
    }
}

/// Compiles one of `tests/shim`. `None`, with that said, on a system that these are not for; where
/// only the compiler is missing, the test fails.
pub fn compiled(name: &str) -> Option<PathBuf> {
    if !cfg!(target_os = "linux") {
        let skipped = format!("skipped: the shim `{name}` is for Linux\n");
        std::io::stderr().write_all(skipped.as_bytes()).expect("stderr");
        return None;
    }
    let here = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (made, library) =
        (here.join(format!("{name}-{}.so", std::process::id())), here.join(format!("{name}.so")));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/shim/{name}.c"));
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]).arg(&made);
    let missing = "a C compiler (`cc`) is not installed, or its headers are not: run \
                   tests/run.sh, or install the packages `gcc` and `libc6-dev`";
    let done = cc.arg(source).output().expect(missing);
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}\nIf a header is not found: {missing}");
    std::fs::rename(made, &library).expect("one directory");
    Some(library)
}
