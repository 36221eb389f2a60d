//! Where the proxy listens.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustix::net::{AddressFamily, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use super::Store;
use crate::route::{Front, Listen, Pair, Place, Tls};
use crate::tls::{Acceptor, Tickets};

/// Connections the kernel holds for us while we are busy, or restarted.
const BACKLOG: i32 = 4096;

/// Who may connect to a unix socket: everybody who can reach it. Its directory says who that is.
const SOCKET_MODE: u32 = 0o666;

/// A socket that clients connect to.
#[derive(Debug)]
pub(super) struct Listener {
    /// Tells it from all others, also from one bound to the same address before.
    pub(super) id: u64,
    /// What was asked for; its port may be 0.
    asked: Place,
    /// What it is: the place it has, and how clients are met there.
    pub(super) listen: Listen,
    pub(super) socket: Arc<OwnedFd>,
}

/// All sockets that clients connect to.
pub(super) struct Listeners {
    current: Vec<Arc<Listener>>,
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

impl Listeners {
    /// Will use the sockets in `inherited` where they fit, and the keys in `tickets`.
    pub(super) fn new(inherited: Vec<OwnedFd>, tickets: Option<&[u8]>) -> Self {
        Self {
            current: Vec::new(),
            inherited,
            count: 0,
            tls: None,
            tickets: Arc::new(Tickets::new(tickets, SystemTime::now())),
            kept: false,
        }
    }

    /// Listens as `front` says. What can not be had is told in a sentence for each, and then no address is given up either: the server
    /// stays where clients know it. `store` keeps those that are newly bound, and no longer those that are given up.
    pub(super) fn follow(
        &mut self,
        front: &Front,
        store: Option<&dyn Store>,
    ) -> Result<(), String> {
        let mut problems = Vec::new();
        problems.extend(self.follow_tls(front.tls.as_ref()).err());
        let wanted = &front.listen;
        let mut next: Vec<Arc<Listener>> = Vec::new();
        for asked in wanted {
            let taken = |id: u64| next.iter().any(|listener| listener.id == id);
            let free = matches!(asked.place, Place::Tcp(address) if address.port() == 0);
            if !free && next.iter().any(|listener| listener.asked == asked.place) {
                continue;
            }
            if asked.tls && self.tls.is_none() {
                problems.push(format!(
                    "can not listen at {asked}: there is no certificate"
                ));
                continue;
            }
            let mut kept = self.current.iter();
            let kept = kept.find(|l| l.asked == asked.place && !taken(l.id));
            if let Some(kept) = kept {
                next.push(kept.like(asked));
                continue;
            }
            match self.open(asked, wanted, store) {
                Ok(listener) => next.push(Arc::new(listener)),
                Err(error) => problems.push(explain(&asked.place, &error)),
            }
        }
        if !problems.is_empty() {
            for old in &self.current {
                if !next.iter().any(|listener| listener.id == old.id) {
                    next.push(old.clone());
                }
            }
        }
        self.give_up_others(&next, store);
        self.current = next;
        self.keep_tickets(store);
        match problems.is_empty() {
            true => Ok(()),
            false => Err(problems.join("; ")),
        }
    }

