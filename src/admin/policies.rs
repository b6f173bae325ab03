//! `/admin/v1/policies`: what is stored and declared, and changing what is stored.
//!
//! A policy does not merge: it is written to Postgres, all changes in one transaction with their
//! history, and comes back by the feed. Without Postgres, policies are declared in the
//! configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::directory::DirectoryError;
use super::extract::{Body, Named, name};
use super::{Control, PolicyChange, Problem};
use crate::cache::PolicyView;
use crate::model::policy::PolicySpec;
use crate::model::{DEFAULT_POLICY, Name, is_name};

/// Policies in one file.
const POLICIES_MAX: usize = 256;
/// What else there is without Postgres.
const OTHERWISE: &str = "declare them as [[policies]] in the configuration";

/// A policy as it is shown.
#[derive(Serialize)]
pub(super) struct Shown {
    name: String,
    /// `configuration` wins over `postgres`.
    source: &'static str,
    spec: Value,
}

impl From<PolicyView> for Shown {
    fn from(view: PolicyView) -> Self {
        Self {
            name: view.policy.name.to_string(),
            source: if view.declared { "configuration" } else { "postgres" },
            spec: serde_json::from_str(&view.policy.spec).unwrap_or_default(),
        }
    }
}

pub(super) async fn list(State(control): State<Arc<Control>>) -> Json<Vec<Shown>> {
    Json(control.cache.policies().into_iter().map(Shown::from).collect())
}

pub(super) async fn show(
    State(control): State<Arc<Control>>,
    Named(name): Named,
) -> Result<Json<Shown>, Problem> {
    let unreadable = |_| Problem::internal("the cache cannot be read; see the log");
    let view = control.cache.policy(&name).map_err(unreadable)?;
    let missing =
        || Problem::missing(format!("there is no policy `{name}`; `gatepost policy list`"));
    Ok(Json(view.ok_or_else(missing)?.into()))
}

/// A file of policies.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Applied {
    policies: Vec<Map<String, Value>>,
    #[serde(default)]
    dry_run: bool,
    /// Whether stored policies that are not in the file are removed.
    #[serde(default)]
    prune: bool,
}

/// What happens to one policy.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Change {
    name: String,
    /// `create`, `change`, `remove` or `none`.
    change: &'static str,
    /// Whether it is declared in this gateway's configuration, which wins here.
    declared_here: bool,
    /// A line for each field that differs: `-` what was, `+` what is.
    difference: Vec<String>,
    #[serde(skip)]
    spec: Option<String>,
}

/// What was, or with a dry run would be, done.
#[derive(Serialize)]
pub(super) struct Outcome {
    changes: Vec<Change>,
    applied: bool,
}

pub(super) async fn apply(
    State(control): State<Arc<Control>>,
    Body(asked): Body<Applied>,
) -> Result<Json<Outcome>, Problem> {
    let wanted = read(asked.policies)?;
    let _turn = control.turn().await;
    let directory = control.directory(OTHERWISE)?;
    let away = |error| {
        // It is the file's list that lacks it.
        let in_use = matches!(error, DirectoryError::InUse(_));
        let mut problem = Problem::from_directory(error, OTHERWISE);
        if in_use {
            problem.detail = format!("policies: {}", problem.detail);
        }
        problem
    };
    let stored = directory.policies().await.map_err(away)?;
    let declared: BTreeSet<String> = control
        .cache
        .policies()
        .into_iter()
        .filter(|view| view.declared)
        .map(|view| view.policy.name.to_string())
        .collect();
    let changes = compare(stored, wanted, asked.prune, &declared);
    let due: Vec<_> = changes.iter().filter(|change| change.change != "none").collect();
    let removed = due.iter().filter(|change| change.change == "remove" && !change.declared_here);
    for Change { name, .. } in removed {
        if let Some(by) = control.cache.has_policy_here(name) {
            let in_use = format!("policy {name} is in use by {by}");
            return Err(away(DirectoryError::InUse(in_use)));
        }
    }
    if !due.is_empty() {
        let made = |change: &&Change| PolicyChange {
            event_id: control.entropy.uuid_v7(control.clock.now()),
            name: change.name.clone(),
            spec: change.spec.clone(),
        };
        let made: Vec<_> = due.iter().map(made).collect();
        let actor = (control.node.clone(), control.actor.clone());
        let changed = directory.change_policies(actor.0, actor.1, made, asked.dry_run).await;
        changed.map_err(away)?;
    }
    if !asked.dry_run {
        for change in &due {
            let (action, name) = (change.change, &*change.name);
            tracing::info!(actor = %control.actor, action, policy = name, "policy changed");
        }
    }
    Ok(Json(Outcome { changes, applied: !asked.dry_run }))
}

/// The policy that a new client or key shall have: one that this gateway or Postgres knows, or
/// its requests could be neither let through nor refused.
pub(super) async fn given(
    control: &Control,
    text: Option<String>,
) -> Result<Option<Name>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let named = name(&text, "policy")?;
    let unreadable = |_| Problem::internal("the cache cannot be read; see the log");
    let here = control.cache.policy(&named).map_err(unreadable)?.is_some();
    if here || *named == *DEFAULT_POLICY {
        return Ok(Some(named));
    }
    let Some(directory) = &control.directory else {
        let detail = format!("there is no policy `{named}`; {OTHERWISE}");
        return Err(Problem::missing(detail));
    };
    // It may have been applied a moment ago, and not have come here yet.
    let otherwise = format!("whether it has the policy `{named}`, this gateway does not know");
    let stored = directory.policies().await;
    let stored = stored.map_err(|error| Problem::from_directory(error, &otherwise))?;
    if stored.iter().any(|(stored, _)| **stored == *named) {
        return Ok(Some(named));
    }
    let hint = "`gatepost policy list` shows them, `gatepost policy apply` makes one";
    Err(Problem::missing(format!("there is no policy `{named}`; {hint}")))
}

