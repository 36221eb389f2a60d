//! The gateway: a stream to a worker that speaks FastCGI, as if it spoke HTTP/1.1.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::exchange::Exchange;
use super::response::{self, Body};
use super::trouble::{Trouble, Verdict};
use super::{hold, params};
use crate::proxy::upstream::dial::patiently;
use crate::proxy::upstream::generation::Generation;
use crate::proxy::wire::cause::innermost;
use crate::proxy::wire::origin::Origin;
use crate::route::Scripts;

/// Bytes on their way through the gateway, in each direction.
const PIPE: usize = 64 << 10;
/// Most bytes and fields of a request's head: no front lets more of either through, and the proxy adds a few of its own.
const HEAD_BYTES_MAX: usize = (1 << 20) + (64 << 10);
const HEAD_FIELDS_MAX: usize = 4096 + 32;
/// So long is a connection kept open for a request's body, which is held until it is whole. php-fpm has a process for each connection
/// and closes it after five seconds without a word, so that slow clients would keep all others from theirs.
const OPEN_WAIT: Duration = Duration::from_millis(100);
/// When a client may try again whose body found no room, in seconds.
const NO_ROOM_RETRY: &str = "10";
/// Most bytes of what php-fpm is told of a request: it reads them record by record, and takes one that goes on in the next for broken.
const PARAMS_MAX: usize = 0xffff;

/// A stream to a worker that speaks FastCGI, as if it spoke HTTP/1.1. It carries one request; what serves it ends with it.
#[derive(Debug)]
pub(crate) struct Gateway {
    near: DuplexStream,
    verdict: Verdict,
    /// The worker was there when this was made, and not any more when the request was whole.
    gone: Arc<AtomicBool>,
    _server: AbortOnDropHandle<()>,
}

/// Connects to the worker that listens on `socket`, for one request. What it writes to its standard error is said of the generation that
/// the request goes to; without one, it is us who ask.
///
/// # Errors
/// As of the socket.
pub(crate) async fn connect(
    socket: &Path,
    scripts: &Scripts,
    whose: Option<(&Arc<Generation>, &Origin)>,
) -> io::Result<Gateway> {
    let stream = UnixStream::connect(socket).await?;
    let (near, far) = tokio::io::duplex(PIPE);
    let (verdict, gone) = (Verdict::default(), Arc::<AtomicBool>::default());
    let (generation, origin) = whose.unzip();
    let desk = Desk {
        stream: Mutex::new(Some(stream)),
        socket: socket.to_owned(),
        sending: Mutex::default(),
        scripts: scripts.clone(),
        origin: origin.cloned(),
        generation: generation.cloned(),
        verdict: verdict.clone(),
        gone: gone.clone(),
    };
    Ok(Gateway {
        near,
        verdict,
        gone,
        _server: AbortOnDropHandle::new(tokio::spawn(serve(far, desk))),
    })
}

/// What the one request needs.
struct Desk {
    /// Gone once the request has come.
    stream: Mutex<Option<UnixStream>>,
    socket: PathBuf,
    /// What sends the request on, or lets what is left of it come.
    sending: Mutex<Option<AbortOnDropHandle<()>>>,
    scripts: Scripts,
    origin: Option<Origin>,
    generation: Option<Arc<Generation>>,
    verdict: Verdict,
    gone: Arc<AtomicBool>,
}

