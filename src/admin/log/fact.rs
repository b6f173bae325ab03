//! Facts as lines of JSON.

use serde_json::{Value, json};

use crate::model::fact::{Fact, Lane};

/// One fact, and where it stands; of the state lane, where there are several, with its name.
pub(super) fn line(seq: u64, fact: &Fact) -> Value {
    let (name, said) = fact.shown();
    let lane = fact.lane();
    let mut line = json!({ "seq": seq, "lane": lane.as_str() });
    if lane == Lane::State {
        line["fact"] = name.into();
    }
    if let (Some(line), Value::Object(said)) = (line.as_object_mut(), said) {
        line.extend(said);
    }
    line
}
