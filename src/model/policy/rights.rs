//! Rights: `<table>.<operation>`, with `*` for any table or operation; `*` alone is everything.
//!
//! The scopes of a key that read like rights narrow it to them where a table is known: `*`, and
//! all with a dot but URLs, for nobody can tell `openid.profile` from `orders.read`. A request that
//! no route names a table for asks for `gateway.access`; a table of that name is covered by `*`
//! alone.

use super::super::{Name, Target};

/// What stands for the table where none is known.
const NO_TABLE: &str = "gateway";

/// One right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    text: Name,
    /// Where its operation begins; `None`: it is everything.
    dot: Option<usize>,
}

/// Why a text is no right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RightError {
    /// It has no dot, or nothing before or behind it.
    #[error("`{0}` is no right; write `<table>.<operation>`, with `*` for any, or `*` alone")]
    Shape(String),
    /// It has a character that no table or operation has.
    #[error("`{text}` is no right: {character:?} cannot be part of a table or an operation")]
    Character {
        /// The text.
        text: String,
        /// The first such character.
        character: char,
    },
}

impl Right {
    /// Reads a right.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, RightError> {
        let odd = |c: &char| !c.is_alphanumeric() && !"_-:/.*$".contains(*c);
        if let Some(character) = text.chars().find(odd) {
            return Err(RightError::Character { text: text.into(), character });
        }
        let named =
            |part: &str| !part.contains('*') && part.split('.').all(|name| !name.is_empty());
        let whole = |part: &str| part == "*" || named(part);
        let split = text.rsplit_once('.');
        let fits = |(table, operation): (&str, &str)| whole(table) && whole(operation);
        if text == "*" || split.is_some_and(fits) {
            Ok(Self { text: text.into(), dot: text.rfind('.') })
        } else {
            Err(RightError::Shape(text.into()))
        }
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn covers(&self, target: &Target) -> bool {
        let split = |dot| fits(&self.text[..dot], &self.text[dot + 1..], target);
        self.dot.is_none_or(split)
    }
}

impl RightError {
    /// What is said where it was given as a scope.
    pub fn for_a_scope(&self) -> String {
        format!("{self} (a scope with a dot is taken for a right, unless it is a URL)")
    }
}

/// The rights of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights(Vec<Right>);

impl Rights {
    /// Of these.
    pub fn new(rights: Vec<Right>) -> Self {
        Self(rights)
    }

    /// Whether one of them covers what is asked for.
    pub fn allow(&self, target: &Target) -> bool {
        self.0.iter().any(|right| right.covers(target))
    }
}

impl Target {
    /// The right that it takes, for explanations.
    pub fn right(&self) -> String {
        format!("{}.{}", self.table_or_gateway(), self.operation)
    }

    fn table_or_gateway(&self) -> &str {
        if self.table.is_empty() { NO_TABLE } else { &self.table }
    }
}

/// Whether the right `pattern` covers what is asked for. What is no right covers nothing.
pub fn covers(pattern: &str, target: &Target) -> bool {
    if pattern == "*" {
        return true;
    }
    pattern.rsplit_once('.').is_some_and(|(table, operation)| fits(table, operation, target))
}

fn fits(table: &str, operation: &str, target: &Target) -> bool {
    // A table that is really called so is another thing.
    let named = if table == NO_TABLE { target.table.is_empty() } else { *table == *target.table };
    (table == "*" || named) && (operation == "*" || *operation == *target.operation)
}

/// Whether a scope is taken for a right.
pub fn reads_like_right(scope: &str) -> bool {
    scope == "*" || (scope.contains('.') && !scope.contains("://"))
}

/// Whether a scope can be given: one that is taken for a right and is none would cover nothing.
///
/// # Errors
/// What is wrong with the right.
pub fn check_scope(scope: &str) -> Result<(), RightError> {
    if reads_like_right(scope) { Right::parse(scope).map(drop) } else { Ok(()) }
}

