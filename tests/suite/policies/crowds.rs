//! Many at the same moment, over sockets of their own: as many pass as a limit has, none more and
//! none less.

use futures_util::future::join_all;

use super::limits::open;
use super::places::endless;
use super::*;

/// Beside limits of nine: two processors that err in step would meet an even one exactly.
const CROWD: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_exactly_as_many_pass_as_there_is_room_for() {
    let mut gateway = Gateway::new(
        None,
        &format!(
            "[[upstreams]]\nname = \"drip\"\ntargets = [\"{}\"]\n\
             [[routes]]\npath = \"/drip\"\nupstream = \"drip\"\n{ORDERS}\
             [[clients]]\nname = \"acme\"\n[[policies]]\nname = \"rated\"\n\
             rate_limits = [{{ name = \"r\", limit = 9, window = \"1h\", per = \"key\" }}]\n\
             [[policies]]\nname = \"counted\"\n\
             quotas = [{{ name = \"q\", limit = 9, period = \"year\", per = \"key\" }}]\n\
             [[policies]]\nname = \"narrow\"\nconcurrency = {{ limit = 9, per = \"key\" }}\n",
            endless().await
        ),
    );
    gateway.start().await;
    for (policy, code) in [("rated", "rate_limited"), ("counted", "quota_exceeded")] {
        let key = &key_with(&gateway, "acme", policy).await;
        // All paths take of the same.
        let ask = async |at: usize| match at % 3 {
            0 => gateway.http().verdict(&key.key).await,
            1 => {
                let answer = forwarded(&gateway, &key.key, Method::GET, "/rest/v1/orders").await;
                (answer.status, if answer.status == 200 { String::new() } else { answer.code() })
            }
            _ => {
                let told = verify(&gateway, json!({ "key": key.key })).await.json();
                let code = told["code"].as_str().unwrap_or_default().to_owned();
                (if told["valid"] == true { 200 } else { 429 }, code)
            }
        };
        let mut passed = 0;
        for verdict in join_all((0..CROWD).map(ask)).await {
            match verdict {
                (200, _) => passed += 1,
                refused => assert_eq!(refused, (429, code.to_owned())),
            }
        }
        assert_eq!(passed, 9, "{policy}");
    }
    let key = key_with(&gateway, "acme", "narrow").await;
    let running = join_all((0..CROWD).map(|_| open(&gateway, &key))).await;
    let passed = running.iter().filter(|(_, status)| status == "HTTP/1.1 200").count();
    assert_eq!(passed, 9, "places");
    assert!(running.iter().all(|(_, status)| ["200", "429"].contains(&&status[9..])));
}
