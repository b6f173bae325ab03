//! What no compiler checks: the house rules of ARCHITECTURE.md, read off the sources.
//!
//! Every rule collects all that breaks it and says where, so that one run shows the whole list.

mod tidy {
    pub mod rooms;
    pub mod source;
    pub mod tree;
}

use std::collections::{BTreeMap, BTreeSet};

use tidy::rooms::{LOW, ROOMS, edges, room_of};
use tidy::source::Source;
use tidy::tree::{files, root, rust_files, text};

const COLUMNS_MAX: usize = 100;
const LINES_MAX: usize = 400;
const FUNCTION_MAX: usize = 70;

/// Files that were longer when this rule came. They may only shrink: lower the number with them,
/// and take the line out at [`LINES_MAX`].
const LONG_FILES: [(&str, usize); 0] = [];

/// Who may use what only one room should. Tests may use everything.
const ONLY: [(&str, &[&str]); 10] = [
    ("sqlx", &["src/postgres"]),
    ("sled", &["src/journal", "src/cache", "src/disk.rs"]),
    // The command line and the exporter read the status of an answer; they make none.
    ("StatusCode", &["src/server", "src/admin", "src/proxy", "src/cli/transport", "src/otlp"]),
    ("tokio::spawn", &["src/gateway"]),
    ("SystemTime::now", &["src/clock.rs"]),
    // Elsewhere it is tokio's, for timers.
    (
        "Instant::now",
        &[
            "src/clock.rs",
            "src/proxy/body.rs",
            "src/proxy/exchange.rs",
            "src/proxy/kept.rs",
            "src/server/edge/deadline.rs",
            "src/server/listener",
        ],
    ),
    ("std::env", &["src/config", "src/main.rs"]),
    ("env::var", &["src/config"]),
    ("anyhow", &["src/cli"]),
    ("println", &["src/cli"]),
];

/// What stands at the top, besides what `.gitignore` names.
const TOP: [&str; 29] = [
    ".cargo",
    ".ci",
    ".dockerignore",
    ".editorconfig",
    ".git",
    ".gitattributes",
    ".github",
    ".gitignore",
    ".sqlx",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "Dockerfile",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "benches",
    "clippy.toml",
    "config",
    "deny.toml",
    "docs",
    "fuzz",
    "migrations",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "src",
    "tests",
];

/// Fails with everything that was found.
fn none(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule}:\n  {}\n", found.join("\n  "));
}

#[test]
fn every_file_says_what_it_is_for() {
    let bare = rust_files().into_iter().filter(|file| !text(file).starts_with("//! "));
    none("a file opens with `//!` and what it is for", &bare.collect::<Vec<_>>());
}

#[test]
fn lines_fit_the_screen() {
    let mut found = Vec::new();
    for file in rust_files() {
        for (at, line) in text(&file).lines().enumerate() {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX {
                found.push(format!("{file}:{}: {columns} columns", at + 1));
            }
        }
    }
    none(&format!("a line has at most {COLUMNS_MAX} columns"), &found);
}

#[test]
fn files_stay_small_and_long_ones_only_shrink() {
    let mut found = Vec::new();
    for file in rust_files() {
        let lines = Source::read(&file).lines_without_tests();
        let known = LONG_FILES.iter().find(|(long, _)| *long == file).map(|(_, lines)| *lines);
        match known {
            None if lines > LINES_MAX => {
                found.push(format!("{file}: {lines} lines; give a part its own file"));
            }
            Some(known) if lines > known || lines <= LINES_MAX => {
                found.push(format!("{file}: {lines} lines, listed with {known}"));
            }
            _ => {}
        }
    }
    none(&format!("a file has at most {LINES_MAX} lines without its tests"), &found);
}

#[test]
fn functions_can_be_seen_whole() {
    let mut found = Vec::new();
    for file in rust_files() {
        for (name, line, lines) in Source::read(&file).functions() {
            if lines > FUNCTION_MAX {
                found.push(format!("{file}:{line}: `{name}` has {lines} lines"));
            }
        }
    }
    none(&format!("a function has at most {FUNCTION_MAX} lines"), &found);
}

#[test]
fn rooms_use_only_what_lies_below() {
    let mut found = BTreeSet::new();
    let mut used = BTreeSet::new();
    for file in rust_files().iter().filter(|file| file.starts_with("src/")) {
        let Some(room) = room_of(file) else { continue };
        let Some((_, allowed)) = ROOMS.iter().find(|(known, _)| *known == room) else {
            found.insert(format!("{file}: `{room}` is not a room; give it its place in the table"));
            continue;
        };
        for other in edges(&Source::read(file).production()) {
            used.insert((room.to_owned(), other.clone()));
            let low = LOW.contains(&other.as_str()) && !LOW.contains(&room);
            if other != room && !low && !allowed.contains(&other.as_str()) {
                found.insert(format!("{file}: `{room}` may not use `{other}`"));
            }
        }
    }
    none("rooms use only what the table allows", &found.into_iter().collect::<Vec<_>>());
    // That the reading of paths works at all.
    assert!(used.contains(&("server".into(), "authn".into())), "{used:?}");
}

