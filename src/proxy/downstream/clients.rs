//! The clients of one thread: told when the proxy is to stop, and sent away when there are too many.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::task::Waker;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::signals::Signals;

/// The clients of this thread, to find those that can be sent away when there are too many.
#[derive(Default)]
pub(crate) struct Clients {
    count: Cell<u64>,
    by_number: RefCell<HashMap<u64, Known>>,
    /// Clients that were sent away to make room, and whose places nobody has got yet.
    sent_away: Cell<usize>,
}

/// A client of this thread.
struct Known {
    signals: Arc<Signals>,
    task: AbortHandle,
    /// Wakes its connection, once that is served.
    waker: Option<Waker>,
}

impl Clients {
    /// A number for a client that comes.
    pub(crate) fn number(&self) -> u64 {
        self.count.set(self.count.get() + 1);
        self.count.get()
    }

    /// From now on client `number` is known, by its signals and the task that serves it.
    pub(crate) fn add(&self, number: u64, signals: Arc<Signals>, task: AbortHandle) {
        let known = Known {
            signals,
            task,
            waker: None,
        };
        self.by_number.borrow_mut().insert(number, known);
    }

    /// Client `number` has left.
    pub(crate) fn remove(&self, number: u64) {
        self.by_number.borrow_mut().remove(&number);
    }

    /// From now on the client's connection is woken when the proxy is to stop, and told. Each could wait for that by itself; but it is
    /// polled several times a request, and would each time look at what all threads share.
    pub(crate) fn welcome(&self, number: u64, waker: Waker) {
        if let Some(known) = self.by_number.borrow_mut().get_mut(&number) {
            known.waker = Some(waker);
        }
    }

    /// Tells the clients that the proxy is to stop.
    pub(crate) fn part(&self) {
        for known in self.by_number.borrow().values() {
            if let Some(waker) = &known.waker {
                known.signals.part();
                waker.wake_by_ref();
            }
        }
    }

    /// Whether a client can be taken in. One is turned away only if nobody is found who needs no place.
    pub(crate) fn has_room(&self, is_full: bool) -> bool {
        // Those who were sent away are gone in a moment, and counted until then. Each place is given away once.
        match self.sent_away.get().checked_sub(1) {
            Some(left) => self.sent_away.set(left),
            None if is_full => match self.send_idle_away(Instant::now()).checked_sub(1) {
                Some(left) => self.sent_away.set(left),
                None => return false,
            },
            None => {}
        }
        true
    }

    /// Closes connections of this thread that have nothing in flight, some more than are needed now, so that not each new client needs
    /// a look at all; says how many.
    pub(crate) fn send_idle_away(&self, now: Instant) -> usize {
        let mut clients = self.by_number.borrow_mut();
        let idle = clients.iter();
        let mut idle: Vec<_> = idle
            .filter_map(|(number, known)| Some((known.signals.rank(now)?, *number)))
            .collect();
        let count = (idle.len() / 16).max(1).min(idle.len());
        if count == 0 {
            return 0;
        }
        idle.select_nth_unstable(count - 1);
        for (_, number) in &idle[..count] {
            let Some(known) = clients.get(number) else {
                continue;
            };
            match &known.waker {
                // Its next request, or its first, may have come already, and not have been read yet.
                Some(waker) if !known.signals.is_leaving() => {
                    known.signals.leave();
                    waker.wake_by_ref();
                }
                _ => {
                    known.task.abort();
                    clients.remove(number);
                }
            }
        }
        count
    }
}
