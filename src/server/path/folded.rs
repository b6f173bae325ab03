//! What a path may be taken for by an upstream that is lenient in how one is spelled.
//!
//! Many servers cut off a slash, blanks or dots at the end, know no upper case, narrow wide
//! letters, drop letters that nobody sees, or decode twice. None does all of that; folding does, so
//! that a spelling that any of them reads as a route's path is known for it.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;

use super::decoded;

/// How often a path may be decoded behind us: by a few readers in a row, each once.
const DECODED_MAX: usize = 4;

/// The segments of a path at its most lenient, with slashes between them.
pub fn folded(raw: &str) -> String {
    let mut text = Cow::Borrowed(raw);
    for _ in 0..DECODED_MAX {
        if !text.contains('%') {
            break;
        }
        text = Cow::Owned(String::from_utf8_lossy(&decoded(&text)).into_owned());
    }
    let narrow: String = text.nfkc().collect();
    // What is decoded here may end a path there.
    let path = narrow.split(['?', '#', '\0']).next().unwrap_or_default();
    let mut segments: Vec<String> = Vec::new();
    for segment in path.split(['/', '\\']) {
        let name = segment.split(';').next().unwrap_or_default();
        let seen = name.chars().filter(|letter| !is_unseen(*letter));
        let small = seen.flat_map(char::to_uppercase).flat_map(char::to_lowercase);
        let small: String = small.collect();
        let name = small.trim();
        if name == ".." {
            segments.pop();
        }
        let name = name.trim_end_matches(|letter: char| letter == '.' || letter.is_whitespace());
        if !name.is_empty() {
            segments.push(name.to_owned());
        }
    }
    segments.join("/")
}

/// Whether folding would leave a checked path as it is. Most are so, and it is cheap to see.
pub fn is_folded(raw: &str) -> bool {
    let Some(tail) = raw.strip_prefix('/') else { return false };
    let plain = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._~!$&'()*+,=:@/".contains(&byte)
    };
    let end = |segment: &str| !segment.is_empty() && !segment.ends_with('.');
    tail.is_empty() || (tail.bytes().all(plain) && tail.split('/').all(end))
}

/// Letters that are there and not seen: control characters, and those that Unicode has ignored
/// where they mean nothing.
fn is_unseen(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_path_fold_to_one() {
        for spelling in [
            "/admin/x",
            "/admin/x/",
            "/Admin/X",
            "/admin%20/x",
            "/admin./x..",
            "/%61dmin/x",
            "/%2561dmin/x",
            "/%EF%BD%81dmin/x",
            "/admin%EF%BC%8Fx",
            "/adm%C2%ADin/x",
            "/adm%C4%B1n/x",
            "/admin%E2%80%8B/x",
            "/admin/x%3F",
            "/admin/x%23y",
            "/admin/x%2500.png",
            "/admin%255cx",
            "/admin%253bv=1/x",
            "/free/%252e%252e/admin/x",
            "/admin/%20/x",
        ] {
            assert_eq!(folded(spelling), "admin/x", "{spelling}");
        }
        assert_eq!(folded("/"), "");
        assert_eq!(folded("/a%25zz/100%25"), "a%zz/100%");
    }

    #[test]
    fn what_is_folded_stays_as_it_is() {
        for path in ["/", "/a", "/a/b.c/.well-known/v1:x,y@z", "/orders/5"] {
            assert!(is_folded(path), "{path}");
            assert_eq!(format!("/{}", folded(path)), path);
        }
        for path in ["/a/", "/A", "/a.", "/a%20", "/\u{e4}", "/a./b"] {
            assert!(!is_folded(path), "{path}");
        }
    }

    #[test]
    fn any_path_folds_once_and_for_all() {
        let good = ["/rest/v1/orders", "/A%2Db/c%20d/", "/%c3%a4/.well-known", "/"];
        crate::fuzz::each("folded", &good.map(|text| text.as_bytes().to_vec()), |bytes| {
            let Ok(raw) = std::str::from_utf8(bytes) else { return };
            if super::super::segments(raw).is_ok() && is_folded(raw) {
                assert_eq!(format!("/{}", folded(raw)), raw);
            }
        });
    }
}
