//! Rates, places and addresses.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::places::endless;
use super::*;

#[tokio::test]
async fn limits_are_told_and_refusals_say_when_to_come_again() {
    let mut gateway = Gateway::new(
        None,
        "[admission]\nlimit_headers = \"both\"\n[[clients]]\nname = \"acme\"\n[[policies]]\nname \
            = \"default\"\n\
         rate_limits = [{ name = \"burst\", limit = 1, window = \"1h\", burst = 2, per = \"key\" \
         },\n\
                        { name = \"steady\", limit = 100, window = \"1m\" }]\n",
    );
    gateway.start().await;
    let (key, other) = (gateway.create_key("acme").await, gateway.create_key("acme").await);
    let first = gateway.http().authorize(&key.key).await.unwrap();
    assert_eq!(
        first.header("ratelimit-policy"),
        Some(r#""burst";q=2;w=7200, "steady";q=100;w=60"#)
    );
    let told = first.header("ratelimit").unwrap();
    assert!(told.starts_with(r#""burst";r=1;t=3600, "steady";r=99;t=1"#), "{told}");
    assert_eq!(first.header("x-ratelimit-limit"), Some("2"));
    assert_eq!(first.header("x-ratelimit-remaining"), Some("1"));
    assert_eq!(gateway.http().verdict(&key.key).await.0, 200);
    let refused = gateway.http().authorize(&key.key).await.unwrap();
    assert_eq!((refused.status, &*refused.code()), (429, "rate_limited"));
    assert!(refused.body.contains("`burst`"), "{}", refused.body);
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((3500..=3600).contains(&wait), "{wait}");
    assert!(refused.header("ratelimit").unwrap().starts_with(r#""burst";r=0;t=7200"#));
    let bearer = format!("Bearer {}", key.key);
    let headers = [("authorization", &*bearer)];
    let nginx = gateway.http().ask(Method::GET, "/authz/auth-request", &headers, "").await.unwrap();
    assert_eq!((nginx.status, nginx.header("x-gatepost-deny-status")), (403, Some("429")));
    assert!(nginx.header("x-gatepost-retry-after").is_some());
    // The client's limit is shared; the key's is not, and a refusal took nothing from either.
    let answer = gateway.http().authorize(&other.key).await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.header("ratelimit").unwrap().contains(r#""steady";r=9"#));
    let heavy = verify(&gateway, json!({ "key": other.key, "cost": 2 })).await;
    assert_eq!((heavy.status, &heavy.json()["code"]), (200, &json!("rate_limited")));
    // Memory only: a restart grants a burst again.
    gateway.terminate().await;
    gateway.start().await;
    assert_eq!(gateway.http().verdict(&key.key).await.0, 200);
}

/// On a permit and on a refusal, asked by a proxy and on a route.
#[tokio::test]
async fn limits_are_told_in_the_headers_that_were_asked_for() {
    for (setting, standard, legacy) in
        [("standard", true, false), ("legacy", false, true), ("off", false, false)]
    {
        let mut gateway = Gateway::new(
            None,
            &format!(
                "[admission]\nlimit_headers = \"{setting}\"\n{ORDERS}\
                 [[clients]]\nname = \"acme\"\n[[policies]]\nname = \"default\"\n\
                 rate_limits = [{{ name = \"r\", limit = 1, window = \"1h\", per = \"key\" }}]\n"
            ),
        );
        gateway.start().await;
        for path in ["/authz/forward-auth", "/rest/v1/orders"] {
            let key = gateway.create_key("acme").await;
            for status in [200, 429] {
                let answer = forwarded(&gateway, &key.key, Method::GET, path).await;
                assert_eq!(answer.status, status, "{path}: {}", answer.body);
                let has = |name| answer.header(name).is_some();
                let told = [
                    has("ratelimit"),
                    has("ratelimit-policy"),
                    has("x-ratelimit-limit"),
                    has("x-ratelimit-remaining"),
                    has("x-ratelimit-reset"),
                    has("retry-after"),
                ];
                let wanted = [standard, standard, legacy, legacy, legacy, status == 429];
                assert_eq!(told, wanted, "{setting}, {path}, {status}");
            }
        }
    }
}

#[tokio::test]
async fn verify_names_the_limit_that_refuses_and_when_to_come_again() {
    let upstream = endless().await;
    let mut gateway = Gateway::new(
        None,
        &format!(
            "[[upstreams]]\nname = \"drip\"\ntargets = [\"{upstream}\"]\n\
             [[routes]]\npath = \"/drip\"\nupstream = \"drip\"\n\
             [[clients]]\nname = \"acme\"\n\
             [[policies]]\nname = \"rated\"\n\
             rate_limits = [{{ name = \"slow\", limit = 1, window = \"1h\", per = \"key\" }}]\n\
             [[policies]]\nname = \"counted\"\n\
             quotas = [{{ name = \"yearly\", limit = 1, period = \"year\", per = \"key\" }}]\n\
             [[policies]]\nname = \"narrow\"\nconcurrency = {{ limit = 1, per = \"key\" }}\n"
        ),
    );
    gateway.start().await;
    let asked = async |key: &Made, cost: u32| {
        let answer = verify(&gateway, json!({ "key": key.key, "cost": cost })).await;
        assert_eq!((answer.status, answer.header("retry-after")), (200, None), "{}", answer.body);
        answer.json()
    };
    let problem = async |key: &Made| {
        let answer = gateway.http().authorize(&key.key).await.unwrap();
        assert_eq!(answer.status, 429, "{}", answer.body);
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        (answer.json()["limit"].clone(), wait)
    };
    const YEAR: u64 = 366 * 24 * 3600;
    for (policy, code, limit, longest) in
        [("rated", "rate_limited", "slow", 3600), ("counted", "quota_exceeded", "yearly", YEAR)]
    {
        let key = key_with(&gateway, "acme", policy).await;
        let passed = asked(&key, 1).await;
        assert_eq!(passed["valid"], true);
        assert_eq!(passed.as_object().unwrap().len(), 5, "nothing that no limit has: {passed}");
        let refused = asked(&key, 1).await;
        assert_eq!((&refused["valid"], &refused["code"]), (&json!(false), &json!(code)));
        assert_eq!(refused["limit"], limit);
        // The same as everywhere, as long as the clock stands still.
        let wait = refused["retry_after"].as_u64().unwrap();
        let (named, later) = problem(&key).await;
        assert!(named == limit && (1..=wait).contains(&later) && wait <= longest, "{wait} {later}");
        let never = asked(&key, 2).await;
        assert_eq!((&never["code"], &never["limit"]), (&json!(code), &json!(limit)));
        assert_eq!(never.get("retry_after"), None, "it never holds so much");
    }
    let key = key_with(&gateway, "acme", "narrow").await;
    assert_eq!(asked(&key, 1).await["valid"], true);
    let (_running, status) = open(&gateway, &key).await;
    assert_eq!(status, "HTTP/1.1 200");
    let refused = asked(&key, 1).await;
    let told = [&refused["code"], &refused["limit"], &refused["retry_after"]];
    assert_eq!(told, [&json!("concurrency_exceeded"), &json!("concurrency"), &json!(1)]);
    assert_eq!(problem(&key).await, (json!("concurrency"), 1));
}

/// An answer of [`endless`] begins.
pub(super) async fn open(gateway: &Gateway, key: &Made) -> (TcpStream, String) {
    let address: SocketAddr = gateway.http().address().parse().unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("GET /drip HTTP/1.1\r\nhost: a\r\nx-api-key: {}\r\n\r\n", key.key);
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.unwrap();
    (stream, String::from_utf8_lossy(&start).into_owned())
}

/// A gateway before it, with a client and this in the policy of all.
async fn before_endless(policy: &str) -> Gateway {
    let upstream = endless().await;
    let mut gateway = Gateway::new(
        None,
        &format!(
            "[[upstreams]]\nname = \"drip\"\ntargets = [\"{upstream}\"]\n\
             [[routes]]\npath = \"/drip\"\nupstream = \"drip\"\n\
             [[clients]]\nname = \"acme\"\n[[policies]]\nname = \"default\"\n{policy}\n"
        ),
    );
    gateway.start().await;
    gateway
}

#[tokio::test]
async fn a_place_is_held_for_the_whole_answer_and_free_when_the_client_leaves() {
    let gateway = before_endless("concurrency = { limit = 2, per = \"key\" }").await;
    let (key, other) = (gateway.create_key("acme").await, gateway.create_key("acme").await);
    let (first, status) = open(&gateway, &key).await;
    assert_eq!(status, "HTTP/1.1 200");
    let (_second, status) = open(&gateway, &key).await;
    assert_eq!(status, "HTTP/1.1 200");
    let refused = forwarded(&gateway, &key.key, Method::GET, "/drip").await;
    assert_eq!((refused.status, &*refused.code()), (429, "concurrency_exceeded"));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(open(&gateway, &other).await.1, "HTTP/1.1 200", "each key has its own");
    drop(first);
    until("a place is free", || async { open(&gateway, &key).await.1 == "HTTP/1.1 200" }).await;
}

/// An upstream that answers at once, and neither reads what is sent to it nor closes.
async fn deaf() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut kept = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; 16]).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            kept.push(stream);
        }
    });
    address
}

