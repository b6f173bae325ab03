//! What a figure should be, and what keeps it from that where this is known.

use serde::Serialize;

/// A bound, with a sentence for a miss.
#[derive(Clone, Copy, Serialize)]
pub struct Goal {
    bound: Bound,
    /// What binds it, found by measuring; empty where nobody looked yet.
    pub binds: &'static str,
}

#[derive(Clone, Copy, Serialize)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    pub fn at_least(bound: f64) -> Option<Self> {
        Some(Self { bound: Bound::AtLeast(bound), binds: "" })
    }

    pub fn at_most(bound: f64) -> Option<Self> {
        Some(Self { bound: Bound::AtMost(bound), binds: "" })
    }

    /// The same, with what is known to bind it.
    pub fn bound_by(self, binds: &'static str) -> Option<Self> {
        Some(Self { binds, ..self })
    }

    pub fn text(self) -> String {
        match self.bound {
            Bound::AtLeast(goal) => format!("≥ {goal}"),
            Bound::AtMost(goal) => format!("≤ {goal}"),
        }
    }

    /// Whether a value does; what is not a number does not.
    pub fn met(self, value: f64) -> bool {
        match self.bound {
            Bound::AtLeast(goal) => value >= goal,
            Bound::AtMost(goal) => value <= goal,
        }
    }
}
