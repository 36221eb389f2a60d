//! One thread of the proxy from its start to its end: accepts clients where the table in force says.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::connection::{self, Arrival};
use crate::proxy::downstream::connection_limit::Full;
use crate::proxy::downstream::listener::{BACKLOG, Listener};
use crate::proxy::downstream::preamble;
use crate::proxy::downstream::signals::Signals;
use crate::proxy::downstream::stream::{Door, Raw};
use crate::proxy::shard::{Context, Shard};

/// Serves on this thread until it is told to stop, then lets requests end for at most the grace of the table in force, and if it has
/// a successor those that came meanwhile for as long again.
pub(crate) async fn run(context: Context) {
    let (stop, successor) = (context.stop.clone(), context.successor);
    let mut changed = context.board.subscribe();
    let shard = Rc::new(Shard::new(context));
    let mut accepting = Accepting::default();
    accepting.follow(&shard);
    loop {
        let reap = shard.reap();
        tokio::select! {
            _ = changed.changed() => accepting.follow(&shard),
            () = tokio::time::sleep_until(reap) => {}
            Some(_) = accepting.tasks.join_next() => {}
            () = stop.cancelled() => break,
        }
    }
    shard.clients().part();
    let grace = shard.table().front().grace;
    let old = shard.take_tasks().end();
    if !successor {
        drop(accepting);
        // What is left after the grace is dropped with the thread.
        let _ = tokio::time::timeout(grace, old).await;
        return;
    }
    // The next proxy starts when this one has ended, so everybody else would wait in the queue for a download or a tunnel that takes
    // its time. They are accepted for one answer each.
    let _ = tokio::time::timeout(grace, old).await;
    // From here on connections queue in the listener, which systemd hands to the next proxy.
    drop(accepting);
    // Tunnels that began meanwhile have no end to wait for.
    let clients = shard.take_tasks().clients;
    clients.close();
    let _ = tokio::time::timeout(grace, clients.wait()).await;
}

/// Notes that a client has left.
struct Leaving<'a>(&'a Shard, u64);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.clients().remove(self.1);
    }
}

/// How long a handshake may take that has begun when its socket is given up; nobody else could end it.
const HANDSHAKE: Duration = Duration::from_secs(1);

/// The listeners this thread accepts from.
#[derive(Default)]
struct Accepting {
    tasks: JoinSet<()>,
    /// By the listener's number; cancelled to stop accepting there.
    stops: HashMap<u64, CancellationToken>,
}

impl Accepting {
    /// Accepts where the table in force says.
    fn follow(&mut self, shard: &Rc<Shard>) {
        let published = shard.table().published.clone();
        self.stops.retain(|id, stop| {
            let stays = published.listeners.iter().any(|l| l.id == *id);
            if !stays {
                stop.cancel();
            }
            stays
        });
        let leaving = published.leaving.iter().map(|listener| (listener, true));
        let stays = published.listeners.iter().map(|listener| (listener, false));
        for (listener, is_leaving) in leaving.chain(stays) {
            if self.stops.contains_key(&listener.id) {
                continue;
            }
            match Door::open(listener) {
                Ok(door) => {
                    let stop = CancellationToken::new();
                    match is_leaving {
                        true => stop.cancel(),
                        false => drop(self.stops.insert(listener.id, stop.clone())),
                    }
                    let accepting = accept(shard.clone(), listener.clone(), door, stop);
                    self.tasks.spawn_local(accepting);
                }
                Err(error) => error!(
                    "can not accept connections at {} on thread {}: {error}",
                    listener.listen,
                    shard.number()
                ),
            }
        }
    }
}

/// Accepts until `stop`, and a little longer: who has connected by then, or has begun to, was promised an answer.
async fn accept(shard: Rc<Shard>, listener: Arc<Listener>, door: Door, stop: CancellationToken) {
    let last_call = async {
        stop.cancelled().await;
        tokio::time::sleep(HANDSHAKE).await;
    };
    let mut last_call = std::pin::pin!(last_call);
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            // Clients may come faster than they are let in: that must not keep the door open.
            biased;
            () = &mut last_call => break,
            accepted = door.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                failing = false;
                admit(&shard, &met(&shard, &listener), stream, peer).await;
            }
            Err(error) if is_the_clients(&error) => {}
            // Given up, and the other threads have closed it already.
            Err(_) if stop.is_cancelled() => return,
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!("can not accept connections for now ({error}), trying again");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // The event loop may not have heard yet of those who have connected, and there are no more of them than this.
    let queued = std::iter::from_fn(|| door.queued()).take(BACKLOG.into());
    for (stream, peer) in queued {
        admit(&shard, &met(&shard, &listener), stream, peer).await;
    }
}

/// Whether a failed accept concerns one client only, who is gone.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

/// Pause after an accept that failed for want of something: trying again at once would only burn what is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How the table in force wants clients to be met that come by `listener`.
fn met(shard: &Shard, listener: &Arc<Listener>) -> Arc<Listener> {
    let table = shard.table();
    let mut all = table.published.listeners.iter();
    let same = all.find(|other| other.id == listener.id);
    same.unwrap_or(listener).clone()
}

