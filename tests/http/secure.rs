//! TLS: certificates by name, their change under way, sessions, and what clients are told of their address.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::{ClientConnection, Resumption};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind, RootCertStore, StreamOwned};
use tqserver::boottime::BootTime;
use tqserver::proxy::Link;
use tqserver::route::{Listen, Pair, Pem, RouteTable, Tls};

use crate::house::{GET, House, Kept, Talk, field, options, status};

/// A certificate for some names, and what trusts it.
pub(crate) struct Made {
    pub(crate) pair: Pair,
    pub(crate) root: rustls::pki_types::CertificateDer<'static>,
}

pub(crate) fn made(names: &[&str]) -> Made {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names.clone()).unwrap();
    Made {
        root: made.cert.der().clone(),
        pair: Pair {
            name: names[0].clone(),
            certificate: Pem::Text(made.cert.pem()),
            key: Pem::Text(made.signing_key.serialize_pem()),
        },
    }
}

/// Makes every listener of `table` speak TLS with `certificates`.
pub(crate) fn secure(table: &mut RouteTable, certificates: &[&Made]) {
    table.front.listen.iter_mut().for_each(|l| l.tls = true);
    table.front.tls = Some(Tls {
        pairs: certificates.iter().map(|made| made.pair.clone()).collect(),
        only_tls13: false,
    });
}

