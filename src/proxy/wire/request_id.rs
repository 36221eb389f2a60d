//! New names for requests.

use std::cell::{Cell, RefCell};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::SystemTime;

use bytes::BytesMut;
use http::HeaderValue;

/// Bytes of memory that request ids share. A request that takes long keeps them all.
const IDS_ROOM: usize = 1 << 10;

/// Where request ids come from: no lock and no system call, and still not to be guessed.
pub(crate) struct RequestIds {
    secrets: [RandomState; 2],
    count: Cell<u64>,
    /// Memory for the next ones: by itself each would need a piece of its own, and another when it is cloned.
    room: RefCell<BytesMut>,
}

impl Default for RequestIds {
    fn default() -> Self {
        Self {
            secrets: [RandomState::new(), RandomState::new()],
            count: Cell::new(0),
            room: RefCell::default(),
        }
    }
}

impl RequestIds {
    /// A new name for a request: a UUID of version 7, so that they sort by time.
    pub(crate) fn next(&self) -> HeaderValue {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        let id = self.uuid().hyphenated().encode_lower(&mut text);
        let mut room = self.room.borrow_mut();
        if room.capacity() < id.len() {
            room.reserve(IDS_ROOM);
        }
        room.extend_from_slice(id.as_bytes());
        HeaderValue::from_maybe_shared(room.split().freeze())
            .unwrap_or_else(|_| HeaderValue::from_static("-"))
    }

    fn uuid(&self) -> uuid::Uuid {
        let count = self.count.get();
        self.count.set(count.wrapping_add(1));
        let [high, low] = self.secrets.each_ref().map(|s| s.hash_one(count));
        let mut random = [0; 10];
        random[..8].copy_from_slice(&high.to_ne_bytes());
        random[8..].copy_from_slice(&low.to_ne_bytes()[..2]);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let millis = now.map_or(0, |now| now.as_millis());
        uuid::Builder::from_unix_timestamp_millis(u64::try_from(millis).unwrap_or(0), &random)
            .into_uuid()
    }
}
