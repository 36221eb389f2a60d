//! How many clients there are: all, and from one address. Asked once a connection, never on the path of a request.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::route::Front;

/// Time between two lines that say that clients are turned away.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(60);

/// Descriptors that are no client's and no worker's: listeners, the link, the journal, files in `public/` that are being sent.
const DESCRIPTORS_KEPT: usize = 64;

/// All clients of all threads.
#[derive(Debug)]
pub(crate) struct ConnectionLimit {
    all: AtomicUsize,
    /// How many the descriptors of this process are enough for. Beyond, the last client would take the one that its request needs for
    /// the worker; and idle clients would keep all others out, for an accept that fails sends nobody away.
    most: usize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    born: Instant,
    /// When it was last said that clients are turned away, in milliseconds since `born`, and one more; 0: never.
    told: AtomicU64,
}

/// One client's place among all. It is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    limit: Arc<ConnectionLimit>,
    address: Option<IpAddr>,
}

/// Why there is no place for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// There are as many as there may be.
    All,
    /// From its address there are.
    Address,
}

impl ConnectionLimit {
    /// Nobody, in a process that may have so many descriptors open (RLIMIT_NOFILE).
    pub(crate) fn new(descriptors: usize) -> Self {
        Self {
            all: AtomicUsize::new(0),
            // Two for a request: the client's connection and the worker's.
            most: (descriptors.saturating_sub(DESCRIPTORS_KEPT) / 2).max(1),
            by_address: Mutex::default(),
            born: Instant::now(),
            told: AtomicU64::new(0),
        }
    }

    /// Whether there are more than there may be, whoever asks and has a permit among them. Threads that ask at the same moment may take in a
    /// few more: the bound is for memory, and not to the last byte.
    pub(crate) fn is_exceeded(&self, front: &Front) -> bool {
        self.all.load(Ordering::Relaxed) > front.max_connections.min(self.most)
    }

    /// Takes in a client.
    pub(crate) fn permit(self: &Arc<Self>) -> ConnectionPermit {
        self.all.fetch_add(1, Ordering::Relaxed);
        ConnectionPermit {
            limit: self.clone(),
            address: None,
        }
    }

    /// Says that clients are turned away, unless that was said a moment ago.
    pub(crate) fn complain(&self, full: Full, front: &Front) {
        let now = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX) + 1;
        let told = self.told.load(Ordering::Relaxed);
        let pause = u64::try_from(COMPLAINT_PAUSE.as_millis()).unwrap_or(u64::MAX);
        if told != 0 && now.saturating_sub(told) < pause {
            return;
        }
        let first = self
            .told
            .compare_exchange(told, now, Ordering::Relaxed, Ordering::Relaxed);
        if first.is_err() {
            return;
        }
        match full {
            Full::All if self.most < front.max_connections => warn!(
                "{} clients are connected and none of them is idle, turning new ones away; this process may have no more descriptors: raise LimitNOFILE= ('systemctl edit tqserver-proxy'), or 'ulimit -n' in development",
                self.most
            ),
            Full::All => warn!(
                "{} clients are connected and none of them is idle, turning new ones away; 'server.max_connections' allows more",
                front.max_connections
            ),
            Full::Address => warn!(
                "one address has {} connections, turning its new ones away; 'server.max_connections_per_address' allows more",
                front.max_connections_per_address
            ),
        }
    }

    fn addresses(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionPermit {
    /// The client is at `address`.
    ///
    /// # Errors
    /// When there are too many from there.
    pub(crate) fn is(&mut self, address: IpAddr, front: &Front) -> Result<(), Full> {
        let most = front.max_connections_per_address;
        if most == 0 || self.address.is_some() {
            return Ok(());
        }
        let address = network(address);
        let mut addresses = self.limit.addresses();
        let count = addresses.entry(address).or_default();
        if *count >= most {
            return Err(Full::Address);
        }
        *count += 1;
        drop(addresses);
        self.address = Some(address);
        Ok(())
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.limit.all.fetch_sub(1, Ordering::Relaxed);
        if let Some(address) = self.address {
            let mut addresses = self.limit.addresses();
            if let Some(count) = addresses.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    addresses.remove(&address);
                }
            }
        }
    }
}

/// What one client can choose its addresses from: of IPv6, a network.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::table::board::Published;

    #[test]
    fn there_are_no_more_clients_than_descriptors_for_them_and_their_workers() {
        let front = Published::nothing().table.front;
        let limit = Arc::new(ConnectionLimit::new(DESCRIPTORS_KEPT + 5));
        let (one, _two) = (limit.permit(), limit.permit());
        assert!(!limit.is_exceeded(&front));
        let _three = limit.permit();
        assert!(limit.is_exceeded(&front));
        drop(one);
        assert!(!limit.is_exceeded(&front));
        let none = Arc::new(ConnectionLimit::new(0));
        let _one = none.permit();
        assert!(!none.is_exceeded(&front), "one is always let in");
    }

    #[test]
    fn a_place_is_free_again_when_a_client_leaves() {
        let mut front = Published::nothing().table.front;
        (front.max_connections, front.max_connections_per_address) = (3, 1);
        let limit = Arc::new(ConnectionLimit::new(usize::MAX));
        let enter = |address: &str| -> Result<ConnectionPermit, Full> {
            let mut permit = limit.permit();
            permit.is(address.parse().unwrap(), &front)?;
            match limit.is_exceeded(&front) {
                true => Err(Full::All),
                false => Ok(permit),
            }
        };
        let one = enter("192.0.2.1").unwrap();
        assert_eq!(enter("::ffff:192.0.2.1").unwrap_err(), Full::Address);
        let _two = enter("2001:db8::1").unwrap();
        assert_eq!(enter("2001:db8::2").unwrap_err(), Full::Address);
        let _three = enter("2001:db8:0:1::1").unwrap();
        assert_eq!(enter("192.0.2.2").unwrap_err(), Full::All);
        drop(one);
        assert!(enter("192.0.2.1").is_ok());
        assert!(
            enter("192.0.2.1").is_ok(),
            "who was turned away is not counted"
        );
    }
}