/// Serves a client, whom the shard waits for when it stops.
async fn admit(shard: &Rc<Shard>, listener: &Arc<Listener>, stream: Raw, peer: Option<SocketAddr>) {
    let table = shard.table();
    let front = table.front();
    let connection_limit = shard.connection_limit();
    let mut permit = connection_limit.permit();
    let address = preamble::client_of(peer);
    if let Some(address) = address.filter(|address| !front.trusts(*address))
        && let Err(full) = permit.is(address, front)
    {
        return connection_limit.complain(full, front);
    }
    let has_room = || {
        shard
            .clients()
            .has_room(connection_limit.is_exceeded(front))
    };
    if !has_room() {
        // Those that came just before have their turn first, and what they bring is looked at: then it is known who can leave.
        tokio::task::yield_now().await;
        if !has_room() {
            return connection_limit.complain(Full::All, front);
        }
    }
    let signals = Arc::new(Signals::new());
    let number = shard.clients().number();
    let arrival = Arrival {
        stream,
        listener: listener.clone(),
        peer,
        signals: signals.clone(),
        permit,
        number,
    };
    let served = shard.clone();
    let task = shard.serve(async move {
        let _leaving = Leaving(&served, number);
        connection::serve(served.clone(), arrival).await;
    });
    shard.clients().add(number, signals, task);
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use http::HeaderValue;
    use tokio::time::Instant;

    use super::*;
    use crate::proxy::downstream::connection_limit::ConnectionLimit;
    use crate::proxy::downstream::listeners::Listeners;
    use crate::proxy::response::access;
    use crate::proxy::table::board::Board;
    use crate::proxy::table::lookup::Lookup;
    use crate::proxy::table::tests::{board, serve};
    use crate::route::{Front, Listen, Place};

    fn shard(board: Arc<Board>) -> Shard {
        Shard::new(Context {
            shard: 0,
            board,
            stop: CancellationToken::new(),
            journal: access::start().unwrap().0,
            connection_limit: Arc::new(ConnectionLimit::new(usize::MAX)),
            successor: false,
        })
    }

    #[test]
    fn a_table_that_changes_while_a_request_is_counted_is_not_followed() {
        let board = Arc::new(board(&["/"]));
        let old = serve(&board, 1);
        let shard = shard(board.clone());
        let lookup = Lookup {
            host: HeaderValue::from_static("h"),
            path: "/".into(),
        };
        let table = shard.table();
        let new = serve(&board, 2);
        // The manager may hear "drained" of the old one from here on.
        let (_, ticket) = shard.pick(&table, &lookup);
        assert_eq!((old.in_flight(), new.in_flight()), (0, 1));
        drop(ticket);
        assert_eq!(new.in_flight(), 0);
    }

    /// Its bytes are here; that the thread has not looked yet is not the client's doing.
    #[tokio::test]
    async fn a_request_that_has_just_come_is_answered_before_its_client_makes_room() {
        const ASKED: &[u8] = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n";
        let everything = async {
            let shard = Rc::new(shard(Arc::new(board(&[]))));
            let (listener, address) = listener();
            let (mut client, mut idler) = tokio::join!(connect(address), connect(address));
            let door = Door::open(&listener).unwrap();
            while let Some((stream, peer)) = door.queued() {
                admit(&shard, &listener, stream, peer).await;
            }
            for client in [&mut client, &mut idler] {
                client.write_all(ASKED).await.unwrap();
                assert!(answer(client).await.starts_with("http/1.1 "));
            }
            assert_eq!(client.try_write(ASKED).unwrap(), ASKED.len());
            let sent_away = [
                shard.clients().send_idle_away(Instant::now()),
                shard.clients().send_idle_away(Instant::now()),
            ];
            assert_eq!(sent_away, [1, 1]);
            assert_eq!(
                shard.clients().send_idle_away(Instant::now()),
                0,
                "each place is given away once"
            );
            let last = answer(&mut client).await;
            assert!(last.contains("connection: close"), "{last}");
            assert_eq!(answer(&mut idler).await, "");
        };
        tokio::task::LocalSet::new().run_until(everything).await;
    }

    /// On a machine that is short of processors it may have waited for us for longer than a client that never asks gets.
    #[tokio::test]
    async fn a_first_request_that_nobody_has_read_yet_is_answered_before_its_client_makes_room() {
        let everything = async {
            let shard = Rc::new(shard(Arc::new(board(&[]))));
            let (listener, address) = listener();
            let (mut client, mut silent, mut slow) =
                tokio::join!(connect(address), connect(address), connect(address));
            let door = Door::open(&listener).unwrap();
            while let Some((stream, peer)) = door.queued() {
                admit(&shard, &listener, stream, peer).await;
            }
            slow.write_all(b"GET / HT").await.unwrap();
            // Until all are served, and the part of a request is read.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(2)).await;
            let asked: &[u8] = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n";
            assert_eq!(client.try_write(asked).unwrap(), asked.len());
            for _ in 0..3 {
                assert_eq!(shard.clients().send_idle_away(Instant::now()), 1);
            }
            // Nor is it lost if the thread does not come to it for longer than a client that stops in between gets.
            let later = Instant::now() + Duration::from_secs(1);
            assert_eq!(shard.clients().send_idle_away(later), 0);
            tokio::time::resume();
            let last = answer(&mut client).await;
            assert!(last.contains("connection: close"), "{last}");
            assert_eq!(answer(&mut silent).await, "");
            assert_eq!(answer(&mut slow).await, "");
        };
        tokio::task::LocalSet::new().run_until(everything).await;
    }

    #[tokio::test]
    async fn a_client_that_has_rested_is_answered_as_before() {
        let everything = async {
            let shard = Rc::new(shard(Arc::new(board(&[]))));
            let (listener, address) = listener();
            let mut client = connect(address).await;
            let (stream, peer) = Door::open(&listener).unwrap().queued().unwrap();
            admit(&shard, &listener, stream, peer).await;
            for _ in 0..3 {
                client
                    .write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
                    .await
                    .unwrap();
                assert!(answer(&mut client).await.starts_with("http/1.1 "));
                tokio::time::pause();
                tokio::time::advance(Duration::from_secs(5)).await;
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                tokio::time::resume();
            }
            // The door is closed as it is to one at work.
            shard.clients().part();
            assert_eq!(answer(&mut client).await, "");
        };
        tokio::task::LocalSet::new().run_until(everything).await;
    }

    #[tokio::test]
    async fn a_client_that_its_thread_has_not_come_to_makes_no_room() {
        let everything = async {
            let shard = Rc::new(shard(Arc::new(board(&[]))));
            let (listener, address) = listener();
            let mut client = connect(address).await;
            let (stream, peer) = Door::open(&listener).unwrap().queued().unwrap();
            admit(&shard, &listener, stream, peer).await;
            let later = Instant::now() + Duration::from_secs(2);
            assert_eq!(shard.clients().send_idle_away(later), 0);
            client
                .write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
                .await
                .unwrap();
            assert!(answer(&mut client).await.starts_with("http/1.1 "));
        };
        tokio::task::LocalSet::new().run_until(everything).await;
    }

    #[tokio::test]
    async fn a_client_that_stops_within_a_later_head_makes_room_soon() {
        let everything = async {
            let shard = Rc::new(shard(Arc::new(board(&[]))));
            let (listener, address) = listener();
            let mut client = connect(address).await;
            let door = Door::open(&listener).unwrap();
            let (stream, peer) = door.queued().unwrap();
            admit(&shard, &listener, stream, peer).await;
            client
                .write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
                .await
                .unwrap();
            assert!(answer(&mut client).await.starts_with("http/1.1 "));
            client.write_all(b"GET / HT").await.unwrap();
            // Until that is read.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            let told = Instant::now();
            assert_eq!(shard.clients().send_idle_away(told), 1);
            assert_eq!(shard.clients().send_idle_away(Instant::now()), 0);
            let soon = tokio::time::timeout(Duration::from_secs(5), answer(&mut client));
            assert_eq!(soon.await.as_deref(), Ok(""));
            assert!(
                told.elapsed() >= Duration::from_millis(500),
                "{:?}",
                told.elapsed()
            );
        };
        tokio::task::LocalSet::new().run_until(everything).await;
    }

    /// A listener on a port of its own.
    fn listener() -> (Arc<Listener>, SocketAddr) {
        let front = Front {
            listen: vec![Listen::from(SocketAddr::from(([127, 0, 0, 1], 0)))],
            ..Front::default()
        };
        let mut listeners = Listeners::new(Vec::new(), None);
        listeners.follow(&front, None);
        let listener = listeners.current()[0].clone();
        let Place::Tcp(address) = listener.listen.place else {
            panic!("another place");
        };
        (listener, address)
    }

    async fn connect(address: SocketAddr) -> tokio::net::TcpStream {
        tokio::net::TcpStream::connect(address).await.unwrap()
    }

    /// What comes next; nothing: the connection is over.
    async fn answer(client: &mut tokio::net::TcpStream) -> String {
        let mut bytes = [0; 4096];
        let count = client.read(&mut bytes).await.unwrap_or(0);
        String::from_utf8_lossy(&bytes[..count]).to_ascii_lowercase()
    }

    #[test]
    fn request_ids_are_new_each_time() {
        let shard = shard(Arc::new(board(&[])));
        let ids: Vec<_> = (0..1000).map(|_| shard.request_id()).collect();
        let different: std::collections::HashSet<_> =
            ids.iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(different.len(), ids.len());
        let id = uuid::Uuid::parse_str(ids[0].to_str().unwrap()).unwrap();
        assert_eq!(id.get_version_num(), 7);
    }
}
