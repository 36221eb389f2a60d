//! Where the proxy listens.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::Store;

/// Connections the kernel holds for us while we are busy, or restarted.
const BACKLOG: i32 = 4096;

/// A socket that clients connect to.
#[derive(Debug)]
pub(super) struct Listener {
    /// Tells it from all others, also from one bound to the same address before.
    pub(super) id: u64,
    /// The address that was asked for; its port may be 0.
    asked: SocketAddr,
    /// The address it has.
    pub(super) local: SocketAddr,
    pub(super) socket: TcpListener,
}

/// All sockets that clients connect to.
pub(super) struct Listeners {
    current: Vec<Arc<Listener>>,
    inherited: Vec<TcpListener>,
    count: u64,
}

impl Listeners {
    /// Will use the sockets in `inherited` where they fit.
    pub(super) fn new(inherited: Vec<TcpListener>) -> Self {
        Self {
            current: Vec::new(),
            inherited,
            count: 0,
        }
    }

    /// Listens at `wanted`. What can not be had is told in a sentence for each, and then no address is given up either: the server
    /// stays where clients know it. `store` keeps those that are newly bound, and no longer those that are given up.
    pub(super) fn follow(
        &mut self,
        wanted: &[SocketAddr],
        store: Option<&dyn Store>,
    ) -> Result<(), String> {
        let mut next: Vec<Arc<Listener>> = Vec::new();
        let mut problems = Vec::new();
        for &asked in wanted {
            if next.iter().any(|listener| listener.asked == asked) {
                continue;
            }
            if let Some(kept) = self.current.iter().find(|l| l.asked == asked) {
                next.push(kept.clone());
                continue;
            }
            match self.open(asked, wanted, store) {
                Ok(listener) => next.push(Arc::new(listener)),
                Err(error) => problems.push(explain(asked, &error)),
            }
        }
        if !problems.is_empty() {
            for old in &self.current {
                if !next.iter().any(|listener| listener.id == old.id) {
                    next.push(old.clone());
                }
            }
        }
        // What nobody wants now, of our own and of the last proxy. First out of the store: whom the kernel lets in until the last
        // holder closes, the threads still serve.
        if let Some(store) = store {
            let stays = |address| next.iter().any(|listener| listener.local == address);
            let own = self.current.iter().map(|listener| listener.local);
            let left = self.inherited.iter().flat_map(TcpListener::local_addr);
            for address in own.chain(left).filter(|address| !stays(*address)) {
                store.drop_listener(address);
            }
        }
        self.current = next;
        self.inherited.clear();
        match problems.is_empty() {
            true => Ok(()),
            false => Err(problems.join("; ")),
        }
    }

    /// The sockets in use.
    pub(super) fn current(&self) -> &[Arc<Listener>] {
        &self.current
    }

    fn open(
        &mut self,
        asked: SocketAddr,
        wanted: &[SocketAddr],
        store: Option<&dyn Store>,
    ) -> io::Result<Listener> {
        let fits = |socket: &TcpListener| {
            socket.local_addr().is_ok_and(|local| {
                local == asked || (asked.port() == 0 && local.ip() == asked.ip())
            })
        };
        let socket = match self.inherited.iter().position(fits) {
            Some(at) => self.inherited.swap_remove(at),
            None => {
                // Else the two addresses of one port would be in each other's way.
                let apart = wanted
                    .iter()
                    .any(|w| w.is_ipv4() && w.port() == asked.port());
                let socket = bind(asked, apart)?;
                if let Some(store) = store {
                    store.keep_listener(&socket);
                }
                socket
            }
        };
        socket.set_nonblocking(true)?;
        // Accepted connections inherit it: no call for each.
        sockopt::set_tcp_nodelay(&socket, true)?;
        self.count += 1;
        Ok(Listener {
            id: self.count,
            asked,
            local: socket.local_addr()?,
            socket,
        })
    }
}

fn bind(address: SocketAddr, v6_only: bool) -> io::Result<TcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, v6_only)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

fn explain(address: SocketAddr, error: &io::Error) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn any() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
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
        fn keep_listener(&self, listener: &TcpListener) {
            let address = listener.local_addr().unwrap();
            self.0.borrow_mut().push(format!("keep {address}"));
        }
        fn drop_listener(&self, address: SocketAddr) {
            self.0.borrow_mut().push(format!("drop {address}"));
        }
        fn keep_table(&self, _: &[u8]) {}
    }

    #[test]
    fn what_is_given_up_is_kept_no_longer() {
        let store = Noted::default();
        let mut listeners = Listeners::new(Vec::new());
        listeners.follow(&[any()], Some(&store)).unwrap();
        let old = listeners.current()[0].local;
        assert_eq!(store.take(), [format!("keep {old}")]);
        listeners.follow(&[any()], Some(&store)).unwrap();
        assert_eq!(store.take(), [""; 0]);
        let other: SocketAddr = "127.0.0.2:0".parse().unwrap();
        listeners.follow(&[other], Some(&store)).unwrap();
        let new = listeners.current()[0].local;
        assert_eq!(store.take(), [format!("keep {new}"), format!("drop {old}")]);
    }

    #[test]
    fn a_port_the_kernel_chose_is_kept() {
        let mut listeners = Listeners::new(Vec::new());
        listeners.follow(&[any()], None).unwrap();
        let first = listeners.current()[0].local;
        listeners.follow(&[any()], None).unwrap();
        assert_eq!(listeners.current()[0].local, first);
    }

    #[test]
    fn an_address_in_use_leaves_the_old_one_open() {
        let mut listeners = Listeners::new(Vec::new());
        listeners.follow(&[any()], None).unwrap();
        let other = TcpListener::bind(any()).unwrap();
        let busy = other.local_addr().unwrap();
        let problem = listeners.follow(&[busy], None).unwrap_err();
        assert!(
            problem.contains(&busy.to_string()) && problem.contains("in use"),
            "{problem}"
        );
        assert_eq!(listeners.current().len(), 1);
        drop(other);
        listeners.follow(&[busy], None).unwrap();
        assert_eq!(listeners.current().len(), 1);
        assert_eq!(listeners.current()[0].local, busy);
    }

    #[test]
    fn an_inherited_socket_is_used_where_it_fits() {
        let (fits, other) = (
            TcpListener::bind(any()).unwrap(),
            TcpListener::bind(any()).unwrap(),
        );
        let (wanted, unwanted) = (fits.local_addr().unwrap(), other.local_addr().unwrap());
        let store = Noted::default();
        let mut listeners = Listeners::new(vec![other, fits]);
        listeners.follow(&[wanted], Some(&store)).unwrap();
        assert_eq!(listeners.current()[0].local, wanted);
        assert_eq!(store.take(), [format!("drop {unwanted}")]);
        TcpListener::bind(unwanted).expect("the unneeded one is closed");
    }
}
