//! One socket that clients connect to, and who accepts from it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::net::Shutdown;

use crate::route::{Listen, Place};

/// Connections the kernel holds for us while we are busy, or restarted.
pub(crate) const BACKLOG: u16 = 4096;

/// A socket that clients connect to.
#[derive(Debug)]
pub(crate) struct Listener {
    /// Tells it from all others, also from one bound to the same address before.
    pub(crate) id: u64,
    /// What was asked for; its port may be 0.
    pub(super) asked: Place,
    /// What it is: the place it has, and how clients are met there.
    pub(crate) listen: Listen,
    pub(crate) socket: Arc<OwnedFd>,
    doors: Arc<Doors>,
}

/// Who still accepts from a socket.
#[derive(Debug, Default)]
struct Doors {
    open: AtomicUsize,
    given_up: AtomicBool,
}

/// Held by a thread for as long as it accepts from a listener.
#[derive(Debug)]
pub(crate) struct Accepts(Arc<Listener>);

impl Listener {
    /// The `id`th socket: it lies at `place`, and was asked for as `asked` says.
    pub(super) fn new(id: u64, asked: Listen, place: Place, socket: OwnedFd) -> Arc<Self> {
        Arc::new(Self {
            id,
            asked: asked.place.clone(),
            listen: Listen { place, ..asked },
            socket: Arc::new(socket),
            doors: Arc::default(),
        })
    }

    /// This socket, with clients met as `asked` says.
    pub(super) fn like(self: &Arc<Self>, asked: &Listen) -> Arc<Self> {
        let listen = Listen {
            place: self.listen.place.clone(),
            ..asked.clone()
        };
        if listen == self.listen {
            return self.clone();
        }
        Arc::new(Self {
            id: self.id,
            asked: self.asked.clone(),
            listen,
            socket: self.socket.clone(),
            doors: self.doors.clone(),
        })
    }

    /// From here on nobody new is to connect here: see [`Accepts`], whose last one closes it.
    pub(super) fn give_up(&self) {
        self.doors.given_up.store(true, Ordering::SeqCst);
    }

    /// To be held for as long as a thread accepts here.
    pub(crate) fn accepts(self: &Arc<Self>) -> Accepts {
        self.doors.open.fetch_add(1, Ordering::SeqCst);
        Accepts(self.clone())
    }
}

impl Drop for Accepts {
    /// When the last thread has left a socket that was given up, nobody can connect there any more, whoever still has a descriptor of
    /// it: systemd, until it has read that it is to close its own, and the connections that came by it.
    fn drop(&mut self) {
        let doors = &self.0.doors;
        if doors.open.fetch_sub(1, Ordering::SeqCst) == 1 && doors.given_up.load(Ordering::SeqCst) {
            let _ = rustix::net::shutdown(&self.0.socket, Shutdown::Both);
        }
    }
}
