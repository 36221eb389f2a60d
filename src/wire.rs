//! The link between the planes: what manager and proxy say to each other, and how it is framed.
//!
//! The manager listens on a unix socket, the proxy connects; in development a socket pair takes its place. Each message is a JSON
//! object behind a 32 bit big-endian length. The two are always of the same build (one binary), so the format needs no history;
//! a `Hello` of another one ends the connection with a clear word.

use std::io;
use std::marker::PhantomData;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::codec::{Encoder, FramedRead, LengthDelimitedCodec};

use crate::names::{Instance, WorkerName};
use crate::route::{Address, Listen, Protocol, RouteTable};

/// Longest message, in bytes: a table of some ten thousand routes.
pub const FRAME_MAX: usize = 16 << 20;

/// What the proxy opens with: two sides that were built from different messages do not speak with each other, also where both are of the
/// same release.
pub static VERSION: LazyLock<String> =
    LazyLock::new(|| format!("{}+{FORMAT:016x}", env!("CARGO_PKG_VERSION")));

/// The source of all that messages consist of.
const SOURCES: [(&str, &[u8]); 17] = [
    ("boottime.rs", include_bytes!("boottime.rs")),
    ("names.rs", include_bytes!("names.rs")),
    ("route.rs", include_bytes!("route.rs")),
    ("route/claim.rs", include_bytes!("route/claim.rs")),
    ("route/error_page.rs", include_bytes!("route/error_page.rs")),
    ("route/flow.rs", include_bytes!("route/flow.rs")),
    ("route/front.rs", include_bytes!("route/front.rs")),
    ("route/halt.rs", include_bytes!("route/halt.rs")),
    ("route/host.rs", include_bytes!("route/host.rs")),
    ("route/indexes.rs", include_bytes!("route/indexes.rs")),
    ("route/listen.rs", include_bytes!("route/listen.rs")),
    ("route/path.rs", include_bytes!("route/path.rs")),
    ("route/redirect.rs", include_bytes!("route/redirect.rs")),
    ("route/settings.rs", include_bytes!("route/settings.rs")),
    ("route/table.rs", include_bytes!("route/table.rs")),
    ("route/target.rs", include_bytes!("route/target.rs")),
    ("wire.rs", include_bytes!("wire.rs")),
];

/// Another number whenever what defines the messages is changed; nobody has to remember to change it.
const FORMAT: u64 = {
    let (mut hash, mut next) = (0xcbf2_9ce4_8422_2325, 0);
    while next < SOURCES.len() {
        hash = fnv_1a(hash, SOURCES[next].1);
        next += 1;
    }
    hash
};

/// FNV-1a (draft-eastlake-fnv), of 64 bits: what differs by accident has different numbers.
const fn fnv_1a(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut next = 0;
    while next < bytes.len() {
        hash = (hash ^ bytes[next] as u64).wrapping_mul(0x0100_0000_01b3);
        next += 1;
    }
    hash
}

/// The format in which a proxy leaves its route table to the next one, which may be of another version: it grows when a field is taken
/// away or means something else. A field that is new fails to be read and needs no other number.
pub const TABLE_FORMAT: u32 = 1;

/// Said by the manager.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToProxy {
    /// Serve by this table from now on. Answered by [`ToManager::Applied`], then, for each of its `draining`, once by
    /// [`ToManager::Drained`].
    Publish(RouteTable),
    /// Send one health request and answer with [`ToManager::Probed`] of the same `id`.
    Probe {
        /// Chosen by the manager.
        id: u64,
        /// The generation that is asked.
        address: Address,
        /// What it speaks there.
        #[serde(default)]
        protocol: Protocol,
        /// The path of the request.
        path: String,
        /// Deadline of the whole exchange.
        timeout: Duration,
    },
    /// Answer with [`ToManager::Counted`] of the same `id`.
    Count {
        /// Chosen by the manager.
        id: u64,
    },
}

