//! Drives the fleet: events go in, and each action that comes out is begun.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::builds::Builds;
use super::confirmations::Confirmations;
use super::notes;
use super::pauses;
use super::perform::{Launch, Performer, Stop, Tasks};
use super::policy::policy;
use super::proxy::Proxy;
use super::reloads::Reloads;
use super::snapshots::Snapshots;
use crate::config::Settings;
use crate::deploy::Store;
use crate::names::{Generation, Instance, WorkerName};
use crate::plan::{Action, Event, Fleet, Moment, Outcome, Policy, Spec};
use crate::systemd::available_memory;
use crate::wire::ToProxy;

/// How often it is looked at most how much memory there is.
const MEMORY_EVERY: Duration = Duration::from_millis(200);

/// The fleet, what acts for it, and what is under way.
pub(super) struct Driver {
    pub(super) fleet: Fleet,
    /// The zero of the fleet's clock.
    started: Instant,
    pub(super) settings: Settings,
    pub(super) performer: Arc<Performer>,
    /// Actions under way.
    pub(super) tasks: Tasks,
    /// What nobody waits for: reports, progress, clearing away.
    pub(super) aside: JoinSet<()>,
    pub(super) builds: Builds,
    /// What the generations are made of whose log may be asked for.
    specs: HashMap<Instance, Spec>,
    pub(super) proxy: Proxy,
    pub(super) confirmations: Confirmations<Pending>,
    pub(super) reloads: Reloads,
    /// When it was looked last how much memory there is.
    memory_at: Option<Instant>,
    effects: Effects,
}

/// What is over once the proxy serves by a table.
pub(super) enum Pending {
    Reload {
        id: u64,
        outcomes: BTreeMap<WorkerName, Outcome>,
    },
    Pause(pauses::Waiting),
}

/// What the steps so far have led to, beyond what was begun.
#[derive(Default)]
pub(super) struct Effects {
    /// There was a step.
    pub(super) is_any: bool,
    /// These are to be scanned again.
    pub(super) rescans: Vec<WorkerName>,
    /// Files that do not count any more, by their workers' directories.
    pub(super) unwatched: Vec<(WorkerName, String)>,
    /// Something happened that is worth a line.
    pub(super) has_news: bool,
    /// Everything is stopped: the loop can end.
    pub(super) ended: bool,
}

impl Driver {
    pub(super) fn new(
        performer: Arc<Performer>,
        settings: Settings,
        builds: Builds,
        reloads: Reloads,
    ) -> Self {
        Self {
            fleet: Fleet::new(policy_of(&performer, &settings)),
            started: Instant::now(),
            settings,
            performer,
            tasks: Tasks::new(),
            aside: JoinSet::new(),
            builds,
            specs: HashMap::new(),
            proxy: Proxy::default(),
            confirmations: Confirmations::default(),
            reloads,
            memory_at: None,
            effects: Effects::default(),
        }
    }

    /// The time on the fleet's clock.
    pub(super) fn now(&self) -> Moment {
        self.started.elapsed()
    }

    /// That time on the fleet's clock.
    pub(super) fn moment(&self, at: Instant) -> Moment {
        at.saturating_duration_since(self.started)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let fleet = self.fleet.deadline().map(|moment| self.started + moment);
        let late = self.confirmations.deadline();
        fleet.into_iter().chain(late).min()
    }

    /// What the generations are made of that run, or are about to.
    pub(super) fn specs(&self) -> &HashMap<Instance, Spec> {
        &self.specs
    }

    /// What the generations are made of that were found.
    pub(super) fn adopt(&mut self, specs: HashMap<Instance, Spec>) {
        self.specs = specs;
    }

    /// Hands the fleet an event and begins what it leads to.
    pub(super) fn step(&mut self, event: Event) {
        let by_itself = event == Event::Tick;
        if let Event::Built(instance, _) = &event {
            self.builds.ended(instance);
        }
        self.look_at_memory();
        let actions = self.fleet.step(self.now(), event);
        self.effects.is_any = true;
        // A moment in which nothing happened is no news.
        self.effects.has_news |= !by_itself || !actions.is_empty();
        for action in actions {
            self.perform(action);
        }
    }