#[tokio::test]
async fn a_place_is_free_when_the_client_leaves_although_its_upstream_reads_no_more() {
    let upstream = deaf().await;
    let settings = format!(
        "[[upstreams]]\nname = \"deaf\"\ntargets = [\"{upstream}\"]\n\
         [[routes]]\npath = \"/drip\"\nupstream = \"deaf\"\nbody_max = \"1GiB\"\n\
         [[clients]]\nname = \"acme\"\n[[policies]]\nname = \"default\"\n\
         concurrency = {{ limit = 1, per = \"key\" }}\n"
    );
    let mut gateway = Gateway::new(None, &settings);
    gateway.set("GATEPOST__SERVER__BODY_IDLE_TIMEOUT", "200ms");
    gateway.start().await;
    let key = gateway.create_key("acme").await;
    let address: SocketAddr = gateway.http().address().parse().unwrap();
    let (mut reading, mut writing) = TcpStream::connect(address).await.unwrap().into_split();
    let head = format!(
        "POST /drip HTTP/1.1\r\nhost: a\r\nx-api-key: {}\r\ncontent-length: 30000000\r\n\r\n",
        key.key
    );
    writing.write_all(head.as_bytes()).await.unwrap();
    // More than all buffers on the way hold.
    let sending = tokio::spawn(async move {
        let _broken_off = writing.write_all(&vec![b'a'; 30_000_000]).await;
        writing
    });
    let mut start = [0; 12];
    reading.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    sending.abort();
    drop((sending.await, reading));
    let free = || async {
        let answer = forwarded(&gateway, &key.key, Method::GET, "/drip").await;
        assert!(answer.status == 200 || answer.code() == "concurrency_exceeded", "{answer:?}");
        answer.status == 200
    };
    until("a place is free", free).await;
}

