//! All workers, and which of them may have changed: what follows from a worker's state is worked out again for those alone, or a
//! thousand workers would cost a thousand times a thousand.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use crate::names::WorkerName;
use crate::plan::worker::Worker;

/// Read as the map it is; whoever may change a worker asks for it by name.
#[derive(Default)]
pub(super) struct Workers {
    all: BTreeMap<WorkerName, Worker>,
    touched: BTreeSet<WorkerName>,
}

impl Deref for Workers {
    type Target = BTreeMap<WorkerName, Worker>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl Workers {
    pub(super) fn get_mut(&mut self, name: &WorkerName) -> Option<&mut Worker> {
        let found = self.all.get_mut(name)?;
        if !self.touched.contains(name) {
            self.touched.insert(name.clone());
        }
        Some(found)
    }

    pub(super) fn get_or_insert_with(
        &mut self,
        name: &WorkerName,
        make: impl FnOnce() -> Worker,
    ) -> &mut Worker {
        self.touched.insert(name.clone());
        self.all.entry(name.clone()).or_insert_with(make)
    }

    /// Those of which something is true, to be changed.
    pub(super) fn select(
        &mut self,
        is_meant: impl Fn(&Worker) -> bool,
    ) -> impl Iterator<Item = &mut Worker> {
        let touched = &mut self.touched;
        let meant = self
            .all
            .iter_mut()
            .filter(move |(_, worker)| is_meant(worker));
        meant.map(|(name, worker)| {
            touched.insert(name.clone());
            worker
        })
    }

    pub(super) fn remove(&mut self, name: &WorkerName) -> Option<Worker> {
        self.touched.insert(name.clone());
        self.all.remove(name)
    }

    /// All may have changed, as what they go by has.
    pub(super) fn touch_all(&mut self) {
        self.touched.extend(self.all.keys().cloned());
    }

    /// Those that may have changed since this was asked last, also those that are gone.
    pub(super) fn take_touched(&mut self) -> BTreeSet<WorkerName> {
        std::mem::take(&mut self.touched)
    }
}
