//! Where the programs of a Postgres server are, and who may run them. The tests look here too.

use std::fs;
use std::path::{Path, PathBuf};

/// Where distributions put the programs: a directory, what begins the names in it, and what is
/// inside of those.
const PLACES: [(&str, &str, &str); 4] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql", "bin"),
    ("/usr/local/opt", "postgresql", "bin"),
];

/// A user that Postgres agrees to run as, when we are root: uid and gid.
pub fn someone_else() -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let find = |name: &str| {
        let user = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut ids = user.split(':').skip(2).map(str::parse::<u32>);
        Some((ids.next()?.ok()?, ids.next()?.ok()?))
    };
    find("postgres").or_else(|| find("nobody"))
}

/// The directory with the server's programs: on `path`, which is like `PATH`, or
/// where distributions put it.
pub fn find(path: &str) -> Option<PathBuf> {
    let mut places: Vec<PathBuf> = path.split(':').map(PathBuf::from).collect();
    for (parent, prefix, inner) in PLACES {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        let mut found: Vec<PathBuf> = entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
            .map(|entry| entry.path().join(inner))
            .collect();
        found.sort();
        places.extend(found.into_iter().rev());
    }
    let has = |dir: &Path, name| dir.is_absolute() && dir.join(name).is_file();
    places.into_iter().find(|dir| has(dir, "initdb") && has(dir, "postgres"))
}
