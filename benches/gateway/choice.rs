//! What was asked for on the command line.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::scenario::{ALL, Scenario};

/// The command line, without Cargo's own arguments.
pub struct Choice {
    pub scenarios: Vec<&'static Scenario>,
    /// Shorter and rougher.
    pub quick: bool,
    /// Only the list of scenarios.
    pub list: bool,
    /// Where the report goes.
    pub out: PathBuf,
}

impl Choice {
    /// Of these arguments; without a name, the canonical set.
    pub fn of(args: &[&str]) -> Result<Self> {
        let mut choice = Self { scenarios: Vec::new(), quick: false, list: false, out: out() };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match *arg {
                "--bench" => {}
                "--quick" => choice.quick = true,
                "--list" => choice.list = true,
                "--out" => choice.out = args.next().context("--out needs a directory")?.into(),
                name => {
                    let known = ALL.iter().find(|scenario| scenario.name == name);
                    let Some(scenario) = known else {
                        bail!("there is no scenario `{name}`; there are\n\n{}", list())
                    };
                    choice.scenarios.push(scenario);
                }
            }
        }
        if choice.scenarios.is_empty() {
            choice.scenarios = ALL.iter().filter(|scenario| scenario.canonical).collect();
        }
        Ok(choice)
    }
}

/// Beside the program: in the build directory.
fn out() -> PathBuf {
    let built = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    built.parent().map_or_else(|| built.clone(), PathBuf::from).join("gateway-bench")
}

/// All scenarios, a line each; those without a name asked for are marked.
pub fn list() -> String {
    let wide = ALL.iter().map(|scenario| scenario.name.len()).max().unwrap_or(0);
    let line = |scenario: &Scenario| {
        let Scenario { name, about, canonical, .. } = scenario;
        format!("{} {name:wide$}  {about}\n", if *canonical { '*' } else { ' ' })
    };
    let all: String = ALL.iter().map(line).collect();
    format!("{all}\n* in the canonical set, which is run when none is named\n")
}
