//! Whose a connection to a worker's port is. Anybody on the machine can listen on a port that is free for a moment, and would be handed
//! the worker's requests with all that is secret in them; so the kernel is asked which user's socket answers, before anything is sent
//! (sock_diag(7)).
//!
//! The listener is asked for first, then the connection's other end. If that was not accepted yet, it waits in the queue of a listener
//! that was there all the time: closed, it would have taken the connection with it; and there is but one. If it was accepted, it is the
//! socket of whoever did that.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

/// Of linux/netlink.h, linux/sock_diag.h and linux/inet_diag.h.
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const IPPROTO_TCP: u8 = 6;
const ESTABLISHED: u8 = 1;
const LISTEN: u8 = 10;
/// Bytes of `nlmsghdr`, `inet_diag_req_v2`, `inet_diag_msg`.
const HEADER: usize = 16;
const REQUEST: usize = 56;
const ANSWER: usize = 72;

/// The socket that answers on a port of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    state: u8,
    /// Its own address.
    address: IpAddr,
    /// The user it belongs to.
    user: u32,
    /// Whether a process has it: a connection that nobody has accepted yet is no process's.
    is_taken: bool,
}

/// Whether the port of `worker` can be reached from outside the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    Loopback,
    Everywhere,
}

/// Finds out how far the listener behind `worker`, a port of this machine, reaches.
///
/// # Errors
/// When the kernel does not tell.
pub(crate) fn reach(worker: SocketAddr) -> io::Result<Reach> {
    listener(worker).map(Found::reach)
}

/// Whether what is connected to `worker` from `here` is of the user `owner`; and how far its listener reaches.
///
/// # Errors
/// When it is another's, or the kernel does not tell.
pub(crate) fn check(worker: SocketAddr, here: SocketAddr, owner: u32) -> io::Result<Reach> {
    let listener = listener(worker)?;
    let connection = ask(worker, Some(here))?;
    let holder = match connection.state == ESTABLISHED && connection.is_taken {
        true => connection.user,
        false => listener.user,
    };
    if holder == owner {
        return Ok(listener.reach());
    }
    let owner = match owner {
        // systemd has not said yet.
        u32::MAX => "the worker's, which has no process yet".to_owned(),
        owner => format!("the worker's, {owner}"),
    };
    let sentence = format!(
        "port {port} is held by another user: {holder}, and not {owner}; nothing was sent (`ss -ltnpe 'sport = :{port}'` shows whose it is)",
        port = worker.port()
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, sentence))
}

fn listener(worker: SocketAddr) -> io::Result<Found> {
    match ask(worker, None) {
        Ok(found) if found.state == LISTEN => Ok(found),
        // The kernel finds nothing where it lacks the part that looks, too.
        Ok(_) => Err(io::ErrorKind::ConnectionReset.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(io::Error::new(
            io::ErrorKind::ConnectionReset,
            format!(
                "nobody listens on port {} any more, or the kernel does not tell who (`modprobe tcp_diag`)",
                worker.port()
            ),
        )),
        Err(error) => Err(error),
    }
}

impl Found {
    fn reach(self) -> Reach {
        match self.address.is_loopback() {
            true => Reach::Loopback,
            false => Reach::Everywhere,
        }
    }
}

/// Asks for the socket of this machine at `here` that is connected to `there`, or that listens there. The kernel answers at once.
fn ask(here: SocketAddr, there: Option<SocketAddr>) -> io::Result<Found> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let kind = SocketType::DGRAM;
    let protocol = Some(netlink::SOCK_DIAG);
    let socket = socket_with(AddressFamily::NETLINK, kind, flags, protocol)?;
    let request = request(here, there).ok_or(io::ErrorKind::Unsupported)?;
    sendto(
        &socket,
        &request,
        SendFlags::empty(),
        &SocketAddrNetlink::new(0, 0),
    )?;
    let mut answer = [0; 512];
    let (length, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    read(&answer[..length])
}

/// `None`: a worker listens on an address of IPv4.
fn request(here: SocketAddr, there: Option<SocketAddr>) -> Option<[u8; HEADER + REQUEST]> {
    let there = there.unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, 0).into());
    let (IpAddr::V4(own), IpAddr::V4(other)) = (here.ip(), there.ip()) else {
        return None;
    };
    let mut request = [0; HEADER + REQUEST];
    let mut put = |at: usize, bytes: &[u8]| request[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &u32::try_from(HEADER + REQUEST).ok()?.to_ne_bytes());
    put(4, &SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    put(6, &NLM_F_REQUEST.to_ne_bytes());
    // `sdiag_family`, `sdiag_protocol`; then the states that are meant, which are all.
    put(HEADER, &[2, IPPROTO_TCP]);
    put(HEADER + 4, &u32::MAX.to_ne_bytes());
    // `inet_diag_sockid`, in the order of the network: ports, addresses of 16 bytes; then no interface and any cookie.
    put(HEADER + 8, &here.port().to_be_bytes());
    put(HEADER + 10, &there.port().to_be_bytes());
    put(HEADER + 12, &own.octets());
    put(HEADER + 28, &other.octets());
    put(HEADER + 48, &[0xff; 8]);
    Some(request)
}

