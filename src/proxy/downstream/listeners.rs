//! All places where the proxy listens: another table's are taken over all or nothing.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;

use super::bind::{self, Reach};
use super::listener::{BACKLOG, Listener};
use crate::boottime::BootTime;
use crate::proxy::Store;
use crate::route::{Front, Listen, Pair, Place, Tls};
use crate::tls::{Acceptor, Tickets};
use crate::wire::Refused;

/// Who may connect to a unix socket: its group. In the package that is `tqserver-web`, the group of the proxy's unit.
const SOCKET_MODE: u32 = 0o660;

/// All sockets that clients connect to.
pub(crate) struct Listeners {
    current: Vec<Arc<Listener>>,
    /// What was asked for when `current` was taken: all of it, or at a start as much as could be had.
    adopted: Vec<Listen>,
    inherited: Vec<OwnedFd>,
    count: u64,
    /// How clients that speak TLS are met.
    tls: Option<Secure>,
    tickets: Arc<Tickets>,
    /// The keys lie in the store.
    kept: bool,
}

/// How clients are met that speak TLS.
struct Secure {
    /// By what it was made.
    tls: Tls,
    acceptor: Acceptor,
}

/// How it went to listen as a table says.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    /// Places that could not be had.
    pub(crate) refused: Vec<Refused>,
    /// What else could not be had, in a sentence.
    pub(crate) problem: Option<String>,
    /// Sockets of the last proxy's that are not wanted any more: whoever has connected to them is still served.
    pub(crate) leaving: Vec<Arc<Listener>>,
}

