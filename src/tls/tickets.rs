//! Session tickets (RFC 5077, RFC 8446 2.2): a client brings its session back itself, encrypted with a key that only we know. The next
//! proxy is left the keys, so that a restart does not cost every client a full handshake.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;
use serde::{Deserialize, Serialize};

use crate::boottime::BootTime;

/// How long a key makes tickets. For as long again it only reads them: who has a key can read what its tickets protected.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// Bytes of a key's name, of the key, and of what authenticates a ticket.
const NAME: usize = 16;
const KEY: usize = 32;
const TAG: usize = 16;

/// The keys in use.
#[derive(Debug)]
pub struct Tickets {
    keys: RwLock<Keys>,
}

#[derive(Debug)]
struct Keys {
    current: Key,
    /// Reads tickets that were made before.
    last: Option<Key>,
}

#[derive(Debug)]
struct Key {
    written: Written,
    cipher: LessSafeKey,
}

/// A key as the next proxy finds it.
#[derive(Clone, Serialize, Deserialize)]
struct Written {
    name: [u8; NAME],
    secret: [u8; KEY],
    /// When it was made. Of the time of day an administrator, or whoever speaks NTP to us, could make hours or years.
    born: BootTime,
}

impl std::fmt::Debug for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Written")
            .field("born", &self.born)
            .finish_non_exhaustive()
    }
}

impl Tickets {
    /// Keys of our own, or those that [`Self::written`] has given to the last proxy, as long as they are good at `now`.
    pub fn new(left: Option<&[u8]>, now: BootTime) -> Self {
        let left: Vec<Written> = left
            .and_then(|text| serde_json::from_slice(text).ok())
            .unwrap_or_default();
        let mut good = left
            .iter()
            .filter(|written| written.age_at(now) < 2 * LIFETIME)
            .filter_map(|written| Key::of(written.clone()));
        let current = good.next();
        let tickets = Self {
            keys: RwLock::new(Keys {
                last: good.next(),
                current: current.unwrap_or_else(|| Key::new(now)),
            }),
        };
        tickets.turn(now);
        tickets
    }

    /// Makes a new key if the one in use is old at `now`; says whether it did.
    pub fn turn(&self, now: BootTime) -> bool {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let age = keys.current.written.age_at(now);
        if age < LIFETIME {
            return false;
        }
        let old = std::mem::replace(&mut keys.current, Key::new(now));
        keys.last = (age < 2 * LIFETIME).then_some(old);
        true
    }

    /// How long it is until [`Self::turn`] makes a new key.
    pub fn turns_in(&self, now: BootTime) -> Duration {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        LIFETIME.saturating_sub(keys.current.written.age_at(now))
    }

    /// The keys for the next proxy.
    pub fn written(&self) -> Vec<u8> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let all = [Some(&keys.current), keys.last.as_ref()];
        let written: Vec<&Written> = all.into_iter().flatten().map(|key| &key.written).collect();
        serde_json::to_vec(&written).unwrap_or_default()
    }
}

impl Written {
    fn age_at(&self, now: BootTime) -> Duration {
        now.since(self.born)
    }
}

impl Key {
    fn new(now: BootTime) -> Self {
        let (mut name, mut secret) = ([0; NAME], [0; KEY]);
        for bytes in [name.as_mut_slice(), secret.as_mut_slice()] {
            // Without random numbers there is no TLS at all.
            rand::fill(bytes).expect("the kernel gives random bytes");
        }
        let written = Written {
            name,
            secret,
            born: now,
        };
        Self::of(written).expect("a key of the right length")
    }

    fn of(written: Written) -> Option<Self> {
        let cipher = UnboundKey::new(&AES_256_GCM, &written.secret).ok()?;
        Some(Self {
            written,
            cipher: LessSafeKey::new(cipher),
        })
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(LIFETIME.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let key = &keys.current;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(NAME + NONCE_LEN + plain.len() + TAG);
        ticket.extend_from_slice(&key.written.name);
        ticket.extend_from_slice(&nonce);
        let mut sealed = plain.to_vec();
        let (nonce, name) = (
            Nonce::assume_unique_for_key(nonce),
            Aad::from(key.written.name),
        );
        key.cipher
            .seal_in_place_append_tag(nonce, name, &mut sealed)
            .ok()?;
        ticket.extend_from_slice(&sealed);
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let mut all = [Some(&keys.current), keys.last.as_ref()]
            .into_iter()
            .flatten();
        let key = all.find(|key| key.written.name == name)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut plain = sealed.to_vec();
        let length = key
            .cipher
            .open_in_place(nonce, Aad::from(key.written.name), &mut plain)
            .ok()?
            .len();
        plain.truncate(length);
        Some(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::now().after(Duration::from_secs(seconds))
    }

    #[test]
    fn a_ticket_is_read_by_the_next_proxy_and_by_nobody_else() {
        let tickets = Tickets::new(None, at(0));
        let ticket = tickets.encrypt(b"session").unwrap();
        assert_eq!(tickets.decrypt(&ticket).unwrap(), b"session");
        let next = Tickets::new(Some(&tickets.written()), at(60));
        assert_eq!(next.decrypt(&ticket).unwrap(), b"session");
        assert_eq!(Tickets::new(None, at(60)).decrypt(&ticket), None);
    }

    #[test]
    fn a_ticket_that_was_changed_or_cut_is_none() {
        let tickets = Tickets::new(None, at(0));
        let ticket = tickets.encrypt(b"session").unwrap();
        for length in 0..ticket.len() {
            assert_eq!(tickets.decrypt(&ticket[..length]), None, "{length} bytes");
            let mut changed = ticket.clone();
            changed[length] ^= 1;
            assert_eq!(tickets.decrypt(&changed), None, "byte {length}");
        }
    }

    #[test]
    fn a_key_makes_tickets_for_a_time_and_reads_them_for_as_long_again() {
        let life = LIFETIME.as_secs();
        let tickets = Tickets::new(None, at(0));
        let first = tickets.encrypt(b"1").unwrap();
        assert!(!tickets.turn(at(life - 1)));
        assert!(tickets.turn(at(life)));
        assert!(tickets.decrypt(&first).is_some());
        assert!(tickets.turn(at(2 * life)));
        assert!(tickets.decrypt(&first).is_none());
        let late = Tickets::new(Some(&tickets.written()), at(9 * life));
        let second = tickets.encrypt(b"2").unwrap();
        assert!(late.decrypt(&second).is_none());
    }

    #[test]
    fn keys_that_can_not_be_read_are_passed_over() {
        // The second is as an earlier version wrote them, by the time of day.
        let old = format!(
            r#"[{{"name":{:?},"secret":{:?},"made":1}}]"#,
            [1; NAME], [1; KEY]
        );
        for left in [b"nonsense", old.as_bytes()] {
            let tickets = Tickets::new(Some(left), at(0));
            let ticket = tickets.encrypt(b"x").unwrap();
            assert_ne!(ticket[..NAME], [1; NAME]);
        }
    }
}
