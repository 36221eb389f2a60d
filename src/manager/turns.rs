//! One piece of work at a time for each worker.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

use crate::names::WorkerName;

/// The turns of all workers. Work that hangs keeps its turn.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<WorkerName, Arc<Turn<()>>>>);

impl Turns {
    /// The worker's turn, once it is free.
    pub(super) fn of(
        &self,
        worker: &WorkerName,
    ) -> impl Future<Output = OwnedMutexGuard<()>> + use<> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(worker.clone()).or_default()).lock_owned()
    }
}
