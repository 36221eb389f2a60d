//! A client, and what its requests have in common.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use crate::proxy::downstream::connection_limit::ConnectionPermit;
use crate::proxy::downstream::signals::Signals;
use crate::proxy::shard::{Shard, Streaming};
use crate::proxy::wire::origin::Origin;
use crate::proxy::wire::pace::Pace;
use crate::proxy::wire::strict::Flaw;
use crate::proxy::wire::timer::Timer;
use crate::tls;

/// What is known of a client when its connection is made.
pub(crate) struct Met {
    pub(crate) shard: Rc<Shard>,
    /// Where its requests come from, as long as no proxy says otherwise.
    pub(crate) origin: Rc<Origin>,
    /// It is a proxy whose word is believed.
    pub(crate) trusted: bool,
    /// Where its requests are sent that are to come with TLS: a port.
    pub(crate) redirect: Option<u16>,
    /// The certificate it was shown, where there are several.
    pub(crate) shown: Option<tls::Shown>,
    /// How slow it may be in taking an answer.
    pub(crate) write_pace: Pace,
    pub(crate) signals: Arc<Signals>,
}

/// A client and what its requests have in common.
pub(crate) struct Client {
    met: Met,
    /// Its place among all clients.
    _permit: ConnectionPermit,
    /// Requests so far.
    requests: Cell<u64>,
    /// A clock that requests hand on, one to the next.
    spare: Rc<Cell<Option<Timer>>>,
}

impl Client {
    /// A client that has not asked for anything yet.
    pub(crate) fn new(met: Met, permit: ConnectionPermit) -> Self {
        Self {
            met,
            _permit: permit,
            requests: Cell::new(0),
            spare: Rc::default(),
        }
    }

    /// The thread that serves it.
    pub(crate) fn shard(&self) -> &Rc<Shard> {
        &self.met.shard
    }

    /// Counts the next request, and says what is wrong with it if the scanner found anything.
    pub(super) fn next_request(&self) -> Option<Flaw> {
        self.requests.set(self.requests.get() + 1);
        self.signals().flaw(self.requests.get())
    }

    /// Where its requests come from, as long as no proxy says otherwise.
    pub(super) fn origin(&self) -> &Rc<Origin> {
        &self.met.origin
    }

    /// Whether it is a proxy whose X-Forwarded-* fields are trusted.
    pub(super) fn is_trusted(&self) -> bool {
        self.met.trusted
    }

    /// The port to which its requests are sent that are to come with TLS.
    pub(super) fn https_port(&self) -> Option<u16> {
        self.met.redirect
    }

    /// The certificate it was shown, where there are several.
    pub(super) fn shown(&self) -> Option<&tls::Shown> {
        self.met.shown.as_ref()
    }

    /// How slow it may be in taking an answer.
    pub(crate) fn write_pace(&self) -> Pace {
        self.met.write_pace
    }

    /// A place for a request among many on the connection, if there is one left on this thread.
    pub(crate) fn stream(&self) -> Option<Streaming> {
        self.met.shard.stream()
    }

    /// The client's socket.
    pub(crate) fn signals(&self) -> &Arc<Signals> {
        &self.met.signals
    }

    /// A clock for one request.
    pub(crate) fn timer(&self) -> Timer {
        self.spare.take().unwrap_or_default()
    }

    /// Takes a clock back.
    pub(crate) fn keep(&self, timer: Timer) {
        self.spare.set(Some(timer));
    }

    /// Where a clock is to be put back.
    pub(crate) fn spare(&self) -> Rc<Cell<Option<Timer>>> {
        self.spare.clone()
    }

    /// Runs what outlives the connection's HTTP.
    pub(crate) fn tunnel(&self, tunnel: impl Future<Output = ()> + 'static) {
        self.met.shard.tunnel(tunnel);
    }
}
