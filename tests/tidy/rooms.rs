//! The rooms, and which other rooms each may use. ARCHITECTURE.md explains the table.

use std::collections::BTreeSet;

/// Below all others: every room may use them, and they know none of the others.
pub const LOW: [&str; 7] = ["model", "clock", "entropy", "codec", "disk", "metrics", "breaker"];

/// Each room, and what it may use besides itself and the low rooms. A low room may use what stands
/// here, and no more.
pub const ROOMS: [(&str, &[&str]); 25] = [
    ("model", &[]),
    ("breaker", &[]),
    ("clock", &["model"]),
    ("entropy", &["model"]),
    ("codec", &["model"]),
    ("disk", &[]),
    // Tests alone.
    ("fuzz", &[]),
    ("metrics", &["model"]),
    ("otlp", &[]),
    ("journal", &[]),
    ("cache", &[]),
    ("tokens", &["cache", "journal"]),
    ("authn", &["cache", "tokens"]),
    ("admission", &[]),
    ("usage", &["journal", "admission"]),
    ("proxy", &["admission", "usage"]),
    ("postgres", &["cache"]),
    ("drainer", &["journal", "postgres", "cache"]),
    ("steward", &["cache", "journal", "postgres"]),
    ("server", &["authn", "admission", "cache", "journal", "usage", "proxy", "tokens", "otlp"]),
    ("admin", &["admission", "authn", "cache", "journal", "drainer", "tokens"]),
    // Each room's own `Config`.
    (
        "config",
        &[
            "admission",
            "cache",
            "drainer",
            "journal",
            "otlp",
            "postgres",
            "proxy",
            "server",
            "tokens",
        ],
    ),
    (
        "gateway",
        &[
            "admin",
            "admission",
            "authn",
            "cache",
            "config",
            "drainer",
            "journal",
            "otlp",
            "postgres",
            "proxy",
            "server",
            "steward",
            "tokens",
            "usage",
        ],
    ),
    ("drill", &["postgres"]),
    ("cli", &["admin", "config", "drill", "gateway", "journal", "server", "tokens"]),
];

/// `src/server/edge.rs` → `server`. The crate's root and `main` belong to no room.
pub fn room_of(file: &str) -> Option<&str> {
    let rest = file.strip_prefix("src/")?;
    let room = rest.split(['/', '.']).next()?;
    (!["lib", "main"].contains(&room)).then_some(room)
}

/// The rooms that the code names: `crate::a::b`, `use crate::{a, b::{self, c}}`, and the same
/// behind `super::` as far as it leaves the room is not written in this house.
pub fn edges(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        match rest.trim_start().strip_prefix('{') {
            None => found.extend(word(rest)),
            Some(group) => found.extend(heads(group)),
        }
    }
    found
}

/// The first word of each item of a group, whose opening brace is gone.
fn heads(group: &str) -> Vec<String> {
    let mut depth = 1;
    let mut items = vec![String::new()];
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => items.push(String::new()),
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if let Some(item) = items.last_mut()
            && c != ','
        {
            item.push(c);
        }
    }
    items.iter().filter_map(|item| word(item)).collect()
}

/// The room at the start of a path. A type or a function at the crate's root is none.
fn word(path: &str) -> Option<String> {
    let path = path.trim_start();
    let end = path.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(path.len());
    (end > 0).then(|| path[..end].to_owned())
}

#[test]
fn paths_are_found_in_every_shape() {
    let code = "use crate::{a, b::{self, x::{y, z}}, c as d};\nuse crate::e::f; crate :: no;
        fn g() { crate::h::i(); }";
    let found: Vec<String> = edges(code).into_iter().collect();
    assert_eq!(found, ["a", "b", "c", "e", "h"]);
    assert_eq!(room_of("src/server/edge.rs"), Some("server"));
    assert_eq!(room_of("src/clock.rs"), Some("clock"));
    assert_eq!(room_of("src/lib.rs"), None);
}