/// The documents by name, or everything that is wrong with them.
fn read(policies: Vec<Map<String, Value>>) -> Result<BTreeMap<String, PolicySpec>, Problem> {
    if policies.len() > POLICIES_MAX {
        return Err(Problem::bad_request(format!("at most {POLICIES_MAX} policies in one file")));
    }
    let (mut read, mut wrong) = (BTreeMap::new(), Vec::new());
    for (at, mut fields) in policies.into_iter().enumerate() {
        let Some(Value::String(name)) = fields.remove("name") else {
            wrong.push(format!("policies[{at}].name: missing"));
            continue;
        };
        if !is_name(&name) {
            wrong.push(format!("policies[{at}].name: is no name"));
        }
        match PolicySpec::parse(&Value::Object(fields).to_string()) {
            Ok(spec) => {
                if read.insert(name.clone(), spec).is_some() {
                    wrong.push(format!("policies[{at}].name: `{name}` is there twice"));
                }
            }
            Err(problems) => {
                wrong.extend(problems.iter().map(|problem| format!("policies[{at}].{problem}")));
            }
        }
    }
    if wrong.is_empty() { Ok(read) } else { Err(Problem::bad_request(wrong.join("; "))) }
}

fn compare(
    stored: Vec<(String, String)>,
    wanted: BTreeMap<String, PolicySpec>,
    prune: bool,
    declared: &BTreeSet<String>,
) -> Vec<Change> {
    let mut before: BTreeMap<String, Value> = stored
        .into_iter()
        .map(|(name, spec)| {
            // As it would be written now, so that only what means something else differs.
            let written = PolicySpec::parse(&spec).ok().and_then(|s| serde_json::to_value(s).ok());
            let raw = || serde_json::from_str(&spec).unwrap_or_default();
            (name, written.unwrap_or_else(raw))
        })
        .collect();
    let mut changes = Vec::new();
    for (name, spec) in wanted {
        let after = serde_json::to_value(&spec).unwrap_or_default();
        let known = before.remove(&name);
        let change = match &known {
            None => "create",
            Some(known) if *known == after => "none",
            Some(_) => "change",
        };
        changes.push(Change {
            declared_here: declared.contains(&name),
            difference: difference(&known.unwrap_or_default(), &after),
            spec: Some(after.to_string()),
            name,
            change,
        });
    }
    for (name, known) in before.into_iter().filter(|_| prune) {
        let declared_here = declared.contains(&name);
        let difference = difference(&known, &Value::Null);
        changes.push(Change { name, change: "remove", declared_here, difference, spec: None });
    }
    changes
}

fn difference(before: &Value, after: &Value) -> Vec<String> {
    let empty = Map::new();
    let [before, after] = [before, after].map(|value| value.as_object().unwrap_or(&empty));
    let fields: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut lines = Vec::new();
    for field in fields {
        let (was, is) = (before.get(field), after.get(field));
        if was != is {
            lines.extend(was.map(|was| format!("- {field} = {was}")));
            lines.extend(is.map(|is| format!("+ {field} = {is}")));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).expect("an object")
    }

    #[test]
    fn every_fault_is_told_with_its_place() {
        let faults = read(vec![
            policy(r#"{"name":"a","rate_limits":[{"name":"x","limit":0,"window":"1s"}]}"#),
            policy(r#"{"mode":"observe"}"#),
            policy(r#"{"name":"b","nonsense":1}"#),
            policy(r#"{"name":"b"}"#),
            policy(r#"{"name":"b"}"#),
        ]);
        let told = faults.expect_err("refused").detail;
        for part in [
            "policies[0].rate_limits[0].limit: ",
            "policies[1].name: missing",
            "policies[2].nonsense: unknown field",
            "policies[4].name: `b` is there twice",
        ] {
            assert!(told.contains(part), "{told}");
        }
    }

    #[test]
    fn only_what_means_something_else_differs() {
        let spec = |text: &str| PolicySpec::parse(text).expect("a policy");
        let stored = vec![
            (
                "same".to_owned(),
                r#"{"rights": null, "concurrency": {"per": "client", "limit": 2}}"#.to_owned(),
            ),
            ("changed".to_owned(), r#"{"mode": "observe", "rights": ["*"]}"#.to_owned()),
            ("gone".to_owned(), r#"{"mode": "observe"}"#.to_owned()),
        ];
        let wanted = BTreeMap::from([
            ("same".to_owned(), spec(r#"{"concurrency":{"limit":2}}"#)),
            ("changed".to_owned(), spec(r#"{"mode":"enforce","rights":["*"]}"#)),
            ("new".to_owned(), spec("{}")),
        ]);
        let here = BTreeSet::from(["new".to_owned()]);
        let changes = compare(stored.clone(), wanted.clone(), true, &here);
        let told: Vec<_> = changes.iter().map(|change| (&*change.name, change.change)).collect();
        assert_eq!(
            told,
            [("changed", "change"), ("new", "create"), ("same", "none"), ("gone", "remove")]
        );
        assert_eq!(changes[0].difference, [r#"- mode = "observe""#, r#"+ mode = "enforce""#]);
        assert!(changes[1].declared_here);
        assert_eq!(compare(stored, wanted, false, &here).len(), 3, "nothing is removed unasked");
    }
}
