//! The data directory: one process at a time, one format, one node.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::Error;
use crate::disk;
use crate::entropy::SharedEntropy;
use crate::model::{Name, Timestamp};

/// The format of everything below the data directory. A later version that changes it counts up.
const FORMAT: u32 = 1;
/// The file that keeps a name that was made.
const NODE: &str = "node";
/// The mark of [`DataDir::served`].
const SERVED: &str = "served";

/// A data directory whose lock this process holds for as long as the value lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory if it is missing, takes its lock and checks its format.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process has it, [`Error::Config`] when it cannot be used.
    pub fn take(path: &Path) -> Result<Self, Error> {
        let unusable = |error: io::Error| {
            let hint = "check its owner, mode and free space, or set `data.dir`";
            Error::Config(format!(
                "the data directory {} cannot be used: {error}; {hint}",
                path.display()
            ))
        };
        // Whatever sled and we make belongs to us alone.
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        disk::make_private_dir(path).map_err(unusable)?;
        let lock = File::options().create(true).append(true).open(path.join("lock"));
        let lock = lock.map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => disk::remove_starting_with(path, disk::NEW).map_err(unusable)?,
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Locked(format!(
                    "the data directory {} is in use by another gatepost; stop it, or give this \
                     one a `data.dir` of its own",
                    path.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        let data = Self { path: path.to_owned(), _lock: lock };
        data.check_format().map_err(unusable)?;
        Ok(data)
    }

    fn check_format(&self) -> io::Result<()> {
        let file = self.path.join("format");
        match read_text(&file) {
            Ok(text) => match text.trim().parse::<u32>() {
                Ok(format) if format <= FORMAT => Ok(()),
                Ok(format) => Err(io::Error::other(format!(
                    "its format is {format} and this version knows {FORMAT}; start the version \
                     that wrote it, or a later one"
                ))),
                Err(_) => Err(io::Error::other(format!(
                    "{} is damaged: it holds no number. Was it 1, write that",
                    file.display()
                ))),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                disk::write_whole(&file, format!("{FORMAT}\n").as_bytes())
            }
            Err(error) => Err(error),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// This gateway's name: the configured one, or one that is made once and kept.
    pub fn node(
        &self,
        configured: Option<&str>,
        entropy: &SharedEntropy,
        now: Timestamp,
    ) -> Result<Name, Error> {
        if let Some(node) = configured {
            return Ok(node.into());
        }
        let file = self.path.join(NODE);
        let unusable =
            |error: io::Error| Error::Config(format!("{} cannot be used: {error}", file.display()));
        match read_text(&file) {
            Ok(text) if crate::model::is_name(text.trim()) => Ok(text.trim().into()),
            Ok(_) => Err(unusable(io::Error::other(
                "it holds no name; set `data.node` to the one that it had (Postgres knows: SELECT \
                 DISTINCT node_id FROM gatepost.stream_ledger)",
            ))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let id = entropy.uuid_v7(now).simple().to_string();
                let node = format!("gw-{}", &id[20..]);
                disk::write_whole(&file, format!("{node}\n").as_bytes()).map_err(unusable)?;
                Ok(node.into())
            }
            Err(error) => Err(unusable(error)),
        }
    }

    /// Whether `serve` never announced itself here: for what is said on the first start only. What
    /// commands leave behind does not count.
    pub fn is_first_start(&self) -> bool {
        !self.path.join(SERVED).exists()
    }

    /// From now on it is no first start any more.
    pub fn served(&self) -> io::Result<()> {
        disk::write_whole(&self.path.join(SERVED), b"")
    }
}

/// The name of the gateway that a data directory belongs to, for who only looks; none before its
/// first start.
pub fn known_node(path: &Path, configured: Option<&str>) -> Option<Name> {
    let kept = || read_text(&path.join(NODE)).ok().map(|text| text.trim().to_owned());
    configured.map(str::to_owned).or_else(kept).map(Name::from)
}

/// What is no text is damaged: it is left to whoever looks for a name or a number in it.
fn read_text(file: &Path) -> io::Result<String> {
    fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::entropy::SeededEntropy;

    #[test]
    fn the_second_process_is_told_to_go_elsewhere() {
        let dir = tempfile::TempDir::new().expect("temporary directory");
        let first = DataDir::take(dir.path()).expect("free");
        assert!(matches!(DataDir::take(dir.path()), Err(Error::Locked(_))));
        drop(first);
        DataDir::take(dir.path()).expect("free again");
    }

    #[test]
    fn what_a_kill_left_half_written_is_no_hindrance() {
        let dir = tempfile::TempDir::new().expect("temporary directory");
        fs::write(dir.path().join(".new-Ab3dE"), "half").expect("writable");
        drop(DataDir::take(dir.path()).expect("free"));
        assert!(!dir.path().join(".new-Ab3dE").exists());
    }

    #[test]
    fn a_directory_of_a_newer_version_is_refused() {
        let dir = tempfile::TempDir::new().expect("temporary directory");
        fs::write(dir.path().join("format"), "99\n").expect("writable");
        let Err(Error::Config(message)) = DataDir::take(dir.path()) else { panic!("taken") };
        assert!(message.contains("format is 99"), "{message}");
    }

    #[test]
    fn only_serve_ends_the_first_start() {
        let dir = tempfile::TempDir::new().expect("temporary directory");
        let data = DataDir::take(dir.path()).expect("free");
        fs::create_dir(dir.path().join("journal")).expect("a command leaves it behind");
        assert!(data.is_first_start());
        data.served().expect("writable");
        drop(data);
        assert!(!DataDir::take(dir.path()).expect("free again").is_first_start());
    }

    #[test]
    fn the_node_is_made_once_and_a_configured_one_wins() {
        let dir = tempfile::TempDir::new().expect("temporary directory");
        let entropy: SharedEntropy = Arc::new(SeededEntropy::new(1));
        let data = DataDir::take(dir.path()).expect("free");
        let node = data.node(None, &entropy, Timestamp::EPOCH).expect("made");
        assert_eq!(data.node(None, &entropy, Timestamp::EPOCH).expect("kept"), node);
        let named = data.node(Some("gw-1"), &entropy, Timestamp::EPOCH).expect("configured");
        assert_eq!(&*named, "gw-1");
    }
}
