//! One client's connection: its requests, one after the other.

use crate::proxy::request::client::Client;
use crate::proxy::request::client::Met;
use crate::proxy::request::respond;
use crate::proxy::request::tunnel::Switch;
use std::cell::Cell;
use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1::Parts;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;
use tracing::debug;

use super::http2;
use crate::proxy::downstream::connection_limit::ConnectionPermit;
use crate::proxy::downstream::listener::Listener;
use crate::proxy::downstream::preamble::{self, Proxied};
use crate::proxy::downstream::request_body::Inbound;
use crate::proxy::downstream::signals::Signals;
use crate::proxy::downstream::socket::Socket;
use crate::proxy::downstream::stream::{self, Raw, Stream};
use crate::proxy::shard::Shard;
use crate::proxy::table::builders::Http2;
use crate::proxy::wire::origin::{self, Origin};
use crate::proxy::wire::pace::Pace;
use crate::tls;

/// A client at the door.
pub(crate) struct Arrival {
    pub(crate) stream: Raw,
    /// Where it came in.
    pub(crate) listener: Arc<Listener>,
    /// Where it comes from; `None` behind a unix socket.
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) signals: Arc<Signals>,
    /// Its place among all.
    pub(crate) permit: ConnectionPermit,
    /// What its thread calls it.
    pub(crate) number: u64,
}

/// Serves a client until it leaves, or `shard` stops.
pub(crate) async fn serve(shard: Rc<Shard>, arrival: Arrival) {
    let address = preamble::client_of(arrival.peer);
    let served = async {
        // Boxed, and so gone while a client only stays; in the match it would be kept until the end.
        let conversation = Box::pin(meet(shard, arrival)).await?;
        match conversation {
            Conversation::Http1(client, socket) => serve_http1(client, socket).await,
            Conversation::Http2(http2) => {
                let (client, socket, server) = *http2;
                Ok(Box::pin(http2::serve(client, socket, server)).await?)
            }
        }
    };
    if let Err(error) = served.await {
        match address {
            Some(address) => debug!("connection of {address} ended: {error}"),
            None => debug!("connection of a client behind a socket ended: {error}"),
        }
    }
}

/// What a client speaks.
enum Conversation {
    Http1(Rc<Client>, Box<Socket>),
    Http2(Box<(Rc<Client>, Socket, Http2)>),
}

/// Finds out who it is and what it speaks.
async fn meet(shard: Rc<Shard>, arrival: Arrival) -> Result<Conversation, Box<dyn Error>> {
    let Arrival {
        stream: mut raw,
        listener,
        mut peer,
        signals,
        mut permit,
        number,
    } = arrival;
    signals.meet();
    let table = shard.table();
    let front = table.front();
    let how = &listener.listen;
    let mut address = preamble::client_of(peer);
    let mut local = stream::local(&raw);
    let mut trusted = address.map_or(how.trusted, |address| front.trusts(address));
    if how.proxy_protocol {
        if !trusted {
            return Err(
                "it is not a trusted proxy, and only those may speak the PROXY protocol there"
                    .into(),
            );
        }
        let proxied = within(front.read_timeout, preamble::proxied(&mut raw)).await?;
        if let Some(Proxied { client, server }) = proxied {
            (peer, local) = (Some(client), Some(server));
            address = Some(client.ip());
            trusted = front.trusts(client.ip());
        }
    }
    if let Some(address) = address.filter(|_| !trusted)
        && let Err(full) = permit.is(address, front)
    {
        shard.connection_limit().complain(full, front);
        return Err("there are too many of its address".into());
    }
    let mut is_http2 = false;
    let mut shown = None;
    let stream = match table.published.tls.as_ref().filter(|_| how.tls) {
        Some(acceptor) => {
            let stream = within(front.read_timeout, acceptor.accept(raw)).await?;
            is_http2 = tls::is_http2(&stream);
            shown = acceptor.shown(&stream);
            Stream::Right(Box::new(stream))
        }
        None if how.tls => return Err("there is no certificate".into()),
        None => Stream::Left(raw),
    };
    let proto = if how.tls { "https" } else { "http" };
    let address = match address {
        Some(address) => HeaderValue::from_str(&address.to_string())?,
        None => HeaderValue::from_static(origin::UNKNOWN),
    };
    let client = Rc::new(Client::new(
        Met {
            origin: Rc::new(Origin {
                way: address.clone(),
                client: address,
                client_port: peer.map(|peer| peer.port()),
                proto: HeaderValue::from_static(proto),
                is_told: false,
                local,
            }),
            trusted,
            redirect: how.redirect,
            shown,
            write_pace: Pace::writing(front),
            signals,
            shard,
        },
        permit,
    ));
    let mut socket = Socket::new(stream, client.signals().clone(), front);
    // When the proxy stops it is not hyper that is told, which closes at once what is idle: the next request may be on its way.
    let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    client.shard().clients().welcome(number, waker);
    if client.shard().is_stopping() {
        client.signals().part();
    }
    if front.http2_cleartext && !how.tls {
        let (has_preface, read) = preamble::has_preface(&mut socket).await?;
        socket.unread(read);
        is_http2 = has_preface;
    }
    if is_http2 {
        socket.multiplex();
        let http2 = Box::new((client, socket, table.server2.clone()));
        return Ok(Conversation::Http2(http2));
    }
    Ok(Conversation::Http1(client, Box::new(socket)))
}

