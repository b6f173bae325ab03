//! How configurations are found, layered, refused and printed.

use std::path::PathBuf;

use secrecy::ExposeSecret;

use super::load::load_from;
use super::*;
use crate::journal::Commit;
use crate::model::policy::Mode;
use crate::model::units::{Size, Span};

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    }
}

fn environment(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().copied().collect()
}

/// Loads `text` as the named file, with `pairs` as the environment.
fn loaded(text: &str, pairs: &[(&str, &str)]) -> Result<Config, String> {
    let files = Files::new();
    let file = files.write("gatepost.toml", text);
    let loaded = load_from(Some(&file), &environment(pairs), &[]);
    let place = format!("{}/", files.0.path().display());
    loaded.map(|loaded| loaded.config).map_err(|error| error.to_string().replace(&place, ""))
}

fn refused(text: &str, pairs: &[(&str, &str)]) -> String {
    loaded(text, pairs).expect_err("must be refused")
}

#[test]
fn nothing_at_all_is_the_embedded_default() {
    let loaded = load_from(None, &Environment::default(), &[]).expect("defaults are valid");
    assert_eq!(loaded.file, None);
    assert!(loaded.config.postgres.is_none());
    assert_eq!(loaded.config.admin.listen.to_string(), "127.0.0.1:8081");
    assert_eq!(loaded.config.journal, crate::journal::Config::default());
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_default() {
    let text = "[journal]\ninterval = \"70ms\"\nmax_bytes = \"2GiB\"\n[cache]\nhot_entries = 5";
    let config = loaded(text, &[("GATEPOST__JOURNAL__INTERVAL", "90ms")]).expect("valid");
    assert_eq!(config.journal.interval, Span::millis(90));
    assert_eq!(config.journal.max_bytes, Size::mib(2048));
    assert_eq!(config.journal.commit, Commit::Interval);
    assert_eq!(config.cache.hot_entries, 5);
}

#[test]
fn every_kind_of_value_can_come_from_a_variable() {
    let config = loaded(
        "",
        &[
            ("GATEPOST__SERVER__TRUSTED_PROXIES", "10.0.0.0/8, ::1/128"),
            ("GATEPOST__SERVER__ECHO", "true"),
            ("GATEPOST__DRAIN__BATCH_ROWS", "7"),
            ("GATEPOST__CACHE__MAX_REMOVED_SHARE", "0.5"),
            ("GATEPOST__JOURNAL__COMMIT", "before_reply"),
            ("GATEPOST__DATA__NODE", "12"),
        ],
    )
    .expect("valid");
    assert_eq!(config.server.trusted_proxies.len(), 2);
    assert!(config.server.echo);
    assert_eq!(config.drain.batch_rows, 7);
    assert!((config.cache.max_removed_share - 0.5).abs() < f64::EPSILON);
    assert_eq!(config.journal.commit, Commit::BeforeReply);
    assert_eq!(config.data.node.as_deref(), Some("12"));
}

#[test]
fn the_file_is_searched_in_the_order_of_the_contract() {
    let files = Files::new();
    let file = |name: &str, node: &str| files.write(name, &format!("[data]\nnode = \"{node}\""));
    let (flag, named) = (file("flag", "flag"), file("named", "named"));
    let usual = [files.0.path().join("absent"), file("second", "second")];
    let named = environment(&[("GATEPOST_CONFIG", named.to_str().expect("UTF-8"))]);
    let none = Environment::default();
    let node = |flag, environment| {
        load_from(flag, environment, &usual).expect("valid").config.data.node.expect("set")
    };
    assert_eq!(node(Some(flag.as_path()), &named), "flag");
    assert_eq!(node(None, &named), "named");
    assert_eq!(node(None, &none), "second");
}

#[test]
fn a_named_file_must_be_there() {
    let missing = PathBuf::from("/nonexistent/gatepost.toml");
    let error = load_from(Some(&missing), &Environment::default(), &[]).expect_err("missing");
    assert!(error.to_string().starts_with("/nonexistent/gatepost.toml: cannot be read"), "{error}");
}

#[test]
fn unknown_keys_are_refused_with_what_was_probably_meant() {
    for (text, expected) in [
        ("[server]\nlisten_ = \"x\"", "server.listen_: unknown key; did you mean `server.listen`?"),
        ("[sever]\nlisten = \"x\"", "sever: unknown key; did you mean `server`?"),
        (
            "[server]\nmax_stale = \"1h\"",
            "server.max_stale: unknown key; did you mean `cache.max_stale`?",
        ),
        (
            "[[keys]]\nclient = \"a\"\ndigets = \"\"",
            "keys[0].digets: unknown key; did you mean `keys[0].digest`?",
        ),
        ("[cache]\nzzzzzzzz = 1", "cache.zzzzzzzz: unknown key"),
        ("[admin]\ntoken = \"secret\"", "admin.token: unknown key"),
    ] {
        assert_eq!(refused(text, &[]), format!("gatepost.toml: {expected}"));
    }
    assert_eq!(
        refused("", &[("GATEPOST__JOURNAL__INTERVALL", "1s")]),
        "GATEPOST__JOURNAL__INTERVALL: journal.intervall: unknown key; \
         did you mean `GATEPOST__JOURNAL__INTERVAL`?"
    );
    let lists = refused("", &[("GATEPOST__CLIENTS", "a")]);
    assert!(lists.ends_with("lists of tables stand in the file only"), "{lists}");
}

#[test]
fn wrong_types_name_the_key_and_where_it_was_set() {
    let error = refused("[journal]\ninterval = \"soon\"", &[]);
    assert!(error.starts_with("gatepost.toml: journal.interval: `soon` is not a dur"), "{error}");
    let error = refused("", &[("GATEPOST__CACHE__HOT_ENTRIES", "many")]);
    assert!(error.starts_with("GATEPOST__CACHE__HOT_ENTRIES: cache.hot_entries: "), "{error}");
    let error = refused("[server\n", &[]);
    assert!(error.starts_with("gatepost.toml: not valid TOML\n"), "{error}");
    assert!(error.contains("line 1"), "{error}");
    let error = refused("[[keys]]\nclient = \"a\"", &[]);
    assert_eq!(error, "gatepost.toml: keys[0].digest: missing");
    let error = refused("[server]\ntrusted_proxies = [\"::1/128\", \"010.0.0.0/8\"]", &[]);
    let told = "gatepost.toml: server.trusted_proxies[1]: `010.0.0.0/8` is not a network; ";
    assert!(error.starts_with(told), "{error}");
}

#[test]
fn values_beyond_their_bounds_are_refused_all_at_once() {
    let text = r#"
[server]
trusted_proxies = ["10.0.0.0/8", "::ffff:192.0.2.0/120"]
[admin]
listen = "0.0.0.0:8081"
[journal]
interval = "0s"
segment_max_bytes = "2GiB"
[cache]
hot_entries = 0
[[upstreams]]
name = "orders"
targets = ["http://127.0.0.1:9000"]
[[routes]]
path = "/x"
upstream = "order"
[[clients]]
name = "a"
[[clients]]
name = "a"
[[keys]]
client = "b"
digest = "abc"
scopes = ["openid", "orders..read"]
"#;
    let error = refused(text, &[("GATEPOST__DRAIN__BATCH_ROWS", "0")]);
    for expected in [
        "gatepost.toml: admin.listen: 0.0.0.0:8081 is not a loopback address",
        "server.trusted_proxies[1]: ::ffff:192.0.2.0/120 maps IPv4 addresses, and would match \
         none; write 192.0.2.0/24",
        "gatepost.toml: journal.interval: must be more than zero",
        "gatepost.toml: journal.segment_max_bytes: 2.0 GiB is more than journal.max_bytes",
        "gatepost.toml: cache.hot_entries: must be at least 1",
        "GATEPOST__DRAIN__BATCH_ROWS: drain.batch_rows: must lie between 1 and 100000",
        "routes[0].upstream: there is no upstream named `order` (known: `orders`)",
        "clients[1].name: `a` is declared twice",
        "keys[0].client: there is no client named `b` (known: `a`, `a`)",
        "keys[0].digest: must be the SHA-256",
        "keys[0].scopes[1]: `orders..read` is no right",
    ] {
        assert!(error.contains(expected), "{expected}\n--- not in:\n{error}");
    }
    assert_eq!(error.lines().count(), 11, "{error}");
}

#[test]
fn spans_need_a_build_that_can_export_them() {
    let told = loaded("otlp.endpoint = \"http://collector:4318\"", &[]);
    let ambient = &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")];
    let found = loaded("", ambient).expect("what all programs are told harms none").otlp;
    if cfg!(feature = "otlp") {
        assert_eq!(told.expect("it can").otlp, found);
        assert_eq!(found.expect("a section").endpoint, "http://collector:4318");
        let error = refused("[otlp]\nsample = 2", &[]);
        assert_eq!(error, "gatepost.toml: otlp.sample: must lie between 0 and 1");
    } else {
        let error = told.expect_err("it cannot");
        assert!(error.contains("otlp: ") && error.contains("--features otlp"), "{error}");
        assert_eq!(found, None);
    }
}

#[test]
fn a_remote_admin_plane_needs_the_explicit_word() {
    let text = "[admin]\nlisten = \"0.0.0.0:8081\"\nallow_remote = true";
    assert!(loaded(text, &[]).expect("allowed").admin.allow_remote);
}

#[test]
fn secrets_come_from_variables_or_files_but_not_from_both() {
    let files = Files::new();
    let url = files.write("url", "postgres://u:p@h/db\n");
    let token = files.write("token", "s3cret\r\n");
    let (url, token) = (url.to_str().expect("UTF-8"), token.to_str().expect("UTF-8"));
    let from_files = [("DATABASE_URL_FILE", url), ("GATEPOST_ADMIN_TOKEN_FILE", token)];
    let config = loaded("", &from_files).expect("valid");
    let expected = DatabaseUrl::new("postgres://u:p@h/db");
    assert_eq!(config.postgres.expect("configured").url, Some(expected));
    assert_eq!(config.admin.token.expect("set").expose_secret(), "s3cret");

    let error = refused("", &[("DATABASE_URL_FILE", url), ("DATABASE_URL", "postgres://h")]);
    assert!(error.contains("DATABASE_URL_FILE too; unset one of them"), "{error}");
    let error = refused("", &[("DATABASE_URL_FILE", "/nonexistent")]);
    assert!(error.starts_with("/nonexistent: cannot be read"), "{error}");
}

#[test]
fn token_keys_come_from_the_environment_and_are_checked_without_being_shown() {
    let bytes = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc";
    let at = "2026-01-01T00:00:00Z";
    let document = serde_json::json!({
        "version": 1,
        "secrets": [{ "id": "s1", "created_at": at, "secret": bytes }],
        "signing_keys": [{ "id": "k1", "created_at": at, "seed": bytes }],
    });
    let (files, document) = (Files::new(), document.to_string());
    let file = files.write("keys", &format!("{document}\n"));
    let named = [("GATEPOST_TOKEN_KEYS_FILE", file.to_str().expect("UTF-8"))];
    let config = loaded("", &named).expect("valid");
    assert_eq!(config.tokens.keys.as_ref().expect("set").expose_secret(), document);
    assert!(!redacted_toml(&config).contains(bytes));
    assert!(!format!("{config:?}").contains(bytes));

    let error = refused("", &[("GATEPOST_TOKEN_KEYS", &document.replace("\"s1\"", "\"s_1\""))]);
    assert!(error.contains("token key's id") && !error.contains(bytes), "{error}");
    let error = refused("[tokens]\nkeys = \"{}\"", &[]);
    assert!(error.contains("tokens.keys: unknown key"), "{error}");
    let error = refused("[tokens]\ngrace = \"11m\"", &[]);
    assert!(error.contains("tokens.grace` is 11m; it must lie between 0s and 10m"), "{error}");
}

#[test]
fn database_url_stands_for_the_section_and_empty_variables_for_nothing() {
    let config = loaded("", &[("DATABASE_URL", ""), ("GATEPOST__DATA__NODE", "")]).expect("valid");
    assert!(config.postgres.is_none());
    assert_eq!(config.data.node, None);

    let text = "[postgres]\nurl = \"postgres://file\"\nauth_pool_max = 3";
    let pairs = [("DATABASE_URL", "postgres://env"), ("DATABASE_DIRECT_URL", "postgres://direct")];
    let postgres = loaded(text, &pairs).expect("valid").postgres.expect("configured");
    assert_eq!(postgres.url, Some(DatabaseUrl::new("postgres://env")));
    assert_eq!(postgres.direct_url, Some(DatabaseUrl::new("postgres://direct")));
    assert_eq!(postgres.auth_pool_max, 3);

    let error = refused("[postgres]\nauth_pool_max = 3", &[]);
    assert!(error.contains("postgres.url: missing; set it or DATABASE_URL"), "{error}");
}

#[test]
fn print_hides_passwords_and_reads_back_as_the_same_configuration() {
    let url = "postgres://gatepost:hunter2@db:5432/gatepost";
    let text = "[[policies]]\nname = \"standard\"\nconcurrency = { per = \"key\", limit = 5 }\n";
    let config = loaded(text, &[("DATABASE_URL", url)]).expect("valid");
    let printed = redacted_toml(&config);
    assert!(!printed.contains("hunter2"), "{printed}");
    // The URL itself is given again: what was printed of it leads nowhere.
    let again = loaded(&printed, &[("DATABASE_URL", url)]).expect("what is printed is valid");
    assert_eq!(redacted_toml(&again), printed);
    assert_eq!(again.policies[0].spec["concurrency"]["limit"], 5);
}

#[test]
fn what_serve_would_refuse_is_refused_here_and_said_once() {
    let upstream = "[[upstreams]]\nname = \"a\"\ntargets = [\"http://h:1\"]\n";
    let route = "[[routes]]\npath = \"/x\"\nupstream = \"a\"\n";
    for (text, expected) in [
        (upstream.replace("http:", "ftp:"), "upstreams: upstream `a`: `ftp://h:1` is not a"),
        (upstream.replace("h:1", "me:sesame@h:1"), "upstreams: upstream `a`: `http://me:***@h:1`"),
        (
            upstream.replace("\"a\"", "\"echo\"") + "[server]\necho = true",
            "upstreams: there are two upstreams named `echo`",
        ),
        (format!("{upstream}{}", route.replace("/x", "/readyz")), "routes: route `/readyz` would"),
        (format!("{upstream}{route}{route}"), "routes: routes `/x` and `/x` match the same"),
        (route.to_owned(), "routes[0].upstream: there is no upstream named `a`"),
        ("[postgres]\nurl = \"nonsense\"".into(), "postgres.url: the Postgres URL cannot be used"),
        (
            "[postgres]\nurl = \"postgres://h/d\"\ndirect_url = \"postgres://u:sesame@h:x/d\""
                .into(),
            "postgres.direct_url: the Postgres URL cannot be used",
        ),
        ("[journal]\ninterval = \"11s\"".into(), "journal.interval: must be at most 10s"),
    ] {
        let error = refused(&text, &[]);
        assert!(error.starts_with(&format!("gatepost.toml: {expected}")), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(!error.contains("sesame"), "{error}");
    }
    let scopes = format!(
        "[[clients]]\nname = \"a\"\n[[keys]]\nclient = \"a\"\ndigest = \"{}\"\nscopes = [\"a b\"]",
        development_key().digest()
    );
    let error = refused(&scopes, &[]);
    assert!(error.contains("keys[0].scopes: ") && error.contains("without whitespace"), "{error}");
}

#[test]
fn declared_keys_keep_their_id() {
    let digest = development_key().digest();
    let id = declared_key_id(&digest);
    assert_eq!(id.get_version_num(), 8);
    assert_eq!(id, declared_key_id(&digest));

    let text = format!(
        "[[clients]]\nname = \"a\"\nmode = \"observe\"\n[[keys]]\nclient = \"a\"\n\
         digest = \"{digest}\"\n\
         expires_at = 2030-01-02T03:04:05Z\nscopes = [\"x\"]"
    );
    let declared = loaded(&text, &[]).expect("valid").declared(&"gw".into());
    let key = &declared.keys[0];
    assert_eq!(key.id, id);
    assert_eq!(key.prefix, DECLARED_PREFIX);
    assert_eq!(key.expires_at.expect("set").to_string(), "2030-01-02T03:04:05Z");
    assert_eq!(declared.clients.len(), 1);
    assert_eq!(declared.modes.get("a"), Some(&Mode::Observe));
}

#[test]
fn a_mode_that_is_none_is_named_with_its_place() {
    let error = refused("[[clients]]\nname = \"a\"\nmode = \"watch\"", &[]);
    assert!(error.contains("clients[0].mode: ") && error.contains("watch"), "{error}");
}

#[test]
fn the_shipped_configuration_is_valid_and_declares_the_development_key() {
    let shipped = include_str!("../../config/gatepost.toml");
    let config = loaded(shipped, &[]).expect("valid");
    assert!(config.declares_development_key(), "{}", development_key().digest());
    assert!(crate::model::api_key::is_well_formed(development_key().reveal()));
    assert!(config.server.echo);
    assert!(config.postgres.is_none());
    assert_eq!(config.clients[0].name, "demo");
}
