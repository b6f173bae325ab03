//! Path patterns of routes: `/rest/v1/{table}`, `/files/{*rest}`.

use std::cmp::Ordering;

use super::path;

/// One segment of a pattern, ordered from the most specific to the least.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    /// Must read the same.
    Literal(String),
    /// `{table}` or `{any_name}`: one segment, not empty.
    One,
    /// `{*rest}`: all that follows, also nothing.
    Rest,
}

/// A compiled pattern.
#[derive(Clone, Debug)]
pub struct Pattern {
    segments: Vec<Segment>,
    /// Which segment is `{table}`.
    table: Option<usize>,
}

/// Why a pattern cannot be compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It would never match a path that is let in.
    #[error("it must start with `/` and have no empty, dot or percent-encoded segments")]
    Path,
    /// A brace in the wrong place.
    #[error("a segment is either plain text, `{{name}}`, or at the end `{{*name}}`")]
    Braces,
    /// `{table}` twice.
    #[error("`{{table}}` may stand in it once")]
    TwoTables,
}

impl Pattern {
    /// Compiles the text of a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.contains(['%', '?', '#']) || text.chars().any(char::is_whitespace) {
            return Err(PatternError::Path);
        }
        let raw: Vec<&str> = path::segments(text).map_err(|_| PatternError::Path)?.collect();
        let mut table = None;
        let mut segments = Vec::with_capacity(raw.len());
        for (at, segment) in raw.iter().enumerate() {
            let compiled = compile(segment)?;
            if compiled == Segment::Rest && at + 1 != raw.len() {
                return Err(PatternError::Braces);
            }
            if *segment == "{table}" && table.replace(at).is_some() {
                return Err(PatternError::TwoTables);
            }
            segments.push(compiled);
        }
        Ok(Self { segments, table })
    }

    /// Matches the segments of a checked path: `Some(captured)` when it does, where `captured` is
    /// the raw segment in the place of `{table}`.
    pub fn matches<'p>(&self, mut path: impl Iterator<Item = &'p str>) -> Option<Option<&'p str>> {
        let mut captured = None;
        for (at, segment) in self.segments.iter().enumerate() {
            if *segment == Segment::Rest {
                return Some(captured);
            }
            let raw = path.next()?;
            let fits = match segment {
                Segment::Literal(literal) => path::reads_as(raw, literal),
                Segment::One | Segment::Rest => !raw.is_empty(),
            };
            if !fits {
                return None;
            }
            if self.table == Some(at) {
                captured = Some(raw);
            }
        }
        path.next().is_none().then_some(captured)
    }

    /// Whether it captures a table.
    pub fn has_table(&self) -> bool {
        self.table.is_some()
    }

    /// Whether it has anything but plain text.
    pub fn is_open(&self) -> bool {
        self.segments.iter().any(|segment| !matches!(segment, Segment::Literal(_)))
    }

    /// Whether its first segment is this text.
    pub fn starts_with(&self, first: &str) -> bool {
        matches!(self.segments.first(), Some(Segment::Literal(literal)) if literal == first)
    }

    /// The same for folded paths ([`path::folded`]), which have no empty segments.
    pub fn folded(&self) -> Self {
        let mut segments = Vec::with_capacity(self.segments.len());
        for segment in &self.segments {
            let Segment::Literal(literal) = segment else {
                segments.push(segment.clone());
                continue;
            };
            let folded = path::folded(literal);
            let parts = folded.split('/').filter(|part| !part.is_empty());
            segments.extend(parts.map(|part| Segment::Literal(part.to_owned())));
        }
        Self { segments, table: None }
    }

    /// Whether it is spelled as folded paths are. (The root is, without its one empty segment.)
    pub fn is_folded(&self) -> bool {
        let is_root = matches!(&*self.segments, [Segment::Literal(only)] if only.is_empty());
        is_root || self.segments == self.folded().segments
    }

    /// More specific patterns first: text before `{name}` before `{*rest}`, segment by segment.
    pub fn specificity(&self, other: &Self) -> Ordering {
        self.segments.cmp(&other.segments)
    }
}

fn compile(segment: &str) -> Result<Segment, PatternError> {
    if !segment.contains(['{', '}']) {
        return Ok(Segment::Literal(segment.to_owned()));
    }
    let inner = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    let inner = inner.ok_or(PatternError::Braces)?;
    let (name, kind) = match inner.strip_prefix('*') {
        Some(name) => (name, Segment::Rest),
        None => (inner, Segment::One),
    };
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.is_empty() || !name.bytes().all(is_word) {
        return Err(PatternError::Braces);
    }
    Ok(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched<'p>(pattern: &str, path: &'p str) -> Option<Option<&'p str>> {
        let pattern = Pattern::parse(pattern).expect("a pattern");
        pattern.matches(path::segments(path).expect("a path"))
    }

    #[test]
    fn patterns_match_whole_paths() {
        assert_eq!(matched("/", "/"), Some(None));
        assert_eq!(matched("/rest/v1/{table}", "/rest/v1/orders"), Some(Some("orders")));
        assert_eq!(matched("/rest/v1/{table}", "/rest/%761/orders"), Some(Some("orders")));
        for path in ["/rest/v1", "/rest/v1/", "/rest/v1/orders/", "/rest/v1/orders/5", "/REST/v1/o"]
        {
            assert_eq!(matched("/rest/v1/{table}", path), None, "{path}");
        }
        assert_eq!(matched("/{table}/{id}", "/orders/5"), Some(Some("orders")));
        assert_eq!(matched("/a/", "/a"), None);
    }

    #[test]
    fn the_rest_may_be_empty() {
        for path in ["/f", "/f/", "/f/a", "/f/a/b/"] {
            assert_eq!(matched("/f/{*rest}", path), Some(None), "{path}");
        }
        assert_eq!(matched("/f/{*rest}", "/g"), None);
        assert_eq!(matched("/{*rest}", "/"), Some(None));
    }

    #[test]
    fn broken_patterns_are_refused() {
        for (text, want) in [
            ("a", PatternError::Path),
            ("/a//b", PatternError::Path),
            ("/../a", PatternError::Path),
            ("/a%20b", PatternError::Path),
            ("/a?b", PatternError::Path),
            ("/{*rest}/a", PatternError::Braces),
            ("/x{table}", PatternError::Braces),
            ("/{}", PatternError::Braces),
            ("/{ta-ble}", PatternError::Braces),
            ("/{table}/{table}", PatternError::TwoTables),
        ] {
            assert_eq!(Pattern::parse(text).err(), Some(want), "{text}");
        }
    }

    #[test]
    fn the_more_specific_comes_first() {
        let order = ["/a", "/a/b", "/a/{x}", "/a/{*rest}", "/{x}", "/{*rest}"];
        let patterns = order.map(|text| Pattern::parse(text).expect("a pattern"));
        assert!(patterns.is_sorted_by(|one, two| one.specificity(two) == Ordering::Less));
    }
}
