//! Where the proxy listens.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::Keep;

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
    keep: Option<Keep>,
    count: u64,
}

impl Listeners {
    /// Will use the sockets in `inherited` where they fit and tell `keep` of those it binds itself.
    pub(super) fn new(inherited: Vec<TcpListener>, keep: Option<Keep>) -> Self {
        Self {
            current: Vec::new(),
            inherited,
            keep,
            count: 0,
        }
    }

    /// Listens at `wanted`. What can not be had is told in a sentence for each, and then no address is given up either: the server
    /// stays where clients know it.
    pub(super) fn follow(&mut self, wanted: &[SocketAddr]) -> Result<(), String> {
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
            match self.open(asked, wanted) {
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
        self.current = next;
        // What the last proxy listened at and nobody wants now.
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

    fn open(&mut self, asked: SocketAddr, wanted: &[SocketAddr]) -> io::Result<Listener> {
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
                if let Some(keep) = &self.keep {
                    keep(&socket);
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
            "the proxy may not listen at {address}; ports below 1024 need CAP_NET_BIND_SERVICE: grant it, or choose a higher port"
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

    #[test]
    fn a_port_the_kernel_chose_is_kept() {
        let mut listeners = Listeners::new(Vec::new(), None);
        listeners.follow(&[any()]).unwrap();
        let first = listeners.current()[0].local;
        listeners.follow(&[any()]).unwrap();
        assert_eq!(listeners.current()[0].local, first);
    }

    #[test]
    fn an_address_in_use_leaves_the_old_one_open() {
        let mut listeners = Listeners::new(Vec::new(), None);
        listeners.follow(&[any()]).unwrap();
        let other = TcpListener::bind(any()).unwrap();
        let busy = other.local_addr().unwrap();
        let problem = listeners.follow(&[busy]).unwrap_err();
        assert!(
            problem.contains(&busy.to_string()) && problem.contains("in use"),
            "{problem}"
        );
        assert_eq!(listeners.current().len(), 1);
        drop(other);
        listeners.follow(&[busy]).unwrap();
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
        let keep: Keep = Box::new(|_| panic!("bound a new socket"));
        let mut listeners = Listeners::new(vec![other, fits], Some(keep));
        listeners.follow(&[wanted]).unwrap();
        assert_eq!(listeners.current()[0].local, wanted);
        TcpListener::bind(unwanted).expect("the unneeded one is closed");
    }
}
