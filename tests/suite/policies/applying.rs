//! Files of policies: refused with the field that is wrong, tried dry, removed only where nobody
//! has them.

use super::*;

#[tokio::test]
async fn what_is_wrong_is_told_with_its_field_and_nothing_changes() {
    let db = Database::new().await;
    let gateway = ready(&db, "").await;
    enforce(&gateway, "[[policies]]\nname = \"standard\"\nrights = [\"orders.read\"]\n").await;
    let key = key_with(&gateway, "acme", "standard").await;
    let still = async || {
        let write = forwarded(&gateway, &key.key, Method::POST, "/rest/v1/orders").await;
        assert_eq!(write.status, 403);
    };
    for (text, told) in [
        (
            "[[policies]]\nname = \"standard\"\nrate_limits = [{ name = \"a\", limit = 0, window \
            = \"1s\" }]\n",
            "policies[0].rate_limits[0].limit: must be at least 1",
        ),
        (
            "[[policies]]\nname = \"other\"\n[[policies]]\nname = \"standard\"\nip_deny = \
            [\"10.0.0.0/99\"]\n",
            "policies[1].ip_deny[0]: ",
        ),
        (
            "[[policies]]\nname = \"standard\"\nquotas = [{ name = \"m\", limit = 5, period = \
            \"month\", timezone = \"Nowhere\" }]\n",
            "policies[0].quotas[0].timezone: ",
        ),
        (
            "[[policies]]\nname = \"standard\"\nrate_limits = [{ name = \"a\", limit = 4294967296, \
             window = \"1s\" }]\n",
            "policies[0].rate_limits[0].limit: invalid value",
        ),
        (
            "[[policies]]\nname = \"standard\"\nrights = [\"orders.write\", \"or ders.read\"]\n",
            "policies[0].rights[1]: `or ders.read` is no right",
        ),
        ("[[policies]]\nname = \"standard\"\nlimits = 5\n", "policies[0].limits: unknown field"),
        ("[[clients]]\nname = \"x\"\n", "unknown key `clients`"),
        ("[[policies]\n", "policies.toml"),
    ] {
        let ran = apply(&gateway, text, &[]).await;
        assert!(ran.code != Some(0) && ran.stderr.contains(told), "{ran:?}");
        still().await;
    }
    assert_eq!(db.number("SELECT count(*) FROM gatepost.policies").await, 1, "none of a file");
    // Somebody's own hand in the database: what held before holds on, and it is said.
    db.execute("UPDATE gatepost.policies SET spec = '{\"rights\": [\"or ders.read\"]}'").await;
    until("it is refused", || async {
        gateway.said().contains("a policy in Postgres cannot be used")
    })
    .await;
    still().await;
    assert!(gateway.said().contains("rights[0]: `or ders.read` is no right"), "{}", gateway.said());
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_what_is_in_use_is_not_removed() {
    let db = Database::new().await;
    let gateway = ready(&db, "").await;
    let first = "[[policies]]\nname = \"a\"\nmode = \"observe\"\n[[policies]]\nname = \"b\"\n";
    let dry = apply(&gateway, first, &["--dry-run"]).await.json();
    assert_eq!(dry["applied"], false);
    assert_eq!(dry["changes"][0]["difference"], json!(["+ mode = \"observe\""]));
    assert_eq!(db.number("SELECT count(*) FROM gatepost.policies").await, 0);
    enforce(&gateway, first).await;
    let key = key_with(&gateway, "acme", "b").await;
    gateway.drain().await;

    // A file that lost its text is none.
    let empty = apply(&gateway, "", &["--prune"]).await;
    assert!(empty.code == Some(2) && empty.stderr.contains("`policies = []`"), "{empty:?}");
    assert_eq!(db.number("SELECT count(*) FROM gatepost.policies").await, 2);
    let second = "[[policies]]\nname = \"a\"\nmode = \"enforce\"\n";
    for more in [&["--prune"][..], &["--prune", "--dry-run"]] {
        let refused = apply(&gateway, second, more).await;
        let told = refused.stderr.contains("policies: policy b is in use by key");
        assert!(refused.code == Some(1) && told, "{refused:?}");
    }
    let modes = "SELECT count(*) FROM gatepost.policies WHERE spec ->> 'mode' = 'observe'";
    assert_eq!(db.number(modes).await, 1, "all of it or nothing");
    let by_hand = sqlx::query("DELETE FROM gatepost.policies WHERE name = 'b'");
    assert!(by_hand.execute(&mut db.connect().await).await.is_err(), "nor by anybody else");

    let changed = apply(&gateway, second, &[]).await.json();
    let difference = json!(["- mode = \"observe\"", "+ mode = \"enforce\""]);
    assert_eq!(changed["changes"][0]["difference"], difference);
    let history = "SELECT count(*) FROM gatepost.audit_log WHERE action = 'policy.apply' AND \
        subject = 'a' \
                   AND actor = 'admin' AND detail -> 'after' ->> 'mode' = 'enforce' \
                   AND detail -> 'before' ->> 'mode' = 'observe'";
    assert_eq!(db.number(history).await, 1);
    assert_eq!(gateway.http().verdict(&key.key).await.0, 200);
    let shown = gateway.run(&["policy", "show", "a"]).await.json();
    assert_eq!((&shown["source"], &shown["spec"]["mode"]), (&json!("postgres"), &json!("enforce")));

    // When nobody has it any more it goes, and that stands in the history too.
    db.execute("UPDATE gatepost.api_keys SET policy = 'a'").await;
    // (This gateway learns of that by the feed.)
    until("nobody has it", || async {
        apply(&gateway, second, &["--prune", "--dry-run"]).await.code == Some(0)
    })
    .await;
    let dry = apply(&gateway, second, &["--prune", "--dry-run"]).await.json();
    let removed = |outcome: &Value| {
        let changes = outcome["changes"].as_array().unwrap();
        changes.iter().any(|change| change["name"] == "b" && change["change"] == "remove")
    };
    assert!(removed(&dry), "{dry}");
    assert_eq!(db.number("SELECT count(*) FROM gatepost.policies").await, 2);
    assert!(removed(&apply(&gateway, second, &["--prune"]).await.json()));
    let gone = "SELECT count(*) FROM gatepost.audit_log WHERE action = 'policy.remove' AND \
                subject = 'b' AND detail ->> 'after' IS NULL AND detail ? 'before'";
    assert_eq!(db.number(gone).await, 1, "and of the dry runs there is no trace");
    until("it is gone here", || async {
        let listed = gateway.run(&["policy", "list"]).await.json();
        listed.as_array().unwrap().iter().all(|policy| policy["name"] != "b")
    })
    .await;
}

#[tokio::test]
async fn what_is_used_here_only_is_not_removed_either() {
    let db = Database::new().await;
    let settings = format!("{QUICK}[drain]\ninterval = \"1h\"\n[[clients]]\nname = \"declared\"\n");
    let mut gateway = Gateway::new(Some(&db.url), &settings);
    gateway.start_ready().await;
    // Postgres has neither the client, whose policy is `default`, nor the key.
    let names = ["default", "b", "c"].map(|name| format!("[[policies]]\nname = \"{name}\"\n"));
    enforce(&gateway, &names.concat()).await;
    let key = key_with(&gateway, "declared", "b").await;
    for (kept, told) in [
        (
            [&names[1], &names[2]],
            "policies: policy default is in use by client declared".to_owned(),
        ),
        ([&names[0], &names[2]], format!("policies: policy b is in use by key {}", key.id)),
    ] {
        let refused = apply(&gateway, &kept.map(String::as_str).concat(), &["--prune"]).await;
        assert!(refused.code == Some(1) && refused.stderr.contains(&told), "{refused:?}");
    }
    let kept = [&names[0], &names[1]].map(String::as_str).concat();
    apply(&gateway, &kept, &["--prune"]).await.json();
    assert_eq!(db.number("SELECT count(*) FROM gatepost.policies").await, 2);
}

#[tokio::test]
async fn keys_that_are_over_keep_no_policy_and_a_name_in_use_stays() {
    let db = Database::new().await;
    let gateway = ready(&db, "").await;
    let [a, b] = ["a", "b"].map(|name| format!("[[policies]]\nname = \"{name}\"\n"));
    apply(&gateway, &format!("{a}{b}"), &[]).await.json();
    // At once: whether it has come by the feed or not.
    let [one, two] = [key_with(&gateway, "acme", "b").await, key_with(&gateway, "acme", "b").await];
    for asked in [&["key", "create", "--client", "acme"][..], &["client", "create", "other"]] {
        let refused = gateway.run(&[asked, &["--policy", "nowhere"]].concat()).await;
        let told = refused.stderr.contains("there is no policy `nowhere`");
        assert!(refused.code == Some(1) && told, "{refused:?}");
    }
    gateway.drain().await;
    let refused = async |sql: &'static str| {
        let error = sqlx::query(sql).execute(&mut db.connect().await).await.unwrap_err();
        assert!(error.to_string().contains("policy b is in use by key"), "{error}");
    };
    let rename = "UPDATE gatepost.policies SET name = 'c' WHERE name = 'b'";
    refused(rename).await;
    gateway.revoke(&one).await;
    gateway.drain().await;
    refused(rename).await;
    refused("DELETE FROM gatepost.policies WHERE name = 'b'").await;
    let expired = "UPDATE gatepost.api_keys SET expires_at = now() - interval '1 hour' \
                   WHERE id::text NOT IN (SELECT id FROM gatepost.revocations)";
    db.execute(expired).await;
    until("both are over", || async {
        let of = async |key: &Made| gateway.http().verdict(&key.key).await.1;
        (of(&one).await, of(&two).await) == ("key_revoked".into(), "key_expired".into())
    })
    .await;
    db.execute(rename).await;
    apply(&gateway, &a, &["--prune"]).await.json();
    assert_eq!(db.number("SELECT count(*) FROM gatepost.policies").await, 1);
    // What they are refused for stays what it was.
    until("it is gone here", || async {
        gateway.run(&["policy", "list"]).await.json().as_array().unwrap().len() == 1
    })
    .await;
    assert_eq!(gateway.http().verdict(&one.key).await, (401, "key_revoked".into()));
}
