//! The data directory: there, writable, for its owner only, not held, with room for the journal.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::Check;
use crate::admin::TOKEN_FILE;
use crate::config::Config;
use crate::disk;
use crate::model::units::Size;
use crate::tokens::Keys;

/// Less than this, and the next segment may not fit.
const FREE_MIN: Size = Size::mib(64);

pub(super) fn checks(config: &Config) -> Vec<Check> {
    let dir = config.data.dir.as_path();
    let mut checks = Vec::new();
    match std::fs::metadata(dir) {
        Ok(meta) if meta.is_dir() => {
            checks.push(writable(dir));
            checks.push(modes(dir));
            checks.push(lock(dir));
        }
        Ok(_) => {
            let hint = "is not a directory; set data.dir to one";
            checks.push(Check::fail("data directory", format!("{} {hint}", dir.display())));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            checks.push(to_be_made(dir));
        }
        Err(error) => {
            checks.push(Check::fail("data directory", format!("{}: {error}", dir.display())));
        }
    }
    checks.push(token_keys(config));
    let journal = &config.journal;
    let most = journal.max_bytes.0.saturating_add(journal.events_max_bytes.0);
    checks.push(space(dir, Size(most)));
    checks
}

fn token_keys(config: &Config) -> Check {
    const NAME: &str = "token keys";
    match Keys::find(&config.data.dir, &config.tokens) {
        Ok(Some(keys)) => Check::ok(
            NAME,
            match keys.file() {
                Some(file) => format!("{}; back it up", file.display()),
                None => "from the configuration".into(),
            },
        ),
        Ok(None) => Check::ok(NAME, "not there yet; the first start makes them"),
        Err(error) => Check::fail(NAME, error.to_string()),
    }
}

fn writable(dir: &Path) -> Check {
    match tempfile::tempfile_in(dir) {
        Ok(_) => Check::ok("data directory", dir.display().to_string()),
        Err(error) => {
            let hint = "make it writable for this user, or set data.dir";
            Check::fail("data directory", format!("{}: {error}; {hint}", dir.display()))
        }
    }
}

fn to_be_made(dir: &Path) -> Check {
    let parent = existing(dir);
    match tempfile::tempfile_in(parent) {
        Ok(_) => {
            let message = format!("{} is not there yet; the first start makes it", dir.display());
            Check::ok("data directory", message)
        }
        Err(error) => {
            let message = format!("{} cannot be made: {error}; set data.dir", dir.display());
            Check::fail("data directory", message)
        }
    }
}

/// Journal, cache and token tell who calls and how often: nobody else's business.
fn modes(dir: &Path) -> Check {
    let open = |path: &Path, wanted: u32| {
        let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
        let fix = format!("chmod {wanted:o} {}", path.display());
        (mode & 0o077 != 0).then(|| format!("{} is {mode:04o}; `{fix}`", path.display()))
    };
    let token = dir.join(TOKEN_FILE);
    let found = [open(dir, 0o700), open(&token, 0o600)].into_iter().flatten();
    let found = found.collect::<Vec<_>>();
    if found.is_empty() {
        return Check::ok("file modes", "for the owner only");
    }
    Check::fail("file modes", found.join("; "))
}

fn lock(dir: &Path) -> Check {
    let Ok(file) = File::open(dir.join("lock")) else {
        return Check::ok("lock", "free");
    };
    match file.try_lock_shared() {
        Ok(()) => Check::ok("lock", "free"),
        Err(TryLockError::WouldBlock) => Check::ok("lock", "held by a running gateway"),
        Err(TryLockError::Error(error)) => {
            let hint = "the file system must support locks";
            Check::fail("lock", format!("{error}; {hint}"))
        }
    }
}

fn space(dir: &Path, wanted: Size) -> Check {
    match disk::free_bytes(existing(dir)) {
        Ok(free) => judge(Size(free), wanted),
        Err(error) => Check::warn("disk space", format!("cannot be read: {error}")),
    }
}

fn judge(free: Size, wanted: Size) -> Check {
    let message = format!("{free} free; the journal may take {wanted}");
    if free < FREE_MIN {
        Check::fail("disk space", format!("{message}; make room"))
    } else if free < wanted {
        Check::warn("disk space", format!("{message}; make room, or lower journal.max_bytes"))
    } else {
        Check::ok("disk space", message)
    }
}

/// The nearest directory on the way up that is there.
fn existing(dir: &Path) -> &Path {
    let found = dir.ancestors().find(|path| path.is_dir());
    found.unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Level;
    use super::*;
    use crate::entropy::{SeededEntropy, SharedEntropy};
    use crate::model::Timestamp;
    use crate::tokens::KeySet;

    fn level_of(checks: &[Check], name: &str) -> Level {
        checks.iter().find(|check| check.check == name).expect("checked").status
    }

    fn config(dir: &Path) -> Config {
        let mut config = Config::default();
        config.data.dir = dir.to_owned();
        config
    }

    #[test]
    fn a_fresh_machine_is_fine() {
        let dir = tempfile::tempdir().expect("a directory");
        let checks = checks(&config(&dir.path().join("a/b")));
        assert_eq!(level_of(&checks, "data directory"), Level::Ok);
    }

    #[test]
    fn a_file_in_place_of_the_directory_fails() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert_eq!(level_of(&checks(&config(file.path())), "data directory"), Level::Fail);
    }

    #[test]
    fn modes_that_let_others_in_fail_with_the_command_that_mends_them() {
        let dir = tempfile::tempdir().expect("a directory");
        let closed = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(dir.path(), closed).expect("changed");
        assert_eq!(modes(dir.path()).status, Level::Ok);
        let token = dir.path().join(TOKEN_FILE);
        std::fs::write(&token, "x").expect("written");
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(&token, open).expect("changed");
        let check = modes(dir.path());
        assert_eq!(check.status, Level::Fail);
        assert!(check.message.contains("is 0644; `chmod 600 "), "{}", check.message);
    }

    #[test]
    fn token_keys_that_cannot_be_used_are_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut config = config(dir.path());
        assert_eq!(token_keys(&config).message, "not there yet; the first start makes them");
        let entropy: SharedEntropy = Arc::new(SeededEntropy::new(1));
        let made = Keys::open(dir.path(), &config.tokens, &entropy, Timestamp::EPOCH);
        let file = made.expect("made").file().expect("kept").to_owned();
        assert_eq!(token_keys(&config).status, Level::Ok);
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(&file, open).expect("changed");
        let check = token_keys(&config);
        assert_eq!(check.status, Level::Fail);
        assert!(check.message.contains("`chmod 600` it"), "{}", check.message);
        // Those of the configuration stand in no file of ours.
        config.tokens.keys = Some(KeySet::generate(&entropy, Timestamp::EPOCH).to_json());
        assert_eq!(token_keys(&config).message, "from the configuration");
        config.tokens.keys = Some("{}".into());
        assert_eq!(token_keys(&config).status, Level::Fail);
    }

    #[test]
    fn a_held_lock_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(lock(dir.path()).message, "free");
        let file = File::create(dir.path().join("lock")).expect("made");
        file.lock().expect("locked");
        assert_eq!(lock(dir.path()).message, "held by a running gateway");
    }

    #[test]
    fn too_little_room_is_told_before_it_hurts() {
        let gib = Size::mib(1024);
        assert_eq!(judge(Size::mib(2048), gib).status, Level::Ok);
        assert_eq!(judge(Size::mib(512), gib).status, Level::Warn);
        assert_eq!(judge(Size::mib(1), gib).status, Level::Fail);
    }
}
