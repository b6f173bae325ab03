//! What differs between two configurations, by name and never by value.

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::Config;

/// What can be exchanged while requests run; everything else holds from the next start on.
const EXCHANGED: [&str; 3] = ["routes", "upstreams", "server.echo"];

/// The keys whose value differs and that hold from the next start on only.
pub fn needs_restart(before: &Config, after: &Config) -> Vec<String> {
    let mut found = Vec::new();
    let tree = |config| serde_json::to_value(config).unwrap_or(Value::Null);
    differ(&tree(before), &tree(after), "", &mut found);
    for (key, one, two) in [
        ("admin.token", &before.admin.token, &after.admin.token),
        ("tokens.keys", &before.tokens.keys, &after.tokens.keys),
    ] {
        if exposed(one.as_ref()) != exposed(two.as_ref()) {
            found.push(key.into());
        }
    }
    found
}

fn exposed(secret: Option<&SecretString>) -> Option<&str> {
    secret.map(ExposeSecret::expose_secret)
}

fn differ(before: &Value, after: &Value, key: &str, found: &mut Vec<String>) {
    if before == after || EXCHANGED.contains(&key) {
        return;
    }
    let (Value::Object(one), Value::Object(two)) = (before, after) else {
        found.push(key.to_owned());
        return;
    };
    let only_after = two.keys().filter(|name| !one.contains_key(*name));
    for name in one.keys().chain(only_after) {
        let child = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
        let value = |table: &serde_json::Map<_, _>| table.get(name).cloned().unwrap_or(Value::Null);
        differ(&value(one), &value(two), &child, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::UpstreamConfig;

    #[test]
    fn what_needs_a_restart_is_named_and_routes_do_not() {
        let before = Config::default();
        let mut after = before.clone();
        assert_eq!(needs_restart(&before, &after), [""; 0]);
        after.server.echo = true;
        after.upstreams.push(UpstreamConfig { name: "a".into(), ..UpstreamConfig::default() });
        assert_eq!(needs_restart(&before, &after), [""; 0]);
        after.server.max_connections = 1;
        after.postgres = Some(Default::default());
        after.admin.token = Some("s3cret".into());
        let named = needs_restart(&before, &after);
        assert_eq!(named, ["server.max_connections", "postgres", "admin.token"]);
    }
}
