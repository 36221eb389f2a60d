//! The table in force, shared by all threads.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::builders::BUFFER_MIN;
use crate::names::{Instance, WorkerName};
use crate::proxy::downstream::listener::Listener;
use crate::proxy::upstream::generation::Generation;
use crate::proxy::upstream::limiter::Limiter;
use crate::route::{Front, RouteTable};
use crate::tls::Acceptor;

/// A table in force, as all threads share it.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) table: RouteTable,
    pub(crate) generations: HashMap<Instance, Arc<Generation>>,
    /// Of the workers whose requests may have to wait.
    pub(crate) limiters: HashMap<WorkerName, Arc<Limiter>>,
    pub(crate) listeners: Vec<Arc<Listener>>,
    /// Those of the last proxy that are given up with this table: who waits there is let in.
    pub(crate) leaving: Vec<Arc<Listener>>,
    /// How clients are met that speak TLS.
    pub(crate) tls: Option<Acceptor>,
}

/// The table in force and its edition, which grows with each.
#[derive(Debug)]
pub(crate) struct Board {
    published: ArcSwap<Published>,
    edition: AtomicU64,
    changed: watch::Sender<()>,
}

impl Published {
    /// A table without routes and listeners, in force until the manager's first word.
    pub(crate) fn nothing() -> Self {
        Self {
            table: RouteTable {
                serial: 0,
                front: Front {
                    max_header_bytes: BUFFER_MIN,
                    ..Front::default()
                },
                routes: Vec::new(),
                draining: Vec::new(),
                development: None,
            },
            generations: HashMap::new(),
            limiters: HashMap::new(),
            listeners: Vec::new(),
            leaving: Vec::new(),
            tls: None,
        }
    }
}

impl Board {
    /// A board that shows a table without routes.
    pub(crate) fn new(published: Published) -> Self {
        Self {
            published: ArcSwap::from_pointee(published),
            edition: AtomicU64::new(1),
            changed: watch::Sender::new(()),
        }
    }

    /// Puts a table in force: when this returns no request that begins follows an older one.
    pub(crate) fn publish(&self, published: Published) {
        self.published.store(Arc::new(published));
        self.edition.fetch_add(1, Ordering::SeqCst);
        self.changed.send_replace(());
    }

    /// The edition in force.
    pub(crate) fn edition(&self) -> u64 {
        self.edition.load(Ordering::SeqCst)
    }

    /// The table in force.
    pub(crate) fn published(&self) -> Arc<Published> {
        self.published.load_full()
    }

    /// Rings after each [`Self::publish`].
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}