/// Said by the proxy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToManager {
    /// First word on a connection.
    Hello {
        /// [`VERSION`] of the proxy.
        version: String,
    },
    /// The table of this serial is in force: no later request follows an older one. `front` tells what of its front could not be
    /// had (an address in use); the routes are in force all the same.
    Applied {
        /// The table's serial.
        serial: u64,
        /// How the proxy meets its clients by it.
        front: FrontState,
    },
    /// That has changed without a table: a place that could not be had was tried again.
    Front(FrontState),
    /// No request is in flight in this generation, and none will be.
    Drained(Instance),
    /// How the health request `id` went.
    Probed {
        /// As asked.
        id: u64,
        /// What came back.
        outcome: ProbeOutcome,
    },
    /// What the health request `id`, whose outcome comes next, has reached listens on all addresses of the machine.
    Exposed {
        /// As asked.
        id: u64,
    },
    /// The worker is paused by the table in force, and no request is in flight in any of its generations. Said after each such table.
    Quiet(WorkerName),
    /// This generation has answered its `max_requests`.
    Spent(Instance),
    /// The counters of all generations in the table and of those that drain.
    Counted {
        /// As asked.
        id: u64,
        /// One for each generation.
        counts: Vec<Count>,
    },
}

/// How the proxy meets its clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontState {
    /// Where it listens, with the ports the kernel chose.
    pub listening: Vec<Listen>,
    /// Where it does not listen although the table wants it. It tries again until it does.
    pub refused: Vec<Refused>,
    /// All that could not be had, in a sentence.
    pub problem: Option<String>,
}

/// A place where the proxy could not listen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The place.
    pub listen: Listen,
    /// Why, in a sentence that names it.
    pub reason: String,
}

impl Refused {
    /// `listen` was refused, and why.
    pub fn new(listen: &Listen, reason: String) -> Self {
        Self {
            listen: listen.clone(),
            reason,
        }
    }
}

/// Most bytes of a sentence of the proxy's that are kept, and most places: what it says is shown, and it faces the internet.
const SENTENCE_MAX: usize = 2000;
const PLACES_MAX: usize = 64;

impl FrontState {
    /// This, as far as somebody can have a use for it.
    #[must_use]
    pub fn tidied(mut self) -> Self {
        self.listening.truncate(PLACES_MAX);
        self.refused.truncate(PLACES_MAX);
        let tidy = |sentence: &mut String| {
            let chars = sentence.chars().take(SENTENCE_MAX);
            *sentence = chars
                .map(|c| if c.is_control() { '?' } else { c })
                .collect();
        };
        self.refused
            .iter_mut()
            .for_each(|refused| tidy(&mut refused.reason));
        self.problem.iter_mut().for_each(tidy);
        self
    }

    /// What is not served and why, as a part of a status line; empty if there is nothing.
    pub fn trouble(&self) -> String {
        let places: Vec<String> = (self.refused.iter())
            .map(|refused| refused.listen.to_string())
            .collect();
        match (&self.problem, places.is_empty()) {
            (None, _) => String::new(),
            (Some(problem), true) => format!("PROBLEM: {problem}"),
            (Some(problem), false) => {
                let places = places.join(", ");
                format!("NOT LISTENING on {places}, trying again: {problem}")
            }
        }
    }
}

/// How a health request went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeOutcome {
    /// A response with this status code came.
    Status(u16),
    /// None came within the timeout.
    TimedOut,
    /// The connection was refused, broke, or did not speak HTTP; the sentence says which.
    Broken(String),
    /// The proxy could not ask for want of descriptors, memory or the like: that says nothing of the worker.
    NotAsked(String),
    /// Somebody else listens on its port, of whom the sentence tells.
    Taken(String),
}

impl ProbeOutcome {
    /// Whether the generation may get requests: it answered, and not with 5xx. A worker without a health page of its own answers
    /// 404 there, and is well.
    pub fn is_healthy(&self) -> bool {
        matches!(self, Self::Status(100..=499))
    }
}