/// Answers one request that comes over `far`.
async fn serve(far: DuplexStream, desk: Desk) {
    let verdict = desk.verdict.clone();
    let desk = &desk;
    let service = service_fn(|request| async move {
        desk.exchange(request).await.inspect_err(|trouble| {
            let is_gone = matches!(trouble, Trouble::Gone(_));
            desk.gone.store(is_gone, Ordering::Relaxed);
            let _ = desk.verdict.set(innermost(trouble));
        })
    });
    let served = http1::Builder::new()
        .keep_alive(false)
        .auto_date_header(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_headers(HEAD_FIELDS_MAX)
        .serve_connection(TokioIo::new(far), service)
        .await;
    if let Err(error) = served {
        // The first word is the one that says something.
        let _ = verdict.set(innermost(&error));
    }
}

impl Desk {
    async fn exchange(&self, request: Request<Incoming>) -> Result<Response<Body>, Trouble> {
        let stream = self
            .stream
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(stream) = stream else {
            return Err(io::Error::other("a second request").into());
        };
        let (parts, incoming) = request.into_parts();
        let mut params = params::of(&parts, &self.scripts, self.origin.as_ref());
        if params::size(&params) > PARAMS_MAX - params::LENGTH_SIZE {
            self.own(take(incoming));
            return Ok(head_too_large());
        }
        let has_body = !incoming.is_end_stream() || parts.headers.contains_key(CONTENT_LENGTH);
        let mut holding = pin!(hold::whole(incoming));
        let held = match tokio::time::timeout(OPEN_WAIT, holding.as_mut()).await {
            Ok(held) => held.map(|held| (held, Some(stream))),
            Err(_) => {
                drop(stream);
                holding.await.map(|held| (held, None))
            }
        };
        let (held, stream) = match held {
            Ok(held) => held,
            Err(hold::Failure::Torn(error)) => return Err(Trouble::Body(error)),
            Err(hold::Failure::NoRoom(error, rest)) => {
                self.complain(&error);
                self.own(take(rest));
                return Ok(no_room());
            }
        };
        if has_body {
            params = params::with_length(params, held.length());
        }
        let stream = match stream {
            Some(stream) => stream,
            None => patiently(true, || UnixStream::connect(&self.socket))
                .await
                .map_err(Trouble::Gone)?,
        };
        let begun = Exchange::begin(stream, params, held.stdin(), self.generation.clone());
        let (exchange, sending) = begun.await?;
        self.own(sending);
        response::begin(exchange, &parts.method, self.verdict.clone()).await
    }

    /// Says that there is no room for a body.
    fn complain(&self, error: &io::Error) {
        let Some(generation) = &self.generation else {
            return;
        };
        generation.complain(|| {
            let worker = &generation.instance.worker;
            warn!(
                tq.worker = %worker,
                tq.generation = generation.instance.generation.0,
                "the body of a request to worker '{worker}' can not be held below $TMPDIR, /var/tmp or /tmp: {error}; the client got 503",
            );
        });
    }

    /// Runs `sending` for as long as the connection is served.
    fn own(&self, sending: impl Future<Output = ()> + Send + 'static) {
        let task = AbortOnDropHandle::new(tokio::spawn(sending));
        let mut place = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        *place = Some(task);
    }
}

/// Takes what nobody wants of a body: while it comes it is in nobody's way, and a client that still sends would not hear a refusal.
async fn take(mut body: Incoming) {
    while let Some(Ok(_)) = body.frame().await {}
}

/// There is no room for a body. Others may be done with theirs in a moment.
fn no_room() -> Response<Body> {
    let sentence = "there is no room for the request's body just now\n".to_owned();
    let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, sentence);
    let retry = http::HeaderValue::from_static(NO_ROOM_RETRY);
    response
        .headers_mut()
        .insert(http::header::RETRY_AFTER, retry);
    response
}

fn head_too_large() -> Response<Body> {
    let sentence = format!(
        "PHP takes at most {} KiB of address and header fields together, the address counting twice\n",
        PARAMS_MAX.div_ceil(1024)
    );
    refusal(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, sentence)
}

/// What php-fpm could not take.
fn refusal(status: StatusCode, sentence: String) -> Response<Body> {
    let mut response = Response::new(Body::full(sentence.into()));
    *response.status_mut() = status;
    let plain = http::HeaderValue::from_static("text/plain");
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, plain);
    response
}

impl AsyncRead for Gateway {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.near).poll_read(cx, buffer))?;
        let is_end = buffer.filled().len() == before && buffer.remaining() > 0;
        match this.verdict.get().filter(|_| is_end) {
            Some(verdict) => {
                let kind = match this.gone.load(Ordering::Relaxed) {
                    true => io::ErrorKind::NotConnected,
                    false => io::ErrorKind::Other,
                };
                Poll::Ready(Err(io::Error::new(kind, verdict.clone())))
            }
            None => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Gateway {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.near).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.near).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.near.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.near).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.near).poll_shutdown(cx)
    }
}
