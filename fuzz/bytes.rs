//! Hostile bytes for what reads them: a few good inputs, and changes to them, by seed. Without
//! coverage to guide it, but on every machine, and for readers that no other crate can reach.
//!
//! `GATEPOST_FUZZ_SECONDS` goes on for so long and says how many there were; `GATEPOST_SEED`
//! repeats the changes of a run. An input that makes a reader panic is printed.

use std::time::{Duration, Instant};

/// Changed inputs of each good one, where no time is given.
const CHANGED: usize = 500;

/// As it is in the ordinary run: the same in each.
const SEED: u64 = 7;

/// Hands each of `good` to `read`, and what becomes of them.
pub fn each(name: &str, good: &[Vec<u8>], mut read: impl FnMut(&[u8])) {
    let seconds = setting("GATEPOST_FUZZ_SECONDS");
    let seed = setting("GATEPOST_SEED").unwrap_or(SEED);
    let (mut dice, mut inputs) = (Dice(seed), 0_u64);
    let mut hand = |bytes: &[u8]| {
        let _told = Told { name, seed, bytes };
        read(bytes);
        inputs += 1;
    };
    good.iter().for_each(|input| hand(input));
    let begin = Instant::now();
    for round in 0.. {
        let over = match seconds {
            Some(seconds) => begin.elapsed() >= Duration::from_secs(seconds),
            None => round == CHANGED,
        };
        if over {
            break;
        }
        for input in good {
            let other = &good[dice.below(good.len())];
            hand(&changed(&mut dice, input, other));
        }
    }
    if seconds.is_some() {
        say(&format!("fuzz: {name}: {inputs} inputs in {:?}, seed {seed}", begin.elapsed()));
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect(name))
}

#[expect(clippy::print_stderr, reason = "the runner shows it where a test fails")]
fn say(line: &str) {
    eprintln!("{line}");
}

/// Tells the input with which a reader panicked.
struct Told<'a> {
    name: &'a str,
    seed: u64,
    bytes: &'a [u8],
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { name, seed, bytes } = self;
            say(&format!("fuzz: {name}: seed {seed}: \"{}\"", bytes.escape_ascii()));
        }
    }
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) as usize % bound.max(1)
    }
}

/// A few bytes changed, put in, taken out, said again, or taken from another input.
fn changed(dice: &mut Dice, from: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = from.to_vec();
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len());
        match dice.below(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
            1 if !bytes.is_empty() => bytes[at] = [0, 0x7f, 0xfb, 0xfd, 0xff][dice.below(5)],
            2 => bytes.insert(at, [0, 0xf0, 0xfb, 0xff][dice.below(4)]),
            3 => bytes.insert(at, b"\r\n\t ,;:=\"\\/%.-_0[{"[dice.below(18)]),
            4 => bytes.truncate(at),
            5 => {
                let part = bytes[at..].to_vec();
                bytes.extend_from_slice(&part[..part.len().min(64)]);
            }
            _ => {
                let start = dice.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[start..]);
            }
        }
    }
    bytes
}