fn read(answer: &[u8]) -> io::Result<Found> {
    let broken = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "the kernel's answer is cut short",
        )
    };
    let word = |at: usize| {
        let bytes = answer
            .get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_ne_bytes).ok_or_else(broken)
    };
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok());
    match kind.map(u16::from_ne_bytes) {
        Some(NLMSG_ERROR) => {
            let errno = word(HEADER)?.cast_signed();
            return Err(io::Error::from_raw_os_error(-errno));
        }
        Some(SOCK_DIAG_BY_FAMILY) => {}
        _ => return Err(broken()),
    }
    let message = answer.get(HEADER..HEADER + ANSWER).ok_or_else(broken)?;
    let address: [u8; 16] = message[8..24].try_into().map_err(|_| broken())?;
    // `idiag_family`: AF_INET, or AF_INET6, which takes connections of IPv4 too.
    let address = match message[0] {
        2 => IpAddr::from([address[0], address[1], address[2], address[3]]),
        _ => IpAddr::from(address).to_canonical(),
    };
    Ok(Found {
        state: message[1],
        address,
        user: word(HEADER + 64)?,
        is_taken: word(HEADER + 68)? != 0,
    })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, TcpListener, TcpStream};

    use super::*;

    fn own() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    /// A listener, the address to connect to, and a connection that it has not accepted.
    fn connected(address: IpAddr) -> (TcpListener, SocketAddr, TcpStream) {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let worker = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = TcpStream::connect(worker).unwrap();
        (listener, worker, stream)
    }

    #[test]
    fn a_connection_is_the_listeners_until_it_is_accepted_and_then_whoever_accepted_it() {
        let (listener, worker, stream) = connected(Ipv4Addr::LOCALHOST.into());
        let here = stream.local_addr().unwrap();
        assert_eq!(check(worker, here, own()).unwrap(), Reach::Loopback);
        let _accepted = listener.accept().unwrap();
        assert_eq!(check(worker, here, own()).unwrap(), Reach::Loopback);
        let refused = check(worker, here, own() + 1).unwrap_err().to_string();
        let said = format!("port {} is held by another user: {}", worker.port(), own());
        assert!(refused.contains(&said), "{refused}");
    }

    #[test]
    fn what_nobody_is_known_to_own_is_nobodys() {
        let (_listener, worker, stream) = connected(Ipv4Addr::LOCALHOST.into());
        let refused = check(worker, stream.local_addr().unwrap(), u32::MAX).unwrap_err();
        assert!(refused.to_string().contains("no process yet"), "{refused}");
    }

    #[test]
    fn a_listener_that_has_gone_leaves_the_connection_to_nobody() {
        let (listener, worker, stream) = connected(Ipv4Addr::LOCALHOST.into());
        let _accepted = listener.accept().unwrap();
        drop(listener);
        let refused = check(worker, stream.local_addr().unwrap(), own()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionReset, "{refused}");
    }

    #[test]
    fn a_listener_on_all_addresses_reaches_everywhere() {
        let (_listener, worker, _stream) = connected(Ipv4Addr::UNSPECIFIED.into());
        assert_eq!(reach(worker).unwrap(), Reach::Everywhere);
        // One of IPv6 takes connections of IPv4 as well.
        let (_listener, worker, stream) = connected(Ipv6Addr::UNSPECIFIED.into());
        assert_eq!(reach(worker).unwrap(), Reach::Everywhere);
        let here = stream.local_addr().unwrap();
        assert_eq!(check(worker, here, own()).unwrap(), Reach::Everywhere);
    }

    #[test]
    fn what_the_kernel_does_not_say_whole_is_an_error() {
        for bytes in [&[][..], &[0; 16], &[0; 20]] {
            assert!(read(bytes).is_err());
        }
    }
}
