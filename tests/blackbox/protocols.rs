//! Clients of HTTP/2 and WebSockets while workers are replaced and the proxy is restarted: what they lose.
//!
//! A request over HTTP/2 is lost when it is answered wrongly, not at all, or with an error that does not say that it was not begun. One
//! that the server says it has not begun (its stream is beyond a GOAWAY's last, or refused) is sent again on a new connection, as
//! RFC 9113, 8.7 has clients do, and is not lost.
//!
//! A WebSocket has no such way on: it goes on for as long as the grace of what it goes through, and then ends. What was under way in that
//! moment is lost, and nothing before.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use h2::Reason;
use h2::client::SendRequest;
use http::Request;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::house::worker::says;
use crate::house::{House, LONG, count, until};

const PROXY: &str = "tqserver-proxy.service";

/// Connections, and streams at a time on each.
const CONNECTIONS: usize = 4;
const STREAMS: usize = 16;

/// How long what ends may take, in milliseconds.
const GRACE: u64 = 3000;

#[derive(Default)]
struct Totals {
    stop: AtomicBool,
    answered: AtomicU64,
    /// Sent again because the server had not begun them.
    again: AtomicU64,
    connections: AtomicU64,
}

fn open() -> House {
    House::new()
        .worker("index", says("0"))
        .server_yaml(&format!(
            "server: {{address: \"127.0.0.1\", port: 0, http2_cleartext: true}}\nfile_watcher: {{debounce_ms: 60000}}\n\
             workers: {{shutdown_grace_period_ms: {GRACE}}}\n"
        ))
        .planes()
        .open()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("start a runtime")
}

async fn connect(address: SocketAddr, totals: &Totals) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.expect("connect");
    let (send, connection) = h2::client::handshake(stream).await.expect("begin HTTP/2");
    // How it ends is seen by its requests.
    tokio::spawn(connection);
    totals.connections.fetch_add(1, Ordering::Relaxed);
    send
}

/// Asks again and again on one connection, many requests at a time; the first error that counts ends it.
async fn ask(address: SocketAddr, totals: Arc<Totals>) -> Result<(), String> {
    while !totals.stop.load(Ordering::Relaxed) {
        let send = connect(address, &totals).await;
        let mut streams = JoinSet::new();
        for _ in 0..STREAMS {
            streams.spawn(ask_on(send.clone(), totals.clone()));
        }
        while let Some(ended) = streams.join_next().await {
            ended.expect("a stream's task")?;
        }
    }
    Ok(())
}

