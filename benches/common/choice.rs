//! Which scenarios were asked for, and with how much effort.

use anyhow::{Result, bail};

/// What stands on the command line, without Cargo's own arguments: scenarios by name, default all,
/// and whether they are to be quick.
pub fn chosen<S: Copy>(scenarios: &[(&'static str, S)]) -> Result<(bool, Vec<(&'static str, S)>)> {
    let (mut quick, mut chosen) = (false, Vec::new());
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            "--bench" => {}
            "--quick" => quick = true,
            name => match scenarios.iter().find(|(known, _)| *known == name) {
                Some(scenario) => chosen.push(*scenario),
                None => {
                    let known: Vec<_> = scenarios.iter().map(|(name, _)| name).collect();
                    bail!("unknown scenario `{name}`; there are {known:?}")
                }
            },
        }
    }
    if chosen.is_empty() {
        chosen = scenarios.to_vec();
    }
    Ok((quick, chosen))
}
