//! Files, directories and sled's habits: what the journal and the cache both need to trust a disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

/// Says which file it was, which the system does not; the kind stays.
pub fn at(path: &Path) -> impl Fn(io::Error) -> io::Error + '_ {
    |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Reads a file whole, and nothing that only looks like one: a FIFO would be waited for until
/// somebody writes into it.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    fs::read(path)
}

/// Makes a directory, and its parents, that only its owner can enter. The names of those that it
/// made are durable: what is synced inside is lost with the name of a directory above it.
pub fn make_private_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    make_private_dir(parent)?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at(dir))?;
    sync_dir(parent)
}

/// Makes the names in a directory durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(at(dir))
}

/// What is being written whole begins with this; what a kill leaves of it goes at the next start.
pub const NEW: &str = ".new-";

/// Writes a file whole: beside it, synced, renamed over it, directory synced.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let write = || {
        let mut file = tempfile::Builder::new().prefix(NEW).tempfile_in(dir)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)
    };
    write().map_err(at(path))?;
    sync_dir(dir)
}

/// Makes an empty mark durable.
pub fn make_mark(path: &Path) -> io::Result<()> {
    let mark = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    mark.and_then(|mark| mark.sync_all()).map_err(at(path))?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// sled makes world-readable files: close them, and make them and their names durable.
pub fn secure(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir).map_err(at(dir))? {
        let entry = entry.map_err(at(dir))?;
        let path = entry.path();
        let close = || {
            if entry.file_type()?.is_file() {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
                File::open(&path)?.sync_all()?;
            }
            Ok(())
        };
        close().map_err(at(&path))?;
    }
    sync_dir(dir)
}

/// A kill while sled opens can leave a half-written snapshot that makes every later open fail.
pub fn remove_half_snapshots(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir).map_err(at(dir))? {
        let path = entry.map_err(at(dir))?.path();
        if path.extension().is_some_and(|extension| extension == "generating") {
            fs::remove_file(&path).map_err(at(&path))?;
        }
    }
    Ok(())
}

/// Stands in a directory of sled's while that is being made: nothing in it was ever promised. Half
/// made it would look damaged.
const MAKING: &str = "making";

/// Makes a directory that says from its first moment on that it is being made: one that is empty
/// was emptied.
pub fn make_new_dir(dir: &Path) -> io::Result<()> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let new = dir.with_file_name(format!("{NEW}{name}"));
    make_private_dir(&new)?;
    begin_making(&new)?;
    let named = fs::rename(&new, dir).map_err(at(dir));
    if named.is_err() {
        drop(fs::remove_dir_all(&new));
    }
    named.and_then(|()| sync_dir(dir.parent().unwrap_or(Path::new("."))))
}

/// Says that the directory is being made; durable, for a power cut may keep the names that sled
/// makes next and lose this one.
pub fn begin_making(dir: &Path) -> io::Result<()> {
    make_mark(&dir.join(MAKING))
}

/// What was made is durable, and from now on believed.
pub fn end_making(dir: &Path) -> io::Result<()> {
    secure(dir)?;
    let mark = dir.join(MAKING);
    fs::remove_file(&mark).map_err(at(&mark))?;
    sync_dir(dir)
}

/// Removes what a kill or a power cut left of a directory that was only being made: it says so
/// itself.
pub fn remove_half_made(dir: &Path) -> io::Result<bool> {
    let unmade = dir.join(MAKING).exists();
    if unmade {
        remove_dir(dir)?;
    }
    Ok(unmade)
}

/// What [`remove_dir`] has renamed, until it is gone.
pub const GONE: &str = ".gone-";

/// Removes a directory: renamed first, and durably, for one that a kill or a power cut left half
/// removed would look damaged.
pub fn remove_dir(dir: &Path) -> io::Result<()> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let gone = dir.with_file_name(format!("{GONE}{name}"));
    fs::rename(dir, &gone).map_err(at(dir))?;
    sync_dir(gone.parent().unwrap_or(Path::new(".")))?;
    fs::remove_dir_all(&gone).map_err(at(&gone))
}

