//! What a service leaves with the systemd that started it, for its next process (`FileDescriptorStoreMax=` in systemd.service(5)).
//!
//! Each descriptor has a name of its own, because a name is all by which it can be taken out again.

use std::fs::File;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::sockopt;
use sd_notify::NotifyState;

/// What a listener's name begins with; its address follows.
const LISTENER: &str = "http-";
/// What a route table's name begins with; a number follows that grows with each.
const TABLE: &str = "table-";
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
    /// The number of the table that is kept; 0: none is.
    table: AtomicU64,
}

/// What the last process has left.
#[derive(Debug, Default)]
pub struct Inherited {
    /// Sockets that clients connect to.
    pub listeners: Vec<TcpListener>,
    /// The last route table, as it was written.
    pub table: Option<Vec<u8>>,
}

impl FdStore {
    /// Takes what systemd kept or opened for us. To be called once, before anything else opens descriptors.
    pub fn open() -> (Self, Inherited) {
        let mut inherited = Inherited::default();
        let mut tables = Vec::new();
        for (descriptor, name) in sd_notify::listen_fds_with_names().into_iter().flatten() {
            let descriptor = own(descriptor);
            if is_listener(&descriptor) {
                inherited.listeners.push(descriptor.into());
            } else if let Some(number) = name.strip_prefix(TABLE).and_then(|n| n.parse().ok()) {
                tables.push((number, descriptor));
            }
        }
        tables.sort_by_key(|(number, _)| *number);
        // The last process may have died between keeping one and dropping the one before.
        let newest = tables.pop();
        for (number, _) in tables {
            remove(&table_name(number));
        }
        let number = newest.as_ref().map_or(0, |(number, _)| *number);
        if let Some((_, descriptor)) = newest {
            match read(descriptor) {
                Ok(table) => inherited.table = Some(table),
                Err(error) => {
                    tracing::warn!("the last proxy's route table can not be read ({error})");
                }
            }
        }
        let table = AtomicU64::new(number);
        (Self { table }, inherited)
    }

    /// Leaves a listener with systemd: connections queue in it while no process runs.
    pub fn keep_listener(&self, listener: &TcpListener) {
        let kept = listener.local_addr().and_then(|address| {
            let name = listener_name(address);
            let message = [NotifyState::FdStore, NotifyState::FdName(&name)];
            sd_notify::notify_with_fds(&message, &[listener.as_fd()])
        });
        if let Err(error) = kept {
            tracing::warn!(
                "systemd does not keep the listener ({error}); a restart of the proxy refuses connections for a moment"
            );
        }
    }

    /// Takes back the listener of this address. The next process would not accept from it.
    pub fn drop_listener(&self, address: SocketAddr) {
        remove(&listener_name(address));
    }

    /// Leaves a route table with systemd in place of the one before. At any moment at least one of the two is kept.
    pub fn keep_table(&self, table: &[u8]) {
        let last = self.table.fetch_add(1, Ordering::Relaxed);
        let name = table_name(last + 1);
        let kept = write(table).and_then(|file| {
            let message = [NotifyState::FdStore, NotifyState::FdName(&name)];
            sd_notify::notify_with_fds(&message, &[file.as_fd()])
        });
        if let Err(error) = kept {
            tracing::warn!(
                "systemd does not keep the route table ({error}); a restart of the proxy waits for the manager"
            );
        }
        // One that is out of date is of no use either.
        if last > 0 {
            remove(&table_name(last));
        }
    }
}

/// Names may hold no ':'.
fn listener_name(address: SocketAddr) -> String {
    format!("{LISTENER}{}", address.to_string().replace(':', "_"))
}

fn table_name(number: u64) -> String {
    format!("{TABLE}{number}")
}

fn remove(name: &str) {
    let _ = sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
}

fn is_listener(descriptor: &OwnedFd) -> bool {
    let inet = |address: rustix::net::SocketAddrAny| SocketAddr::try_from(address).is_ok();
    sockopt::socket_acceptconn(descriptor).unwrap_or(false)
        && rustix::net::getsockname(descriptor).is_ok_and(inet)
}

fn write(table: &[u8]) -> io::Result<File> {
    if table.len() > TABLE_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create("route-table", flags)?);
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
            ("0.0.0.0:8080", "http-0.0.0.0_8080"),
            ("[::1]:80", "http-[__1]_80"),
        ] {
            assert_eq!(listener_name(address.parse().unwrap()), name);
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