impl Followed {
    /// All that could not be had, in sentences.
    pub(crate) fn problems(&self) -> Option<String> {
        let refused = self.refused.iter().map(|refused| refused.reason.clone());
        let all: Vec<String> = refused.chain(self.problem.clone()).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

/// A socket that is to be listened at, or is already.
struct Prepared {
    asked: Listen,
    socket: OwnedFd,
    /// It was bound now, so it is not listened at yet, and the store does not have it.
    is_new: bool,
}

/// What to listen at, step by step: nothing of it is in force before all of it can be.
enum Step {
    Kept(Arc<Listener>),
    Prepared(Prepared),
}

impl Step {
    fn prepared(&self) -> Option<&OwnedFd> {
        match self {
            Self::Prepared(prepared) => Some(&prepared.socket),
            Self::Kept(_) => None,
        }
    }
}

impl Listeners {
    /// Will use the sockets in `inherited` where they fit, and the keys in `tickets`.
    pub(crate) fn new(inherited: Vec<OwnedFd>, tickets: Option<&[u8]>) -> Self {
        Self {
            current: Vec::new(),
            adopted: Vec::new(),
            inherited,
            count: 0,
            tls: None,
            tickets: Arc::new(Tickets::new(tickets, BootTime::now())),
            kept: false,
        }
    }

    /// Listens as `front` says, all or nothing: if a place can not be had, those in force stay as they are, none is opened and none is
    /// given up. Only a proxy that does not listen yet, or not everywhere, takes what it can get. `store` keeps those that are newly
    /// bound, and no longer those that are given up.
    pub(crate) fn follow(&mut self, front: &Front, store: Option<&dyn Store>) -> Followed {
        let mut followed = Followed::default();
        let tls = self.follow_tls(front.tls.as_ref());
        followed.problem = tls.err();
        let has_tls = self.tls.is_some() && front.tls.is_some();
        let mut steps = Vec::new();
        for asked in &front.listen {
            if asked.tls && !has_tls {
                let reason = format!("cannot listen at {asked}: there is no certificate");
                followed.refused.push(Refused::new(asked, reason));
                continue;
            }
            match self.step(asked, &front.listen, &steps) {
                Ok(step) => steps.extend(step),
                Err(error) => {
                    let reason = bind::explain(&asked.place, &error);
                    followed.refused.push(Refused::new(asked, reason));
                }
            }
        }
        // What is not there yet is better than nothing; what is there is better than a part of something else.
        let may_be_part = self.current.is_empty() || self.adopted == front.listen;
        let is_all =
            |followed: &Followed| followed.refused.is_empty() && followed.problem.is_none();
        if !may_be_part && !is_all(&followed) {
            self.withdraw(steps);
            return followed;
        }
        // All are bound before the first is listened at: a client that comes to one of them is served there.
        steps.retain(|step| match step {
            Step::Prepared(new) if new.is_new => {
                match rustix::net::listen(&new.socket, BACKLOG.into()) {
                    Ok(()) => true,
                    Err(error) => {
                        let reason = bind::explain(&new.asked.place, &error.into());
                        followed.refused.push(Refused::new(&new.asked, reason));
                        false
                    }
                }
            }
            _ => true,
        });
        self.share_no_more(&steps);
        if !may_be_part && !is_all(&followed) {
            self.withdraw(steps);
            return followed;
        }
        if front.tls.is_none() {
            self.tls = None;
        }
        self.adopt(steps, store, &mut followed);
        self.adopted.clone_from(&front.listen);
        self.keep_tickets(store);
        followed
    }

    /// Takes over what TLS is spoken with; what can not be used leaves what there was.
    fn follow_tls(&mut self, wanted: Option<&Tls>) -> Result<(), String> {
        let Some(wanted) = wanted.filter(|tls| !tls.pairs.is_empty()) else {
            return Ok(());
        };
        // A credential has no text here that could show whether it has changed; its process has seen the only one it will ever see.
        if self.tls.as_ref().is_some_and(|own| own.tls == *wanted) {
            return Ok(());
        }
        let acceptor = Acceptor::new(wanted, self.tickets.clone());
        let acceptor =
            acceptor.map_err(|error| format!("{error}; the certificates before are kept"))?;
        self.tls = Some(Secure {
            tls: wanted.clone(),
            acceptor,
        });
        Ok(())
    }

    /// The socket for `asked`: one of our own, one of the last proxy's, or a new one; `None` if it is in `steps` already.
    fn step(
        &mut self,
        asked: &Listen,
        wanted: &[Listen],
        steps: &[Step],
    ) -> io::Result<Option<Step>> {
        let reach = Reach::new(&asked.place, wanted);
        let free = matches!(asked.place, Place::Tcp(address) if address.port() == 0);
        let is_asked = |step: &Step| match step {
            Step::Kept(listener) => listener.asked == asked.place,
            Step::Prepared(prepared) => prepared.asked.place == asked.place,
        };
        if !free && steps.iter().any(is_asked) {
            return Ok(None);
        }
        let is_kept =
            |id: u64| (steps.iter()).any(|step| matches!(step, Step::Kept(kept) if kept.id == id));
        let mut kept = self.current.iter().filter(|l| l.asked == asked.place);
        let kept = kept.find(|l| !is_kept(l.id) && reach.is_of(&l.socket));
        if let Some(kept) = kept {
            return Ok(Some(Step::Kept(kept.like(asked))));
        }
        let fits = |socket: &OwnedFd| match (bind::place_of(socket), &asked.place) {
            (Some(Place::Tcp(local)), Place::Tcp(asked)) => {
                (local == *asked || (asked.port() == 0 && local.ip() == asked.ip()))
                    && reach.is_of(socket)
            }
            (local, asked) => local.as_ref() == Some(asked) && bind::is_there(asked),
        };
        let (socket, is_new) = match self.inherited.iter().position(fits) {
            Some(at) => (self.inherited.swap_remove(at), false),
            None => (self.bind(&asked.place, &reach, steps)?, true),
        };
        if let Place::Unix(path) = &asked.place {
            // One of the last proxy's may be from a time when everybody could connect.
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
        }
        rustix::io::ioctl_fionbio(&socket, true)?;
        if let Place::Tcp(_) = asked.place {
            // Accepted connections inherit it: no call for each.
            sockopt::set_tcp_nodelay(&socket, true)?;
        }
        Ok(Some(Step::Prepared(Prepared {
            asked: asked.clone(),
            socket,
            is_new,
        })))
    }

    /// A new socket at `place`. One of our own on the same port is not in its way: a wildcard gives way to an address, and the other way
    /// round, while clients connect. Both share the port (SO_REUSEPORT, socket(7)) until both listen, and nobody else can come in between
    /// who is not the same user.
    fn bind(&self, place: &Place, reach: &Reach, steps: &[Step]) -> io::Result<OwnedFd> {
        let address = match place {
            Place::Tcp(address) => *address,
            Place::Unix(path) => return bind::unix(path),
        };
        match bind::tcp(address, reach, false) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            bound => return bound,
        }
        let current = self.current.iter().map(|listener| &*listener.socket);
        let prepared = steps.iter().filter_map(Step::prepared);
        let ours = current.chain(&self.inherited).chain(prepared);
        let has_port = |socket: &&OwnedFd| match bind::place_of(socket) {
            Some(Place::Tcp(local)) => local.port() == address.port(),
            _ => false,
        };
        let ours: Vec<&OwnedFd> = ours.filter(has_port).collect();
        if ours.is_empty() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        for socket in ours {
            sockopt::set_socket_reuseport(socket, true)?;
        }
        bind::tcp(address, reach, true)
    }

    /// From here on what is bound keeps everybody else from its port.
    fn share_no_more(&self, steps: &[Step]) {
        let current = self.current.iter().map(|listener| &*listener.socket);
        let prepared = steps.iter().filter_map(Step::prepared);
        for socket in current.chain(&self.inherited).chain(prepared) {
            if sockopt::socket_reuseport(socket).unwrap_or(false) {
                let _ = sockopt::set_socket_reuseport(socket, false);
            }
        }
    }

    /// Undoes what was begun.
    fn withdraw(&mut self, steps: Vec<Step>) {
        self.share_no_more(&steps);
        for step in steps {
            let Step::Prepared(prepared) = step else {
                continue;
            };
            match (prepared.is_new, &prepared.asked.place) {
                (false, _) => self.inherited.push(prepared.socket),
                (true, Place::Unix(path)) => drop(std::fs::remove_file(path)),
                (true, Place::Tcp(_)) => {}
            }
        }
    }

    /// Puts in force what was prepared, and gives up all else.
    fn adopt(&mut self, steps: Vec<Step>, store: Option<&dyn Store>, followed: &mut Followed) {
        let mut next = Vec::new();
        let mut new = Vec::new();
        for step in steps {
            match step {
                Step::Kept(listener) => next.push(listener),
                Step::Prepared(prepared) => {
                    let is_new = prepared.is_new;
                    let listener = self.listener(prepared);
                    new.extend(is_new.then(|| listener.clone()));
                    next.push(listener);
                }
            }
        }
        let stays = |id: u64| next.iter().any(|listener| listener.id == id);
        let mut left = Vec::new();
        for old in self.current.iter().filter(|old| !stays(old.id)) {
            old.give_up();
            left.push(old.listen.place.clone());
        }
        for socket in std::mem::take(&mut self.inherited) {
            let Some(place) = bind::place_of(&socket) else {
                continue;
            };
            left.push(place.clone());
            if rustix::io::ioctl_fionbio(&socket, true).is_err() {
                continue;
            }
            let port = |place: &Place| match place {
                Place::Tcp(address) => Some(address.port()),
                Place::Unix(_) => None,
            };
            let mut next = next.iter().filter(|_| port(&place).is_some());
            // Who has connected there has connected to what is in its place now.
            if let Some(heir) = next.find(|heir| port(&heir.listen.place) == port(&place)) {
                let asked = Listen {
                    place,
                    ..heir.listen.clone()
                };
                let leaving = self.listener(Prepared {
                    asked,
                    socket,
                    is_new: false,
                });
                leaving.give_up();
                followed.leaving.push(leaving);
            }
        }
        // First out of the store, which goes by names: what is new may have that of what was there.
        for place in left {
            let is_wanted = next.iter().any(|listener| listener.listen.place == place);
            let is_new = new.iter().any(|listener| listener.listen.place == place);
            if let (Some(store), true) = (store, is_new || !is_wanted) {
                store.drop_listener(&place);
            }
            if let (Place::Unix(path), false) = (&place, is_wanted) {
                let _ = std::fs::remove_file(path);
            }
        }
        if let Some(store) = store {
            for listener in new {
                store.keep_listener(&listener.listen.place, listener.socket.as_fd());
            }
        }
        self.current = next;
    }

    fn listener(&mut self, prepared: Prepared) -> Arc<Listener> {
        self.count += 1;
        let Prepared { asked, socket, .. } = prepared;
        let place = bind::place_of(&socket).unwrap_or_else(|| asked.place.clone());
        Listener::new(self.count, asked, place, socket)
    }

    /// Makes new keys for TLS sessions when those in use are old, and leaves them to the next proxy.
    pub(crate) fn keep_tickets(&mut self, store: Option<&dyn Store>) {
        if self.tls.is_none() {
            return;
        }
        let is_new = self.tickets.turn(BootTime::now());
        if let Some(store) = store
            && (is_new || !self.kept)
        {
            store.keep_tickets(&self.tickets.written());
            self.kept = true;
        }
    }

    /// How long it is until new keys are due.
    pub(crate) fn tickets_turn_in(&self) -> Duration {
        self.tickets.turns_in(BootTime::now())
    }

    /// The sockets in use.
    pub(crate) fn current(&self) -> &[Arc<Listener>] {
        &self.current
    }

    /// The certificates in use.
    pub(crate) fn certificates(&self) -> Option<&[Pair]> {
        self.tls.as_ref().map(|tls| tls.tls.pairs.as_slice())
    }

    /// How clients are met that speak TLS.
    pub(crate) fn acceptor(&self) -> Option<Acceptor> {
        self.tls.as_ref().map(|tls| tls.acceptor.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};
    use std::os::fd::BorrowedFd;

    use super::*;
    use crate::proxy::table::board::Published;

    fn any() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    impl Listeners {
        fn listen_at(&mut self, wanted: &[Place], store: Option<&dyn Store>) -> Result<(), String> {
            let mut front = Published::nothing().table.front;
            let plain = |place: &Place| Listen {
                place: place.clone(),
                ..Listen::from(any())
            };
            front.listen = wanted.iter().map(plain).collect();
            self.follow(&front, store).problems().map_or(Ok(()), Err)
        }

        fn first(&self) -> SocketAddr {
            self.current()[0].listen.address().unwrap()
        }
    }

    /// A store that notes what it is asked.
    #[derive(Default)]
    struct Noted(std::cell::RefCell<Vec<String>>);

    impl Noted {
        fn take(&self) -> Vec<String> {
            self.0.take()
        }
    }

    impl Store for Noted {
        fn keep_listener(&self, place: &Place, _: BorrowedFd<'_>) {
            self.0.borrow_mut().push(format!("keep {place}"));
        }
        fn drop_listener(&self, place: &Place) {
            self.0.borrow_mut().push(format!("drop {place}"));
        }
        fn keep_table(&self, _: &[u8]) {}
        fn keep_tickets(&self, _: &[u8]) {}
    }

    #[test]
    fn what_is_given_up_is_kept_no_longer() {
        let store = Noted::default();
        let mut listeners = Listeners::new(Vec::new(), None);
        listeners
            .listen_at(&[Place::Tcp(any())], Some(&store))
            .unwrap();
        let old = listeners.first();
        assert_eq!(store.take(), [format!("keep {old}")]);
        listeners
            .listen_at(&[Place::Tcp(any())], Some(&store))
            .unwrap();
        assert_eq!(store.take(), [""; 0]);
        let other: SocketAddr = "127.0.0.2:0".parse().unwrap();
        listeners
            .listen_at(&[Place::Tcp(other)], Some(&store))
            .unwrap();
        let new = listeners.first();
        assert_eq!(store.take(), [format!("drop {old}"), format!("keep {new}")]);
    }

    #[test]
    fn a_port_the_kernel_chose_is_kept() {
        let mut listeners = Listeners::new(Vec::new(), None);
        listeners.listen_at(&[Place::Tcp(any())], None).unwrap();
        let first = listeners.first();
        listeners.listen_at(&[Place::Tcp(any())], None).unwrap();
        assert_eq!(listeners.first(), first);
    }

    #[test]
    fn an_address_in_use_leaves_the_old_one_open() {
        let mut listeners = Listeners::new(Vec::new(), None);
        listeners.listen_at(&[Place::Tcp(any())], None).unwrap();
        let other = TcpListener::bind(any()).unwrap();
        let busy = other.local_addr().unwrap();
        let problem = listeners.listen_at(&[Place::Tcp(busy)], None).unwrap_err();
        assert!(
            problem.contains(&busy.to_string()) && problem.contains("in use"),
            "{problem}"
        );
        assert_eq!(listeners.current().len(), 1);
        drop(other);
        listeners.listen_at(&[Place::Tcp(busy)], None).unwrap();
        assert_eq!(listeners.current().len(), 1);
        assert_eq!(listeners.first(), busy);
    }

    /// A port that is free for IPv4 and IPv6.
    fn free_port() -> u16 {
        let probe = TcpListener::bind("[::]:0").unwrap();
        probe.local_addr().unwrap().port()
    }

    fn tcp(address: &str, port: u16) -> Place {
        Place::Tcp(SocketAddr::new(address.parse().unwrap(), port))
    }

    #[test]
    fn an_address_and_a_wildcard_of_one_port_take_each_others_place() {
        let sets: [&[&str]; 6] = [
            &["0.0.0.0"],
            &["127.0.0.1"],
            &["::"],
            &["0.0.0.0", "::"],
            &["127.0.0.1", "::1"],
            &["::1"],
        ];
        for (from, to) in sets.iter().flat_map(|from| sets.map(|to| (from, to))) {
            let port = free_port();
            let places = |set: &[&str]| set.iter().map(|a| tcp(a, port)).collect::<Vec<_>>();
            let mut listeners = Listeners::new(Vec::new(), None);
            listeners.listen_at(&places(from), None).unwrap();
            let of_a_reload = listeners.listen_at(&places(to), None);
            assert_eq!(of_a_reload, Ok(()), "{from:?} to {to:?}");
            let found: Vec<Place> = (listeners.current().iter())
                .map(|l| l.listen.place.clone())
                .collect();
            assert_eq!(found, places(to));
            for listener in listeners.current() {
                let shares = sockopt::socket_reuseport(&listener.socket).unwrap();
                assert!(!shares, "{from:?} to {to:?}");
            }
            // What the store has kept of the old ones is given up by the next proxy as well.
            listeners.listen_at(&places(from), None).unwrap();
            let left = listeners
                .current()
                .iter()
                .map(|l| l.socket.try_clone().unwrap());
            let mut next = Listeners::new(left.collect(), None);
            drop(listeners);
            assert_eq!(
                next.listen_at(&places(to), None),
                Ok(()),
                "{from:?} to {to:?}"
            );
            assert_eq!(next.current().len(), to.len());
        }
    }

    #[test]
    fn a_wildcard_of_ipv6_is_for_ipv4_too_only_where_nothing_else_is() {
        let port = free_port();
        let mut listeners = Listeners::new(Vec::new(), None);
        listeners.listen_at(&[tcp("::", port)], None).unwrap();
        let first = listeners.current()[0].id;
        assert!(!sockopt::ipv6_v6only(&listeners.current()[0].socket).unwrap());
        let both = [tcp("::", port), tcp("0.0.0.0", port)];
        listeners.listen_at(&both, None).unwrap();
        assert!(sockopt::ipv6_v6only(&listeners.current()[0].socket).unwrap());
        assert_ne!(listeners.current()[0].id, first);
        listeners.listen_at(&both[..1], None).unwrap();
        assert!(!sockopt::ipv6_v6only(&listeners.current()[0].socket).unwrap());
    }

    #[test]
    fn a_front_of_which_one_place_cannot_be_had_opens_none_and_gives_up_none() {
        let (other, port) = (TcpListener::bind(any()).unwrap(), free_port());
        let taken = Place::Tcp(other.local_addr().unwrap());
        let directory = tempfile::TempDir::new().unwrap();
        let unix = Place::Unix(directory.path().join("web.sock"));
        let store = Noted::default();
        let mut listeners = Listeners::new(Vec::new(), None);
        let before = [Place::Tcp(any())];
        listeners.listen_at(&before, Some(&store)).unwrap();
        let (kept, _) = (listeners.first(), store.take());
        let wanted = [tcp("127.0.0.1", port), unix.clone(), taken.clone()];
        let problem = listeners.listen_at(&wanted, Some(&store)).unwrap_err();
        assert!(
            problem.contains(&std::process::id().to_string()),
            "{problem}"
        );
        assert_eq!((listeners.current().len(), listeners.first()), (1, kept));
        assert_eq!(store.take(), [""; 0]);
        assert!(!bind::is_there(&unix));
        TcpListener::bind(("127.0.0.1", port)).expect("it was not opened");
        // A proxy that starts takes what it can get, and the rest when it can get it.
        let mut starting = Listeners::new(Vec::new(), None);
        starting.listen_at(&wanted, None).unwrap_err();
        assert_eq!(starting.current().len(), 2);
        drop(other);
        starting.listen_at(&wanted, None).unwrap();
        assert_eq!(starting.current().len(), 3);
        assert_eq!(starting.current()[2].listen.place, taken);
    }

    #[test]
    fn a_unix_socket_is_for_its_group_and_one_of_the_last_proxy_becomes_so() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("web.sock");
        let left = std::os::unix::net::UnixListener::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let mut listeners = Listeners::new(vec![left.into()], None);
        listeners
            .listen_at(&[Place::Unix(path.clone())], None)
            .unwrap();
        assert_eq!(mode(), 0o660);
        drop(listeners);
        let mut listeners = Listeners::new(Vec::new(), None);
        listeners
            .listen_at(&[Place::Unix(path.clone())], None)
            .unwrap();
        assert_eq!(mode(), 0o660);
    }

    #[test]
    fn an_inherited_socket_is_used_where_it_fits() {
        let (fits, other) = (
            TcpListener::bind(any()).unwrap(),
            TcpListener::bind(any()).unwrap(),
        );
        let (wanted, unwanted) = (fits.local_addr().unwrap(), other.local_addr().unwrap());
        let store = Noted::default();
        let mut listeners = Listeners::new(vec![other.into(), fits.into()], None);
        listeners
            .listen_at(&[Place::Tcp(wanted)], Some(&store))
            .unwrap();
        assert_eq!(listeners.first(), wanted);
        assert_eq!(store.take(), [format!("drop {unwanted}")]);
        TcpListener::bind(unwanted).expect("the unneeded one is closed");
    }

    #[test]
    fn a_unix_socket_that_was_left_behind_is_replaced_and_one_in_use_is_not() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("web.sock");
        let place = Place::Unix(path.clone());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let mut listeners = Listeners::new(Vec::new(), None);
        listeners
            .listen_at(std::slice::from_ref(&place), None)
            .unwrap();
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        let mut others = Listeners::new(Vec::new(), None);
        let problem = others
            .listen_at(std::slice::from_ref(&place), None)
            .unwrap_err();
        assert!(problem.contains("in use"), "{problem}");
        let inherited = listeners.current()[0].socket.try_clone().unwrap();
        let mut next = Listeners::new(vec![inherited], None);
        next.listen_at(&[place], None).unwrap();
        next.listen_at(&[Place::Tcp(any())], None).unwrap();
        assert!(
            !path.exists(),
            "a socket nobody listens at is no longer there"
        );
    }
}
