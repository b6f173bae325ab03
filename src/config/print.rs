//! `config print` and `config schema`.

use serde_json::Value;

use super::Config;

/// What holds, as TOML, with the passwords in URLs replaced.
pub fn redacted_toml(config: &Config) -> String {
    let mut value = serde_json::to_value(config).unwrap_or(Value::Null);
    clean(&mut value);
    // A tree of tables, lists, strings and numbers is always TOML.
    toml::to_string_pretty(&value).unwrap_or_default()
}

/// The JSON schema of the configuration file.
pub fn schema() -> Value {
    schemars::schema_for!(Config).to_value()
}

/// Drops what is not set (TOML has no null) and hides passwords, wherever a URL stands.
fn clean(value: &mut Value) {
    match value {
        Value::Object(table) => {
            table.retain(|_, value| !value.is_null());
            table.values_mut().for_each(clean);
        }
        Value::Array(list) => list.iter_mut().for_each(clean),
        Value::String(text) => {
            if let Some(redacted) = without_password(text) {
                *text = redacted;
            }
        }
        _ => {}
    }
}

/// `scheme://user:password@host/…?password=…` with both passwords as `***`; `None`: it is no URL.
fn without_password(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    // A password may hold an unescaped `/` or `@` by mistake: up to the last `@` nothing is shown.
    let rest = match rest.rsplit_once('@') {
        Some((userinfo, host)) => {
            let user = userinfo.split(':').next().unwrap_or_default();
            let hidden = if userinfo.contains(':') { ":***" } else { "" };
            format!("{user}{hidden}@{host}")
        }
        None => rest.to_owned(),
    };
    let Some((base, query)) = rest.split_once('?') else {
        return Some(format!("{scheme}://{rest}"));
    };
    let hide = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if name.contains("password") => format!("{name}=***"),
        _ => pair.to_owned(),
    };
    let query = query.split('&').map(hide).collect::<Vec<_>>().join("&");
    Some(format!("{scheme}://{base}?{query}"))
}

#[cfg(test)]
mod tests {
    use super::without_password;

    #[test]
    fn passwords_are_hidden_wherever_a_url_carries_them() {
        let hidden = |url| without_password(url).expect("a URL");
        assert_eq!(hidden("postgres://u:secret@h:5432/db"), "postgres://u:***@h:5432/db");
        assert_eq!(hidden("postgres://u:a/b@c@h/db"), "postgres://u:***@h/db");
        assert_eq!(hidden("postgres://u@h/db"), "postgres://u@h/db");
        assert_eq!(
            hidden("postgres:///db?user=u&password=x"),
            "postgres:///db?user=u&password=***"
        );
        assert_eq!(hidden("http://127.0.0.1:9000"), "http://127.0.0.1:9000");
        assert_eq!(without_password("127.0.0.1:8080"), None);
    }
}