/// Whether scopes keep their owner from what is asked for: where a table is known, and some of them
/// read like rights, and none of those covers it. `granted` are those of the key or session that a
/// token was made of: its own may leave rights out, but never all of them to be rid of their bound.
/// (A token without any has what was granted.)
pub fn narrows(granted: &[Name], scopes: &[Name], target: &Target) -> bool {
    if target.table.is_empty() {
        return false;
    }
    let bounds = |of: &[Name]| of.iter().any(|scope| reads_like_right(scope));
    let covered = |of: &[Name]| of.iter().any(|has| reads_like_right(has) && covers(has, target));
    // What was granted may have become less since the token was made.
    let beyond_granted = bounds(granted) && !covered(granted);
    let bound = bounds(granted) || bounds(scopes);
    beyond_granted || bound && !scopes.is_empty() && !covered(scopes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(table: &str, operation: &str) -> Target {
        Target { table: table.into(), operation: operation.into() }
    }

    fn rights(texts: &[&str]) -> Rights {
        Rights::new(texts.iter().map(|text| Right::parse(text).expect("a right")).collect())
    }

    #[test]
    fn a_star_stands_for_any_table_or_operation() {
        let some = rights(&["orders.read", "*.list", "billing.*"]);
        for (table, operation, allowed) in [
            ("orders", "read", true),
            ("orders", "write", false),
            ("anything", "list", true),
            ("billing", "delete", true),
            ("bill", "delete", false),
            ("", "access", false),
            ("gateway", "access", false),
        ] {
            assert_eq!(some.allow(&target(table, operation)), allowed, "{table}.{operation}");
        }
        assert!(rights(&["*"]).allow(&Target::access()));
        assert!(rights(&["gateway.*"]).allow(&Target::access()));
        assert!(!rights(&["gateway.*"]).allow(&target("gateway", "read")), "it is a table");
        assert!(rights(&["*.read"]).allow(&target("gateway", "read")));
        assert!(!rights(&[]).allow(&Target::access()), "an empty list allows nothing");
    }

    #[test]
    fn a_table_may_have_dots_and_the_last_one_parts() {
        assert!(rights(&["public.orders.read"]).allow(&target("public.orders", "read")));
        assert!(!rights(&["public.orders.read"]).allow(&target("public", "orders.read")));
    }

    #[test]
    fn stray_characters_are_refused() {
        for text in [
            "",
            ".",
            "orders",
            "orders.",
            ".read",
            "or ders.read",
            "orders.re\nad",
            "o*.read",
            "orders.**",
            "orders.read,",
            "orders;read.x",
            "\"orders\".read",
            "*.*.*x",
            "orders..read",
            "..read",
            ".orders.read",
        ] {
            assert!(Right::parse(text).is_err(), "{text:?}");
        }
        for text in ["*", "*.*", "*.read", "orders.*", "público.read", "a-b_c:d/e.read"] {
            assert!(Right::parse(text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn scopes_that_read_like_rights_narrow_where_a_table_is_known() {
        let scopes =
            |texts: &[&str]| -> Vec<Name> { texts.iter().map(|text| (*text).into()).collect() };
        let narrows = |texts: &[&str], target: &Target| {
            let scopes = scopes(texts);
            super::narrows(&scopes, &scopes, target)
        };
        let read = target("orders", "read");
        assert!(!narrows(&[], &read));
        assert!(!narrows(&["openid", "email"], &read), "they are no rights");
        assert!(!narrows(&["https://example.com/auth/drive.readonly"], &read), "nor is a URL");
        assert!(!narrows(&["orders.read"], &read));
        assert!(!narrows(&["openid", "*.read"], &read));
        assert!(narrows(&["openid", "orders.write"], &read));
        assert!(narrows(&["https://example.com/", "orders.write"], &read));
        assert!(narrows(&["openid.profile"], &read), "it may be a table's");
        assert!(narrows(&["orders..read"], &read), "what is no right opens nothing");
        assert!(!narrows(&["orders.write"], &Target::access()), "no table is known");
        let url = target("https://x", "y/z");
        assert!(narrows(&["https://x.y/z", "orders.read"], &url), "a URL covers nothing either");
    }

    #[test]
    fn a_token_has_no_more_than_what_it_was_made_of() {
        let scopes =
            |texts: &[&str]| -> Vec<Name> { texts.iter().map(|text| (*text).into()).collect() };
        for (granted, own, table, narrowed) in [
            (&["openid", "orders.read"][..], &["openid"][..], "orders", true),
            (&["openid", "orders.read"], &["openid"], "", false),
            (&["orders.read", "bills.read"], &["bills.read"], "orders", true),
            (&["orders.read", "bills.read"], &["bills.read"], "bills", false),
            (&["orders.read"], &[], "orders", false),
            (&["orders.read"], &[], "bills", true),
            (&["openid", "email"], &["openid"], "orders", false),
            (&[], &["orders.read"], "bills", true),
            (&[], &[], "orders", false),
            // The key was narrowed since.
            (&["orders.read"], &["bills.read"], "bills", true),
        ] {
            let target = target(table, "read");
            let told = narrows(&scopes(granted), &scopes(own), &target);
            assert_eq!(told, narrowed, "{own:?} of {granted:?} on `{table}`");
        }
    }

    #[test]
    fn a_scope_that_is_taken_for_a_right_must_be_one() {
        for text in ["openid", "read:orders", "*", "orders.read", "https://x.y/z", "api://a/.b"] {
            assert_eq!(check_scope(text), Ok(()), "{text}");
        }
        for text in ["orders..read", "orders.", ".default", "o*.read", "a.b;c", "user@x.org"] {
            assert!(check_scope(text).is_err(), "{text}");
        }
    }
}
