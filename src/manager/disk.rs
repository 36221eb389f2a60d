//! File operations of the manager. Each runs on a thread that may block and is waited for no longer than its deadline, so that a disk
//! that does not respond holds up neither the loop nor the manager's end.
//!
//! A thread that waits for such a disk cannot be killed, nor the process that it belongs to be gone for good, before the disk is back.
//! How many there can be is bounded by their owners: one for each worker, one for looks, one for the copy of server.yaml.

use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::effort::Effort;

/// Longest wait for a few small files.
pub(super) const SMALL: Duration = Duration::from_secs(10);
/// Longest wait for large work to get ahead: to copy or remove the next piece, to write to the disk what was copied.
pub(super) const STALLED: Duration = Duration::from_secs(120);
/// Longest wait for any of it once the manager is to end.
const ENDING: Duration = Duration::from_secs(5);

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The deadline is over.
    #[error(
        "{what}: no response from the file system within {} s; see `dmesg` and `cat /proc/pressure/io`, and try again once the disk responds",
        limit.as_secs()
    )]
    Hangs {
        /// What was being done, with the path.
        what: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// A defect.
    #[error("a file operation ended with a panic")]
    Panicked(#[source] JoinError),
}

/// Where the manager's file operations go.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    ending: CancellationToken,
}

impl Disk {
    /// The manager is to end: from now on nothing is waited for that takes long.
    pub(super) fn end(&self) {
        self.ending.cancel();
    }

    /// The result of `work`, which ends by itself or has not got ahead for `limit`.
    ///
    /// # Errors
    /// When it has not; then `work` goes on by itself, and finds in its [`Effort`] that it is not wanted.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        what: impl FnOnce() -> String,
        work: impl FnOnce(&Effort) -> T + Send + 'static,
    ) -> Result<T, DiskError> {
        let effort = Effort::default();
        let its = effort.clone();
        let task = tokio::task::spawn_blocking(move || work(&its));
        self.wait(limit, what, &effort, task).await
    }

    async fn wait<T>(
        &self,
        limit: Duration,
        what: impl FnOnce() -> String,
        effort: &Effort,
        mut task: JoinHandle<T>,
    ) -> Result<T, DiskError> {
        loop {
            let before = effort.steps();
            let over = tokio::select! {
                done = &mut task => return done.map_err(DiskError::Panicked),
                () = tokio::time::sleep(limit) => limit,
                () = self.ended() => ENDING.min(limit),
            };
            let is_ending = self.ending.is_cancelled();
            if effort.steps() != before && !is_ending {
                continue;
            }
            if effort.give_up() {
                // One that has not got a thread by now is not to get one later.
                task.abort();
                return Err(DiskError::Hangs {
                    what: what(),
                    limit: over,
                });
            }
            // It was done at this very moment.
            return task.await.map_err(DiskError::Panicked);
        }
    }

    /// The deadline of all that is still waited for when the manager is to end.
    async fn ended(&self) {
        self.ending.cancelled().await;
        tokio::time::sleep(ENDING).await;
    }

    /// What `waited` leads to, a turn for example, unless that takes longer than `limit`.
    pub(super) async fn turn<T>(
        &self,
        limit: Duration,
        what: impl FnOnce() -> String,
        waited: impl Future<Output = T>,
    ) -> Result<T, DiskError> {
        let limit = tokio::select! {
            turn = waited => return Ok(turn),
            () = tokio::time::sleep(limit) => limit,
            () = self.ended() => ENDING.min(limit),
        };
        Err(DiskError::Hangs {
            what: what(),
            limit,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn work_that_hangs_is_given_up_and_learns_of_it() {
        let (resume, frozen) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let disk = Disk::default();
        let hung = disk.run(
            SHORT,
            || "write a".to_owned(),
            move |effort| {
                let _ = frozen.recv();
                let _ = tell.send(effort.finish());
            },
        );
        let error = hung.await.unwrap_err().to_string();
        assert!(error.starts_with("write a: no response"), "{error}");
        resume.send(()).unwrap();
        assert_eq!(told.recv(), Ok(false), "it counts after all");
    }

    /// Or what hangs at once would be waited for twice as long as is said.
    #[tokio::test]
    async fn a_begin_alone_is_no_progress() {
        let disk = Disk::default();
        let steps = disk.run(SMALL, String::new, Effort::steps).await;
        assert_eq!(steps.unwrap(), 0);
    }

    #[tokio::test]
    async fn work_that_gets_ahead_is_waited_for() {
        let (tell, steps) = mpsc::channel::<()>();
        let work = move |effort: &Effort| {
            while steps.recv().is_ok() {
                effort.step();
            }
            effort.finish()
        };
        let disk = Disk::default();
        let done = disk.run(SHORT, String::new, work);
        let feed = async move {
            for _ in 0..10 {
                tokio::time::sleep(SHORT / 3).await;
                let _ = tell.send(());
            }
        };
        let (done, ()) = tokio::join!(done, feed);
        assert!(done.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_manager_does_not_wait_for_a_disk() {
        let disk = Disk::default();
        let began = tokio::time::Instant::now();
        let never = disk.turn(STALLED, || "wait".to_owned(), std::future::pending::<()>());
        let (over, ()) = tokio::join!(never, async { disk.end() });
        assert!(over.is_err());
        assert_eq!(began.elapsed(), ENDING);
    }
}
