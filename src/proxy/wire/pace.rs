//! How slow a client may be. One that takes or sends a byte now and then never pauses for long, and would hold a connection for ever.
//!
//! A client has some time to keep us waiting. Waits use it up; bytes give some of it back, but never more than it had at first: so
//! a client that was fast for a while has no credit to be slow by. Only time in which we wait for the client counts. A worker that
//! thinks, or is slow itself, is not held against it, and there is nothing to measure as long as nobody waits.

use std::task::{Context, Poll};
use std::time::Duration;

use super::timer::Timer;
use crate::route::Front;

/// What is asked of a client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Longest time for which it may keep us waiting. Zero: for ever.
    pub(crate) most: Duration,
    /// With so many bytes it earns a second of it. 0: with any byte it has all of it again.
    pub(crate) rate: u32,
}

/// A client's time, and the clock that takes it away.
#[derive(Debug)]
pub(crate) struct RateBudget {
    pace: Pace,
    left: Duration,
    clock: Timer,
}

impl Pace {
    /// How slow a client may be in a request's body.
    pub(crate) fn reading(front: &Front) -> Self {
        Self {
            most: front.read_timeout,
            rate: front.min_read_rate,
        }
    }

    /// How slow it may be in taking an answer.
    pub(crate) fn writing(front: &Front) -> Self {
        Self {
            most: front.write_timeout,
            rate: front.min_write_rate,
        }
    }

    fn worth(self, bytes: usize) -> Duration {
        let nanos = (bytes as u128 * 1_000_000_000) / u128::from(self.rate.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl RateBudget {
    /// A full one.
    pub(crate) fn new(pace: Pace) -> Self {
        Self {
            pace,
            left: pace.most,
            clock: Timer::default(),
        }
    }

    /// Waits for the client; ready once it has kept us waiting for too long.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.clock.poll(cx, self.left)
    }

    /// The wait is over: it took, or sent, so many bytes.
    pub(crate) fn moved(&mut self, bytes: usize) {
        if self.pace.rate != 0 {
            if let Some(left) = self.clock.left() {
                self.left = left;
            }
            if self.left < self.pace.most {
                let left = self.left.saturating_add(self.pace.worth(bytes));
                // Zero would mean for ever.
                self.left = left.clamp(Duration::from_nanos(1), self.pace.most);
            }
        }
        self.clock.stop();
    }

    /// The clock, for a wait that is not for the client.
    pub(crate) fn clock(&mut self) -> &mut Timer {
        &mut self.clock
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const MOST: Duration = Duration::from_secs(10);

    /// Whether a client is still welcome that keeps us waiting `pause` before each of `times` pieces of `bytes`.
    async fn is_welcome(rate: u32, pause: Duration, bytes: usize, times: usize) -> bool {
        let mut budget = RateBudget::new(Pace { most: MOST, rate });
        for _ in 0..times {
            let waited = poll_fn(|cx| budget.poll(cx));
            if tokio::time::timeout(pause, waited).await.is_ok() {
                return false;
            }
            budget.moved(bytes);
        }
        true
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_now_and_then_are_not_enough() {
        let pause = Duration::from_secs(1);
        assert!(is_welcome(100, pause, 10, 10).await);
        assert!(!is_welcome(100, pause, 10, 13).await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_keeps_the_pace_may_go_on_for_ever() {
        let pause = Duration::from_secs(9);
        assert!(is_welcome(100, pause, 900, 1000).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_is_too_long_ends_it_however_much_came_before() {
        let mut budget = RateBudget::new(Pace {
            most: MOST,
            rate: 100,
        });
        budget.moved(1 << 30);
        let began = tokio::time::Instant::now();
        poll_fn(|cx| budget.poll(cx)).await;
        assert_eq!(began.elapsed().as_secs(), MOST.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_each_byte_gives_all_the_time_back() {
        assert!(is_welcome(0, Duration::from_secs(9), 1, 1000).await);
        assert!(!is_welcome(0, Duration::from_secs(11), 1, 1).await);
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_waits_costs_nothing() {
        let mut budget = RateBudget::new(Pace {
            most: MOST,
            rate: 100,
        });
        for _ in 0..10 {
            let waited = poll_fn(|cx| budget.poll(cx));
            let waited = tokio::time::timeout(Duration::from_millis(900), waited);
            assert!(waited.await.is_err());
            budget.moved(1);
            tokio::time::advance(Duration::from_secs(60)).await;
        }
    }
}