    /// Takes over what TLS is spoken with; what can not be used leaves what there was.
    fn follow_tls(&mut self, wanted: Option<&Tls>) -> Result<(), String> {
        let Some(wanted) = wanted.filter(|tls| !tls.pairs.is_empty()) else {
            self.tls = None;
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

    /// Closes what nobody wants now, of our own and of the last proxy. First out of the store: whom the kernel lets in until the last
    /// holder closes, the threads still serve.
    fn give_up_others(&mut self, next: &[Arc<Listener>], store: Option<&dyn Store>) {
        let own = self
            .current
            .iter()
            .map(|listener| listener.listen.place.clone());
        let left = self.inherited.iter().flat_map(place_of);
        let stays = |place: &Place| next.iter().any(|listener| listener.listen.place == *place);
        for place in own.chain(left).filter(|place| !stays(place)) {
            if let Some(store) = store {
                store.drop_listener(&place);
            }
            if let Place::Unix(path) = &place {
                let _ = std::fs::remove_file(path);
            }
        }
        self.inherited.clear();
    }

    /// Makes new keys for TLS sessions when those in use are old, and leaves them to the next proxy.
    pub(super) fn keep_tickets(&mut self, store: Option<&dyn Store>) {
        if self.tls.is_none() {
            return;
        }
        let is_new = self.tickets.turn(SystemTime::now());
        if let Some(store) = store
            && (is_new || !self.kept)
        {
            store.keep_tickets(&self.tickets.written());
            self.kept = true;
        }
    }

    /// The sockets in use.
    pub(super) fn current(&self) -> &[Arc<Listener>] {
        &self.current
    }

    /// The certificates in use.
    pub(super) fn certificates(&self) -> Option<&[Pair]> {
        self.tls.as_ref().map(|tls| tls.tls.pairs.as_slice())
    }

    /// How clients are met that speak TLS.
    pub(super) fn acceptor(&self) -> Option<Acceptor> {
        self.tls.as_ref().map(|tls| tls.acceptor.clone())
    }

    fn open(
        &mut self,
        asked: &Listen,
        wanted: &[Listen],
        store: Option<&dyn Store>,
    ) -> io::Result<Listener> {
        let fits = |socket: &OwnedFd| match (place_of(socket), &asked.place) {
            (Some(Place::Tcp(local)), Place::Tcp(asked)) => {
                local == *asked || (asked.port() == 0 && local.ip() == asked.ip())
            }
            (local, asked) => local.as_ref() == Some(asked) && is_there(asked),
        };
        let socket = match self.inherited.iter().position(fits) {
            Some(at) => self.inherited.swap_remove(at),
            None => {
                let socket = match &asked.place {
                    Place::Tcp(address) => {
                        // Else the two addresses of one port would be in each other's way.
                        let apart = wanted.iter().filter_map(Listen::address);
                        let apart = apart
                            .into_iter()
                            .any(|w| w.is_ipv4() && w.port() == address.port());
                        bind(*address, apart)?
                    }
                    Place::Unix(path) => bind_unix(path)?,
                };
                if let (Some(store), Some(place)) = (store, place_of(&socket)) {
                    store.keep_listener(&place, socket.as_fd());
                }
                socket
            }
        };
        rustix::io::ioctl_fionbio(&socket, true)?;
        if let Place::Tcp(_) = asked.place {
            // Accepted connections inherit it: no call for each.
            sockopt::set_tcp_nodelay(&socket, true)?;
        }
        self.count += 1;
        let place = place_of(&socket).unwrap_or_else(|| asked.place.clone());
        Ok(Listener {
            id: self.count,
            asked: asked.place.clone(),
            listen: Listen {
                place,
                ..asked.clone()
            },
            socket: Arc::new(socket),
        })
    }
}

impl Listener {
    /// This socket, with clients met as `asked` says.
    fn like(self: &Arc<Self>, asked: &Listen) -> Arc<Self> {
        let listen = Listen {
            place: self.listen.place.clone(),
            ..asked.clone()
        };
        if listen == self.listen {
            return self.clone();
        }
        Arc::new(Self {
            id: self.id,
            asked: self.asked.clone(),
            listen,
            socket: self.socket.clone(),
        })
    }
}

/// Where a socket listens.
fn place_of(socket: &OwnedFd) -> Option<Place> {
    let address = rustix::net::getsockname(socket).ok()?;
    if let Ok(address) = SocketAddr::try_from(address.clone()) {
        return Some(Place::Tcp(address));
    }
    let unix = SocketAddrUnix::try_from(address).ok()?;
    let path = unix.path()?.to_str().ok()?.to_owned();
    Some(Place::Unix(path.into()))
}

/// Whether clients find the socket at its path.
fn is_there(place: &Place) -> bool {
    let Place::Unix(path) = place else {
        return true;
    };
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

fn bind(address: SocketAddr, v6_only: bool) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket(family)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, v6_only)?;
    }
    rustix::net::bind(&socket, &SocketAddrAny::from(address))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn bind_unix(path: &Path) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let socket = socket(AddressFamily::UNIX)?;
    if is_there(&Place::Unix(path.to_owned())) {
        // One that nobody listens at any more is in the way, one that somebody does is his.
        let probe = self::socket(AddressFamily::UNIX)?;
        if rustix::net::connect(&probe, &address) != Err(rustix::io::Errno::CONNREFUSED) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    rustix::net::bind(&socket, &address)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(
        family,
        SocketType::STREAM,
        flags,
        None,
    )?)
}

fn explain(place: &Place, error: &io::Error) -> String {
    let address = match place {
        Place::Tcp(address) => address,
        Place::Unix(path) => return explain_unix(path, error),
    };
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "address {address} is in use by another process; 'ss -ltnp sport = :{port}' names it: stop it, or choose another port"
        ),
        io::ErrorKind::AddrNotAvailable => format!(
            "no network interface has the address of {address}; choose one that 'ip address' lists, or 0.0.0.0 for all"
        ),
        io::ErrorKind::PermissionDenied if port < 1024 => format!(
            "permission denied to listen at {address}: for a port below 1024 the unit needs AmbientCapabilities=CAP_NET_BIND_SERVICE ('systemctl edit tqserver-proxy'), or choose a higher port"
        ),
        _ => format!("can not listen at {address}: {error}"),
    }
}

fn explain_unix(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "the socket {path} is in use by another process; 'ss -lxp src {path}' names it: stop it, or choose another path"
        ),
        io::ErrorKind::NotFound => format!(
            "can not listen at {path}: its directory is not there; the proxy's own is /run/tqserver-proxy"
        ),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => format!(
            "permission denied to listen at {path}: choose a path in a directory that the proxy's user may write to, as /run/tqserver-proxy"
        ),
        _ => format!("can not listen at {path}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::BorrowedFd;

    use super::*;
    use crate::proxy::table::Published;

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
            self.follow(&front, store)
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
        assert_eq!(store.take(), [format!("keep {new}"), format!("drop {old}")]);
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
