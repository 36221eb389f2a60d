//! Which worker is asked for what, under which path, and what is answered in its place.

use tqserver::names::{Generation, WorkerName};
use tqserver::route::{
    Address, Errors, HostPattern, Indexes, Protocol, Redirect, Route, RoutePath, RouteTable,
    Scripts, Target,
};

use crate::house::{GET, House, field, status};

/// The route of the first, for these hosts and this path, to its generation `generation`.
fn route(table: &RouteTable, hosts: &[&str], path: &str, target: Target) -> Route {
    let hosts = hosts.iter().map(|host| HostPattern::parse(host).unwrap());
    Route {
        settings: tqserver::route::RouteSettings {
            hosts: hosts.collect(),
            ..Default::default()
        },
        path: RoutePath::parse(path).unwrap(),
        worker: WorkerName::parse("w").unwrap(),
        target,
        ..table.routes[0].clone()
    }
}

fn asks(house: &House, host: &str, path: &str) -> (u16, String) {
    let mut client = house.ask(&format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n"));
    let head = client.head();
    let body = client.content(&head);
    (status(&head), String::from_utf8(body).unwrap())
}

#[test]
fn a_request_goes_to_the_worker_of_its_host() {
    let mut house = House::new();
    house.worker(1).echo("exact");
    house.worker(2).echo("below");
    house.worker(3).echo("any");
    let targets = [1, 2, 3].map(|generation| house.serving(generation));
    house.publish(|table| {
        let [exact, below, any] = targets;
        table.routes = vec![
            route(table, &["a.example", "[::1]"], "/", exact),
            route(table, &["*.a.example"], "/", below),
            route(table, &[], "/", any),
        ];
    });
    for (host, worker) in [
        ("a.example", "exact"),
        ("A.Example.:8080", "exact"),
        ("[0:0::1]:8080", "exact"),
        ("b.a.example", "below"),
        ("c.b.a.example:1", "below"),
        ("xa.example", "any"),
        ("", "any"),
    ] {
        assert_eq!(asks(&house, host, "/"), (200, worker.to_owned()), "{host}");
    }
    let mut client = house.ask("GET http://b.a.example/ HTTP/1.1\r\nhost: b.a.example\r\n\r\n");
    let head = client.head();
    assert_eq!(
        client.content(&head),
        b"below",
        "the target's own host counts"
    );
    let mut client = house.ask("GET / HTTP/1.0\r\n\r\n");
    client.head();
    assert_eq!(client.rest().unwrap(), b"any");
}

#[test]
fn what_a_host_does_not_have_is_on_all_hosts_or_nowhere() {
    let mut house = House::new();
    house.worker(1).echo("api");
    house.worker(2).echo("all");
    let (api, all) = (house.serving(1), house.serving(2));
    house.publish(|table| {
        table.routes = vec![
            route(table, &["a.example"], "/api", api),
            route(table, &[], "/all", all),
        ];
    });
    assert_eq!(asks(&house, "a.example", "/api/x"), (200, "api".to_owned()));
    assert_eq!(asks(&house, "a.example", "/all"), (200, "all".to_owned()));
    assert_eq!(asks(&house, "b.example", "/all"), (200, "all".to_owned()));
    assert_eq!(asks(&house, "b.example", "/api").0, 404);
    assert_eq!(asks(&house, "a.example", "/").0, 404);
    for host in ["a.example", "b.example"] {
        assert_eq!(asks(&house, host, "/health").0, 200, "{host}");
    }
}

#[test]
fn a_worker_without_its_prefix_sees_what_the_client_wrote_behind_it() {
    let mut house = House::new();
    let worker = house.worker(1);
    house.publish(|table| {
        table.routes[0].path = RoutePath::parse("/api/v1").unwrap();
        table.routes[0].settings.strip_prefix = true;
    });
    let mut client = house.client();
    let mut inside = None;
    for (asked, seen) in [
        ("/api/v1", "/"),
        ("/api/v1/", "/"),
        ("/api/v1/users", "/users"),
        ("/api/v1?a=1", "/?a=1"),
        ("/%61pi/%76%31/us%65rs/a%2Fb?q=%41", "/us%65rs/a%2Fb?q=%41"),
        ("/api/v1/api/v1", "/api/v1"),
        ("http://h/api/v1/x", "/x"),
    ] {
        client.send(&format!("GET {asked} HTTP/1.1\r\nhost: h\r\n\r\n"));
        let talk = inside.get_or_insert_with(|| worker.accept());
        let head = talk.head();
        assert!(
            head.starts_with(&format!("GET {seen} HTTP/1.1\r\n")),
            "{asked}: {head}"
        );
        assert_eq!(field(&head, "x-forwarded-prefix"), Some("/api/v1"));
        talk.answer("");
        client.head();
    }
    for other in ["/api%2Fv1/x", "/api/v1x", "/api", "/api//v1"] {
        assert_eq!(asks(&house, "h", other).0, 404, "{other}");
    }
}

#[test]
fn scripts_without_their_prefix_see_themselves_at_the_root() {
    let mut house = House::new();
    let worker = house.worker(1);
    let socket = house.socket(1);
    house.publish(|table| {
        table.routes[0].path = RoutePath::parse("/blog").unwrap();
        table.routes[0].settings.strip_prefix = true;
        table.routes[0].target = Target::Serving(tqserver::route::Upstream {
            instances: Default::default(),
            generation: Generation(1),
            address: Address::Unix(socket),
            protocol: Protocol::FastCgi(Scripts {
                root: "/srv/w/public".into(),
                front_controller: "index.php".to_owned(),
                indexes: Some(Indexes::default()),
                route: RoutePath::root(),
            }),
            max_requests: 0,
            starting: None,
        });
    });
    let _client = house.ask("GET /blog/a.php/x HTTP/1.1\r\nhost: h\r\n\r\n");
    let params = crate::fastcgi::Fpm::accept(&worker).params();
    for (name, value) in [
        ("SCRIPT_NAME", "/a.php"),
        ("PATH_INFO", "/x"),
        ("REQUEST_URI", "/a.php/x"),
        ("HTTP_X_FORWARDED_PREFIX", "/blog"),
    ] {
        assert_eq!(params[name], value, "{name}");
    }
}

#[test]
fn a_redirect_is_answered_without_the_worker() {
    let mut house = House::new();
    let worker = house.worker(1);
    let redirects = [
        ("/old", "/new", 308),
        ("/moved/*", "https://b.example/*", 301),
        ("/flat/*", "/*", 302),
    ];
    house.publish(|table| {
        let redirects =
            redirects.map(|(from, to, status)| Redirect::new(from, to, status).unwrap());
        table.routes[0].settings.redirects = redirects.to_vec();
    });
    for (path, code, location) in [
        ("/old", 308, "/new"),
        ("/%6fld?a=b", 308, "/new?a=b"),
        ("/moved/a%20b?c", 301, "https://b.example/a%20b?c"),
        ("/flat/x", 302, "/x"),
        ("/flat//evil.example/x", 302, "/evil.example/x"),
        ("/flat/\\evil.example", 302, "/evil.example"),
        ("/flat/a%0d%0ax:y", 302, "/a%0d%0ax:y"),
    ] {
        let mut client = house.ask(&format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n"));
        let head = client.head();
        assert_eq!(
            (status(&head), field(&head, "location")),
            (code, Some(location)),
            "{path}"
        );
        assert_eq!(client.content(&head), b"");
    }
    let mut client = house.ask("POST /old HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\nbody");
    assert_eq!(status(&client.head()), 308);
    client.send("GET /flat/x HTTP/1.1\r\nhost: h\r\n\r\n");
    assert_eq!(status(&client.head()), 302, "the body is no request");
    assert!(worker.is_alone());
}

/// A house whose route has these pages, and files of their names with their names in them.
fn with_pages(pages: &[(&str, &str)]) -> House {
    let mut house = House::new();
    let public = house.public();
    std::fs::create_dir_all(&public).unwrap();
    for (_, file) in pages {
        house.file(file, file.as_bytes());
    }
    let page = |(errors, file): &(&str, &str)| (Errors::parse(errors).unwrap(), (*file).to_owned());
    let pages = pages.iter().map(page).collect();
    house.publish(|table| {
        table.routes[0].public = Some(public);
        table.routes[0].settings.error_pages = pages;
    });
    house
}

#[test]
fn a_worker_has_its_own_pages_for_the_proxys_errors() {
    let mut house = with_pages(&[("404", "errors/404.html"), ("5xx", "errors/any.html")]);
    // Nobody listens.
    let (head, body) = house.get("/x", "");
    assert_eq!((status(&head), &*body), (503, &b"errors/any.html"[..]));
    assert_eq!(
        field(&head, "content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(field(&head, "cache-control"), Some("no-store"));
    assert_eq!(field(&head, "retry-after"), Some("1"));
    assert!(field(&head, "x-request-id").is_some());
    let (head, body) = house.get("/x", "accept: application/json\r\n");
    assert_eq!(field(&head, "content-type"), Some("application/json"));
    let told: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(told["status"], 503);
    house.publish(|table| table.routes[0].target = Target::Files);
    let (head, body) = house.get("/x", "");
    assert_eq!((status(&head), &*body), (404, &b"errors/404.html"[..]));
    let mut client = house.ask("HEAD /x HTTP/1.1\r\nhost: h\r\n\r\n");
    assert_eq!(status(&client.head()), 404);
    client.send(GET);
    assert_eq!(status(&client.head()), 404, "nothing of the page was sent");
    let mut client = house.ask("POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n");
    let head = client.head();
    assert_eq!(
        (status(&head), field(&head, "allow")),
        (405, Some("GET, HEAD"))
    );
    let ours = client.content(&head);
    assert!(String::from_utf8_lossy(&ours).contains("can only be read"));
}

#[test]
fn a_workers_own_error_is_not_touched() {
    let house = with_pages(&[("404", "404.html")]);
    let worker = house.worker(1);
    let mut client = house.ask(GET);
    let mut talk = worker.accept();
    talk.head();
    talk.send("HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nmine");
    let head = client.head();
    assert_eq!(client.content(&head), b"mine");
}

#[test]
fn a_page_that_can_not_be_sent_is_replaced_by_ours() {
    let house = with_pages(&[("503", "503.html")]);
    let ours = |house: &House| {
        let (head, body) = house.get("/x", "");
        assert_eq!(status(&head), 503);
        assert!(String::from_utf8_lossy(&body).contains("not available at the moment"));
    };
    let file = house.public().join("503.html");
    let secret = house.directory.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    std::fs::remove_file(&file).unwrap();
    ours(&house);
    std::os::unix::fs::symlink(&secret, &file).unwrap();
    ours(&house);
    std::fs::remove_file(&file).unwrap();
    house.file("503.html", &vec![b'x'; (1 << 20) + 1]);
    ours(&house);
}