/// What one generation has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Which.
    pub instance: Instance,
    /// Requests begun.
    pub requests: u64,
    /// Of those, not yet ended.
    pub in_flight: u64,
    /// How long ago the last one ended; zero while any is in flight.
    pub idle: Duration,
}

/// Longest wait until the other side takes a message. A peer that does not read for so long is gone in all but name.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a message could not be sent or read.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The connection broke, or a frame was longer than [`FRAME_MAX`].
    #[error("the link between manager and proxy broke")]
    Io(#[from] io::Error),
    /// The other side is of another version, or not of ours at all.
    #[error("a message on the link between manager and proxy could not be read")]
    Message(#[from] serde_json::Error),
    /// The other side does not read.
    #[error("the other side of the link has not read for {} s", SEND_TIMEOUT.as_secs())]
    Stuck,
}

/// One end of the link: hears `In`, says `Out`. The manager's is `Duplex<ToManager, ToProxy>`.
#[derive(Debug)]
pub struct Duplex<In, Out> {
    reader: Reader<In>,
    writer: Writer<Out>,
}

/// The half of a link that reads.
#[derive(Debug)]
pub struct Reader<In> {
    frames: FramedRead<OwnedReadHalf, LengthDelimitedCodec>,
    hears: PhantomData<fn() -> In>,
}

/// The half of a link that writes.
#[derive(Debug)]
pub struct Writer<Out> {
    stream: OwnedWriteHalf,
    codec: LengthDelimitedCodec,
    frame: BytesMut,
    says: PhantomData<fn(Out)>,
}

impl<In: DeserializeOwned, Out: Serialize> Duplex<In, Out> {
    /// Speaks over `stream`.
    pub fn new(stream: UnixStream) -> Self {
        let (read, write) = stream.into_split();
        Self {
            reader: Reader {
                frames: FramedRead::new(read, codec()),
                hears: PhantomData,
            },
            writer: Writer {
                stream: write,
                codec: codec(),
                frame: BytesMut::new(),
                says: PhantomData,
            },
        }
    }

    /// See [`Reader::next`].
    ///
    /// # Errors
    /// As there.
    pub async fn next(&mut self) -> Result<Option<In>, WireError> {
        self.reader.next().await
    }

    /// See [`Writer::send`].
    ///
    /// # Errors
    /// As there.
    pub async fn send(&mut self, message: &Out) -> Result<(), WireError> {
        self.writer.send(message).await
    }

    /// The two halves, for two tasks.
    pub fn split(self) -> (Reader<In>, Writer<Out>) {
        (self.reader, self.writer)
    }
}

impl<In: DeserializeOwned> Reader<In> {
    /// From now on longer messages than `most` bytes end the link.
    pub fn limit(&mut self, most: usize) {
        self.frames.decoder_mut().set_max_frame_length(most);
    }

    /// The next message; `None` once the other side has closed. May be dropped and called again without losing a message.
    ///
    /// # Errors
    /// When the connection breaks or the message is not one of ours; the link is of no use then.
    pub async fn next(&mut self) -> Result<Option<In>, WireError> {
        match self.frames.next().await {
            None => Ok(None),
            Some(frame) => Ok(Some(serde_json::from_slice(&frame?)?)),
        }
    }
}

impl<Out: Serialize> Writer<Out> {
    /// Sends one message. Must not be dropped half way: the other side would read the rest of it as something else.
    ///
    /// # Errors
    /// When the connection breaks, the message is longer than [`FRAME_MAX`], or the other side has stopped reading.
    pub async fn send(&mut self, message: &Out) -> Result<(), WireError> {
        let message = serde_json::to_vec(message)?;
        self.frame.clear();
        self.codec.encode(Bytes::from(message), &mut self.frame)?;
        match tokio::time::timeout(SEND_TIMEOUT, self.stream.write_all(&self.frame)).await {
            Ok(sent) => Ok(sent?),
            Err(_) => Err(WireError::Stuck),
        }
    }
}

fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .max_frame_length(FRAME_MAX)
        .new_codec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Duplex<ToManager, ToProxy>, Duplex<ToProxy, ToManager>) {
        let (manager, proxy) = UnixStream::pair().unwrap();
        (Duplex::new(manager), Duplex::new(proxy))
    }

    #[test]
    fn a_change_of_any_file_of_the_route_table_changes_the_format() {
        let route = concat!(env!("CARGO_MANIFEST_DIR"), "/src/route");
        for entry in std::fs::read_dir(route).unwrap() {
            let file = entry.unwrap().file_name().into_string().unwrap();
            let name = format!("route/{file}");
            let is_hashed = SOURCES.iter().any(|(source, _)| *source == name);
            assert!(is_hashed, "{name} is not among SOURCES");
        }
    }

    #[tokio::test]
    async fn what_is_said_is_heard_in_order() {
        let (mut manager, mut proxy) = pair();
        for id in 0..3 {
            manager.send(&ToProxy::Count { id }).await.unwrap();
        }
        drop(manager);
        for id in 0..3 {
            assert_eq!(proxy.next().await.unwrap(), Some(ToProxy::Count { id }));
        }
        assert_eq!(proxy.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_frame_that_is_too_long_is_an_error_before_it_is_read() {
        let (mut strange, proxy) = UnixStream::pair().unwrap();
        let mut proxy = Duplex::<ToProxy, ToManager>::new(proxy);
        let length = u32::try_from(FRAME_MAX + 1).unwrap();
        strange.write_all(&length.to_be_bytes()).await.unwrap();
        assert!(matches!(proxy.next().await, Err(WireError::Io(_))));
    }

    #[tokio::test]
    async fn a_frame_beyond_the_hearers_own_limit_is_an_error_before_it_is_read() {
        let (mut strange, manager) = UnixStream::pair().unwrap();
        let (mut reader, _mouth) = Duplex::<ToManager, ToProxy>::new(manager).split();
        reader.limit(100);
        strange.write_all(&101_u32.to_be_bytes()).await.unwrap();
        assert!(matches!(reader.next().await, Err(WireError::Io(_))));
    }

    #[test]
    fn what_the_proxy_says_is_kept_as_far_as_somebody_can_read_it() {
        let listen = Listen::from(std::net::SocketAddr::from(([127, 0, 0, 1], 80)));
        let evil = "\x1b[31m".repeat(100_000);
        let front = FrontState {
            listening: vec![listen.clone(); 10_000],
            refused: vec![Refused::new(&listen, evil.clone()); 10_000],
            problem: Some(evil),
        };
        let front = front.tidied();
        assert_eq!((front.listening.len(), front.refused.len()), (64, 64));
        let problem = front.problem.unwrap();
        assert!(problem.len() <= 2000 && !problem.contains('\x1b'));
        assert_eq!(front.refused[0].reason, problem);
    }

    #[test]
    fn a_number_tells_one_text_from_another() {
        let number = |text: &[u8]| fnv_1a(0xcbf2_9ce4_8422_2325, text);
        // From the draft's test vectors.
        assert_eq!(number(b"foobar"), 0x8594_4171_f739_67e8);
        assert_ne!(number(b"Serve { at: u8 }"), number(b"Serve { at: u16 }"));
        assert!(VERSION.starts_with(concat!(env!("CARGO_PKG_VERSION"), "+")));
    }

    #[tokio::test]
    async fn a_message_of_another_kind_is_an_error() {
        let (mut strange, proxy) = UnixStream::pair().unwrap();
        let mut proxy = Duplex::<ToProxy, ToManager>::new(proxy);
        strange.write_all(b"\0\0\0\x02{}").await.unwrap();
        assert!(matches!(proxy.next().await, Err(WireError::Message(_))));
    }
}
