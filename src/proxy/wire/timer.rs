//! A clock that is cheap to start and stop: a wait that usually ends at once costs no timer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Counts one wait after the other. The timer beneath is moved only when a deadline comes earlier than it stands, or when it rings too
/// early; between two requests of a busy connection it is not touched at all.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    timer: Option<Pin<Box<Sleep>>>,
    deadline: Option<Instant>,
}

impl Timer {
    /// Ready once `limit` has passed since the clock was started, which the first poll does. A limit of zero is no limit.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        if limit.is_zero() {
            return Poll::Pending;
        }
        let deadline = match self.deadline {
            Some(deadline) => deadline,
            None => self.start(limit),
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }

    /// Starts the clock anew.
    pub(crate) fn start(&mut self, limit: Duration) -> Instant {
        self.start_at(Instant::now(), limit)
    }

    /// Starts the clock as if it had been started at `then`.
    pub(crate) fn start_at(&mut self, then: Instant, limit: Duration) -> Instant {
        // A limit beyond what a clock can show is as good as a year.
        let year = Duration::from_secs(365 * 86400);
        let deadline = then + limit.min(year);
        self.deadline = Some(deadline);
        deadline
    }

    /// What is left of the limit; `None` while the clock stands.
    pub(crate) fn left(&self) -> Option<Duration> {
        let deadline = self.deadline?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// Stops the clock; the next poll starts it.
    pub(crate) fn stop(&mut self) {
        self.deadline = None;
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_started_anew_rings_at_the_later_time() {
        let began = Instant::now();
        let mut timer = Timer::default();
        let limit = Duration::from_secs(3);
        let pending = poll_fn(|cx| Poll::Ready(timer.poll(cx, limit).is_pending())).await;
        assert!(pending);
        tokio::time::advance(Duration::from_secs(2)).await;
        timer.stop();
        poll_fn(|cx| timer.poll(cx, limit)).await;
        assert_eq!(began.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_deadline_is_kept() {
        let began = Instant::now();
        let mut timer = Timer::default();
        poll_fn(|cx| Poll::Ready(timer.poll(cx, Duration::from_secs(60)).is_pending())).await;
        timer.stop();
        poll_fn(|cx| timer.poll(cx, Duration::from_secs(1))).await;
        assert_eq!(began.elapsed().as_secs(), 1);
    }
}
