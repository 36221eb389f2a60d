//! What a client's socket and its requests tell each other: whose turn it is, that the client is to leave, what is still to be written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::interim::Outbox;
use crate::proxy::wire::strict::{Flaw, Mark};

/// How long a connection may still bring a request once the proxy stops, counted from then or from its last answer. A client in the
/// middle of its work has sent the next one by then, and hears with the answer that it is the last; much longer would be felt as a
/// pause, since the next proxy starts when this one has ended.
pub(super) const PARTING: Duration = Duration::from_millis(500);

/// The same for a connection that has not brought any, counted from when it was accepted: its request is on the way, and one packet of
/// it may get lost and be sent again.
pub(super) const PARTING_NEW: Duration = Duration::from_secs(1);

/// What the one that answers tells the socket. Shared by reference count only because an upgraded connection must be `Send`.
#[derive(Debug)]
pub(crate) struct Signals {
    /// Grows when the first of the requests in flight begins and when the last answer has ended: odd means that silence is not the
    /// client's fault.
    pub(super) turns: AtomicU64,
    /// Requests in flight; without HTTP/2 there is one at most.
    in_flight: AtomicU32,
    /// When the last answer ended, in microseconds since `born`.
    ended: AtomicU64,
    pub(super) born: Instant,
    /// Its thread has come to it for the first time.
    met: AtomicBool,
    /// When it was told that the proxy stops, in microseconds since `born`, and one more; 0: it was not.
    parting: AtomicU64,
    /// There are too many clients: the connection ends as soon as nothing of a request is there.
    leaving: AtomicBool,
    /// It was told that, and nothing was there: it ends, or has a moment for the rest of a head, unless its place is needed before.
    going: AtomicBool,
    /// The client is still sending a body that may never be read.
    pub(super) unread: AtomicBool,
    /// What was sent is not whole, and only a reset can say so.
    pub(super) torn: AtomicBool,
    /// What a worker says before its answer.
    pub(super) interims: Outbox,
    /// What is wrong with a request on this connection.
    pub(super) flaw: Mark,
}

/// While it lives the connection waits for us and not for the client.
#[derive(Debug)]
pub(crate) struct InFlightGuard(Option<Arc<Signals>>);

/// A client that has nothing in flight, by what it has done so far. Of too many the least leave first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// It came then, has had time for a request, and has not brought a whole one.
    Silent(Instant),
    /// Its last request was answered then, or it came then and its request may be on the way. In a flood of connections those of the flood
    /// are soon the oldest, and not those of a client that goes on asking.
    Idle(Instant),
}

impl Signals {
    /// The signals of a connection just accepted.
    pub(crate) fn new() -> Self {
        Self {
            turns: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            ended: AtomicU64::new(0),
            born: Instant::now(),
            met: AtomicBool::new(false),
            parting: AtomicU64::new(0),
            leaving: AtomicBool::new(false),
            going: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            torn: AtomicBool::new(false),
            interims: Outbox::default(),
            flaw: Mark::default(),
        }
    }

    pub(super) fn ended(&self) -> Instant {
        self.born + Duration::from_micros(self.ended.load(Ordering::Relaxed))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Its thread has come to it: from here on it is known what it has brought.
    pub(crate) fn meet(&self) {
        self.met.store(true, Ordering::Relaxed);
    }

    /// The proxy stops: the connection is to end, and the next answer to say so.
    pub(crate) fn part(&self) {
        self.parting
            .store(self.now().saturating_add(1), Ordering::Relaxed);
    }

    /// Whether the next answer is the last.
    pub(crate) fn is_parting(&self) -> bool {
        self.parting.load(Ordering::Relaxed) != 0
    }

    /// There are too many clients: this one makes room now, or after the answer to what it has sent already.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
        self.part();
    }

    /// Whether it was told to leave.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// The client is to leave, and nothing that it has sent is unread.
    pub(super) fn go(&self) {
        self.going.store(true, Ordering::Relaxed);
    }

    /// When it was told that the proxy stops.
    pub(super) fn parted(&self) -> Option<Instant> {
        let micros = self.parting.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.born + Duration::from_micros(micros))
    }

    /// A request has come and is being answered until the result is dropped.
    pub(crate) fn in_flight_guard(self: &Arc<Self>) -> InFlightGuard {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) == 0 {
            self.turns.fetch_add(1, Ordering::Relaxed);
        }
        InFlightGuard(Some(self.clone()))
    }

    /// Whether it is new no longer, and has not finished the head of its first request.
    pub(super) fn is_late(&self) -> bool {
        self.turns.load(Ordering::Relaxed) == 0 && self.born.elapsed() > PARTING_NEW
    }

    /// How soon the client is to leave when there are too many; `None` while its thread has not come to it, while it has something in flight,
    /// and once it was told to leave until nothing it has sent is unread.
    pub(crate) fn rank(&self, now: Instant) -> Option<Rank> {
        let turns = self.turns.load(Ordering::Relaxed);
        if self.is_leaving() {
            // Until its thread has looked, something that it has sent may not have been read.
            let has_nothing = self.going.load(Ordering::Relaxed) && turns.is_multiple_of(2);
            return self.parted().filter(|_| has_nothing).map(Rank::Silent);
        }
        match turns {
            0 if !self.met.load(Ordering::Relaxed) => None,
            0 if now.saturating_duration_since(self.born) > PARTING_NEW => {
                Some(Rank::Silent(self.born))
            }
            0 => Some(Rank::Idle(self.born)),
            turn if turn % 2 == 0 => Some(Rank::Idle(self.ended())),
            _ => None,
        }
    }

    /// Whether the client is still sending a body.
    pub(crate) fn set_unread(&self, unread: bool) {
        self.unread.store(unread, Ordering::Relaxed);
    }

    /// What is to be written before the answer. The answer must wait until that is written ([`Outbox::empty`]).
    pub(crate) fn interims(&self) -> &Outbox {
        &self.interims
    }

    /// What is wrong with the request of this number, counted from one.
    pub(crate) fn flaw(&self, request: u64) -> Option<Flaw> {
        self.flaw.of(request)
    }

    /// Ends the connection with a reset: the only way to tell a client that reads until the end that this is not the end.
    pub(crate) fn tear(&self) {
        self.torn.store(true, Ordering::Relaxed);
    }
}

impl InFlightGuard {
    /// The connection is not HTTP any more, and the socket's deadlines for reading do not apply.
    pub(crate) fn for_ever(mut self) {
        self.0 = None;
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        if let Some(signals) = &self.0
            && signals.in_flight.fetch_sub(1, Ordering::Relaxed) == 1
        {
            signals.ended.store(signals.now(), Ordering::Relaxed);
            signals.turns.fetch_add(1, Ordering::Relaxed);
        }
    }
}
