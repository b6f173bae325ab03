//! Databases that are missing, of another version, or not where the URL says.

use crate::support::database::Database;
use crate::support::house::{House, declared, get, key, until};

fn section(url: &str) -> String {
    format!("[postgres]\nurl = \"{url}\"\n")
}

#[test]
fn migrate_tells_an_absent_database_from_a_wrong_url() {
    let (code, _, said) = House::new(&section("postgres://a@127.0.0.1:1/b")).run(&["migrate"]);
    assert_eq!(code, 69, "{said}");
    for url in ["nonsense", "http://127.0.0.1/b", "postgres://127.0.0.1:port/b"] {
        let (code, _, said) = House::new(&section(url)).run(&["migrate"]);
        assert_eq!(code, 78, "{url}: {said}");
        assert!(said.contains("postgres://user@host/database"), "{said}");
    }
    let (code, _, said) = House::new("").run(&["migrate"]);
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("DATABASE_URL"), "{said}");
}

#[test]
fn a_password_is_never_repeated() {
    for url in ["postgres://a:hunter2@127.0.0.1:1/b", "postgres://a:hunter2@127.0.0.1:port/b"] {
        for args in [&["migrate"][..], &["doctor"], &["config", "print"]] {
            let (_, out, said) = House::new(&section(url)).run(args);
            assert!(!format!("{out}{said}").contains("hunter2"), "{args:?}: {out}{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_tables_is_said_and_known_keys_go_on() {
    let database = Database::new().await;
    let known = format!("{}{}", section(&database.url), declared("shop", &key(1)));
    let house = House::new(&known);
    // Caught up with once: from then on what is known is answered from here.
    let gateway = house.serve();
    let ask = |address| get(address, "/authz/forward-auth", &[("X-API-Key", &key(1))]).status;
    until("the first catch-up", || (ask(gateway.data) == 200).then_some(()));
    gateway.stop();

    database.execute("DROP SCHEMA gatepost CASCADE").await;
    let mut gateway = house.serve();
    let said = gateway.program.hear("gatepost migrate");
    assert!(said.contains("lacks gatepost's tables"), "{said}");
    assert_eq!(ask(gateway.data), 200);
    assert_eq!(get(gateway.data, "/readyz", &[]).status, 200);
    let (code, out, _) = house.run(&["doctor", "--output", "table"]);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("FAIL") && out.contains("run `gatepost migrate`"), "{out}");
    let (code, _, said) = house.run(&["migrate"]);
    assert_eq!(code, 0, "{said}");
    gateway.program.hear("following Postgres");
    gateway.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_a_later_version_is_left_alone() {
    let database = Database::new().await;
    let house = House::new(&section(&database.url));
    database
        .execute(
            "INSERT INTO gatepost.schema_migrations
                 (version, description, success, checksum, execution_time)
             VALUES (9999, 'later', true, '', 0)",
        )
        .await;
    let (code, _, said) = house.run(&["migrate"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("9999") && said.contains("upgrade gatepost"), "{said}");
    let (code, out, _) = house.run(&["doctor", "--output", "table"]);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("9999") && out.contains("update gatepost"), "{out}");
}
