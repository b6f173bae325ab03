//! Finding the file, laying the environment over it, and telling where a wrong value came from.

use std::path::{Path, PathBuf};

use ::config::{ConfigError, File, FileFormat, Value, ValueKind};
use secrecy::{ExposeSecret, SecretString};

use super::known::{Known, Node};
use super::{Config, Environment, Error, Problem, validate};
use crate::tokens::KeySet;

/// The largest file that is read, configuration or secret.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// Where a file is looked for when nobody names one.
const USUAL_PLACES: [&str; 2] = ["config/gatepost.toml", "/etc/gatepost/gatepost.toml"];

const PREFIX: &str = "GATEPOST__";

/// The token keys' document.
const TOKEN_KEYS: &str = "GATEPOST_TOKEN_KEYS";

/// Variables that everybody knows, and the keys that they stand for.
const WELL_KNOWN: &[(&str, &str)] = &[
    ("DATABASE_URL", "postgres.url"),
    ("DATABASE_DIRECT_URL", "postgres.direct_url"),
    ("RUST_LOG", "log.filter"),
    // Set for all programs of a place, also for those that cannot export.
    #[cfg(feature = "otlp")]
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "otlp.endpoint"),
];

/// A configuration and where it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What holds.
    pub config: Config,
    /// The file; none: defaults and environment only.
    pub file: Option<PathBuf>,
}

/// Reads and checks the configuration. `flag` is `--config`.
///
/// # Errors
/// A named file that cannot be read, syntax, unknown keys, and everything that `validate` refuses.
pub fn load(flag: Option<&Path>, environment: &Environment) -> Result<Loaded, Error> {
    load_from(flag, environment, &USUAL_PLACES.map(PathBuf::from))
}

pub(super) fn load_from(
    flag: Option<&Path>,
    environment: &Environment,
    usual_places: &[PathBuf],
) -> Result<Loaded, Error> {
    let known = Known::new();
    let named = flag.map(Path::to_owned).or(environment.get("GATEPOST_CONFIG").map(Into::into));
    let file = named.or_else(|| usual_places.iter().find(|path| path.exists()).cloned());
    let origin = file.as_ref().map_or("defaults".to_owned(), |path| path.display().to_string());
    let text = match &file {
        Some(path) => read(path, "; it is the configuration file that was asked for")?,
        None => String::new(),
    };
    let overrides = overrides(environment, &known)?;

    let mut builder =
        ::config::Config::builder().add_source(File::from_str(&text, FileFormat::Toml));
    for Override { key, value, .. } in &overrides {
        builder = builder.set_override(key, value.clone()).map_err(|e| told(&origin, &[], e))?;
    }
    let built = builder.build().map_err(|error| told(&origin, &overrides, error))?;

    let mut problems = Vec::new();
    find_unknown(&built.cache, known.root(), &known, "", &origin, &mut problems);
    if !problems.is_empty() {
        return Err(Error::Invalid(problems));
    }
    let mut config: Config =
        built.try_deserialize().map_err(|error| told(&origin, &overrides, error))?;
    for policy in &mut config.policies {
        // The library hands tables over in any order; the document must not change by itself.
        policy.spec.sort_keys();
        policy.spec.values_mut().for_each(serde_json::Value::sort_all_objects);
    }
    config.admin.token = secret(environment, "GATEPOST_ADMIN_TOKEN")?.map(SecretString::from);
    config.tokens.keys = secret(environment, TOKEN_KEYS)?.map(SecretString::from);

    let mut problems = validate::problems(&config, |key| origin_of(key, &overrides, &origin));
    problems.extend(bad_keys(&config));
    if problems.is_empty() { Ok(Loaded { config, file }) } else { Err(Error::Invalid(problems)) }
}

/// What is wrong with the token keys; never what they are.
fn bad_keys(config: &Config) -> Option<Problem> {
    let error = KeySet::parse(config.tokens.keys.as_ref()?.expose_secret()).err()?;
    let (origin, key) = ("environment".into(), TOKEN_KEYS.into());
    Some(Problem { origin, key, message: error.to_string() })
}

/// One key that the environment sets.
struct Override {
    key: String,
    variable: String,
    value: Value,
}

