//! HTTP/2: the same requests, many on one connection.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tqserver::route::{Address, Protocol as WorkerProtocol, Target};
use tqserver::wire::{ProbeOutcome, ToManager, ToProxy};

use crate::house::{DEADLINE, House, SHORT, field, status};
use crate::secure::{made, secure, trusting};

/// A client on a runtime of its own.
struct Client {
    runtime: Runtime,
    send: SendRequest<Bytes>,
    connection: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

/// An answer and its body.
struct Heard {
    head: Response<()>,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
}

impl Client {
    /// A client that knows that HTTP/2 is spoken.
    fn new(house: &House) -> Self {
        let runtime = runtime();
        let address = house.listening[0];
        let (send, connection) = runtime.block_on(async {
            let stream = TcpStream::connect(address).await.unwrap();
            let (send, connection) = h2::client::handshake(stream).await.unwrap();
            (send, tokio::spawn(connection))
        });
        Self {
            runtime,
            send,
            connection,
        }
    }

    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let future = async { tokio::time::timeout(DEADLINE, future).await };
        self.runtime.block_on(future).expect("it does not come")
    }

    /// Sends a request whose body is `body`, or is still to come if there is none.
    fn send(
        &self,
        request: Request<()>,
        end: bool,
    ) -> (h2::client::ResponseFuture, h2::SendStream<Bytes>) {
        self.block_on(async {
            let mut send = self.send.clone().ready().await.unwrap();
            send.send_request(request, end).unwrap()
        })
    }

    fn get(&self, path: &str) -> Heard {
        let (response, _) = self.send(get(path), true);
        self.block_on(heard(response)).unwrap()
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("http://h{path}")).body(()).unwrap()
}

async fn heard(response: h2::client::ResponseFuture) -> Result<Heard, h2::Error> {
    let (head, mut stream) = response.await?.into_parts();
    let mut body = Vec::new();
    while let Some(piece) = stream.data().await {
        let piece = piece?;
        stream.flow_control().release_capacity(piece.len())?;
        body.extend_from_slice(&piece);
    }
    let trailers = stream.trailers().await?;
    Ok(Heard {
        head: Response::from_parts(head, ()),
        body,
        trailers,
    })
}

fn house() -> House {
    House::with(|table| table.front.http2_cleartext = true)
}