    /// What the steps since the last call have led to.
    pub(super) fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    /// What can be started depends on it. These are files of the kernel's: reading them takes microseconds.
    fn look_at_memory(&mut self) {
        let now = Instant::now();
        if self.memory_at.is_some_and(|at| now < at + MEMORY_EVERY) {
            return;
        }
        self.memory_at = Some(now);
        let group = self.performer.systemd.known_group();
        let memory = Event::Memory(available_memory(group.as_ref()));
        for action in self.fleet.step(self.now(), memory) {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        let (performer, tasks) = (&self.performer, &mut self.tasks);
        // How long a worker may take to exit on SIGTERM; a reload may have changed it.
        let grace = self.settings.shutdown_grace;
        match action {
            Action::Build(instance, spec) => {
                let limits = self.settings.build;
                let since = self.builds.begin(tasks, instance.clone(), spec, limits);
                if let Some(since) = since {
                    self.fleet.was_begun(&instance, self.moment(since));
                }
            }
            Action::Abandon(instance) => self.builds.abandon(&instance),
            Action::Launch {
                instance,
                spec,
                source,
                addresses,
                accepted,
            } => {
                self.specs.insert(instance.clone(), spec.clone());
                let launch = Launch {
                    instance,
                    spec,
                    source,
                    addresses,
                    workers: self.settings.workers_directories.clone(),
                    snapshot: self.settings.snapshots,
                    ports: self.settings.ports.clone(),
                    accepted,
                    stop_timeout: grace,
                };
                performer.launch(tasks, launch);
            }
            Action::Accept(instance, spec) => {
                performer.accept(tasks, &mut self.aside, instance, spec);
            }
            Action::Assets(instance, spec) => {
                performer.assets(tasks, instance, spec, self.settings.snapshots);
            }
            Action::Stop {
                instance,
                pairs,
                failed,
                accepted,
            } => {
                let spec = self.specs.remove(&instance);
                let stop = Stop {
                    failed: failed.zip(spec),
                    instance,
                    pairs,
                    accepted,
                    timeout: grace,
                };
                performer.stop(tasks, stop);
            }
            Action::Prune { worker, live, last } => self.prune(worker, live, last),
            Action::Look(worker) => self.effects.rescans.push(worker),
            Action::Unwatch(worker, file) => self.effects.unwatched.push((worker, file)),
            Action::Probe {
                id,
                address,
                protocol,
                path,
                timeout,
                ..
            } => self.proxy.say(ToProxy::Probe {
                id,
                address,
                protocol,
                path,
                timeout,
            }),
            Action::Limit(instance, spec) => {
                self.specs.insert(instance.clone(), spec.clone());
                let performer = Arc::clone(performer);
                self.aside
                    .spawn(async move { performer.limit(instance, spec).await });
            }
            Action::Publish(table) => {
                self.confirmations.published(table.serial);
                self.proxy.say(ToProxy::Publish(table));
            }
            Action::Progress { reloads, note } => {
                notes::log(&note);
                self.reloads.report(&reloads, &note, &mut self.aside);
            }
            Action::Finish { id, outcomes } => {
                let reload = Pending::Reload { id, outcomes };
                self.confirmations.wait(None, reload);
            }
            Action::End => self.effects.ended = true,
        }
    }

    /// Forgets snapshots that are of no use any more. Nobody waits for it.
    pub(super) fn prune(&mut self, worker: WorkerName, live: Vec<Generation>, last: Generation) {
        if let Some(snapshots) = self.performer.snapshots.clone() {
            let keep = self.settings.keep_generations;
            self.aside.spawn(snapshots.prune(worker, live, last, keep));
        }
    }

    /// Stops a generation of another version of this program, with so many pairs of units.
    pub(super) fn stop_stranger(&mut self, instance: Instance, pairs: u8) {
        let stop = Stop {
            instance,
            pairs,
            failed: None,
            accepted: true,
            timeout: self.settings.shutdown_grace,
        };
        self.performer.stop(&mut self.tasks, stop);
    }

    /// Goes by these settings from now on. `publish`: the proxy gets a table though nothing else has changed.
    pub(super) fn configure(&mut self, settings: Settings, publish: bool) {
        self.settings = settings;
        let policy = policy_of(&self.performer, &self.settings);
        if publish {
            self.fleet.publish_again();
        }
        self.step(Event::Configured(Box::new(policy)));
    }
}

fn policy_of(performer: &Performer, settings: &Settings) -> Policy {
    let store = performer.snapshots.as_ref().map(Snapshots::store);
    policy(
        settings,
        (performer.kind, performer.mode),
        &performer.runtime_directory,
        store.map(Store::programs),
        &performer.server,
    )
}
