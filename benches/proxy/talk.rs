//! What is said on a connection, in either protocol, and when to stop.

use std::time::{Duration, Instant};

/// What is said on a connection.
pub(crate) trait Talk {
    /// Begins to ask, as much as the connection bears.
    fn ask(&mut self, now: Instant);
    /// What is to be sent.
    fn unsent(&self) -> &[u8];
    /// So much of it was.
    fn sent(&mut self, count: usize);
    /// Takes what came, and asks again after each answer until the goal is reached.
    fn hear(&mut self, bytes: &[u8], goal: &Goal, latencies: &mut Vec<u32>);
    /// Whether every request has its answer.
    fn is_quiet(&self) -> bool;
}

/// When to stop asking.
pub(crate) struct Goal {
    answers: usize,
    end: Option<Instant>,
}

impl Goal {
    /// So many answers.
    pub(crate) fn answers(answers: usize) -> Self {
        Self { answers, end: None }
    }

    /// All that come within this time; those on their way then are waited for.
    pub(crate) fn after(time: Duration) -> Self {
        Self {
            answers: usize::MAX,
            end: Some(Instant::now() + time),
        }
    }

    pub(crate) fn is_reached(&self, answered: usize, now: Instant) -> bool {
        answered >= self.answers || self.end.is_some_and(|end| now >= end)
    }
}

/// Notes an answer.
pub(crate) fn record(latencies: &mut Vec<u32>, began: Instant, now: Instant) {
    latencies.push(u32::try_from((now - began).as_nanos()).unwrap_or(u32::MAX));
}
