//! What the proxy adds, takes away and leaves alone.

use crate::house::{House, field, status};
use tqserver::route::RoutePath;

/// The head a worker gets for a request with `fields`, and the head the client gets for an answer with `answer`.
fn passed(house: &House, fields: &str, answer: &str) -> (String, String) {
    let worker = house.worker(1);
    let mut client = house.ask(&format!(
        "GET /api/x HTTP/1.1\r\nhost: example.org:80\r\n{fields}\r\n"
    ));
    let mut upstream = worker.accept();
    let request = upstream.head();
    upstream.send(&format!(
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n{answer}\r\n"
    ));
    (request, client.head())
}

#[test]
fn the_worker_learns_who_asked_for_what() {
    let house = House::with(|table| table.routes[0].path = RoutePath::parse("/api").unwrap());
    let fields = "x-forwarded-for: 6.6.6.6\r\nX-Forwarded-Host: evil\r\nx-forwarded-proto: https\r\nforwarded: for=6.6.6.6\r\n";
    let (request, _) = passed(&house, fields, "");
    assert!(
        request.starts_with("GET /api/x HTTP/1.1\r\n"),
        "the path is passed whole"
    );
    assert_eq!(field(&request, "host"), Some("example.org:80"));
    assert_eq!(field(&request, "x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(field(&request, "x-forwarded-proto"), Some("http"));
    assert_eq!(field(&request, "x-forwarded-host"), Some("example.org:80"));
    assert_eq!(field(&request, "x-forwarded-prefix"), Some("/api"));
    assert!(
        !request.contains("6.6.6.6") && !request.contains("evil"),
        "{request}"
    );
}

#[test]
fn a_request_has_an_id_on_both_sides() {
    let house = House::new();
    let (request, response) = passed(&house, "", "");
    let id = field(&request, "x-request-id").unwrap();
    assert_eq!(id.len(), 36);
    assert_eq!(id.as_bytes()[14], b'7', "{id}");
    assert_eq!(field(&response, "x-request-id"), Some(id));
}

#[test]
fn a_clients_own_id_is_kept_if_it_is_harmless() {
    let (request, response) = passed(
        &House::new(),
        "x-request-id: mine-1\r\n",
        "x-request-id: other\r\n",
    );
    assert_eq!(field(&request, "x-request-id"), Some("mine-1"));
    assert_eq!(field(&response, "x-request-id"), Some("mine-1"));
    let (request, _) = passed(&House::new(), "x-request-id: <b>\r\n", "");
    assert_ne!(field(&request, "x-request-id"), Some("<b>"));
}

#[test]
fn fields_for_one_hop_end_there() {
    let (request, response) = passed(
        &House::new(),
        "connection: keep-alive, x-mine\r\nx-mine: 1\r\nkeep-alive: 5\r\nte: gzip\r\nproxy-connection: x\r\nx-end: 1\r\n",
        "connection: x-theirs\r\nx-theirs: 1\r\nkeep-alive: 5\r\nupgrade: h3\r\nx-end: 2\r\n",
    );
    for gone in [
        "connection",
        "x-mine",
        "keep-alive",
        "te",
        "proxy-connection",
    ] {
        assert_eq!(field(&request, gone), None, "{gone}");
    }
    for gone in ["connection", "x-theirs", "keep-alive", "upgrade"] {
        assert_eq!(field(&response, gone), None, "{gone}");
    }
    assert_eq!(field(&request, "x-end"), Some("1"));
    assert_eq!(field(&response, "x-end"), Some("2"));
}

#[test]
fn fields_of_the_worker_are_left_alone() {
    let (_, response) = passed(
        &House::new(),
        "",
        "server: mine\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n",
    );
    assert_eq!(field(&response, "server"), Some("mine"));
    assert_eq!(
        field(&response, "date"),
        Some("Thu, 01 Jan 1970 00:00:00 GMT")
    );
    assert!(
        response.contains("set-cookie: a=1\r\nset-cookie: b=2\r\n"),
        "{response}"
    );
    assert_eq!(field(&response, "via"), None);
}

#[test]
fn an_absolute_target_names_the_host() {
    let house = House::new();
    let worker = house.worker(1);
    let mut client =
        house.ask("GET http://Real.example:81/x?y HTTP/1.1\r\nhost: real.example:81\r\n\r\n");
    let mut upstream = worker.accept();
    let head = upstream.head();
    assert!(head.starts_with("GET /x?y HTTP/1.1\r\n"), "{head}");
    assert_eq!(field(&head, "host"), Some("Real.example:81"));
    assert_eq!(
        head.matches("host:").count(),
        2,
        "host and x-forwarded-host: {head}"
    );
    upstream.answer("");
    assert_eq!(status(&client.head()), 200);
}

#[test]
fn names_that_gateways_take_for_others_do_not_reach_a_worker() {
    let fields = "script_name: /public\r\npath_info: /admin\r\nremote_user: root\r\nx_forwarded_for: 6.6.6.6\r\n\
                  x.forwarded.for: 6.6.6.6\r\nproxy: evil:1\r\nx_own: 1\r\n\
                  x-sendfile-type: X-Accel-Redirect\r\nx-accel-mapping: /=/etc\r\nx-end: 1\r\n";
    let (request, _) = passed(&House::new(), fields, "");
    for line in request.lines().skip(1) {
        let name = line.split(':').next().unwrap();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        assert!(name.bytes().all(plain), "{request}");
    }
    for gone in ["proxy", "x-sendfile-type", "x-accel-mapping"] {
        assert_eq!(field(&request, gone), None, "{request}");
    }
    assert_eq!(field(&request, "x-end"), Some("1"));
}

#[test]
fn trailers_have_no_such_names_either() {
    let house = House::new();
    let worker = house.worker(1);
    let mut client = house.ask(
        "POST / HTTP/1.1\r\nhost: h\r\ntrailer: x-sum, remote_user, proxy, x_own\r\ntransfer-encoding: chunked\r\n\r\n\
         1\r\na\r\n0\r\nremote_user: root\r\nproxy: evil\r\nx_own: 1\r\nx-sum: 2\r\n\r\n",
    );
    let mut upstream = worker.accept();
    upstream.head();
    upstream.expect("1\r\na\r\n0\r\nx-sum: 2\r\n\r\n");
    upstream.answer("");
    assert_eq!(status(&client.head()), 200);
}

#[test]
fn a_worker_never_takes_a_chunked_body_that_broke_off_for_a_whole_one() {
    let house = House::new();
    let worker = house.worker(1);
    for part in ["", "5\r\nhel", "5\r\nhello\r\n", "5\r\nhello\r\n0\r\n"] {
        let client = house.ask(&format!(
            "PUT / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n{part}"
        ));
        let mut upstream = worker.accept();
        upstream.head();
        drop(client);
        let rest = upstream.rest().unwrap_or_default();
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{part:?}: {rest:?}");
    }
}
