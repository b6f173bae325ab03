//! Paths, as far as gateway and upstream are sure to read them alike.
//!
//! What is matched must be what the upstream will serve. So segments are compared after
//! percent-decoding, the path is forwarded as it came, and whatever readers are known to disagree
//! on is refused: dot segments in any spelling (also between blanks, which Windows cuts off, and in
//! wide letters, which some readers narrow), empty segments, encoded slashes, backslashes,
//! `;parameters`, what is not UTF-8, and control characters.

mod folded;

use std::borrow::Cow;

pub use folded::{folded, is_folded};

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not start with a slash.
    #[error("the path does not start with `/`")]
    NotAbsolute,
    /// `//` inside.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// `.` or `..`, plain or encoded.
    #[error("the path has a dot segment")]
    DotSegment,
    /// A `%` without two hexadecimal digits.
    #[error("the path has a broken percent-encoding")]
    BrokenEncoding,
    /// A slash, backslash or control character that is encoded, or a plain backslash.
    #[error("the path has a character that readers disagree on")]
    Disputed,
    /// `;parameters`, plain or encoded: some servers cut them off before they look at the name.
    #[error("the path has parameters")]
    Parameters,
    /// What is encoded is not UTF-8: some servers read overlong dots and slashes in it.
    #[error("the path is not UTF-8")]
    NotUtf8,
    /// Another spelling of a path that is not open to everybody.
    #[error("the path may be taken for another one")]
    Disguised,
    /// A captured table that cannot be a name.
    #[error("the table in the path is not a name")]
    NotAName,
}

impl PathError {
    /// The same, for the problem document.
    pub fn detail(self) -> &'static str {
        match self {
            Self::NotAbsolute => "The path does not start with a slash.",
            Self::EmptySegment => "The path has an empty segment.",
            Self::DotSegment => "The path has a dot segment.",
            Self::BrokenEncoding => "The path has a broken percent-encoding.",
            Self::Disputed => "The path has an encoded slash, a backslash or a control character.",
            Self::Parameters => "The path has a semicolon.",
            Self::NotUtf8 => "The path is not UTF-8.",
            Self::Disguised => {
                "The path may be taken for another one, which is not open to everybody."
            }
            Self::NotAName => "The table in the path is too long or not printable.",
        }
    }
}

/// Checks a raw path (without its query) and returns its segments, still raw.
pub fn segments(raw: &str) -> Result<std::str::Split<'_, char>, PathError> {
    let tail = raw.strip_prefix('/').ok_or(PathError::NotAbsolute)?;
    let mut rest = tail.split('/').peekable();
    while let Some(segment) = rest.next() {
        if segment.is_empty() && rest.peek().is_some() {
            return Err(PathError::EmptySegment);
        }
        check(segment)?;
    }
    Ok(tail.split('/'))
}

/// Whether a checked raw segment reads as `literal`.
pub fn reads_as(raw: &str, literal: &str) -> bool {
    if raw.contains('%') { *decoded(raw) == *literal.as_bytes() } else { raw == literal }
}

/// A checked raw segment as text; `None` when it is not UTF-8.
pub fn text(raw: &str) -> Option<Cow<'_, str>> {
    match decoded(raw) {
        Cow::Borrowed(_) => Some(Cow::Borrowed(raw)),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    }
}

fn check(segment: &str) -> Result<(), PathError> {
    let plain = |byte: u8| !matches!(byte, b'%' | b'\\' | b';') && byte.is_ascii_graphic();
    if !segment.starts_with('.') && segment.bytes().all(plain) {
        return Ok(());
    }
    let encodings =
        segment.match_indices('%').map(|(at, _)| segment.as_bytes().get(at + 1..at + 3));
    for digits in encodings {
        if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return Err(PathError::BrokenEncoding);
        }
    }
    let bytes = decoded(segment);
    if bytes.iter().any(|byte| matches!(byte, b'/' | b'\\') || byte.is_ascii_control()) {
        return Err(PathError::Disputed);
    }
    if bytes.contains(&b';') {
        return Err(PathError::Parameters);
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| PathError::NotUtf8)?;
    if text.split(is_wide_slash).any(is_dots) { Err(PathError::DotSegment) } else { Ok(()) }
}

/// What readers that narrow wide letters take for a slash or a backslash.
fn is_wide_slash(letter: char) -> bool {
    matches!(letter, '\u{2044}' | '\u{2215}' | '\u{2216}' | '\u{fe68}' | '\u{ff0f}' | '\u{ff3c}')
}

