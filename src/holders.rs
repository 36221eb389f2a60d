//! Which process listens at an address, as far as /proc shows it: the owner of a socket to everybody, the process behind it to root
//! and to the process's own user.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// A listening socket, in the `st` column of /proc/net/tcp (proc(5)).
const LISTENING: &str = "0A";
/// Bytes read of /proc/net/tcp or /proc/net/unix: some hundred thousand sockets.
const TABLE_MAX: u64 = 32 << 20;
/// Processes that are asked for their descriptors.
const PROCESSES_MAX: usize = 65_536;
/// systemd holds the sockets it starts services by; whoever else has the socket is of more interest.
const INIT: u32 = 1;

/// Somebody who listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The user who made the socket; `None` for a unix socket, whose table does not say.
    pub uid: Option<u32>,
    /// The process that has it, and its command; `None` if that is hidden from us.
    pub process: Option<(u32, String)>,
}

impl Holder {
    /// The name of the user who made the socket, if it is known.
    pub fn user(&self) -> Option<String> {
        user(self.uid?)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.process, self.uid) {
            (Some((pid, command)), _) => write!(f, "{command} (PID {pid})"),
            (None, Some(uid)) => match user(uid) {
                Some(user) => write!(f, "another process of user {user}"),
                None => write!(f, "another process of user {uid}"),
            },
            (None, None) => f.write_str("another process"),
        }
    }
}

/// Whoever listens where a listener at `address` would be in the way, in this network name space; `None` if nobody does.
pub fn of_tcp(address: SocketAddr) -> Option<Holder> {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"].into_iter();
    let mut found = tables
        .flat_map(|table| lines(Path::new(table)))
        .filter_map(|line| tcp(&line))
        .filter(|(local, ..)| overlap(*local, address))
        .map(|(_, uid, inode)| Holder {
            uid: Some(uid),
            process: process(inode),
        });
    let first = found.next()?;
    let is_us = |holder: &Holder| {
        let process = holder.process.as_ref();
        process.is_some_and(|(pid, _)| *pid == std::process::id())
    };
    // What is in our own way is known to us.
    match is_us(&first) {
        true => found.find(|holder| !is_us(holder)).or(Some(first)),
        false => Some(first),
    }
}

/// Whoever listens at the unix socket `path`; `None` if nobody does.
pub fn of_unix(path: &Path) -> Option<Holder> {
    let inode = lines(Path::new("/proc/self/net/unix")).find_map(|line| unix(&line, path))?;
    Some(Holder {
        uid: None,
        process: process(inode),
    })
}

fn lines(table: &Path) -> impl Iterator<Item = String> {
    let file = fs::File::open(table).ok();
    let lines = file.map(|file| BufReader::new(file.take(TABLE_MAX)).lines());
    lines.into_iter().flatten().map_while(Result::ok)
}

/// Address, owner and inode of the listening socket that `line` of /proc/net/tcp tells of.
fn tcp(line: &str) -> Option<(SocketAddr, u32, u64)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = fields.next()?;
    let state = fields.nth(1)?;
    let uid = fields.nth(3)?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    (state == LISTENING).then_some(())?;
    let (ip, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // 32 bits at a time, each as a number of this machine's byte order.
    let word = |at: usize| -> Option<[u8; 4]> {
        let word = u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let ip: IpAddr = match ip.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    Some((SocketAddr::new(ip, port), uid, inode))
}

/// The inode of the socket at `path` if `line` of /proc/net/unix tells of it, and somebody listens there.
fn unix(line: &str, path: &Path) -> Option<u64> {
    let mut fields = line.split_ascii_whitespace().skip(3);
    let flags = u32::from_str_radix(fields.next()?, 16).ok()?;
    let inode = fields.nth(2)?.parse().ok()?;
    // SO_ACCEPTCON.
    let listens = flags & 0x1_0000 != 0;
    (listens && Path::new(fields.next()?) == path).then_some(inode)
}

/// Whether one of the two keeps the other from being listened at. An IPv6 wildcard may or may not mean IPv4 too; it is named if so.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let any = |address: SocketAddr| address.ip().is_unspecified();
    let both = |address: SocketAddr| any(address) && address.is_ipv6();
    one.port() == other.port()
        && (one.ip().to_canonical() == other.ip().to_canonical()
            || both(one)
            || both(other)
            || (one.is_ipv4() == other.is_ipv4() && (any(one) || any(other))))
}

