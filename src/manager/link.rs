//! The manager's end of the link to the proxy.

use std::path::PathBuf;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};

use crate::ansi;
use crate::route::{Place, RouteTable};
use crate::wire::{Duplex, FrontState, ProbeOutcome, ToManager, ToProxy, VERSION};

/// Messages that may wait for the proxy; one that reads so slowly is cut off and starts anew.
const OUTBOX: usize = 1024;

/// Longest message of the proxy's, in bytes: the counters of ten thousand generations. It faces the internet, and what it says waits in
/// our memory.
const SAID_MAX: usize = 2 << 20;

/// Pause after a connection that could not be accepted: for want of descriptors the next try would fail at once, and so on.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// Where the proxy comes from.
#[derive(Debug)]
pub enum Door {
    /// It is in the same process.
    Stream(UnixStream),
    /// It connects here. Who may is for the file's permissions to say.
    Path {
        /// The socket's file, which is made once the manager is the only one.
        path: PathBuf,
        /// The proxy's group, if it is not the manager's own user.
        group: Option<u32>,
    },
}

/// A door that is open.
#[derive(Debug)]
pub(super) enum OpenDoor {
    Stream(UnixStream),
    Listener(UnixListener),
}

impl Door {
    /// Binds the socket the proxy connects to, for the owner and, if there is one, the proxy's group. It takes the place of one that
    /// is there, so the caller must know that no other manager listens on that.
    pub(super) fn open(self) -> std::io::Result<OpenDoor> {
        use std::os::unix::fs::PermissionsExt;
        let (path, group) = match self {
            Self::Stream(stream) => return Ok(OpenDoor::Stream(stream)),
            Self::Path { path, group } => (path, group),
        };
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        std::os::unix::fs::chown(&path, None, group)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
        Ok(OpenDoor::Listener(listener))
    }
}

/// What the manager's loop hears of the link.
#[derive(Debug)]
pub(super) enum LinkEvent {
    /// A proxy connected; what is to be said to it goes here.
    Up(Outbox),
    /// It said something.
    Said(ToManager),
    /// It is gone.
    Down,
}

/// The way to the proxy that is connected now.
#[derive(Clone, Debug)]
pub(super) struct Outbox {
    messages: mpsc::Sender<ToProxy>,
    /// The newest table. A proxy that has not applied the last one yet gets only this of all that follow.
    table: watch::Sender<Option<RouteTable>>,
}

impl Outbox {
    /// Queues a message; `false` when the queue is full or the proxy gone.
    pub(super) fn say(&self, message: ToProxy) -> bool {
        match message {
            ToProxy::Publish(table) => self.table.send(Some(table)).is_ok(),
            message => self.messages.try_send(message).is_ok(),
        }
    }
}

/// The tables for a proxy, one at a time.
struct Tables {
    newest: watch::Receiver<Option<RouteTable>>,
    /// The serial of the one that was sent last; 0: none was.
    sent: u64,
    /// The serial of the one that was applied last.
    applied: watch::Receiver<u64>,
}

impl Tables {
    /// The next one, once the last is applied; `None`: there will be no more. Nothing is lost when it is not awaited to its end.
    async fn next(&mut self) -> Option<RouteTable> {
        let sent = self.sent;
        self.applied.wait_for(|serial| *serial >= sent).await.ok()?;
        self.newest.changed().await.ok()?;
        let table = self.newest.borrow_and_update().clone()?;
        self.sent = table.serial;
        Some(table)
    }
}

/// Accepts one proxy after the other; a newer one takes the place of an older one. Returns when the loop is gone, or the only proxy.
pub(super) async fn serve(door: OpenDoor, events: mpsc::Sender<LinkEvent>) {
    let listener = match door {
        OpenDoor::Stream(stream) => {
            talk(stream, &events).await;
            return;
        }
        OpenDoor::Listener(listener) => listener,
    };
    let mut next = listener.accept().await;
    loop {
        match next {
            Ok((stream, _)) => {
                tokio::select! {
                    () = talk(stream, &events) => next = listener.accept().await,
                    // The one that was there is dead or stuck, or there would not be another.
                    newer = listener.accept() => {
                        let _ = events.send(LinkEvent::Down).await;
                        next = newer;
                    }
                }
            }
            Err(error) => {
                tracing::warn!("the proxy could not connect: {error}; listening again in a second");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                next = listener.accept().await;
            }
        }
        if events.is_closed() {
            return;
        }
    }
}