/// Their answers wait for the disk meanwhile, all at once.
#[tokio::test]
async fn what_is_only_asked_holds_no_place_and_sees_whether_one_is_free() {
    let gateway =
        before_endless("commit = \"before_reply\"\nconcurrency = { limit = 1, per = \"key\" }")
            .await;
    let key = gateway.create_key("acme").await;
    let http = gateway.http();
    let exchange = format!("grant_type=client_credentials&client_secret={}", key.key);
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let ask = async |at: usize| match at % 3 {
        0 => http.authorize(&key.key).await.unwrap(),
        1 => http.ask(Method::POST, "/oauth/token", &form, &exchange).await.unwrap(),
        _ => verify(&gateway, json!({ "key": key.key })).await,
    };
    for answer in futures_util::future::join_all((0..120).map(ask)).await {
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(!answer.body.contains("concurrency_exceeded"), "{}", answer.body);
    }
    let (_running, status) = open(&gateway, &key).await;
    assert_eq!(status, "HTTP/1.1 200");
    let refused = (429, "concurrency_exceeded".to_owned());
    assert_eq!(gateway.http().verdict(&key.key).await, refused);
}

#[tokio::test]
async fn addresses_are_taken_from_trusted_proxies_only() {
    let settings = |trusted: &str| {
        format!(
            "{trusted}[[clients]]\nname = \"acme\"\n[[policies]]\nname = \"default\"\n\
             ip_allow = [\"10.0.0.0/8\", \"2001:db8::/32\"]\nip_deny = [\"10.9.0.0/16\"]\n"
        )
    };
    let mut gateway = Gateway::new(None, &settings(""));
    gateway.start().await;
    let key = gateway.create_key("acme").await;
    let bearer = format!("Bearer {}", key.key);
    let from = async |gateway: &Gateway, ip: &str| {
        let headers = [("authorization", &*bearer), ("x-forwarded-for", ip)];
        let asked = gateway.http().ask(Method::GET, "/authz/forward-auth", &headers, "");
        asked.await.unwrap().status
    };
    for (ip, status) in [
        ("10.1.2.3", 200),
        ("2001:db8::7", 200),
        ("10.9.1.1", 403),
        ("192.0.2.1", 403),
        ("nonsense", 403),
    ] {
        assert_eq!(from(&gateway, ip).await, status, "{ip}");
    }
    assert_eq!(
        gateway.http().verdict(&key.key).await,
        (403, "ip_denied".into()),
        "loopback itself"
    );
    for (ip, valid) in [
        ("10.1.2.3", true),
        ("10.9.2.3", false),
        ("::ffff:10.1.2.3", true),
        ("::ffff:10.9.2.3", false),
    ] {
        let told = verify(&gateway, json!({ "key": key.key, "ip": ip })).await.json();
        assert_eq!(told["valid"], valid);
    }
    gateway.terminate().await;
    let text = std::fs::read_to_string(gateway.dir().join("gatepost.toml")).unwrap();
    let text = text.replace("[server]\n", "[server]\ntrusted_proxies = [\"192.0.2.0/24\"]\n");
    std::fs::write(gateway.dir().join("gatepost.toml"), text).unwrap();
    gateway.start().await;
    assert_eq!(from(&gateway, "10.1.2.3").await, 403, "a stranger's word does not count");
}

#[tokio::test]
async fn a_denial_of_a_policy_that_commits_before_its_reply_outlives_a_kill() {
    let mut gateway = Gateway::new(
        None,
        "[journal]\ninterval = \"10s\"\n[[clients]]\nname = \"acme\"\n[[policies]]\nname = \
            \"default\"\nrights = []\ncommit = \"before_reply\"\n",
    );
    gateway.start().await;
    let key = gateway.create_key("acme").await;
    for _ in 0..3 {
        assert_eq!(gateway.http().verdict(&key.key).await.0, 403);
    }
    gateway.kill9();
    gateway.start().await;
    until("what was counted is read", || async {
        let usage = gateway.run(&["usage", "--period", "all"]).await.json();
        let rows = usage.as_array().expect("a list").clone();
        rows.iter().map(|row| row["sum"]["denied"].as_u64().unwrap_or(0)).sum::<u64>() == 3
    })
    .await;
}
