//! A route, and who answers on it.

use std::rc::Rc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::assets::Assets;
use super::development::State;
use super::public::Public;
use super::rules::Rules;
use super::stored::Stored;
use crate::names::WorkerName;
use crate::proxy::upstream::balance::Balancer;
use crate::proxy::upstream::pool::Upstream;
use crate::proxy::upstream::ticket::Ticket;
use crate::route::{Protocol, RoutePath, RouteSettings, Scripts, Timeouts};

/// A route and what is needed on it for each request.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) path: RoutePath,
    /// What its worker says of it.
    pub(crate) settings: RouteSettings,
    /// Segments that are cut off before the worker sees a path.
    pub(crate) stripped: usize,
    /// The value of `X-Forwarded-Prefix`.
    pub(crate) prefix: HeaderValue,
    pub(crate) worker: WorkerName,
    pub(crate) public: Option<Public>,
    /// What its worker stores for it to serve.
    pub(crate) stored: Vec<Stored>,
    pub(crate) target: Target,
    pub(crate) timeouts: Timeouts,
    /// How often a request is sent again that may be.
    pub(crate) retries: u8,
    /// What stands between a request and the worker; `None`: nothing.
    pub(crate) rules: Option<Rules>,
    pub(crate) access_log: bool,
    /// Whether answers are compressed.
    pub(crate) compression: bool,
    /// Which files of `public` are served.
    pub(crate) assets: Assets,
    /// In development: how far the worker is.
    pub(crate) state: Option<State>,
}

/// Who answers on a route.
#[derive(Debug)]
pub(crate) enum Target {
    Serving(Rc<Upstream>),
    /// A generation with several instances.
    Instances(Rc<Balancer>),
    Files,
    Unavailable {
        reason: String,
        /// Seconds.
        retry_after: Option<u64>,
        /// How long requests may wait for it.
        awaited: Option<Duration>,
    },
}

impl Route {
    /// How long requests may wait for its first generation, if that is on its way.
    pub(crate) fn awaited(&self) -> Option<Duration> {
        match self.target {
            Target::Unavailable { awaited, .. } => awaited,
            _ => None,
        }
    }
}

impl Target {
    /// The ways to the worker.
    pub(crate) fn upstreams(&self) -> &[Rc<Upstream>] {
        match self {
            Self::Serving(upstream) => std::slice::from_ref(upstream),
            Self::Instances(balancer) => balancer.upstreams(),
            Self::Files | Self::Unavailable { .. } => &[],
        }
    }

    /// The scripts of a worker that speaks FastCGI.
    pub(crate) fn scripts(&self) -> Option<&Scripts> {
        match &self.upstreams().first()?.protocol {
            Protocol::FastCgi(scripts) => Some(scripts),
            Protocol::Http | Protocol::Http2 => None,
        }
    }

    /// Counts a request in, if it goes to a worker. See [`Generation::enter`].
    pub(crate) fn enter(&self) -> Option<Ticket> {
        match self {
            Self::Serving(upstream) => Some(Ticket::new(upstream.enter())),
            _ => Some(Ticket::new(self.upstreams().first()?.enter())),
        }
    }

    /// The way of a request that was counted in and has these header fields.
    pub(crate) fn way(&self, ticket: &mut Ticket, headers: &HeaderMap) -> Option<Rc<Upstream>> {
        match self {
            Self::Serving(upstream) => Some(upstream.clone()),
            Self::Instances(balancer) => {
                let place = ticket.place.insert(balancer.place(headers));
                Some(place.upstream().clone())
            }
            Self::Files | Self::Unavailable { .. } => None,
        }
    }
}
