//! The files of the repository, by their paths from its top.

use std::fs;
use std::path::Path;

/// The top of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file's text.
pub fn text(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Every text file that is ours, sorted.
pub fn files() -> Vec<String> {
    let mut found = Vec::new();
    collect(root(), &mut found);
    let from_top = |path: &String| path[root().to_string_lossy().len() + 1..].to_owned();
    let mut found: Vec<String> = found.iter().map(from_top).collect();
    found.sort();
    found
}

/// Every Rust file, sorted.
pub fn rust_files() -> Vec<String> {
    files().into_iter().filter(|file| file.ends_with(".rs")).collect()
}

fn collect(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if ["target", "data", ".git"].contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            collect(&path, found);
        } else if fs::read(&path).is_ok_and(|bytes| std::str::from_utf8(&bytes).is_ok()) {
            found.push(path.to_string_lossy().into_owned());
        }
    }
}
