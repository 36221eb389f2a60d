//! What a service leaves with the systemd that started it, for its next process (`FileDescriptorStoreMax=` in systemd.service(5)).
//!
//! Each descriptor has a name of its own, because a name is all by which it can be taken out again.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::sockopt;
use sd_notify::NotifyState;

use crate::route::Place;

/// What a listener's name begins with; its address follows.
const LISTENER: &str = "http-";
/// What a route table's name begins with; a number follows that grows with each.
const TABLE: &str = "table-";
/// What the name of the keys of TLS sessions begins with; a number follows that grows with each.
const TICKETS: &str = "tickets-";
/// Longest table, in bytes.
const TABLE_MAX: usize = 16 << 20;
/// A table may be neither changed nor cut while somebody reads it.
const SEALS: SealFlags = SealFlags::SEAL
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::WRITE);

/// The service's descriptors in systemd's keeping. Without a systemd that started us nothing is kept.
#[derive(Debug)]
pub struct FdStore {
    table: Slot,
    tickets: Slot,
}

/// What the last process has left.
#[derive(Debug, Default)]
pub struct Inherited {
    /// Sockets that clients connect to.
    pub listeners: Vec<OwnedFd>,
    /// The last route table, as it was written.
    pub table: Option<Vec<u8>>,
    /// The keys of TLS sessions, as they were written.
    pub tickets: Option<Vec<u8>>,
}

/// Room for one text, of which the newest is kept.
#[derive(Debug)]
struct Slot {
    /// What its names begin with.
    name: &'static str,
    /// The number of the text that is kept; 0: none is.
    number: AtomicU64,
}

impl FdStore {
    /// Takes what systemd kept or opened for us. To be called once, before anything else opens descriptors.
    pub fn open() -> (Self, Inherited) {
        let mut inherited = Inherited::default();
        let (mut tables, mut tickets) = (Vec::new(), Vec::new());
        for (descriptor, name) in sd_notify::listen_fds_with_names().into_iter().flatten() {
            let descriptor = own(descriptor);
            let number = |prefix| name.strip_prefix(prefix)?.parse::<u64>().ok();
            if is_listener(&descriptor) {
                inherited.listeners.push(descriptor);
            } else if let Some(number) = number(TABLE) {
                tables.push((number, descriptor));
            } else if let Some(number) = number(TICKETS) {
                tickets.push((number, descriptor));
            }
        }
        let (table, text) = Slot::open(TABLE, tables);
        inherited.table = text;
        let (tickets, text) = Slot::open(TICKETS, tickets);
        inherited.tickets = text;
        (Self { table, tickets }, inherited)
    }

    /// Leaves a listener at `place` with systemd: connections queue in it while no process runs.
    pub fn keep_listener(&self, place: &Place, listener: BorrowedFd<'_>) {
        let name = listener_name(place);
        let message = [NotifyState::FdStore, NotifyState::FdName(&name)];
        if let Err(error) = sd_notify::notify_with_fds(&message, &[listener]) {
            tracing::warn!(
                "systemd does not keep the listener ({error}); a restart of the proxy refuses connections for a moment"
            );
        }
    }

    /// Takes back the listener of this place. The next process would not accept from it.
    pub fn drop_listener(&self, place: &Place) {
        remove(&listener_name(place));
    }

    /// Leaves a route table with systemd in place of the one before.
    pub fn keep_table(&self, table: &[u8]) {
        if let Err(error) = self.table.keep(table) {
            tracing::warn!(
                "systemd does not keep the route table ({error}); a restart of the proxy waits for the manager"
            );
        }
    }

    /// Leaves the keys of TLS sessions with systemd in place of those before.
    pub fn keep_tickets(&self, keys: &[u8]) {
        if let Err(error) = self.tickets.keep(keys) {
            tracing::warn!(
                "systemd does not keep the keys of TLS sessions ({error}); after a restart of the proxy each client shakes hands anew"
            );
        }
    }
}

