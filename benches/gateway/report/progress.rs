//! What is going on, on stderr: one line that is written over on a terminal, many lines elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::Instant;

struct Place {
    started: Instant,
    name: String,
    number: usize,
    all: usize,
}

static PLACE: Mutex<Option<Place>> = Mutex::new(None);

/// Scenario `number` of `all` begins.
pub fn enter(name: &str, number: usize, all: usize) {
    let mut place = PLACE.lock().expect("no panic");
    let started = place.as_ref().map_or_else(Instant::now, |before| before.started);
    *place = Some(Place { started, name: name.to_owned(), number, all });
    drop(place);
    progress("begins");
}

/// What is being done; the next line takes its place.
pub fn progress(what: &str) {
    tell(what, false);
}

/// What stays.
pub fn say(what: &str) {
    tell(what, true);
}

fn tell(what: &str, stays: bool) {
    let place = PLACE.lock().expect("no panic");
    let head = place.as_ref().map_or_else(String::new, |place| {
        let seconds = place.started.elapsed().as_secs();
        let Place { name, number, all, .. } = place;
        format!("[{number}/{all} {}:{:02}] {name}: ", seconds / 60, seconds % 60)
    });
    let mut stderr = std::io::stderr().lock();
    // Whoever has closed stderr does not want to know.
    drop(if stderr.is_terminal() {
        const COLUMNS: usize = 110;
        let line: String = format!("{head}{what}").chars().take(COLUMNS).collect();
        let end = if stays { "\n" } else { "" };
        write!(stderr, "\r\x1b[2K{line}{end}").and_then(|()| stderr.flush())
    } else {
        writeln!(stderr, "{head}{what}")
    });
}