/// Removes what is in `parent`, if that is there, and has a name that starts with `prefix`.
pub fn remove_starting_with(parent: &Path, prefix: &str) -> io::Result<()> {
    let entries = match fs::read_dir(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(at(parent))?,
    };
    for entry in entries {
        let entry = entry.map_err(at(parent))?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            let path = entry.path();
            let is_dir = entry.file_type().map_err(at(&path))?.is_dir();
            let removed = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(at(&path))?;
        }
    }
    Ok(())
}

/// Copies a directory of plain files and such directories into `to`, which is there, and makes the
/// copies durable. What is neither is left out.
pub fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from).map_err(at(from))? {
        let entry = entry.map_err(at(from))?;
        let (kind, copy) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            make_private_dir(&copy)?;
            copy_dir(&entry.path(), &copy)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), &copy).map_err(at(&copy))?;
        }
    }
    secure(to)
}

/// Bytes of all files below `dir`, as far as they can be read.
pub fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Bytes that we may still write where `path` is.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let room = rustix::fs::statvfs(path)?;
    Ok(room.f_bavail.saturating_mul(room.f_frsize))
}

/// Why a sled directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another handle holds sled's lock for the moment: not damage, try again.
    #[error("another process holds the directory; it will be tried again")]
    Locked,
    /// The disk, or this process, has no room for it at the moment: not damage, try again.
    #[error("the directory cannot be used at the moment: {0}")]
    Trouble(String),
    /// sled failed or panicked.
    #[error("sled failed: {0}")]
    Sled(String),
}

/// Whether an I/O error says nothing about the files themselves.
pub fn is_trouble(error: &io::Error) -> bool {
    use io::ErrorKind::{
        Interrupted, OutOfMemory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
        WouldBlock,
    };
    // "Too many open files" has no kind of its own; sled hands on its text only.
    let files = ["os error 23", "os error 24", "code: 23,", "code: 24,"];
    match error.kind() {
        StorageFull | QuotaExceeded | ReadOnlyFilesystem | PermissionDenied | OutOfMemory
        | Interrupted | WouldBlock => true,
        _ => files.iter().any(|code| error.to_string().contains(code)),
    }
}

/// Runs a call into sled, which may panic on damaged files.
pub fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(error))) if error.to_string().contains("could not acquire lock") => {
            Err(StoreError::Locked)
        }
        Ok(Err(sled::Error::Io(error))) if is_trouble(&error) => {
            Err(StoreError::Trouble(error.to_string()))
        }
        Ok(Err(error)) => Err(StoreError::Sled(error.to_string())),
        Err(_) => Err(StoreError::Sled("it panicked".into())),
    }
}

/// Opens sled with a cache of so many bytes and without its background flusher: what is durable is
/// decided by our own sync alone.
pub fn open_sled(dir: &Path, cache_bytes: u64) -> Result<sled::Db, StoreError> {
    let config = sled::Config::new().path(dir).cache_capacity(cache_bytes).flush_every_ms(None);
    guarded(|| config.open())
}

/// How long [`patiently`] waits for another handle to let go.
const PATIENCE: Duration = Duration::from_secs(10);

/// Another handle, also one of a process that is just ending, may let go of a directory any moment:
/// tries again for a while. Blocks.
pub fn patiently<T, E>(
    mut open: impl FnMut() -> Result<T, E>,
    is_locked: impl Fn(&E) -> bool,
) -> Result<T, E> {
    const PAUSE: Duration = Duration::from_millis(50);
    let mut waited = Duration::ZERO;
    loop {
        match open() {
            Err(error) if is_locked(&error) && waited < PATIENCE => {
                std::thread::sleep(PAUSE);
                waited += PAUSE;
            }
            result => return result,
        }
    }
}