#[test]
fn a_request_is_answered_as_over_http1() {
    let house = house();
    let worker = house.worker(1);
    let client = Client::new(&house);
    let request = Request::get("http://example.org/a?b=c")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(())
        .unwrap();
    let (response, _) = client.send(request, true);
    let mut upstream = worker.accept();
    let head = upstream.head();
    assert!(head.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{head}");
    assert_eq!(field(&head, "host"), Some("example.org"));
    assert_eq!(field(&head, "cookie"), Some("a=1; b=2"));
    assert_eq!(field(&head, "x-forwarded-proto"), Some("http"));
    upstream.send("HTTP/1.1 201 Created\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: a\r\ncontent-length: 2\r\n\r\nhi");
    let heard = client.block_on(heard(response)).unwrap();
    assert_eq!(heard.head.status(), StatusCode::CREATED);
    let headers = heard.head.headers();
    assert_eq!(headers["content-length"], "2");
    assert!(headers.contains_key("date") && headers.contains_key("x-request-id"));
    for hop in ["connection", "x-hop", "keep-alive", "transfer-encoding"] {
        assert!(!headers.contains_key(hop), "{hop}");
    }
    assert_eq!(heard.body, b"hi");
}

#[test]
fn http1_is_still_spoken_where_http2_may_be() {
    let house = house();
    house.worker(1).echo("x");
    assert_eq!(house.get("/", "").1, b"x");
}

#[test]
fn many_requests_are_in_flight_at_a_time() {
    let mut house = house();
    let worker = house.worker(1);
    let client = Client::new(&house);
    let asked: Vec<_> = (0..20)
        .map(|n| client.send(get(&format!("/{n}")), true).0)
        .collect();
    let mut upstreams: Vec<_> = (0..20).map(|_| worker.accept()).collect();
    let heads: Vec<String> = upstreams
        .iter_mut()
        .map(|upstream| upstream.head())
        .collect();
    assert_eq!(house.count(1), (20, 20));
    for (upstream, head) in upstreams.iter_mut().zip(&heads) {
        upstream.answer(head.split(' ').nth(1).unwrap());
    }
    for (number, response) in asked.into_iter().enumerate() {
        let heard = client.block_on(heard(response)).unwrap();
        assert_eq!(heard.body, format!("/{number}").as_bytes());
    }
}

#[test]
fn a_body_is_passed_on_as_it_comes_and_so_is_the_answer() {
    let house = house();
    let worker = house.worker(1);
    let client = Client::new(&house);
    let request = Request::post("http://h/").body(()).unwrap();
    let (response, mut body) = client.send(request, false);
    client.block_on(async { body.send_data(Bytes::from_static(b"first"), false).unwrap() });
    let mut upstream = worker.accept();
    let head = upstream.head();
    assert_eq!(field(&head, "transfer-encoding"), Some("chunked"));
    upstream.expect("5\r\nfirst\r\n");
    upstream.send(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n3\r\none\r\n",
    );
    let mut answer = client.block_on(response).unwrap().into_body();
    let piece = client.block_on(answer.data()).unwrap().unwrap();
    assert_eq!(piece, "one");
    client.block_on(async { body.send_data(Bytes::from_static(b"last"), true).unwrap() });
    upstream.expect("4\r\nlast\r\n0\r\n\r\n");
    upstream.send("3\r\ntwo\r\n0\r\nx-sum: 6\r\n\r\n");
    assert_eq!(client.block_on(answer.data()).unwrap().unwrap(), "two");
    assert!(client.block_on(answer.data()).is_none());
    let trailers = client.block_on(answer.trailers()).unwrap().unwrap();
    assert_eq!(trailers["x-sum"], "6");
}

#[test]
fn a_body_of_known_length_keeps_it() {
    let house = house();
    let worker = house.worker(1);
    let client = Client::new(&house);
    let request = Request::post("http://h/")
        .header("content-length", "3")
        .body(())
        .unwrap();
    let (response, mut body) = client.send(request, false);
    client.block_on(async { body.send_data(Bytes::from_static(b"abc"), true).unwrap() });
    let mut upstream = worker.accept();
    let head = upstream.head();
    assert_eq!(field(&head, "content-length"), Some("3"));
    assert_eq!(field(&head, "transfer-encoding"), None);
    upstream.expect("abc");
    upstream.answer("x");
    assert_eq!(client.block_on(heard(response)).unwrap().body, b"x");
}

#[test]
fn an_answer_that_breaks_off_is_seen_to() {
    let house = house();
    let worker = house.worker(1);
    let client = Client::new(&house);
    let (response, _) = client.send(get("/"), true);
    let mut upstream = worker.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
    drop(upstream);
    let error = client.block_on(heard(response)).err().unwrap();
    assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
    // The others on the connection are not concerned.
    worker.echo("x");
    assert_eq!(client.get("/").body, b"x");
}

#[test]
fn a_request_that_is_taken_back_is_called_off() {
    let mut house = house();
    let worker = house.worker(1);
    let client = Client::new(&house);
    let (response, mut stream) = client.send(get("/"), true);
    let mut upstream = worker.accept();
    upstream.head();
    stream.send_reset(Reason::CANCEL);
    drop(response);
    assert_eq!(upstream.rest().unwrap_or_default(), b"");
    house.counts(1, (0, 1));
}

#[test]
fn who_takes_back_request_after_request_is_sent_away() {
    let house = house();
    let worker = house.worker(1);
    std::thread::spawn(move || {
        loop {
            drop(worker.accept());
        }
    });
    let client = Client::new(&house);
    let ended = client.block_on(async {
        for _ in 0..10_000 {
            let Ok(mut send) = client.send.clone().ready().await else {
                return true;
            };
            let Ok((_, mut stream)) = send.send_request(get("/slow"), true) else {
                return true;
            };
            tokio::task::yield_now().await;
            stream.send_reset(Reason::CANCEL);
        }
        false
    });
    assert!(ended, "10,000 requests were taken back");
    let Client {
        runtime,
        connection,
        ..
    } = client;
    let error = runtime.block_on(connection).unwrap().err();
    // Its next frames may have met a closed socket before it read why.
    let error = error.expect("it is told so");
    let reason = error.reason();
    assert!(
        reason == Some(Reason::ENHANCE_YOUR_CALM) || error.is_io(),
        "{error:?}"
    );
}

#[test]
fn a_client_that_does_not_read_loses_its_stream_and_no_other() {
    let house = House::with(|table| {
        table.front.http2_cleartext = true;
        table.front.write_timeout = SHORT;
    });
    let worker = house.worker(1);
    let client = Client::new(&house);
    let (response, _) = client.send(get("/"), true);
    let mut upstream = worker.accept();
    upstream.head();
    upstream.send(&format!(
        "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n{}",
        "x".repeat(200_000)
    ));
    let mut answer = client.block_on(response).unwrap().into_body();
    let error = client.block_on(async {
        // What is not released leaves no room for more.
        while let Some(piece) = answer.data().await {
            if let Err(error) = piece {
                return error.reason();
            }
        }
        None
    });
    assert_eq!(error, Some(Reason::CANCEL));
    // What it has not read takes no room any more.
    drop(answer);
    worker.echo("x");
    assert_eq!(client.get("/").body, b"x");
}

#[test]
fn a_connection_without_requests_is_closed_in_the_end() {
    let house = House::with(|table| {
        table.front.http2_cleartext = true;
        table.front.idle_timeout = SHORT;
    });
    house.worker(1).echo("x");
    let client = Client::new(&house);
    assert_eq!(client.get("/").body, b"x");
    let connection = client.connection;
    client
        .runtime
        .block_on(async { tokio::time::timeout(DEADLINE, connection).await })
        .expect("it stays open")
        .unwrap()
        .ok();
}

#[test]
fn a_proxy_that_stops_answers_what_it_has_and_says_that_it_goes() {
    let mut house = house();
    let worker = house.worker(1);
    let client = Client::new(&house);
    let (response, _) = client.send(get("/"), true);
    let mut upstream = worker.accept();
    upstream.head();
    house.shut_down();
    upstream.answer("last");
    assert_eq!(client.block_on(heard(response)).unwrap().body, b"last");
    let connection = client.connection;
    client
        .runtime
        .block_on(async { tokio::time::timeout(DEADLINE, connection).await })
        .expect("it stays open")
        .unwrap()
        .unwrap();
    house.ended();
}

#[test]
fn a_websocket_is_a_stream_among_others() {
    let mut house = house();
    let worker = house.worker(1);
    let client = Client::new(&house);
    // The server's settings say that it may: they have come with the first answer.
    let other = client.send(get("/first"), true).0;
    let mut upstream = worker.accept();
    upstream.head();
    upstream.answer("x");
    client.block_on(heard(other)).unwrap();
    assert!(client.send.is_extended_connect_protocol_enabled());
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = "https://h/chat".parse().unwrap();
    request
        .extensions_mut()
        .insert(Protocol::from_static("websocket"));
    let headers = request.headers_mut();
    headers.insert("sec-websocket-version", "13".parse().unwrap());
    headers.insert("sec-websocket-protocol", "chat".parse().unwrap());
    let (response, mut send) = client.send(request, false);
    let head = upstream.head();
    assert!(head.starts_with("GET /chat HTTP/1.1\r\n"), "{head}");
    assert_eq!(field(&head, "upgrade"), Some("websocket"));
    assert_eq!(field(&head, "connection"), Some("upgrade"));
    assert_eq!(field(&head, "sec-websocket-version"), Some("13"));
    assert_eq!(field(&head, "sec-websocket-key").map(str::len), Some(24));
    upstream.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\nsec-websocket-protocol: chat\r\n\r\n");
    let response = client.block_on(response).unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    assert!(!response.headers().contains_key("sec-websocket-accept"));
    let mut receive: RecvStream = response.into_body();
    client.block_on(async { send.send_data(Bytes::from_static(b"ping"), false).unwrap() });
    upstream.expect("ping");
    upstream.send("pong");
    assert_eq!(client.block_on(receive.data()).unwrap().unwrap(), "pong");
    assert_eq!(house.count(1).0, 1, "a tunnel is in flight");
    client.block_on(async { send.send_data(Bytes::new(), true).unwrap() });
    assert_eq!(upstream.rest().unwrap(), b"");
    drop(upstream);
    while let Some(rest) = client.block_on(receive.data()) {
        assert_eq!(rest.unwrap(), "");
    }
}

#[test]
fn a_connect_to_elsewhere_is_refused() {
    let house = house();
    let client = Client::new(&house);
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = "example.org:443".parse().unwrap();
    let (response, _) = client.send(request, false);
    let heard = client.block_on(response).unwrap();
    assert_eq!(heard.status(), StatusCode::NOT_IMPLEMENTED);
}

#[test]
fn an_error_that_answers_head_has_no_body() {
    // There is no worker.
    let house = house();
    let client = Client::new(&house);
    let ask = |method: &str| {
        let request = Request::builder().method(method).uri("http://h/");
        let (response, _) = client.send(request.body(()).unwrap(), true);
        client.block_on(heard(response)).unwrap()
    };
    let get = ask("GET");
    assert_eq!(get.head.status(), StatusCode::SERVICE_UNAVAILABLE);
    let length = get.head.headers()["content-length"].to_str().unwrap();
    assert_eq!(length, get.body.len().to_string());
    let head = ask("HEAD");
    assert_eq!(head.head.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(head.body, b"");
}

#[test]
fn a_host_that_is_not_the_authority_is_refused() {
    let house = house();
    let client = Client::new(&house);
    let request = Request::get("http://h/")
        .header("host", "other")
        .body(())
        .unwrap();
    let (response, _) = client.send(request, true);
    let heard = client.block_on(heard(response)).unwrap();
    assert_eq!(heard.head.status(), StatusCode::BAD_REQUEST);
}

#[test]
fn with_tls_the_client_chooses_what_is_spoken() {
    let one = made(&["one.example"]);
    let house = House::with(|table| secure(table, &[&one]));
    house.worker(1).echo("x");
    let address: SocketAddr = house.listening[0];
    let runtime = runtime();
    let spoken = |protocols: &[&[u8]]| {
        let config = trusting(&[&one], protocols);
        runtime.block_on(async {
            let stream = TcpStream::connect(address).await.unwrap();
            let name = ServerName::try_from("one.example").unwrap();
            let stream = TlsConnector::from(config)
                .connect(name, stream)
                .await
                .unwrap();
            let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
            (stream, protocol)
        })
    };
    assert_eq!(spoken(&[b"http/1.1"]).1.unwrap(), b"http/1.1");
    assert_eq!(spoken(&[]).1, None);
    let (stream, protocol) = spoken(&[b"http/1.1", b"h2"]);
    assert_eq!(protocol.unwrap(), b"h2");
    let body = runtime.block_on(async {
        let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get("https://one.example/").body(()).unwrap();
        let (response, _) = send.send_request(request, true).unwrap();
        tokio::time::timeout(Duration::from_secs(20), heard(response))
            .await
            .unwrap()
            .unwrap()
            .body
    });
    assert_eq!(body, b"x");
}

#[test]
fn a_stream_for_another_certificates_host_is_misdirected_and_no_other() {
    let (one, two) = (
        made(&["one.example"]),
        made(&["two.example", "both.example"]),
    );
    let house = House::with(|table| secure(table, &[&one, &two]));
    house.worker(1).echo("x");
    let address: SocketAddr = house.listening[0];
    let statuses = runtime().block_on(async {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("two.example").unwrap();
        let connector = TlsConnector::from(trusting(&[&two], &[b"h2"]));
        let stream = connector.connect(name, stream).await.unwrap();
        let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut statuses = Vec::new();
        for host in [
            "two.example",
            "one.example",
            "both.example",
            "one.example:443",
        ] {
            let request = Request::get(format!("https://{host}/")).body(()).unwrap();
            let (response, _) = send.send_request(request, true).unwrap();
            let heard = tokio::time::timeout(Duration::from_secs(20), heard(response)).await;
            statuses.push(heard.unwrap().unwrap().head.status().as_u16());
        }
        statuses
    });
    assert_eq!(statuses, [200, 421, 200, 421]);
}

/// A worker that speaks HTTP/2: it sends back each piece of a request as it comes, and then trailers with the number of pieces.
async fn mirror(listener: UnixListener) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::spawn(reflect(request, respond));
            }
        });
    }
}