/// A client that trusts `certificates` and speaks `protocols`.
pub(crate) fn trusting(certificates: &[&Made], protocols: &[&[u8]]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for made in certificates {
        roots.add(made.root.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    config.resumption = Resumption::in_memory_sessions(8);
    Arc::new(config)
}

type Secure = StreamOwned<ClientConnection, TcpStream>;

fn connect(house: &House, config: &Arc<ClientConfig>, name: &str) -> Secure {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let client = ClientConnection::new(config.clone(), name).unwrap();
    let stream = TcpStream::connect(house.listening[0]).unwrap();
    stream
        .set_read_timeout(Some(crate::house::DEADLINE))
        .unwrap();
    StreamOwned::new(client, stream)
}

/// Asks and reads the answer, with a body of `length` bytes.
fn ask(stream: &mut Secure, length: usize) -> std::io::Result<String> {
    stream.write_all(GET.as_bytes())?;
    let mut heard = Vec::new();
    let end = loop {
        if let Some(end) = heard.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        heard.push(byte[0]);
    };
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    heard.truncate(end);
    Ok(String::from_utf8(heard).unwrap())
}

#[test]
fn each_name_is_shown_its_own_certificate() {
    let (one, two) = (made(&["one.example"]), made(&["*.two.example"]));
    let house = House::with(|table| secure(table, &[&one, &two]));
    house.worker(1).echo("x");
    for (trusted, name, good) in [
        (&one, "one.example", true),
        (&two, "www.two.example", true),
        (&two, "one.example", false),
        (&one, "www.two.example", false),
    ] {
        let mut stream = connect(&house, &trusting(&[trusted], &[]), name);
        let answer = ask(&mut stream, 0);
        assert_eq!(answer.is_ok(), good, "{name}: {answer:?}");
    }
}

#[test]
fn the_worker_hears_that_the_client_came_with_tls() {
    let one = made(&["one.example"]);
    let house = House::with(|table| secure(table, &[&one]));
    let worker = house.worker(1);
    let mut stream = connect(&house, &trusting(&[&one], &[b"http/1.1"]), "one.example");
    stream.write_all(GET.as_bytes()).unwrap();
    let mut upstream = worker.accept();
    let head = upstream.head();
    assert_eq!(field(&head, "x-forwarded-proto"), Some("https"));
    assert_eq!(field(&head, "x-forwarded-for"), Some("127.0.0.1"));
    upstream.answer("x");
}

#[test]
fn a_certificate_is_replaced_without_touching_a_connection() {
    let (old, new) = (made(&["one.example"]), made(&["one.example"]));
    let mut house = House::with(|table| secure(table, &[&old]));
    house.worker(1).echo("x");
    let mut before = connect(&house, &trusting(&[&old], &[]), "one.example");
    assert!(ask(&mut before, 1).is_ok());
    assert_eq!(house.publish(|table| secure(table, &[&new])), None);
    assert!(ask(&mut before, 1).is_ok(), "who was connected goes on");
    let mut after = connect(&house, &trusting(&[&new], &[]), "one.example");
    assert!(ask(&mut after, 1).is_ok());
}

#[test]
fn a_broken_pair_is_refused_and_the_old_one_stays() {
    let (old, other) = (made(&["one.example"]), made(&["one.example"]));
    let mut house = House::with(|table| secure(table, &[&old]));
    house.worker(1).echo("x");
    let mixed = Made {
        pair: Pair {
            key: other.pair.key.clone(),
            ..old.pair.clone()
        },
        root: old.root.clone(),
    };
    let problem = house.publish(|table| secure(table, &[&mixed])).unwrap();
    assert!(problem.contains("not that of the certificate"), "{problem}");
    let mut stream = connect(&house, &trusting(&[&old], &[]), "one.example");
    assert!(ask(&mut stream, 1).is_ok());
}

#[test]
fn certificates_that_the_manager_could_not_read_stay_in_use() {
    let one = made(&["one.example"]);
    let mut house = House::with(|table| secure(table, &[&one]));
    house.worker(1).echo("x");
    assert_eq!(house.publish(|table| secure(table, &[])), None);
    let mut stream = connect(&house, &trusting(&[&one], &[]), "one.example");
    assert!(ask(&mut stream, 1).is_ok());
}

#[test]
fn a_session_is_taken_up_again_also_by_the_next_proxy() {
    let one = made(&["one.example"]);
    let store = Kept::default();
    let config = trusting(&[&one], &[]);
    let start = |tickets: Option<Vec<u8>>| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut options = options(1, Link::Stream(theirs));
        options.store = Some(Box::new(store.clone()));
        options.tickets = tickets;
        let mut house = House::optioned(options, move || ours);
        house.publish(|table| secure(table, &[&one]));
        house.worker(1).echo("x");
        house
    };
    let kind = |house: &House| {
        let mut stream = connect(house, &config, "one.example");
        assert!(ask(&mut stream, 1).is_ok());
        stream.conn.handshake_kind().unwrap()
    };
    let first = start(None);
    assert_ne!(kind(&first), HandshakeKind::Resumed);
    assert_eq!(kind(&first), HandshakeKind::Resumed);
    drop(first);
    let left = store.tickets.lock().unwrap().clone();
    assert!(left.is_some());
    assert_eq!(kind(&start(left)), HandshakeKind::Resumed);
    assert_ne!(kind(&start(None)), HandshakeKind::Resumed);
}

/// Whoever stole a key could read all that its tickets ever protect, so it turns after twelve hours, whether or not anything else
/// happens.
#[test]
fn keys_of_sessions_turn_without_another_table() {
    let one = made(&["one.example"]);
    let store = Kept::default();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut options = options(1, Link::Stream(theirs));
    options.store = Some(Box::new(store.clone()));
    options.tickets = Some(nearly_twelve_hours_old());
    let mut house = House::optioned(options, move || ours);
    house.publish(|table| secure(table, &[&one]));
    let keys = || {
        let kept = store.tickets.lock().unwrap().clone();
        let keys: Vec<serde_json::Value> = serde_json::from_slice(&kept.unwrap()).unwrap();
        keys.iter().map(|key| key["name"].to_string()).collect()
    };
    let before: Vec<String> = keys();
    assert_eq!(before.len(), 1);
    let has_turned = |_| {
        std::thread::sleep(Duration::from_millis(50));
        keys().len() == 2
    };
    assert!((0..600).any(has_turned), "there is another key");
    assert_eq!(keys()[1], before[0], "the old one still reads");
}

/// A key as a proxy leaves it to the next one, which is to make no more tickets in three seconds.
fn nearly_twelve_hours_old() -> Vec<u8> {
    let now = serde_json::to_value(BootTime::now()).unwrap();
    let born = now.as_i64().unwrap() - (12 * 3600 - 3) * 1000;
    let key = serde_json::json!([{"name": vec![7; 16], "secret": vec![9; 32], "born": born}]);
    serde_json::to_vec(&key).unwrap()
}

#[test]
fn without_tls_clients_are_sent_where_it_is_spoken() {
    let house = House::with(|table| table.front.listen[0].redirect = Some(8443));
    let (head, _) = house.get("/a?b=c", "");
    assert_eq!(status(&head), 308);
    assert_eq!(field(&head, "location"), Some("https://h:8443/a?b=c"));
    let house = House::with(|table| table.front.listen[0].redirect = Some(443));
    let mut client = house.ask("GET / HTTP/1.1\r\nhost: [::1]:80\r\n\r\n");
    assert_eq!(field(&client.head(), "location"), Some("https://[::1]/"));
    // Who asks for a certificate proves that the host is his without having one.
    house.worker(1).echo("x");
    let (head, _) = house.get("/.well-known/acme-challenge/token", "");
    assert_eq!(status(&head), 200);
    let (head, _) = house.get("/health", "");
    assert_eq!(status(&head), 200);
}

#[test]
fn who_does_not_speak_tls_is_not_answered_and_others_are() {
    let one = made(&["one.example"]);
    let house = House::with(|table| secure(table, &[&one]));
    house.worker(1).echo("x");
    let mut plain = house.ask(GET);
    let rest = plain.rest().unwrap_or_default();
    assert!(!rest.starts_with(b"HTTP"), "{rest:?}");
    let mut stream = connect(&house, &trusting(&[&one], &[]), "one.example");
    assert!(ask(&mut stream, 1).is_ok());
}

fn proxied(house: &House, header: &[u8], request: &str) -> Talk<TcpStream> {
    let mut client = house.client();
    // Who is not listened to may find the door closed while it still speaks.
    let _ = client
        .stream
        .write_all(&[header, request.as_bytes()].concat());
    client
}

const HEADER: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x7f\0\0\x01\x10\0\0\x50";

#[test]
fn the_proxy_protocol_tells_who_the_client_is() {
    let house = House::with(|table| {
        table.front.listen[0].proxy_protocol = true;
        table.front.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    });
    let worker = house.worker(1);
    let lies =
        "GET / HTTP/1.1\r\nhost: h\r\nx-forwarded-for: 6.6.6.6\r\nx-forwarded-proto: https\r\n\r\n";
    let mut client = proxied(&house, HEADER, lies);
    let mut upstream = worker.accept();
    let head = upstream.head();
    // It is the client who says the rest, and the client is not trusted.
    assert_eq!(field(&head, "x-forwarded-for"), Some("192.0.2.7"));
    assert_eq!(field(&head, "x-forwarded-proto"), Some("http"));
    upstream.answer("x");
    assert_eq!(status(&client.head()), 200);
    let mut without = house.ask(GET);
    assert_eq!(without.rest().unwrap_or_default(), b"");
}

#[test]
fn the_proxy_protocol_is_not_for_everybody() {
    let house = House::with(|table| {
        table.front.listen[0].proxy_protocol = true;
        table.front.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
    });
    house.worker(1).echo("x");
    let mut client = proxied(&house, HEADER, GET);
    assert_eq!(client.rest().unwrap_or_default(), b"");
}

#[test]
fn a_trusted_proxy_is_believed_and_others_are_not() {
    let fields = "x-forwarded-for: 192.0.2.9\r\nx-forwarded-proto: https\r\nx-forwarded-host: public.example\r\n";
    let request = format!("GET / HTTP/1.1\r\nhost: inner\r\n{fields}\r\n");
    for (trusted, way, proto, host) in [
        (true, "192.0.2.9, 127.0.0.1", "https", "public.example"),
        (false, "127.0.0.1", "http", "inner"),
    ] {
        let house = House::with(|table| {
            if trusted {
                table.front.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
            }
        });
        let worker = house.worker(1);
        let mut client = house.ask(&request);
        let mut upstream = worker.accept();
        let head = upstream.head();
        assert_eq!(field(&head, "x-forwarded-for"), Some(way));
        assert_eq!(field(&head, "x-forwarded-proto"), Some(proto));
        assert_eq!(field(&head, "x-forwarded-host"), Some(host));
        assert_eq!(field(&head, "host"), Some(host));
        upstream.answer("x");
        assert_eq!(status(&client.head()), 200);
    }
}

#[test]
fn a_unix_socket_is_believed_if_it_is_trusted_and_not_for_being_local() {
    let seen = ["unknown", "192.0.2.9, unknown"];
    for (trusted, seen) in [false, true].into_iter().zip(seen) {
        assert_eq!(seen_by_unix(trusted), seen);
    }
}

/// What a worker is told of a client that comes by a unix socket and says itself who it is.
fn seen_by_unix(trusted: bool) -> String {
    let mut house = House::new();
    let worker = house.worker(1);
    let path = house.directory.path().join("web.sock");
    let place = tqserver::route::Place::Unix(path.clone());
    house.publish(|table| {
        let unix = Listen {
            place,
            trusted,
            ..table.front.listen[0].clone()
        };
        table.front.listen.push(unix);
    });
    let mut client = Talk::new(UnixStream::connect(&path).unwrap());
    client.send("GET / HTTP/1.1\r\nhost: h\r\nx-forwarded-for: 192.0.2.9\r\n\r\n");
    let mut upstream = worker.accept();
    let head = upstream.head();
    upstream.answer("x");
    assert_eq!(status(&client.head()), 200);
    field(&head, "x-forwarded-for").unwrap().to_owned()
}

#[test]
fn what_trusted_proxies_say_is_a_list_of_which_the_clients_part_counts() {
    let house = House::with(|table| {
        table.front.trusted_proxies = vec![
            "127.0.0.1/32".parse().unwrap(),
            "10.0.0.0/8".parse().unwrap(),
        ];
    });
    let worker = house.worker(1);
    for (fields, proto, host) in [
        ("x-forwarded-proto: HTTPS\r\n", "https", "inner"),
        // Nobody says how many proxies there were: the client's end of the list.
        ("x-forwarded-proto: https, http\r\n", "https", "inner"),
        (
            "x-forwarded-proto: https\r\nx-forwarded-proto: http\r\n",
            "https",
            "inner",
        ),
        (
            "x-forwarded-host: a.example, b.example\r\n",
            "http",
            "a.example",
        ),
        // Two proxies, and each said who came to it and how.
        (
            "x-forwarded-for: 192.0.2.1, 10.0.0.1\r\nx-forwarded-proto: https, http\r\nx-forwarded-host: a.example, b.example\r\n",
            "https",
            "a.example",
        ),
        // One, and what stands before it is the client's own invention.
        (
            "x-forwarded-for: 6.6.6.6, 192.0.2.1\r\nx-forwarded-proto: https, http\r\nx-forwarded-host: evil.example, a.example\r\n",
            "http",
            "a.example",
        ),
        // The second has passed on what the first said.
        (
            "x-forwarded-for: 192.0.2.1, 10.0.0.1\r\nx-forwarded-proto: https\r\nx-forwarded-host: a.example\r\n",
            "https",
            "a.example",
        ),
        ("x-forwarded-proto: gopher, https\r\n", "http", "inner"),
        (
            "x-forwarded-host: a/b\r\nx-forwarded-proto: ,\r\n",
            "http",
            "inner",
        ),
    ] {
        let mut client = house.ask(&format!("GET / HTTP/1.1\r\nhost: inner\r\n{fields}\r\n"));
        let mut upstream = worker.accept();
        let head = upstream.head();
        assert_eq!(field(&head, "x-forwarded-proto"), Some(proto), "{fields}");
        assert_eq!(field(&head, "x-forwarded-host"), Some(host), "{fields}");
        assert_eq!(field(&head, "host"), Some(host), "{fields}");
        upstream.answer("x");
        assert_eq!(status(&client.head()), 200);
    }
}

#[test]
fn a_request_for_another_certificates_host_is_misdirected() {
    let (one, two) = (made(&["one.example"]), made(&["two.example"]));
    let mut house = House::with(|table| secure(table, &[&one, &two]));
    house.worker(1).echo("x");
    let config = trusting(&[&one], &[b"http/1.1"]);
    let statuses = |house: &House, hosts: &[&str]| {
        let mut stream = connect(house, &config, "one.example");
        let statuses = hosts.iter().map(|host| {
            write!(stream, "GET / HTTP/1.1\r\nhost: {host}\r\n\r\n").unwrap();
            let mut talk = Vec::new();
            let head = loop {
                if let Some(end) = crate::house::find(&talk, b"\r\n\r\n") {
                    break String::from_utf8(talk[..end + 2].to_vec()).unwrap();
                }
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                talk.push(byte[0]);
            };
            let length = field(&head, "content-length").unwrap().parse().unwrap();
            stream.read_exact(&mut vec![0; length]).unwrap();
            status(&head)
        });
        statuses.collect::<Vec<_>>()
    };
    let hosts = [
        "one.example",
        "two.example",
        "TWO.example:443",
        "elsewhere.example",
        "ONE.example.:443",
    ];
    assert_eq!(statuses(&house, &hosts), [200, 421, 421, 200, 200]);
    // Whether a route is for that host makes no difference.
    house.publish(|table| {
        table.routes[0].settings.hosts =
            vec![tqserver::route::HostPattern::parse("two.example").unwrap()];
    });
    assert_eq!(statuses(&house, &hosts), [404, 421, 421, 404, 404]);
    // A proxy in front asks for its clients' hosts.
    house.publish(|table| {
        table.front.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    });
    assert_eq!(statuses(&house, &hosts), [404, 200, 200, 404, 404]);
    // Where there is one certificate, there is nothing to mistake it for.
    house.publish(|table| {
        table.front.trusted_proxies.clear();
        secure(table, &[&one]);
    });
    assert_eq!(statuses(&house, &hosts), [404, 200, 200, 404, 404]);
}
