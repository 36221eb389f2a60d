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
    /// Jobs that ended before their caller knew their name.
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
                if self.ended.len() >= ENDS {
                    self.ended.pop_front();
                }
                self.ended.push_back((job, result.to_owned()));
            }
        }
    }
}

pub(super) fn lock(jobs: &Mutex<Jobs>) -> std::sync::MutexGuard<'_, Jobs> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner)
}