impl Slot {
    /// The slot `name` with what was `left` in it, and the newest of that.
    fn open(name: &'static str, mut left: Vec<(u64, OwnedFd)>) -> (Self, Option<Vec<u8>>) {
        left.sort_by_key(|(number, _)| *number);
        // The last process may have died between keeping one and dropping the one before.
        let newest = left.pop();
        for (number, _) in left {
            remove(&format!("{name}{number}"));
        }
        let number = newest.as_ref().map_or(0, |(number, _)| *number);
        let text = newest.and_then(|(_, descriptor)| match read(descriptor) {
            Ok(text) => Some(text),
            Err(error) => {
                tracing::warn!(
                    "what the last proxy has left as {name}{number} can not be read ({error})"
                );
                None
            }
        });
        let number = AtomicU64::new(number);
        (Self { name, number }, text)
    }

    /// Keeps `text` in place of the one before. At any moment at least one of the two is kept.
    fn keep(&self, text: &[u8]) -> io::Result<()> {
        let last = self.number.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}{}", self.name, last + 1);
        let kept = write(text).and_then(|file| {
            let message = [NotifyState::FdStore, NotifyState::FdName(&name)];
            sd_notify::notify_with_fds(&message, &[file.as_fd()])
        });
        // One that is out of date is of no use either.
        if last > 0 {
            remove(&format!("{}{last}", self.name));
        }
        kept
    }
}

/// Names may hold no ':', no control characters, and at most 255 bytes.
fn listener_name(place: &Place) -> String {
    let name = |c: char| match c {
        ':' => '_',
        c if c.is_ascii_graphic() => c,
        _ => '?',
    };
    let place: String = place.to_string().chars().map(name).collect();
    format!("{LISTENER}{place}")
}

fn remove(name: &str) {
    let _ = sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
}

/// Whether clients can connect there.
fn is_listener(descriptor: &OwnedFd) -> bool {
    sockopt::socket_acceptconn(descriptor).unwrap_or(false)
}

fn write(table: &[u8]) -> io::Result<File> {
    if table.len() > TABLE_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create("tqserver", flags)?);
    file.write_all(table)?;
    rustix::fs::fcntl_add_seals(&file, SEALS)?;
    Ok(file)
}

fn read(descriptor: OwnedFd) -> io::Result<Vec<u8>> {
    let seals = rustix::fs::fcntl_get_seals(&descriptor)?;
    if !seals.contains(SEALS) {
        return Err(io::Error::other("it is not sealed"));
    }
    let file = File::from(descriptor);
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if length > TABLE_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut table = vec![0; length];
    // Its position is where the one that wrote it left it.
    file.read_exact_at(&mut table, 0)?;
    Ok(table)
}

#[allow(
    unsafe_code,
    reason = "sd_listen_fds(3) hands over these descriptors, and nobody else takes them"
)]
fn own(descriptor: RawFd) -> OwnedFd {
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_table_is_read_as_it_was_written() {
        let file = write(b"{}").unwrap();
        assert_eq!(read(file.into()).unwrap(), b"{}");
    }

    #[test]
    fn what_is_not_sealed_or_too_long_is_no_table() {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let open = rustix::fs::memfd_create("open", flags).unwrap();
        assert!(read(open).is_err());
        let long = rustix::fs::memfd_create("long", flags).unwrap();
        rustix::fs::ftruncate(&long, TABLE_MAX as u64 + 1).unwrap();
        rustix::fs::fcntl_add_seals(&long, SEALS).unwrap();
        assert!(read(long).is_err());
        assert!(write(&vec![0; TABLE_MAX + 1]).is_err());
    }

    #[test]
    fn a_listener_is_named_by_its_address() {
        for (address, name) in [
            (
                Place::Tcp("0.0.0.0:8080".parse().unwrap()),
                "http-0.0.0.0_8080",
            ),
            (Place::Tcp("[::1]:80".parse().unwrap()), "http-[__1]_80"),
            (
                Place::Unix("/run/web.sock".into()),
                "http-unix_/run/web.sock",
            ),
        ] {
            assert_eq!(listener_name(&address), name);
        }
    }

    #[test]
    fn only_a_socket_that_listens_is_a_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(is_listener(&listener.into()));
        assert!(!is_listener(&client.into()));
        let (unix, _) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(!is_listener(&unix.into()));
    }
}