#[test]
fn one_room_each_for_the_world_outside() {
    let mut found = Vec::new();
    for file in rust_files().iter().filter(|file| file.starts_with("src/")) {
        let source = Source::read(file);
        for (word, homes) in ONLY {
            if !homes.iter().any(|home| file.starts_with(home)) {
                let lines = source.lines_with(&source.production(), word);
                found.extend(lines.into_iter().map(|line| format!("{file}:{line}: `{word}`")));
            }
        }
    }
    none("each of these has one home", &found);
}

#[test]
fn nothing_is_unsafe_or_left_for_later() {
    let mut found = Vec::new();
    let later = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
    for file in rust_files() {
        let source = Source::read(&file);
        let lines = source.lines_with(&source.code, "unsafe");
        found.extend(lines.into_iter().map(|line| format!("{file}:{line}: unsafe")));
    }
    for file in files().iter().filter(|file| !file.ends_with("Cargo.lock")) {
        for (at, line) in text(file).lines().enumerate() {
            if later.iter().any(|word| line.contains(word)) {
                found.push(format!("{file}:{}: {}", at + 1, line.trim()));
            }
        }
    }
    none("nothing is unsafe or left for later", &found);
}

#[test]
fn nothing_names_a_machine_or_a_registry() {
    let words = [
        concat!("/wo", "rk/"),
        concat!("/tmp/", "wt"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("crates", ".io"),
        concat!("npm", "js.org"),
        concat!("py", "pi.org"),
        concat!("deb", "ian.org"),
    ];
    let mut found = Vec::new();
    for file in files() {
        let lock = file.ends_with("Cargo.lock");
        for (at, line) in text(&file).lines().enumerate() {
            let public = concat!("registry+https://github.com/rust-lang/crates", ".io-index");
            let bad = if lock {
                line.starts_with("source = ") && !line.contains(public)
            } else {
                words.iter().any(|word| line.contains(word))
            };
            if bad {
                found.push(format!("{file}:{}: {}", at + 1, line.trim()));
            }
        }
    }
    none("a clone builds anywhere", &found);
}

#[test]
fn the_top_level_stays_small() {
    let ignored = text(".gitignore");
    let ignored: Vec<&str> = ignored.lines().map(|line| line.trim_matches('/')).collect();
    let entries = std::fs::read_dir(root()).expect("the repository");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string());
    let found = names
        .map(|name| name.expect("a name in UTF-8"))
        .filter(|name| !TOP.contains(&name.as_str()) && !ignored.contains(&name.as_str()));
    none("the top level is what ARCHITECTURE.md shows", &found.collect::<Vec<_>>());
}

#[test]
fn migrations_are_numbered_forward_without_gaps() {
    let names = files().into_iter().filter_map(|file| {
        Some(file.strip_prefix("migrations/")?.to_owned()).filter(|name| !name.contains('/'))
    });
    let names: Vec<String> = names.collect();
    assert!(!names.is_empty(), "there are migrations");
    for (at, name) in names.iter().enumerate() {
        let wanted = format!("{:04}_", at + 1);
        assert!(name.starts_with(&wanted), "migrations/{name}: expected {wanted}…");
        assert!(
            name.ends_with(".sql") && !name.ends_with(".down.sql"),
            "migrations/{name}: migrations go forward, as one .sql file each"
        );
    }
}

#[test]
fn every_metric_in_the_docs_exists() {
    let mut known = BTreeSet::new();
    for file in rust_files().iter().filter(|file| file.starts_with("src/metrics")) {
        let source = text(file);
        // `pub name: Kind = init => "name",`
        let names = source.split("=> \"").skip(1).filter_map(|rest| rest.split('"').next());
        known.extend(names.map(|name| format!("gatepost_{name}")));
    }
    assert!(known.contains("gatepost_breaker_open"), "{known:?}");
    let mut unknown = BTreeMap::new();
    for file in files().into_iter().filter(|file| {
        file.ends_with(".md") || file.starts_with("docs/") || file.starts_with("config/")
    }) {
        for name in metric_names(&text(&file)) {
            let bare = ["_total", "_bucket", "_sum", "_count"];
            let bare = bare.iter().find_map(|suffix| name.strip_suffix(suffix));
            if !known.contains(&name) && !bare.is_some_and(|bare| known.contains(bare)) {
                unknown.insert(name, file.clone());
            }
        }
    }
    let unknown = unknown.into_iter().map(|(name, file)| format!("{file}: {name}"));
    none("metrics in the docs are metrics of the gateway", &unknown.collect::<Vec<_>>());
}

/// Words that start with the prefix of metrics, and are neither a variable of nginx nor the channel
/// of the feed.
fn metric_names(text: &str) -> Vec<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$');
    let words = text.split(|c: char| !word(c)).map(str::to_owned);
    let channel = "gatepost_changes";
    words.filter(|word| word.starts_with("gatepost_") && word != channel).collect()
}