/// Whether there is nothing in it but dots, in any width, and blanks.
fn is_dots(text: &str) -> bool {
    let dot = |letter| matches!(letter, '.' | '\u{2024}' | '\u{2025}' | '\u{fe52}' | '\u{ff0e}');
    text.contains(dot) && text.chars().all(|letter| dot(letter) || letter.is_whitespace())
}

fn decoded(raw: &str) -> Cow<'_, [u8]> {
    if !raw.contains('%') {
        return Cow::Borrowed(raw.as_bytes());
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        match (first, tail) {
            (b'%', [high, low, after @ ..])
                if [high, low].iter().all(|d| d.is_ascii_hexdigit()) =>
            {
                bytes.push(hex(*high) << 4 | hex(*low));
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    Cow::Owned(bytes)
}

fn hex(digit: u8) -> u8 {
    char::from(digit).to_digit(16).map_or(0, |value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &str) -> Option<PathError> {
        segments(path).err()
    }

    #[test]
    fn ordinary_paths_pass() {
        for path in [
            "/",
            "/a",
            "/a/",
            "/a/b.c/.well-known/..x/…",
            "/a%20b/%C3%A9",
            "/a%252e",
            "/a%20/%20b./v1.%20x",
            "/Fate%EF%BC%8Fstay/\u{ff21}\u{ff0e}",
        ] {
            assert_eq!(refused(path), None, "{path}");
        }
    }

    #[test]
    fn what_readers_disagree_on_is_refused() {
        for (path, want) in [
            ("", PathError::NotAbsolute),
            ("*", PathError::NotAbsolute),
            ("//a", PathError::EmptySegment),
            ("/a//b", PathError::EmptySegment),
            ("/a/../b", PathError::DotSegment),
            ("/a/./b", PathError::DotSegment),
            ("/a/..", PathError::DotSegment),
            ("/a/%2e%2E/b", PathError::DotSegment),
            ("/a/.%2e", PathError::DotSegment),
            ("/a/..%20/b", PathError::DotSegment),
            ("/a/.%20./b", PathError::DotSegment),
            ("/a/ ../b", PathError::DotSegment),
            ("/a/%2e%2e%C2%A0/b", PathError::DotSegment),
            ("/a/.../b", PathError::DotSegment),
            ("/a/%EF%BC%8E%ef%bc%8e/b", PathError::DotSegment),
            ("/a/\u{ff0e}./b", PathError::DotSegment),
            ("/a/%E2%80%A5/b", PathError::DotSegment),
            ("/a/..%EF%BC%8Fb", PathError::DotSegment),
            ("/a/b%EF%BC%BC..", PathError::DotSegment),
            ("/a/..;x=1/b", PathError::Parameters),
            ("/a;v=1/b", PathError::Parameters),
            ("/a%3Bv=1", PathError::Parameters),
            ("/a/%c0%ae%c0%ae/b", PathError::NotUtf8),
            ("/a%2fb", PathError::Disputed),
            ("/a%5Cb", PathError::Disputed),
            ("/a\\b", PathError::Disputed),
            ("/a%00", PathError::Disputed),
            ("/a%0d%0a", PathError::Disputed),
            ("/a%", PathError::BrokenEncoding),
            ("/a%2", PathError::BrokenEncoding),
            ("/a%zz", PathError::BrokenEncoding),
            ("/a%é", PathError::BrokenEncoding),
        ] {
            assert_eq!(refused(path), Some(want), "{path}");
        }
    }

    #[test]
    fn segments_are_compared_decoded() {
        assert!(reads_as("orders", "orders"));
        assert!(reads_as("%6Frders", "orders"));
        assert!(!reads_as("%256Frders", "orders"), "decoded once only");
        assert_eq!(text("caf%C3%A9").as_deref(), Some("café"));
        assert_eq!(text("%ff"), None);
    }

    #[test]
    fn any_bytes_are_a_path_that_all_read_alike_or_refused() {
        let good = ["/rest/v1/orders", "/a%2Db/c%20d/", "/%c3%a4/.well-known/x;y", "/"];
        crate::fuzz::each("path", &good.map(|text| text.as_bytes().to_vec()), |bytes| {
            let Ok(raw) = std::str::from_utf8(bytes) else { return };
            let Ok(segments) = segments(raw) else { return };
            for segment in segments {
                let text = text(segment).expect("it was checked");
                assert!(!matches!(&*text, "." | ".."), "{raw:?}");
                assert!(!text.contains(['/', '\\', ';', '\0']), "{raw:?}");
                assert!(reads_as(segment, &text), "{raw:?}");
            }
        });
    }
}
