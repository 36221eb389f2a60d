//! What a route asks of a request before it goes to the worker: how much it may carry, how many may be there at a time, a pause, maintenance.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use crate::proxy::upstream::limiter::Limiter;
use crate::proxy::wire::deadline::Deadline;
use crate::proxy::wire::refusal::Refusal;
use crate::route::{Maintenance, Route as Asked};

/// Seconds after which it is worth looking whether maintenance is over.
const MAINTENANCE_RETRY: u64 = 60;

/// What clients are told of maintenance unless the operator says something else.
const MAINTENANCE: &str = "This is being worked on, and will be back soon.";

/// What a route asks of a request before it goes to the worker.
#[derive(Debug)]
pub(crate) struct Rules {
    /// Most bytes of a body.
    pub(crate) max_body: u64,
    request_timeout: Duration,
    /// Shared by all threads; there if `limit` or `paused` is.
    limiter: Option<Arc<Limiter>>,
    limit: Option<Limit>,
    /// Until when requests wait.
    paused: Option<Instant>,
    maintenance: Option<Maintenance>,
}

/// How many requests may be in a worker, and wait for it.
#[derive(Debug)]
pub(crate) struct Limit {
    pub(crate) queue_size: u32,
    pub(crate) queue_timeout: Duration,
}

impl Rules {
    /// The rules of a route; `None`: a request goes straight to its worker.
    pub(crate) fn of(route: &Asked, limiter: Option<&Arc<Limiter>>) -> Option<Self> {
        let (flow, halt) = (&route.flow, &route.halt);
        let left = halt.pause.map(|pause| pause.left());
        let rules = Self {
            max_body: flow.max_body.unwrap_or(u64::MAX),
            request_timeout: flow.request_timeout,
            limiter: limiter.cloned(),
            limit: (limiter.is_some() && flow.max_concurrency > 0).then_some(Limit {
                queue_size: flow.queue_size,
                queue_timeout: flow.queue_timeout,
            }),
            paused: left
                .filter(|left| limiter.is_some() && !left.is_zero())
                .map(|left| Instant::now() + left),
            maintenance: halt.maintenance.clone(),
        };
        let plain = rules.max_body == u64::MAX
            && rules.request_timeout.is_zero()
            && rules.limiter.is_none()
            && rules.maintenance.is_none();
        (!plain).then_some(rules)
    }

    /// Whether the route wants a limiter for its worker.
    pub(crate) fn want_limiter(route: &Asked) -> bool {
        route.flow.max_concurrency > 0 || route.halt.pause.is_some()
    }

    /// Whether a request may have to wait.
    pub(crate) fn have_limiter(&self) -> bool {
        self.limiter.is_some()
    }

    /// When a request is to be over that has come at `since`, or just now.
    pub(crate) fn deadline(&self, since: Option<Instant>) -> Deadline {
        match self.request_timeout.is_zero() {
            true => Deadline::default(),
            false => Deadline::new(since.unwrap_or_else(Instant::now), self.request_timeout),
        }
    }

    /// Whether a request is let in at all.
    ///
    /// # Errors
    /// With the answer it gets instead.
    pub(crate) fn admit<B: http_body::Body>(&self, body: &B) -> Result<(), Refusal> {
        self.serve()?;
        if body.size_hint().lower() > self.max_body {
            return Err(too_large(self.max_body));
        }
        Ok(())
    }

    /// Whether the worker is not in maintenance.
    pub(crate) fn serve(&self) -> Result<(), Refusal> {
        let Some(maintenance) = &self.maintenance else {
            return Ok(());
        };
        let message = maintenance.message.as_deref().unwrap_or(MAINTENANCE);
        Err(Refusal::maintenance(message).retry_after(Some(MAINTENANCE_RETRY)))
    }

    /// Whether its worker is not asked.
    pub(crate) fn is_in_maintenance(&self) -> bool {
        self.maintenance.is_some()
    }

    /// The limiter before which requests wait now, and until when.
    pub(crate) fn pause(&self) -> Option<(&Arc<Limiter>, Instant)> {
        let until = self.paused.filter(|until| *until > Instant::now())?;
        Some((self.limiter.as_ref()?, until))
    }

    /// The limiter at which requests are counted.
    pub(crate) fn limit(&self) -> Option<(&Arc<Limiter>, &Limit)> {
        Some((self.limiter.as_ref()?, self.limit.as_ref()?))
    }
}

/// A body is longer than its route allows.
pub(crate) fn too_large(most: u64) -> Refusal {
    let detail = format!("the request's body is longer than {most} bytes");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, detail).closing()
}