/// A process that has the socket `inode` open.
fn process(inode: u64) -> Option<(u32, String)> {
    let socket = format!("socket:[{inode}]");
    let mut found = None;
    for entry in fs::read_dir("/proc").ok()?.flatten().take(PROCESSES_MAX) {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let descriptors = fs::read_dir(entry.path().join("fd")).into_iter().flatten();
        let mut targets = descriptors.flatten().map(|fd| fs::read_link(fd.path()));
        if targets.any(|target| target.is_ok_and(|target| target.as_os_str() == &*socket)) {
            found = Some(pid);
            if pid != INIT {
                break;
            }
        }
    }
    let pid: u32 = found?;
    let command = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some((pid, printable(&command)))
}

/// A process chooses its own name.
fn printable(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    let name = name.trim_end_matches('\n').chars();
    let name: String = name.map(|c| if c.is_control() { '?' } else { c }).collect();
    if name.is_empty() {
        "a process".to_owned()
    } else {
        name
    }
}

fn user(uid: u32) -> Option<String> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let uid = uid.to_string();
    let line = users
        .lines()
        .find(|line| line.split(':').nth(2) == Some(&uid))?;
    line.split(':').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;
    use std::time::{Duration, Instant};

    use super::*;

    /// A child that another test starts has our descriptors until it runs its program, so a socket may outlive its closing here.
    fn is_soon_nobody(look: impl Fn() -> Option<Holder>) -> bool {
        let until = Instant::now() + Duration::from_secs(10);
        while look().is_some() {
            if Instant::now() > until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    #[test]
    fn whoever_listens_at_an_address_is_named() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                continue;
            };
            let address = listener.local_addr().unwrap();
            let holder = of_tcp(address).unwrap();
            assert_eq!(holder.process.as_ref().unwrap().0, std::process::id());
            assert!(holder.to_string().contains(&std::process::id().to_string()));
            let every: SocketAddr = format!("[::]:{}", address.port()).parse().unwrap();
            assert_eq!(of_tcp(every), Some(holder));
            drop(listener);
            assert!(is_soon_nobody(|| of_tcp(address)));
        }
    }

    #[test]
    fn whoever_listens_at_a_unix_socket_is_named() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("web.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let (pid, _) = of_unix(&path).unwrap().process.unwrap();
        assert_eq!(pid, std::process::id());
        drop(listener);
        assert!(is_soon_nobody(|| of_unix(&path)));
    }

    #[test]
    fn a_wildcard_is_in_the_way_of_every_address_of_its_port() {
        let overlaps = |one: &str, other: &str| {
            let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
            overlap(one, other)
        };
        for (one, other) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("[::ffff:10.0.0.1]:80", "10.0.0.1:80"),
        ] {
            assert!(
                overlaps(one, other) && overlaps(other, one),
                "{one} {other}"
            );
        }
        for (one, other) in [
            ("0.0.0.0:80", "127.0.0.1:81"),
            ("10.0.0.1:80", "10.0.0.2:80"),
            ("0.0.0.0:80", "[::1]:80"),
        ] {
            assert!(!overlaps(one, other), "{one} {other}");
        }
    }

    #[test]
    fn the_name_of_a_process_is_shown_without_what_a_terminal_would_obey() {
        assert_eq!(printable(b"\x1b[31mx\n"), "?[31mx");
        assert_eq!(printable(b"\n"), "a process");
    }
}
