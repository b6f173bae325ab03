//! Those who take turns.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;

use crate::load::Load;
use crate::load::closed::Closed;
use crate::product::gateway::{Gateway, Settings};
use crate::report::Report;
use crate::report::progress::progress;
use crate::report::series::{Rounds, Turn};
use crate::rivals::own::Own;
use crate::rivals::program::Program;
use crate::stock::keys;

/// Whose processor time counts: asked anew each time, for workers may come after their master.
trait Process {
    fn pids(&self) -> Vec<u32>;
}

impl Process for Own {
    fn pids(&self) -> Vec<u32> {
        vec![self.pid()]
    }
}

impl Process for Gateway {
    fn pids(&self) -> Vec<u32> {
        vec![self.pid()]
    }
}

impl Process for Program {
    fn pids(&self) -> Vec<u32> {
        self.pids()
    }
}

/// One who takes part, for as long as this is held.
pub struct Contestant {
    pub name: &'static str,
    pub address: SocketAddr,
    process: Box<dyn Process>,
}

impl Contestant {
    pub fn own(name: &'static str, own: Own) -> Self {
        Self { name, address: own.address, process: Box::new(own) }
    }

    pub fn gateway(name: &'static str, gateway: Gateway) -> Self {
        Self { name, address: gateway.address, process: Box::new(gateway) }
    }

    fn program(name: &'static str, program: Program) -> Self {
        Self { name, address: program.address, process: Box::new(program) }
    }
}

/// All of them.
#[derive(Default)]
pub struct Field(pub Vec<Contestant>);

impl Field {
    pub fn add(&mut self, contestant: Contestant) {
        self.0.push(contestant);
    }

    /// Adds a program of others, or says why it is not there.
    pub fn program(
        &mut self,
        name: &'static str,
        started: Result<Program>,
        report: &mut Report,
    ) -> Result<()> {
        match started {
            Ok(program) => self.add(Contestant::program(name, program)),
            Err(error) if error.to_string().starts_with("not installed") => {
                report.note(format!("{name} is not measured; {error}"));
            }
            Err(error) => return Err(error.context(name)),
        }
        Ok(())
    }

    /// Everybody, round by round. The order is turned round with each, so that nobody always comes
    /// after the same.
    pub fn turns<L: Load>(
        &self,
        rounds: usize,
        closed: Closed,
        load: impl Fn(&Contestant) -> L,
    ) -> Result<Vec<Turn>> {
        let mut turns: Vec<Turn> = self.0.iter().map(|one| Turn::of(one.name)).collect();
        for round in 1..=rounds {
            let mut order: Vec<usize> = (0..turns.len()).collect();
            if round % 2 == 0 {
                order.reverse();
            }
            for at in order {
                let one = &self.0[at];
                let outcome = closed.measured(&load(one), &one.process.pids())?.whole()?;
                turns[at].push(&outcome);
                let (rate, p99) = (outcome.per_second, outcome.latency.at(99.0));
                progress(&format!(
                    "round {round}/{rounds}: {} {rate:.0}/s, p99 {p99} µs",
                    one.name
                ));
            }
        }
        Ok(turns)
    }
}

/// The rates of two of them, if both took part.
pub fn rates(turns: &[Turn], ours: &str, other: &str) -> Option<Rounds> {
    let of = |name: &str| Some(turns.iter().find(|turn| turn.name == name)?.rates.clone());
    Some(Rounds { ours: of(ours)?, other: of(other)? })
}

/// A gateway on `data` that knows `count` keys, without Postgres.
pub fn embedded(data: &Path, count: usize, settings: Settings<'_>) -> Result<Gateway> {
    std::fs::create_dir(data)?;
    keys::into_journal(data, count)?;
    Gateway::start(data, settings)
}