/// Ends a step of the beginning that takes too long.
async fn within<T>(limit: Duration, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    if limit.is_zero() {
        return step.await;
    }
    match tokio::time::timeout(limit, step).await {
        Ok(outcome) => outcome,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Serves one request after the other. Between two that are far apart hyper is gone, and with it its buffers.
async fn serve_http1(client: Rc<Client>, mut socket: Box<Socket>) -> Result<(), Box<dyn Error>> {
    let switching = Rc::new(Switching::default());
    loop {
        let service = service_fn(|request: Request<Incoming>| {
            let mut request = request.map(Inbound::Http1);
            let in_flight = client.signals().in_flight_guard();
            let (client, switching) = (client.clone(), switching.clone());
            async move {
                if request.headers().contains_key(UPGRADE) {
                    request.extensions_mut().insert(switching.switch());
                }
                let mut response = respond::respond(&client, &mut request, None).await;
                if client.signals().interims().is_waiting() {
                    client.signals().interims().empty().await;
                }
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    in_flight.for_ever();
                    switching.switches.set(true);
                } else {
                    if client.signals().is_parting() {
                        let close = HeaderValue::from_static("close");
                        response.headers_mut().insert(CONNECTION, close);
                    }
                    response.body_mut().keep_in_flight(in_flight);
                }
                Ok::<_, Infallible>(response)
            }
        });
        let mut connection = {
            let server = &client.shard().table().server;
            Box::new(server.serve_connection(TokioIo::new(socket), service))
        };
        connection.as_mut().await?;
        let Parts { io, read_buf, .. } = connection.into_parts();
        socket = io.into_inner();
        if switching.switches.get() {
            socket.unread(read_buf);
            switching.hand_over(socket);
            return Ok(());
        }
        // Nothing is in it, and it is a part of hyper's buffer.
        drop(read_buf);
        if !socket.rests() {
            return Ok(());
        }
        if !socket.rest().await? {
            return Ok(socket.shutdown().await?);
        }
    }
}

/// What becomes of a connection that is HTTP no more.
#[derive(Default)]
struct Switching {
    switches: Cell<bool>,
    /// Who waits for it.
    waiting: Cell<Option<oneshot::Sender<Box<Socket>>>>,
}

impl Switching {
    /// The extension of a request that wants it.
    fn switch(&self) -> impl Clone + Send + Sync + 'static {
        let (sender, receiver) = oneshot::channel();
        self.waiting.set(Some(sender));
        Switch::http1(receiver)
    }

    fn hand_over(&self, socket: Box<Socket>) {
        if let Some(waiting) = self.waiting.take() {
            // Who does not wait any more has no use for it.
            let _ = waiting.send(socket);
        }
    }
}
