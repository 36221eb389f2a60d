//! Which user each worker's generations run as: the same for all that run at once, and no two workers the same.
//!
//! The directory a worker writes to belongs to its user, and systemd gives it to the next one's with a start. So a worker of which a
//! generation of an earlier version runs under that version's name for it keeps the name until none runs any more.

use std::collections::{BTreeMap, BTreeSet};

use crate::names::{Generation, Instance, WorkerName, worker_user, worker_user_before};

/// The users of what runs.
#[derive(Debug, Default)]
pub(super) struct Users(BTreeMap<WorkerName, Running>);

#[derive(Debug)]
struct Running {
    user: String,
    generations: BTreeSet<Generation>,
}

impl Users {
    /// A generation that was found running: as `user`, or of a version that did not write that down.
    pub(super) fn found(&mut self, instance: &Instance, user: Option<String>) {
        let user = user.unwrap_or_else(|| worker_user_before(&instance.worker));
        self.add(instance, user);
    }

    /// The user for a generation that is about to run.
    ///
    /// # Errors
    /// The worker that has this user.
    pub(super) fn take(&mut self, instance: &Instance) -> Result<String, WorkerName> {
        let worker = &instance.worker;
        let other = |user: &str| {
            let mut others = self.0.iter().filter(|(name, _)| *name != worker);
            let other = others.find(|(_, running)| running.user == user);
            other.map(|(name, _)| name.clone())
        };
        let before = self.0.get(worker).map(|running| running.user.clone());
        let user = match before.filter(|user| other(user).is_none()) {
            Some(user) => user,
            None => worker_user(worker),
        };
        if let Some(other) = other(&user) {
            return Err(other);
        }
        self.add(instance, user.clone());
        Ok(user)
    }

    /// The user of a worker that runs.
    pub(super) fn of(&self, worker: &WorkerName) -> Option<String> {
        self.0.get(worker).map(|running| running.user.clone())
    }

    /// A generation that runs no more.
    pub(super) fn gone(&mut self, instance: &Instance) {
        if let Some(running) = self.0.get_mut(&instance.worker) {
            running.generations.remove(&instance.generation);
            if running.generations.is_empty() {
                self.0.remove(&instance.worker);
            }
        }
    }

    fn add(&mut self, instance: &Instance, user: String) {
        let running = self.0.entry(instance.worker.clone());
        let running = running.or_insert_with(|| Running {
            user: String::new(),
            generations: BTreeSet::new(),
        });
        running.user = user;
        running.generations.insert(instance.generation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(worker: &str, generation: u64) -> Instance {
        Instance::new(WorkerName::parse(worker).unwrap(), Generation(generation))
    }

    #[test]
    fn a_worker_keeps_the_user_of_what_runs_until_nothing_of_it_does() {
        let mut users = Users::default();
        let (old, new) = (instance("api.users", 1), instance("api.users", 2));
        users.found(&old, None);
        let before = worker_user_before(&old.worker);
        assert_eq!(users.take(&new), Ok(before.clone()));
        users.gone(&old);
        assert_eq!(users.take(&instance("api.users", 3)), Ok(before));
        users.gone(&new);
        users.gone(&instance("api.users", 3));
        assert_eq!(users.take(&new), Ok(worker_user(&new.worker)));
    }

    #[test]
    fn two_workers_that_share_a_user_since_an_earlier_version_are_parted() {
        let mut users = Users::default();
        let one = instance("customers-production.bob.shop", 1);
        let other = instance("customers-production.alice.amxvbfw", 1);
        users.found(&one, None);
        users.found(&other, None);
        assert_eq!(users.take(&one), Ok(worker_user(&one.worker)));
        // From now on the other is the only one.
        assert_eq!(users.take(&other), Ok(worker_user_before(&other.worker)));
    }

    #[test]
    fn a_user_that_another_worker_has_is_refused() {
        let mut users = Users::default();
        let (one, other) = (instance("a", 1), instance("b", 1));
        users.found(&one, Some("tqw-b".to_owned()));
        assert_eq!(users.take(&other), Err(one.worker));
    }
}
