//! Ends of jobs, which callers wait for and the reader of systemd's signals hears of.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;
use zbus::OwnedObjectPath;

use crate::names::Pair;

/// Ends of jobs kept for callers that have not asked yet.
const ENDS: usize = 4096;

/// What the calls of this connection and the reader of its signals have to know of each other.
#[derive(Default)]
pub(super) struct Jobs {
    /// Pairs that are being made: their sockets are "inactive" on the way up.
    pub(super) starting: HashSet<Pair>,
    waiting: HashMap<OwnedObjectPath, oneshot::Sender<String>>,
    /// Calls under way that lead to a job.
    calls: usize,
    /// Jobs that ended while there were any, and whose caller does not know their name yet.
    ended: VecDeque<(OwnedObjectPath, String)>,
}

impl Jobs {
    /// The result of a job, once it has ended.
    pub(super) fn end_of(&mut self, job: &OwnedObjectPath) -> oneshot::Receiver<String> {
        let (sender, receiver) = oneshot::channel();
        let known = self.ended.iter().position(|(ended, _)| ended == job);
        match known.and_then(|index| self.ended.remove(index)) {
            Some((_, result)) => {
                let _ = sender.send(result);
            }
            None => {
                self.waiting.insert(job.clone(), sender);
            }
        }
        receiver
    }

    /// Nobody waits for this job any more.
    pub(super) fn forget(&mut self, job: &OwnedObjectPath) {
        self.waiting.remove(job);
    }

    /// A job has ended.
    pub(super) fn end(&mut self, job: OwnedObjectPath, result: &str) {
        match self.waiting.remove(&job) {
            Some(caller) => {
                let _ = caller.send(result.to_owned());
            }
            None => {
                // Somebody else's, as most are, or of a caller that is about to ask.
                if self.calls == 0 {
                    return;
                }
                if self.ended.len() >= ENDS {
                    self.ended.pop_front();
                }
                self.ended.push_back((job, result.to_owned()));
            }
        }
    }
}

/// A call that leads to a job, until its caller has asked for the end of that. Other connections have jobs of their own: what ends while
/// there is no call is none of ours, and is not kept.
pub(super) struct JobCall<'a>(&'a Mutex<Jobs>);

impl<'a> JobCall<'a> {
    /// One more is about to be made.
    pub(super) fn begin(jobs: &'a Mutex<Jobs>) -> Self {
        lock(jobs).calls += 1;
        Self(jobs)
    }
}

impl Drop for JobCall<'_> {
    fn drop(&mut self) {
        let mut jobs = lock(self.0);
        jobs.calls -= 1;
        if jobs.calls == 0 {
            jobs.ended.clear();
        }
    }
}

pub(super) fn lock(jobs: &Mutex<Jobs>) -> std::sync::MutexGuard<'_, Jobs> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_kept_for_a_call_that_is_under_way_and_for_nothing_else() {
        let jobs = Mutex::<Jobs>::default();
        let job = |number: u32| {
            let path = format!("/org/freedesktop/systemd1/job/{number}");
            OwnedObjectPath::try_from(path).unwrap()
        };
        lock(&jobs).end(job(1), "done");
        assert_eq!(lock(&jobs).ended.len(), 0, "nobody has called");
        let call = JobCall::begin(&jobs);
        lock(&jobs).end(job(2), "done");
        lock(&jobs).end(job(3), "canceled");
        let mut ours = lock(&jobs).end_of(&job(3));
        assert_eq!(ours.try_recv().as_deref(), Ok("canceled"));
        drop(call);
        assert_eq!(lock(&jobs).ended.len(), 0, "nobody will ask any more");
    }
}
