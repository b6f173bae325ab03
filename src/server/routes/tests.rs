//! Which route a request takes, and which configurations are refused.

use super::*;

fn upstream(name: &str) -> UpstreamConfig {
    let targets = vec!["http://127.0.0.1:9000".into()];
    UpstreamConfig { name: name.into(), targets, ..UpstreamConfig::default() }
}

fn route(path: &str) -> RouteConfig {
    RouteConfig { path: path.into(), upstream: "orders".into(), ..RouteConfig::default() }
}

fn table(routes: &[RouteConfig]) -> Result<RouteTable, RouteError> {
    RouteTable::build(&[upstream("orders"), upstream("files")], routes, false)
}

fn hit(table: &RouteTable, host: Option<&str>, method: Method, path: &str) -> Option<String> {
    let hit = table.find(host, &method, path).expect("a safe path")?;
    Some(format!("{} {} {}", hit.route.text, hit.target.table, hit.target.operation))
}

#[test]
fn table_and_operation_come_from_pattern_and_method() {
    let table = table(&[route("/rest/v1/{table}")]).expect("routes");
    for (method, operation) in [
        (Method::GET, "read"),
        (Method::HEAD, "read"),
        (Method::DELETE, "delete"),
        (Method::POST, "write"),
        (Method::PATCH, "write"),
    ] {
        let want = format!("/rest/v1/{{table}} orders {operation}");
        assert_eq!(hit(&table, None, method, "/rest/v1/orders"), Some(want));
    }
    assert_eq!(hit(&table, None, Method::GET, "/other"), None);
    let encoded = hit(&table, None, Method::GET, "/rest/v1/%6frders");
    assert_eq!(encoded.as_deref(), Some("/rest/v1/{table} orders read"));
}

#[test]
fn a_route_can_set_table_and_operation() {
    let fixed = RouteConfig {
        operation: Some("write".into()),
        table: Some("reports".into()),
        ..route("/report")
    };
    let table = table(&[fixed]).expect("routes");
    assert_eq!(hit(&table, None, Method::GET, "/report").as_deref(), Some("/report reports write"));
}

#[test]
fn the_most_specific_route_wins_whatever_their_order() {
    let hosted = RouteConfig { host: Some("API.example".into()), ..route("/{*all}") };
    let posts = RouteConfig { methods: Some(vec!["post".into()]), ..route("/a/{x}") };
    let routes = [route("/{*rest}"), route("/a/{x}"), route("/a/b"), hosted, posts];
    let table = table(&routes).expect("routes");
    let first = |host, method, path| {
        hit(&table, host, method, path).map(|hit| hit.split(' ').next().map(str::to_owned))
    };
    let is = |text: &str| Some(Some(text.to_owned()));
    assert_eq!(first(None, Method::GET, "/a/b"), is("/a/b"));
    assert_eq!(first(None, Method::GET, "/a/c"), is("/a/{x}"));
    assert_eq!(first(None, Method::POST, "/a/c"), is("/a/{x}"));
    assert_eq!(first(None, Method::GET, "/z"), is("/{*rest}"));
    assert_eq!(first(Some("api.EXAMPLE:8080"), Method::GET, "/a/b"), is("/{*all}"));
}

#[test]
fn methods_narrow_and_get_includes_head() {
    let get = RouteConfig { methods: Some(vec!["GET".into()]), ..route("/a") };
    let table = table(&[get]).expect("routes");
    assert!(hit(&table, None, Method::HEAD, "/a").is_some());
    assert!(hit(&table, None, Method::POST, "/a").is_none());
}

#[test]
fn unsafe_paths_and_names_are_errors_not_misses() {
    let table = table(&[route("/{table}")]).expect("routes");
    let find = |path: &str| table.find(None, &Method::GET, path).map(|_| ()).err();
    assert_eq!(find("/a/../b"), Some(PathError::DotSegment));
    assert_eq!(find(&format!("/{}", "t".repeat(129))), Some(PathError::NotAName));
    assert_eq!(find("/%ff"), Some(PathError::NotUtf8));
}

#[test]
fn a_missing_upstream_is_named_with_those_that_exist() {
    let lost = RouteConfig { upstream: "order".into(), ..route("/a") };
    let error = table(&[lost]).expect_err("no such upstream").to_string();
    assert_eq!(
        error,
        "route `/a` names upstream `order`, which does not exist; there are: files, orders"
    );
}

#[test]
fn routes_that_match_the_same_requests_are_refused() {
    let get = |path| RouteConfig { methods: Some(vec!["GET".into()]), ..route(path) };
    let post = |path| RouteConfig { methods: Some(vec!["POST".into()]), ..route(path) };
    let refused =
        |routes: &[RouteConfig]| matches!(table(routes), Err(RouteError::Conflict { .. }));
    assert!(refused(&[route("/a/{x}"), route("/a/{y}")]));
    assert!(refused(&[route("/a"), route("/b"), route("/a")]));
    assert!(refused(&[get("/a"), get("/a")]));
    assert!(!refused(&[get("/a"), post("/a"), route("/a")]));
}

#[test]
fn wrong_routes_are_refused() {
    let both = RouteConfig { table: Some("t".into()), ..route("/{table}") };
    assert!(matches!(table(&[both]), Err(RouteError::TwoTables(_))));
    for path in ["/livez", "/authz/x", "/v1/keys/verify", "/oauth/token", "/api/auth/refresh"] {
        assert!(matches!(table(&[route(path)]), Err(RouteError::Reserved(_))), "{path}");
    }
    assert!(table(&[route("/v1/{*rest}"), route("/{*rest}")]).is_ok());
    let method = RouteConfig { methods: Some(vec!["GE T".into()]), ..route("/a") };
    assert!(matches!(table(&[method]), Err(RouteError::Field { field: "method", .. })));
    assert!(matches!(table(&[route("a")]), Err(RouteError::Pattern { .. })));
    let twice = RouteTable::build(&[upstream("a"), upstream("a")], &[], false);
    assert!(matches!(twice, Err(RouteError::TwoUpstreams(_))));
}