async fn talk(stream: UnixStream, events: &mpsc::Sender<LinkEvent>) {
    let (mut reader, mut writer) = Duplex::<ToManager, ToProxy>::new(stream).split();
    reader.limit(SAID_MAX);
    match reader.next().await {
        Ok(Some(ToManager::Hello { version })) if version == *VERSION => {}
        Ok(Some(ToManager::Hello { version })) => {
            let version = words(&version);
            tracing::error!(
                "the proxy is of version {version}, the manager of {}; restart tqserver-proxy.service",
                *VERSION
            );
            // Not closed from here: it would connect again at once, and for ever. Its successor takes its place.
            while let Ok(Some(_)) = reader.next().await {}
            return;
        }
        _ => return,
    }
    let (messages, mut queue) = mpsc::channel(OUTBOX);
    let (table, newest) = watch::channel(None);
    let (apply, applied) = watch::channel(0);
    let mut tables = Tables {
        newest,
        sent: 0,
        applied,
    };
    let outbox = Outbox { messages, table };
    if events.send(LinkEvent::Up(outbox)).await.is_err() {
        return;
    }
    let hear = async {
        loop {
            match reader.next().await {
                Ok(Some(message)) => {
                    if let ToManager::Applied { serial, .. } = message {
                        apply.send_replace(serial);
                    }
                    if events.send(LinkEvent::Said(calm(message))).await.is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    return tracing::warn!(
                        "{error}: {}; waiting for the proxy to connect again",
                        source(&error)
                    );
                }
            }
        }
    };
    let say = async {
        loop {
            let message = tokio::select! {
                message = queue.recv() => message,
                table = tables.next() => table.map(ToProxy::Publish),
            };
            let Some(message) = message else {
                return;
            };
            if let Err(error) = writer.send(&message).await {
                return tracing::warn!(
                    "{error}: {}; waiting for the proxy to connect again",
                    source(&error)
                );
            }
        }
    };
    tokio::select! {
        () = hear => {}
        () = say => {}
    }
    let _ = events.send(LinkEvent::Down).await;
}

/// Longest sentence of a proxy's that is told, in characters.
const SENTENCE: usize = 2000;

/// What a proxy says is told in its own words, to terminals among others; it faces the internet, and may not be itself any more.
fn calm(message: ToManager) -> ToManager {
    match message {
        ToManager::Applied { serial, front } => ToManager::Applied {
            serial,
            front: calm_front(front),
        },
        ToManager::Front(front) => ToManager::Front(calm_front(front)),
        ToManager::Probed { id, outcome } => ToManager::Probed {
            id,
            outcome: match outcome {
                ProbeOutcome::Broken(why) => ProbeOutcome::Broken(words(&why)),
                ProbeOutcome::NotAsked(why) => ProbeOutcome::NotAsked(words(&why)),
                ProbeOutcome::Taken(why) => ProbeOutcome::Taken(words(&why)),
                outcome @ (ProbeOutcome::Status(_) | ProbeOutcome::TimedOut) => outcome,
            },
        },
        // Numbers, and names that are checked as they are read.
        message @ (ToManager::Hello { .. }
        | ToManager::Drained(_)
        | ToManager::Exposed { .. }
        | ToManager::Quiet(_)
        | ToManager::Spent(_)
        | ToManager::Counted { .. }) => message,
    }
}

fn calm_front(mut front: FrontState) -> FrontState {
    front.problem = front.problem.map(|problem| words(&problem));
    for refused in &mut front.refused {
        refused.reason = words(&refused.reason);
        calm_place(&mut refused.listen.place);
    }
    for listen in &mut front.listening {
        calm_place(&mut listen.place);
    }
    front
}

fn calm_place(place: &mut Place) {
    if let Place::Unix(path) = place {
        *path = words(&path.to_string_lossy()).into();
    }
}

fn words(sentence: &str) -> String {
    let shown: String = sentence.chars().take(SENTENCE).collect();
    ansi::one_line(&shown)
}