async fn reflect(request: Request<RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let (parts, mut body) = request.into_parts();
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert("content-type", "application/grpc".parse().unwrap());
    let asked = format!("{} {}", parts.method, parts.uri);
    headers.insert("x-asked", asked.parse().unwrap());
    for name in ["te", "x-forwarded-proto", "host", "connection"] {
        if let Some(value) = parts.headers.get(name) {
            let name: http::HeaderName = format!("x-saw-{name}").parse().unwrap();
            headers.insert(name, value.clone());
        }
    }
    let mut send = respond.send_response(response, false).unwrap();
    let mut pieces = 0;
    while let Some(Ok(piece)) = body.data().await {
        pieces += 1;
        let _ = body.flow_control().release_capacity(piece.len());
        send.send_data(piece, false).unwrap();
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    trailers.insert("x-pieces", pieces.into());
    send.send_trailers(trailers).unwrap();
}

/// A house whose worker speaks HTTP/2, and the runtime it lives on.
fn mirrored() -> (House, Runtime) {
    let mut house = house();
    let runtime = runtime();
    let socket = house.socket(1);
    let listener = runtime.block_on(async { UnixListener::bind(socket).unwrap() });
    runtime.spawn(mirror(listener));
    house.publish(|table| {
        if let Target::Serving(upstream) = &mut table.routes[0].target {
            upstream.protocol = WorkerProtocol::Http2;
        }
    });
    (house, runtime)
}

#[test]
fn a_call_of_grpc_streams_both_ways_and_ends_with_trailers() {
    let (mut house, _worker) = mirrored();
    let client = Client::new(&house);
    let request = Request::post("http://h/pkg.Service/Call")
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let (response, mut send) = client.send(request, false);
    let response = client.block_on(response).unwrap();
    let headers = response.headers().clone();
    assert_eq!(headers["x-asked"], "POST http://h/pkg.Service/Call");
    assert_eq!(headers["x-saw-te"], "trailers");
    assert_eq!(headers["x-saw-x-forwarded-proto"], "http");
    assert!(!headers.contains_key("x-saw-host") && !headers.contains_key("x-saw-connection"));
    let mut answer = response.into_body();
    for word in ["one", "two", "three"] {
        client.block_on(async { send.send_data(Bytes::from(word), false).unwrap() });
        assert_eq!(client.block_on(answer.data()).unwrap().unwrap(), word);
    }
    assert_eq!(house.count(1).0, 1);
    client.block_on(async { send.send_data(Bytes::new(), true).unwrap() });
    while let Some(rest) = client.block_on(answer.data()) {
        assert_eq!(rest.unwrap(), "");
    }
    let trailers = client.block_on(answer.trailers()).unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
}

#[test]
fn calls_share_one_connection_to_a_worker_that_speaks_http2() {
    let (house, _worker) = mirrored();
    let client = Client::new(&house);
    let call = || {
        let request = Request::post("http://h/").body(()).unwrap();
        client.send(request, false)
    };
    let mut calls: Vec<_> = (0..50).map(|_| call()).collect();
    for (_, send) in &mut calls {
        client.block_on(async { send.send_data(Bytes::from_static(b"x"), true).unwrap() });
    }
    for (response, _) in calls {
        let heard = client.block_on(heard(response)).unwrap();
        assert_eq!(heard.body, b"x");
        assert_eq!(heard.trailers.unwrap()["grpc-status"], "0");
    }
    // And so do clients of HTTP/1.1.
    let mut client = house.ask("POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi");
    let head = client.head();
    assert_eq!(status(&head), 200);
    assert_eq!(field(&head, "x-asked"), Some("POST http://h/a"));
    client.expect("2\r\nhi\r\n0\r\n");
}

#[test]
fn a_worker_that_speaks_http2_is_asked_for_its_health_so() {
    let (mut house, _worker) = mirrored();
    let address = Address::Unix(house.socket(1));
    house.say(ToProxy::Probe {
        id: 1,
        address,
        protocol: WorkerProtocol::Http2,
        path: "/health".to_owned(),
        timeout: DEADLINE,
    });
    let outcome = ProbeOutcome::Status(200);
    assert_eq!(house.hear(), ToManager::Probed { id: 1, outcome });
}

/// A worker that takes back every stream but a call of gRPC, and knows no method.
async fn calls_alone(listener: UnixListener) {
    let (stream, _) = listener.accept().await.unwrap();
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        if request.method() == Method::POST
            && request.headers()["content-type"] == "application/grpc"
        {
            let unknown = Response::builder().header("grpc-status", "12");
            respond
                .send_response(unknown.body(()).unwrap(), true)
                .unwrap();
        } else {
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}

#[test]
fn a_worker_that_knows_calls_alone_is_well() {
    let mut house = house();
    let runtime = runtime();
    let socket = house.socket(1);
    let listener = runtime.block_on(async { UnixListener::bind(&socket).unwrap() });
    runtime.spawn(calls_alone(listener));
    house.say(ToProxy::Probe {
        id: 1,
        address: Address::Unix(socket),
        protocol: WorkerProtocol::Http2,
        path: "/pkg.Service".to_owned(),
        timeout: DEADLINE,
    });
    let outcome = ProbeOutcome::Status(200);
    assert_eq!(house.hear(), ToManager::Probed { id: 1, outcome });
}

#[test]
fn hints_reach_the_client_before_the_answer() {
    let house = house();
    let worker = house.worker(1);
    let client = Client::new(&house);
    let (mut response, _) = client.send(get("/"), true);
    let mut upstream = worker.accept();
    upstream.head();
    upstream.send("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\nconnection: x\r\n\r\n");
    let hint = client.block_on(std::future::poll_fn(|cx| response.poll_informational(cx)));
    let hint = hint.unwrap().unwrap();
    assert_eq!(hint.status(), 103);
    assert_eq!(hint.headers()["link"], "</a.css>");
    assert_eq!(hint.headers().len(), 1);
    upstream.answer("x");
    assert_eq!(client.block_on(heard(response)).unwrap().body, b"x");
}

#[test]
fn requests_beyond_the_most_connections_are_refused_and_can_be_sent_again() {
    let house = House::with(|table| {
        table.front.http2_cleartext = true;
        table.front.max_connections = 3;
    });
    let worker = house.worker(1);
    let client = Client::new(&house);
    let asked: Vec<_> = (0..3).map(|_| client.send(get("/"), true).0).collect();
    let mut upstreams: Vec<_> = (0..3).map(|_| worker.accept()).collect();
    for upstream in &mut upstreams {
        upstream.head();
    }
    let (refused, _) = client.send(get("/"), true);
    let error = client.block_on(refused).err().unwrap();
    assert_eq!(error.reason(), Some(Reason::REFUSED_STREAM));
    for upstream in &mut upstreams {
        upstream.answer("x");
    }
    for response in asked {
        assert_eq!(client.block_on(heard(response)).unwrap().body, b"x");
    }
    drop(upstreams);
    worker.echo("y");
    assert_eq!(client.get("/").body, b"y");
}

#[test]
fn bytes_in_time_do_not_make_a_slow_stream_fast() {
    let house = House::with(|table| {
        table.front.http2_cleartext = true;
        table.front.write_timeout = SHORT;
        table.front.min_write_rate = u32::MAX;
    });
    let worker = house.worker(1);
    let client = Client::new(&house);
    let (response, _) = client.send(get("/"), true);
    let mut upstream = worker.accept();
    upstream.head();
    upstream.send(&format!(
        "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n{}",
        "x".repeat(200_000)
    ));
    let mut answer = client.block_on(response).unwrap().into_body();
    let error = client.block_on(async {
        let mut kept = 0;
        loop {
            tokio::select! {
                biased;
                piece = answer.data() => match piece {
                    Some(Ok(piece)) => kept += piece.len(),
                    Some(Err(error)) => return error.reason(),
                    None => return None,
                },
                () = tokio::task::yield_now() => {
                    // A byte of room whenever nothing comes.
                    if kept > 0 && answer.flow_control().release_capacity(1).is_ok() {
                        kept -= 1;
                    }
                }
            }
        }
    });
    assert_eq!(error, Some(Reason::CANCEL));
}

#[test]
fn a_body_that_drips_is_too_slow_on_a_stream_too() {
    let house = House::with(|table| {
        table.front.http2_cleartext = true;
        table.front.read_timeout = SHORT;
        table.front.min_read_rate = u32::MAX;
    });
    let (took, mut taken) = tokio::sync::mpsc::unbounded_channel();
    house.worker(1).serve(move |talk| {
        talk.head();
        let _ = took.send(());
        let mut piece = [0; 4096];
        while std::io::Read::read(&mut talk.stream, &mut piece).is_ok_and(|read| read > 0) {
            let _ = took.send(());
        }
    });
    let client = Client::new(&house);
    let request = Request::post("http://h/").body(()).unwrap();
    let (response, mut body) = client.send(request, false);
    let response = client.block_on(async {
        let mut response = std::pin::pin!(response);
        loop {
            tokio::select! {
                biased;
                response = response.as_mut() => return response,
                // The next piece once the worker has the one before; so small that it earns nothing, and not so small as to be a flood.
                Some(()) = taken.recv() => {
                    let _ = body.send_data(Bytes::from_static(&[b'x'; 300]), false);
                }
            }
        }
    });
    assert_eq!(response.unwrap().status(), StatusCode::REQUEST_TIMEOUT);
}