#[test]
fn echo_stands_behind_its_path_when_it_is_on() {
    let table = RouteTable::build(&[], &[], true).expect("routes");
    for path in ["/echo", "/echo/a/b"] {
        assert!(hit(&table, None, Method::POST, path).is_some());
    }
    let off = RouteTable::build(&[], &[], false).expect("routes");
    assert!(off.is_empty());
    let named = RouteConfig { upstream: "echo".into(), ..route("/mirror") };
    let moved = RouteTable::build(&[], std::slice::from_ref(&named), true).expect("routes");
    assert!(hit(&moved, None, Method::GET, "/echo").is_none());
    assert!(matches!(
        RouteTable::build(&[], &[named], false),
        Err(RouteError::NoUpstream { known, .. }) if known == "none"
    ));
}

#[test]
fn hosts_are_taken_from_the_most_specific_to_none() {
    let on = |host: &str, path: &str| RouteConfig { host: Some(host.into()), ..route(path) };
    let routes = [
        route("/any"),
        on("*.example.com", "/any"),
        on("*.eu.example.com", "/{x}"),
        on("api.eu.example.com.", "/{*rest}"),
    ];
    let table = table(&routes).expect("routes");
    let first = |host| {
        let hit = table.find(Some(host), &Method::GET, "/any").expect("a safe path");
        hit.map(|hit| hit.route.to_string())
    };
    assert_eq!(first("API.eu.example.com:443").as_deref(), Some("api.eu.example.com/{*rest}"));
    assert_eq!(first("b.eu.example.com").as_deref(), Some("*.eu.example.com/{x}"));
    assert_eq!(first("us.example.com").as_deref(), Some("*.example.com/any"));
    assert_eq!(first("example.com").as_deref(), Some("/any"));
}

#[test]
fn a_conflict_names_both_routes_whole() {
    let on = |path: &str| RouteConfig {
        host: Some("API.example".into()),
        methods: Some(vec!["get".into()]),
        ..route(path)
    };
    let error = table(&[on("/a/{x}"), on("/a/{y}")]).expect_err("a conflict").to_string();
    let (one, two) = ("`HEAD,GET api.example/a/{x}`", "`HEAD,GET api.example/a/{y}`");
    assert!(error.contains(one) && error.contains(two), "{error}");
}

#[test]
fn a_route_has_its_own_bounds_where_it_says_so() {
    let own = RouteConfig {
        response_timeout: Some(Span::secs(3)),
        body_max: Some(Size::kib(1)),
        ..route("/own")
    };
    let table = table(&[own, route("/usual")]).expect("routes");
    let usual = crate::server::Config::default().limits();
    let limits = |path: &str| {
        let hit = table.find(None, &Method::GET, path).expect("a safe path").expect("a route");
        let limits = hit.route.limits(usual);
        (limits.response_timeout.as_secs(), limits.body_max)
    };
    assert_eq!(limits("/own"), (3, 1024));
    assert_eq!(limits("/usual"), (60, 1 << 30));
    let none = Some(Span::secs(0));
    for (never, key) in [
        (RouteConfig { response_timeout: none, ..route("/a") }, "response_timeout"),
        (RouteConfig { total_timeout: none, ..route("/a") }, "total_timeout"),
    ] {
        let built = RouteTable::build(&[upstream("orders")], &[never], false);
        assert!(matches!(built, Err(RouteError::Field { field, .. }) if field == key), "{key}");
    }
}

#[test]
fn no_spelling_leads_around_a_route_that_is_not_open() {
    let open = |path| RouteConfig { access: Access::Anonymous, ..route(path) };
    let table = table(&[
        open("/{*rest}"),
        route("/admin/{*rest}"),
        route("/exact"),
        route("/Mixed/"),
        open("/free"),
        open("/files/{*rest}"),
        RouteConfig { methods: Some(vec!["PUT".into()]), ..route("/put") },
    ])
    .expect("routes");
    let find = |path: &str| {
        table.find(None, &Method::GET, path).map(|hit| hit.expect("a route").route.to_string())
    };
    for path in [
        "/exact/",
        "/exact%20",
        "/exact.",
        "/EXACT",
        "/Admin/x",
        "/Admin",
        "/admin%20/x",
        "/admin./x",
        "/%EF%BD%81dmin/x",
        "/admin%EF%BC%8Fx",
        "/adm%C2%ADin/x",
        "/%2561dmin/x",
        "/files/%252e%252e/admin",
        "/mixed",
        "/Mixed",
    ] {
        assert_eq!(find(path), Err(PathError::Disguised), "{path}");
    }
    for (path, want) in [
        ("/exact", "/exact"),
        ("/%65xact", "/exact"),
        ("/admin", "/admin/{*rest}"),
        ("/Mixed/", "/Mixed/"),
        ("/", "/{*rest}"),
        ("/Other/Path.", "/{*rest}"),
        ("/FREE", "/{*rest}"),
        ("/free", "/free"),
        ("/files/A%20b/", "/files/{*rest}"),
        ("/Put/", "/{*rest}"),
        ("/administrator", "/{*rest}"),
    ] {
        assert_eq!(find(path).as_deref(), Ok(want), "{path}");
    }
}