/// The same on one stream after another, until the connection takes no more.
async fn ask_on(send: SendRequest<Bytes>, totals: Arc<Totals>) -> Result<(), String> {
    while !totals.stop.load(Ordering::Relaxed) {
        // A connection that takes no more has not taken this one.
        let Ok(mut send) = send.clone().ready().await else {
            return Ok(());
        };
        let request = Request::get("http://h/").body(()).expect("a request");
        let Ok((response, _)) = send.send_request(request, true) else {
            return Ok(());
        };
        let answered = async {
            let (head, mut body) = response.await?.into_parts();
            let mut text = Vec::new();
            while let Some(piece) = body.data().await {
                let piece = piece?;
                body.flow_control().release_capacity(piece.len())?;
                text.extend_from_slice(&piece);
            }
            Ok::<_, h2::Error>((head.status, text))
        };
        match tokio::time::timeout(LONG, answered).await {
            Ok(Ok((status, text))) if status == 200 && text.is_ascii() && !text.is_empty() => {
                totals.answered.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Ok((status, text))) => return Err(format!("{status}: {}", text.escape_ascii())),
            Ok(Err(error)) if is_not_begun(&error) => {
                totals.again.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Ok(Err(error)) => return Err(format!("{error:?}")),
            Err(_) => return Err(format!("nothing within {LONG:?}")),
        }
    }
    Ok(())
}

/// Whether the server says that it has done nothing of the request.
fn is_not_begun(error: &h2::Error) -> bool {
    let reason = error.reason();
    error.is_remote()
        && (error.is_go_away() && reason == Some(Reason::NO_ERROR)
            || error.is_reset() && reason == Some(Reason::REFUSED_STREAM))
}

#[test]
fn reloads_and_restarts_of_the_proxy_lose_no_request_over_http2() {
    let house = open();
    let runtime = runtime();
    let totals = Arc::new(Totals::default());
    let mut clients = JoinSet::new();
    for _ in 0..CONNECTIONS {
        clients.spawn_on(ask(house.address(), totals.clone()), runtime.handle());
    }
    let reaches = |further: u64| {
        let goal = totals.answered.load(Ordering::Relaxed) + further;
        until("more answers", || {
            totals.answered.load(Ordering::Relaxed) >= goal
        });
    };
    for version in 1..=count("TQ_RELOADS", 3) {
        reaches(100);
        house.replace("index", says(&version.to_string()));
        house.systemctl(["reload", "tqserver.service"]).succeeds();
    }
    let before = totals.connections.load(Ordering::Relaxed);
    assert_eq!(before, CONNECTIONS as u64, "a reload ends no connection");
    for _ in 0..count("TQ_RESTARTS", 3) {
        reaches(100);
        house.systemctl(["restart", PROXY]).succeeds();
    }
    reaches(100);
    totals.stop.store(true, Ordering::Relaxed);
    runtime.block_on(async {
        while let Some(ended) = clients.join_next().await {
            let lost = ended.expect("a client's task").err();
            assert_eq!(lost, None);
        }
    });
    println!(
        "{} answers on {} connections, none lost; {} were sent again",
        totals.answered.load(Ordering::Relaxed),
        totals.connections.load(Ordering::Relaxed),
        totals.again.load(Ordering::Relaxed),
    );
}

type WebSocket = WebSocketStream<TcpStream>;

async fn open_websocket(address: SocketAddr) -> WebSocket {
    let stream = TcpStream::connect(address).await.expect("connect");
    let opened = tokio_tungstenite::client_async("ws://h/ws", stream).await;
    opened.expect("open a WebSocket").0
}

/// A message there and back; `false` when the WebSocket has ended.
async fn echoes(socket: &mut WebSocket) -> bool {
    let talk = async {
        socket.send(Message::text("hello")).await.ok()?;
        let message = socket.next().await?.ok()?;
        message
            .into_text()
            .ok()
            .filter(|text| text.as_str() == "hello")
    };
    let heard = tokio::time::timeout(LONG, talk).await;
    heard.expect("neither a message nor an end").is_some()
}

/// Talks until the end, and tells how long after `since` that was.
async fn talks_until_it_ends(mut socket: WebSocket, since: Instant) -> Duration {
    while echoes(&mut socket).await {
        assert!(since.elapsed() < LONG, "it does not end");
    }
    since.elapsed()
}

/// WebSockets that talk while `happens` does and its consequences; each ends, and not before the grace is over.
fn talk_through(house: &House, happens: impl FnOnce()) {
    let runtime = runtime();
    let address = house.address();
    let mut sockets: Vec<_> = runtime.block_on(async {
        let mut sockets = Vec::new();
        for _ in 0..8 {
            sockets.push(open_websocket(address).await);
        }
        sockets
    });
    runtime.block_on(async {
        for socket in &mut sockets {
            assert!(echoes(socket).await);
        }
    });
    let since = Instant::now();
    let mut talks = JoinSet::new();
    for socket in sockets {
        talks.spawn_on(talks_until_it_ends(socket, since), runtime.handle());
    }
    happens();
    runtime.block_on(async {
        while let Some(ended) = talks.join_next().await {
            let after = ended.expect("a WebSocket's task");
            assert!(
                after >= Duration::from_millis(GRACE),
                "a WebSocket was cut {after:?} after"
            );
        }
    });
    // And who comes anew is served.
    runtime.block_on(async {
        let mut socket = open_websocket(address).await;
        assert!(echoes(&mut socket).await);
    });
}

#[test]
fn websockets_go_on_through_a_reload_until_the_grace_is_over() {
    let house = open();
    talk_through(&house, || {
        house.replace("index", says("1"));
        house.systemctl(["reload", "tqserver.service"]).succeeds();
        house.get("/").is("1");
    });
}

#[test]
fn websockets_go_on_through_a_restart_of_the_proxy_until_the_grace_is_over() {
    let house = open();
    talk_through(&house, || {
        house.systemctl(["restart", PROXY]).succeeds();
        house.get("/").is("0");
    });
}