/// Why, which may be in the proxy's own words too: a name in a message that is none.
fn source(error: &dyn std::error::Error) -> String {
    error
        .source()
        .map_or_else(String::new, |source| words(&source.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Front, Listen};
    use crate::wire::{Refused, WireError};

    /// Whatever a proxy makes up, it neither moves a terminal's cursor nor begins a line of its own.
    #[test]
    fn nothing_that_a_proxy_says_acts_on_a_terminal() {
        let evil = &"\u{1b}]0;pwned\u{7}\nFAKE: everything is fine\u{9b}2J".repeat(1000);
        let mut listen = Listen::from(std::net::SocketAddr::from(([127, 0, 0, 1], 80)));
        listen.place = Place::Unix(evil.into());
        let front = FrontState {
            listening: vec![listen.clone()],
            refused: vec![Refused::new(&listen, evil.to_owned())],
            problem: Some(evil.to_owned()),
        };
        let probed = |outcome| ToManager::Probed { id: 1, outcome };
        let said = [
            ToManager::Front(front.clone()),
            ToManager::Applied { serial: 1, front },
            probed(ProbeOutcome::Broken(evil.to_owned())),
            probed(ProbeOutcome::NotAsked(evil.to_owned())),
            probed(ProbeOutcome::Taken(evil.to_owned())),
        ];
        for message in said {
            let texts = match calm(message) {
                ToManager::Front(front) | ToManager::Applied { front, .. } => vec![
                    front.listening[0].to_string(),
                    front.refused[0].listen.to_string(),
                    front.refused[0].reason.clone(),
                    front.problem.unwrap(),
                ],
                ToManager::Probed {
                    outcome:
                        ProbeOutcome::Broken(why)
                        | ProbeOutcome::NotAsked(why)
                        | ProbeOutcome::Taken(why),
                    ..
                } => vec![why],
                message => panic!("{message:?}"),
            };
            for text in texts {
                assert!(!text.chars().any(ansi::acts), "{text:?}");
                assert!(text.len() < 6 * SENTENCE, "{}", text.len());
            }
        }
    }

    /// A message that is none is told of, and what stands in it may be the proxy's.
    #[test]
    fn what_cannot_be_read_of_a_proxy_acts_on_no_terminal() {
        let error = serde_json::from_str::<ToManager>(r#"{"\u001b[2Jx":1}"#).unwrap_err();
        let error = WireError::from(error);
        assert!(
            !source(&error).chars().any(ansi::acts),
            "{:?}",
            source(&error)
        );
    }

    /// A proxy that is slow is not sent what it would throw away: of many tables it gets the first, and then the newest.
    #[tokio::test]
    async fn a_table_is_sent_when_the_last_one_is_applied() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (events, mut heard) = mpsc::channel(8);
        let link = tokio::spawn(async move { talk(ours, &events).await });
        let (mut reader, mut writer) = Duplex::<ToProxy, ToManager>::new(theirs).split();
        let version = VERSION.clone();
        writer.send(&ToManager::Hello { version }).await.unwrap();
        let Some(LinkEvent::Up(outbox)) = heard.recv().await else {
            panic!("no link");
        };
        let publish = |serial| {
            let table = RouteTable {
                serial,
                front: Front::default(),
                routes: Vec::new(),
                draining: Vec::new(),
                development: None,
            };
            assert!(outbox.say(ToProxy::Publish(table)));
        };
        let mut next = async || match reader.next().await.unwrap().unwrap() {
            ToProxy::Publish(table) => format!("table {}", table.serial),
            ToProxy::Count { id } => format!("count {id}"),
            message => panic!("{message:?}"),
        };
        publish(1);
        assert_eq!(next().await, "table 1");
        for serial in 2..=9 {
            publish(serial);
        }
        // Other questions do not wait for it.
        assert!(outbox.say(ToProxy::Count { id: 1 }));
        assert_eq!(next().await, "count 1");
        let front = FrontState::default();
        let applied = ToManager::Applied { serial: 1, front };
        writer.send(&applied).await.unwrap();
        assert_eq!(next().await, "table 9");
        drop((outbox, writer));
        link.abort();
    }
}
