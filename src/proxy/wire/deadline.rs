//! The moment by which a request is to be over.

use std::time::Duration;

use tokio::time::Instant;

/// The moment by which a request is to be over, if its route sets one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// `limit` after `since`; zero is no deadline.
    pub(crate) fn new(since: Instant, limit: Duration) -> Self {
        Self((!limit.is_zero()).then(|| since + limit))
    }

    /// The shorter of `limit`, where zero is none, and what is left until the deadline, which is never zero.
    pub(crate) fn cap(self, limit: Duration) -> Duration {
        let Some(deadline) = self.0 else {
            return limit;
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let left = left.max(Duration::from_millis(1));
        match limit.is_zero() {
            true => left,
            false => limit.min(left),
        }
    }

    /// Whether it has passed.
    pub(crate) fn is_over(self) -> bool {
        self.0.is_some_and(|deadline| deadline <= Instant::now())
    }

    /// The earlier of the two.
    pub(crate) fn or(self, other: Instant) -> Instant {
        self.0.map_or(other, |deadline| deadline.min(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_shortens_a_limit_and_is_one_where_there_is_none() {
        let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
        let deadline = Deadline(Some(Instant::now() + Duration::from_secs(60)));
        assert_eq!(deadline.cap(second), second);
        assert!(deadline.cap(hour) <= Duration::from_secs(60));
        assert!(deadline.cap(Duration::ZERO) > Duration::from_secs(50));
        assert_eq!(Deadline::default().cap(hour), hour);
        assert!(!deadline.is_over() && !Deadline::default().is_over());
    }
}