fn overrides(environment: &Environment, known: &Known) -> Result<Vec<Override>, Error> {
    let mut found = Vec::new();
    for &(variable, key) in WELL_KNOWN {
        if let Some(text) = secret(environment, variable)? {
            let value = Value::new(None, text);
            found.push(Override { key: key.into(), variable: variable.into(), value });
        }
    }
    let mut problems = Vec::new();
    for (variable, text) in environment.starting_with(PREFIX) {
        let key = variable[PREFIX.len()..].to_ascii_lowercase().replace("__", ".");
        match value_for(&key, text, known) {
            Ok(value) => found.push(Override { key, variable: variable.into(), value }),
            Err(message) => problems.push(Problem { origin: variable.into(), key, message }),
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(Error::Invalid(problems)) }
}

/// A variable's text as the value of `key`: lists of plain values are separated by commas.
fn value_for(key: &str, text: &str, known: &Known) -> Result<Value, String> {
    let Some(node) = known.at(key) else {
        let (parent, segment) = key.rsplit_once('.').unwrap_or(("", key));
        let place = if parent.is_empty() { Some(known.root()) } else { known.at(parent) };
        let meant = known.suggest(parent, place.unwrap_or(known.root()), segment);
        let as_variable = |key: String| {
            let name = key.to_ascii_uppercase().replace('.', "__");
            format!("unknown key; did you mean `{PREFIX}{name}`?")
        };
        return Err(meant.map_or("unknown key".into(), as_variable));
    };
    match node.items() {
        _ if node.is_table() => Err("is a section; name one of its keys".into()),
        Some(item) if item.is_table() => Err("lists of tables stand in the file only".into()),
        Some(_) => {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            let parts = parts.map(|part| Value::new(None, part)).collect::<Vec<_>>();
            Ok(Value::new(None, parts))
        }
        None => Ok(Value::new(None, text)),
    }
}

/// A variable, or the content of the file that its `_FILE` sibling names.
fn secret(environment: &Environment, variable: &str) -> Result<Option<String>, Error> {
    let file_variable = format!("{variable}_FILE");
    match (environment.get(variable), environment.get(&file_variable)) {
        (Some(_), Some(_)) => Err(Error::Invalid(vec![Problem {
            origin: "environment".into(),
            message: format!("is set, and {file_variable} too; unset one of them"),
            key: variable.into(),
        }])),
        (None, Some(path)) => {
            let text = read(Path::new(path), "; a variable ending in _FILE names it")?;
            Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
        }
        (value, None) => Ok(value.map(str::to_owned)),
    }
}

fn read(path: &Path, hint: &'static str) -> Result<String, Error> {
    let unreadable = |cause| Error::Unreadable { path: path.to_owned(), cause, hint };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > FILE_MAX_BYTES {
        return Err(unreadable(std::io::Error::other(format!(
            "it has {size} bytes; at most {FILE_MAX_BYTES} are read"
        ))));
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

fn find_unknown(
    value: &Value,
    node: Node<'_>,
    known: &Known,
    path: &str,
    origin: &str,
    problems: &mut Vec<Problem>,
) {
    match &value.kind {
        ValueKind::Table(table) if node.is_table() => {
            for (key, value) in table {
                let here = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                if let Some(child) = node.child(key) {
                    find_unknown(value, child, known, &here, origin, problems);
                } else if !node.is_open() {
                    let meant = known.suggest(path, node, key);
                    let hint = meant.map(|key| format!("; did you mean `{key}`?"));
                    let message = format!("unknown key{}", hint.unwrap_or_default());
                    problems.push(Problem { origin: origin.into(), key: here, message });
                }
            }
        }
        ValueKind::Array(list) => {
            let Some(items) = node.items() else { return };
            for (at, value) in list.iter().enumerate() {
                find_unknown(value, items, known, &format!("{path}[{at}]"), origin, problems);
            }
        }
        _ => {}
    }
}

fn origin_of(key: &str, overrides: &[Override], file: &str) -> String {
    let set_by = overrides.iter().rfind(|set| set.key == key);
    set_by.map_or(file, |set| set.variable.as_str()).to_owned()
}

/// The library's error in our words: where, which key, what.
fn told(file: &str, overrides: &[Override], error: ConfigError) -> Error {
    let (key, message) = match error {
        ConfigError::FileParse { cause, .. } => {
            return Error::Syntax { origin: file.into(), message: cause.to_string() };
        }
        ConfigError::NotFound(key) => (key, "missing".to_owned()),
        ConfigError::Type { unexpected, expected, key, .. } => {
            (key.unwrap_or_default(), format!("is {unexpected}; it must be {expected}"))
        }
        ConfigError::At { error, key, .. } => (key.unwrap_or_default(), error.to_string()),
        other => (String::new(), other.to_string()),
    };
    // The library leaves the dot out after a list position.
    let key = key.replace(']', "].").replace("].[", "][").replace("]..", "].");
    let key = key.trim_end_matches('.').to_owned();
    Error::Invalid(vec![Problem { origin: origin_of(&key, overrides, file), key, message }])
}
