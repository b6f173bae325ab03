//! Rust source as far as the rules need it: code without comments and literals, test modules,
//! functions.

use super::tree::text;

/// One file.
pub struct Source {
    /// The text with comments and the insides of literals blanked out; lines stay where they are.
    pub code: String,
    test_only: bool,
}

impl Source {
    pub fn read(file: &str) -> Self {
        let outside = !file.starts_with("src/");
        let test_only = outside || file.ends_with("/tests.rs") || file.contains("/tests/");
        Self { code: blank(&text(file)), test_only }
    }

    /// The code without its test modules; empty for a file that is one.
    pub fn production(&self) -> String {
        if self.test_only { String::new() } else { without_tests(&self.code) }
    }

    pub fn lines_without_tests(&self) -> usize {
        let all = self.code.lines().count();
        all - tests_in(&self.code).map_or(0, |(from, to)| self.code[from..to].lines().count())
    }

    /// The lines of `code` in which `word` stands as a whole word.
    pub fn lines_with(&self, code: &str, word: &str) -> Vec<usize> {
        let lines = code.lines().enumerate();
        lines.filter(|(_, line)| has_word(line, word)).map(|(at, _)| at + 1).collect()
    }

    /// Name, first line and number of lines of each function that has a body.
    pub fn functions(&self) -> Vec<(String, usize, usize)> {
        let code = &self.code;
        let mut found = Vec::new();
        for (at, _) in code.match_indices("fn ") {
            if code[..at].ends_with(is_word) {
                continue;
            }
            let rest = &code[at + 3..];
            let name: String = rest.chars().take_while(|c| is_word(*c)).collect();
            // An array type holds the only other `;` that a signature can have.
            let mut depth = 0;
            let body = rest.char_indices().find(|(_, c)| {
                depth += i32::from(matches!(c, '[' | '(')) - i32::from(matches!(c, ']' | ')'));
                depth == 0 && matches!(c, '{' | ';')
            });
            let Some((open, '{')) = body else { continue };
            let end = closing(rest, open);
            if !name.is_empty() {
                let first = code[..at].matches('\n').count() + 1;
                found.push((name, first, rest[..end].matches('\n').count() + 1));
            }
        }
        found
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(is_word) && !line[at + word.len()..].starts_with(is_word)
    })
}

/// Where the brace closes that opens at `open`.
fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, c) in code[open..].char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if depth == 0 {
            return open + at + 1;
        }
    }
    code.len()
}

/// The test module at a file's foot.
fn tests_in(code: &str) -> Option<(usize, usize)> {
    let from = code.find("#[cfg(test)]\nmod tests {")?;
    let open = from + code[from..].find('{')?;
    Some((from, closing(code, open)))
}

/// Test modules are blanked out, so that lines keep their numbers.
fn without_tests(code: &str) -> String {
    let Some((from, to)) = tests_in(code) else { return code.to_owned() };
    let lines = "\n".repeat(code[from..to].matches('\n').count());
    format!("{}{lines}{}", &code[..from], &code[to..])
}

/// Blanks comments and literals.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let keep = out.chars().next_back().is_some_and(is_word);
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if c == '"' {
            string(rest)
        } else if c == 'r' && !keep && (rest.starts_with("r\"") || rest.starts_with("r#")) {
            raw_string(rest)
        } else if c == '\'' {
            character(rest)
        } else {
            0
        };
        if length == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            let (gone, next) = rest.split_at(length);
            out.extend(gone.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = next;
        }
    }
    out
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// `r"…"`, `r#"…"#`; zero for a raw identifier.
fn raw_string(text: &str) -> usize {
    let hashes = text[1..].chars().take_while(|c| *c == '#').count();
    let start = 1 + hashes;
    if !text[start..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    text[start + 1..].find(&end).map_or(text.len(), |at| start + 1 + at + end.len())
}

/// `'a'`, `'\n'`; zero for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => text[3..].find('\'').map_or(0, |at| at + 4),
        Some(_) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 0,
        },
        None => 0,
    }
}

#[test]
fn only_code_is_left() {
    let blanked = blank("a // b\n\"c { \\\" d\" r#\"e \" f\"# 'x' '\\'' '{' 'life /* g\nh */ i");
    assert_eq!(blanked.split_whitespace().collect::<Vec<_>>(), ["a", "'life", "i"]);
    assert_eq!(blanked.lines().count(), 3);
}

#[test]
fn functions_and_tests_are_measured() {
    let code =
        "fn a(x: [u8; 2]) {\n}\ntrait T {\n fn b();\n}\n#[cfg(test)]\nmod tests {\n fn c() {}\n}\n";
    let source = Source { code: code.into(), test_only: false };
    let found: Vec<_> = source.functions();
    assert_eq!(found, [("a".into(), 1, 2), ("c".into(), 8, 1)]);
    assert_eq!(source.lines_without_tests(), 5);
    assert!(!source.production().contains("fn c"));
}
