//! The process environment as a value, so that everything that reads it can be tested without it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Always this very program, also when a later version was put in its place. (Linux.)
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Variables by name, and the program itself. Only what is valid UTF-8 is seen of the variables.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    program: Option<PathBuf>,
}

impl Environment {
    /// The environment that this process was started with.
    pub fn of_process() -> Self {
        let pairs = std::env::vars_os();
        let pairs = pairs.filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let own = Path::new(OWN_PROGRAM);
        let program =
            if own.exists() { Some(own.to_owned()) } else { std::env::current_exe().ok() };
        Self { variables: pairs.collect(), program }
    }

    /// What starts this program again; none where that cannot be told, and in tests.
    pub fn program(&self) -> Option<&Path> {
        self.program.as_deref()
    }

    /// A variable's value; an empty one counts as unset: compose files leave such.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The variables whose name starts with `prefix`, without the empty ones.
    pub fn starting_with(&self, prefix: &str) -> impl Iterator<Item = (&str, &str)> {
        let all = self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        all.filter(move |(name, value)| name.starts_with(prefix) && !value.is_empty())
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let variables = pairs.into_iter().map(|(name, value)| (name.into(), value.into()));
        Self { variables: variables.collect(), program: None }
    }
}
