//! Whether every thread still does its work: each is asked now and then, and one that hangs does not answer.

use tokio::sync::{mpsc, oneshot};

/// A thread's ear for the question; it answers by dropping what it gets.
pub(super) type Ear = mpsc::Receiver<oneshot::Sender<()>>;

/// Where the threads are asked.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    threads: Vec<mpsc::Sender<oneshot::Sender<()>>>,
}

impl Pulse {
    /// The ear of one more thread.
    pub(super) fn thread(&mut self) -> Ear {
        let (ask, ear) = mpsc::channel(1);
        self.threads.push(ask);
        ear
    }

    /// Ends once every thread has answered. One that has ended is well too: that it panicked is somebody else's to see.
    pub(super) async fn beat(&self) {
        for thread in &self.threads {
            let (answer, answered) = oneshot::channel();
            if thread.send(answer).await.is_ok() {
                let _ = answered.await;
            }
        }
    }
}

/// Answers on a thread for as long as it lives.
pub(super) async fn answer(mut ear: Ear) {
    while ear.recv().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_thread_that_hangs_is_missed_and_one_that_has_ended_is_not() {
        let mut pulse = Pulse::default();
        let (well, ended) = (pulse.thread(), pulse.thread());
        tokio::spawn(answer(well));
        drop(ended);
        pulse.beat().await;
        let hangs = pulse.thread();
        let long = Duration::from_secs(3600);
        assert!(tokio::time::timeout(long, pulse.beat()).await.is_err());
        drop(hangs);
    }
}
