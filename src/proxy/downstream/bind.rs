//! Sockets bound to a place, and why one could not be.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rustix::net::{AddressFamily, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use crate::holders;
use crate::route::{Listen, Place};

/// What an address stands for beyond itself.
pub(super) struct Reach {
    /// An IPv6 wildcard is for IPv6 alone; `None` if that makes no difference.
    v6_only: Option<bool>,
}

impl Reach {
    pub(super) fn new(place: &Place, wanted: &[Listen]) -> Self {
        let Place::Tcp(SocketAddr::V6(address)) = place else {
            return Self { v6_only: None };
        };
        // Else the two addresses of one port would be in each other's way.
        let mut wanted = wanted.iter().filter_map(Listen::address);
        let apart = wanted.any(|w| w.is_ipv4() && w.port() == address.port());
        Self {
            v6_only: address.ip().is_unspecified().then_some(apart),
        }
    }

    pub(super) fn is_of(&self, socket: &OwnedFd) -> bool {
        self.v6_only
            .is_none_or(|only| sockopt::ipv6_v6only(socket).is_ok_and(|is| is == only))
    }
}

/// Where a socket listens.
pub(super) fn place_of(socket: &OwnedFd) -> Option<Place> {
    let address = rustix::net::getsockname(socket).ok()?;
    if let Ok(address) = SocketAddr::try_from(address.clone()) {
        return Some(Place::Tcp(address));
    }
    let unix = SocketAddrUnix::try_from(address).ok()?;
    let path = unix.path()?.to_str().ok()?.to_owned();
    Some(Place::Unix(path.into()))
}

/// Whether clients find the socket at its path.
pub(super) fn is_there(place: &Place) -> bool {
    let Place::Unix(path) = place else {
        return true;
    };
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// A socket at `address`; `share` lets others of the same user have the same port.
pub(super) fn tcp(address: SocketAddr, reach: &Reach, share: bool) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket(family)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, reach.v6_only.unwrap_or(true))?;
    }
    if share {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    rustix::net::bind(&socket, &SocketAddrAny::from(address))?;
    Ok(socket)
}

/// A socket at `path`, which is made without a moment in which others than its group could connect.
pub(super) fn unix(path: &Path) -> io::Result<OwnedFd> {
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
    // Nobody can connect before it is listened at, and that is after its mode was set.
    rustix::net::bind(&socket, &address)?;
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

/// Why nothing can listen at `place`, and what to do about it.
pub(super) fn explain(place: &Place, error: &io::Error) -> String {
    let address = match place {
        Place::Tcp(address) => *address,
        Place::Unix(path) => return explain_unix(path, error),
    };
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => match holders::of_tcp(address) {
            Some(holder) => format!(
                "address {address} is in use by {holder}: stop it ('ss -ltnp sport = :{port}' shows it), or choose another port"
            ),
            None => format!(
                "address {address} is in use by another process; 'ss -ltnp sport = :{port}' names it: stop it, or choose another port"
            ),
        },
        io::ErrorKind::AddrNotAvailable => format!(
            "no network interface has the address of {address}; choose one that 'ip address' lists, or 0.0.0.0 for all"
        ),
        io::ErrorKind::PermissionDenied if port < 1024 => format!(
            "permission denied to listen at {address}: for a port below 1024 the unit needs AmbientCapabilities=CAP_NET_BIND_SERVICE ('systemctl edit tqserver-proxy'), or choose a higher port"
        ),
        _ => format!("cannot listen at {address}: {error}"),
    }
}

fn explain_unix(path: &Path, error: &io::Error) -> String {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let holder = holders::of_unix(path);
            let holder =
                holder.map_or_else(|| "another process".to_owned(), |holder| holder.to_string());
            format!(
                "the socket {shown} is in use by {holder}: stop it ('ss -lxp src {shown}' shows it), or choose another path"
            )
        }
        io::ErrorKind::NotFound => format!(
            "cannot listen at {shown}: its directory does not exist; the proxy's own is /run/tqserver-proxy"
        ),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => format!(
            "permission denied to listen at {shown}: choose a path in a directory that the proxy's user may write to, such as /run/tqserver-proxy"
        ),
        _ => format!("cannot listen at {shown}: {error}"),
    }
}
