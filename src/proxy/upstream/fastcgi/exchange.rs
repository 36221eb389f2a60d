//! One request on its way to php-fpm, and what comes back of it, both at the same time.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use fastcgi_client::conn::ShortConn;
use fastcgi_client::io::{TokioCompat, empty};
use fastcgi_client::response::{Content, ResponseStream};
use fastcgi_client::{Client, ClientError, ClientResult, Params, Request};
use futures_util::Stream;
use tokio::io::{BufReader, Join, Sink};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use tracing::warn;

use super::hold::Stdin;
use super::records::Records;
use super::trouble::Trouble;
use crate::config::printable;
use crate::proxy::upstream::generation::Generation;

/// Bytes read from php-fpm at once: its own buffer is half of that.
const BUFFER: usize = 16 << 10;
/// Most characters of one piece of standard error that are logged.
const COMPLAINT_MAX: usize = 2048;

type Heard = ResponseStream<TokioCompat<Join<Records<BufReader<OwnedReadHalf>>, Sink>>>;

/// A request, and what comes back of it. Dropped, it closes the connection.
pub(super) struct Exchange {
    /// How the sending ended; gone once that is known.
    sent: Option<oneshot::Receiver<ClientResult<()>>>,
    /// Dropped with this: nothing more need be sent.
    _over: oneshot::Sender<()>,
    heard: Heard,
    generation: Option<Arc<Generation>>,
}

impl Exchange {
    /// A request over `stream`, and what sends it: a task of its own, so that a client that does not read for a while can still send.
    pub(super) async fn begin(
        stream: UnixStream,
        params: Params<'static>,
        body: Stdin,
        generation: Option<Arc<Generation>>,
    ) -> Result<(Self, impl Future<Output = ()> + Send + use<>), Trouble> {
        let (read, write) = stream.into_split();
        let (tell, sent) = oneshot::channel();
        let (over, is_over) = oneshot::channel();
        // The crate's client sends a whole request before it hands out the answer. So there are two: one that has nothing to read sends
        // the request, and one that has nothing to send, and nowhere to send it to, reads the answer.
        let records = Records::new(BufReader::with_capacity(BUFFER, read));
        let reader: Client<_, ShortConn> =
            Client::new_tokio(tokio::io::join(records, tokio::io::sink()));
        let nothing = Request::new(Params::default(), empty());
        let exchange = Self {
            sent: Some(sent),
            _over: over,
            heard: reader.execute_once_stream(nothing).await?,
            generation,
        };
        Ok((exchange, send(write, params, body, tell, is_over)))
    }

    /// The next piece of the answer; `None` when it is whole.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Trouble>>> {
        if let Err(trouble) = self.poll_sending(cx) {
            return Poll::Ready(Some(Err(trouble)));
        }
        loop {
            return Poll::Ready(match ready!(Pin::new(&mut self.heard).poll_next(cx)) {
                Some(Ok(Content::Stdout(bytes))) if bytes.is_empty() => continue,
                Some(Ok(Content::Stdout(bytes))) => Some(Ok(bytes)),
                Some(Ok(Content::Stderr(bytes))) => {
                    self.log(&bytes);
                    continue;
                }
                Some(Err(error)) => Some(Err(error.into())),
                None => None,
            });
        }
    }

    /// Notices how the sending ended.
    fn poll_sending(&mut self, cx: &mut Context<'_>) -> Result<(), Trouble> {
        let Some(sent) = &mut self.sent else {
            return Ok(());
        };
        let Poll::Ready(ended) = Pin::new(sent).poll(cx) else {
            return Ok(());
        };
        self.sent = None;
        match ended {
            // It has heard enough to answer.
            Ok(Err(ClientError::Io(error))) if is_deaf(&error) => Ok(()),
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    /// Logs what a script, or php-fpm, has written to its standard error.
    fn log(&self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim();
        let Some(generation) = self.generation.as_ref().filter(|_| !text.is_empty()) else {
            return;
        };
        generation.complain(|| {
            let instance = &generation.instance;
            let cut: String = text.chars().take(COMPLAINT_MAX).collect();
            warn!(
                tq.worker = %instance.worker,
                tq.generation = instance.generation.0,
                "worker '{}' says: {}",
                instance.worker,
                printable(&cut),
            );
        });
    }
}

/// Sends a request over `stream` and tells how that ended. The connection stays open until `is_over`.
async fn send(
    stream: OwnedWriteHalf,
    params: Params<'static>,
    mut body: Stdin,
    tell: oneshot::Sender<ClientResult<()>>,
    mut is_over: oneshot::Receiver<()>,
) {
    let client: Client<_, ShortConn> =
        Client::new_tokio(tokio::io::join(tokio::io::empty(), stream));
    let sending = client.execute_once_stream(Request::new(params, &mut body));
    tokio::select! {
        outcome = sending => match outcome {
            Ok(_open) => {
                let _ = tell.send(Ok(()));
                let _ = is_over.await;
            }
            Err(error) => {
                let _ = tell.send(Err(error));
            }
        },
        _ = &mut is_over => {}
    }
}

/// Whether an error in sending means that the other side does not listen any more.
fn is_deaf(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}
