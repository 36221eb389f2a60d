//! How long a worker is waited for, and how much it is asked at a time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long the proxy waits for a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// Until the response's head, and between two pieces of its body.
    pub read: Duration,
    /// Until the worker accepts the next piece of a request's body; also for connecting.
    pub write: Duration,
    /// How long an unused connection to the worker is kept, and a tunnel or event stream may be silent.
    pub idle: Duration,
}

/// How much a worker is asked at a time, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Most bytes of a request's body; `None`: any. What is longer gets 413.
    pub max_body: Option<u64>,
    /// Most requests in flight in the worker, those of all its generations together; 0: any.
    pub max_concurrency: u32,
    /// Most requests that wait for one of those to end; what comes beyond gets 503.
    pub queue_size: u32,
    /// How long a request waits there before it gets 503.
    pub queue_timeout: Duration,
    /// How often a request that may be sent again is, when a connection broke before a byte of the answer came.
    pub retries: u8,
    /// From a request's head to the end of its answer; zero: any time. Tunnels and event streams are not concerned.
    pub request_timeout: Duration,
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            max_body: None,
            max_concurrency: 0,
            queue_size: 100,
            queue_timeout: Duration::from_secs(5),
            retries: 1,
            request_timeout: Duration::ZERO,
        }
    }
}

impl Flow {
    /// Whether it is what is in force where nothing was set.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
