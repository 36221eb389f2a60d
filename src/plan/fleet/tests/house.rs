//! A fleet to tell stories with.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use crate::inventory::Fingerprint;
use crate::names::{Generation, Instance, WorkerName};
use crate::plan::fleet::{Fleet, instance};
use crate::plan::run::Stage;
use crate::plan::simulation::disk::{policy, settings};
use crate::plan::{Action, Event, Found, FoundPair, Look, Moment, Outcome, Spec};
use crate::route::{Address, Target};
use crate::systemd::{Activity, ServiceState};
use crate::wire::ProbeOutcome;

/// A fleet whose actions are performed at once, and told in short lines.
pub(super) struct House {
    pub(super) fleet: Fleet,
    pub(super) now: Moment,
    pub(super) disk: BTreeMap<WorkerName, Spec>,
    /// Versions that answer 500.
    pub(super) bad: BTreeSet<&'static str>,
    /// So many health requests the proxy can not make.
    pub(super) not_asked: Cell<u32>,
    /// Actions of these kinds are not answered.
    pub(super) held: BTreeSet<&'static str>,
    pub(super) told: Vec<String>,
    pub(super) reloads: u64,
}

impl House {
    pub(super) fn new() -> Self {
        let mut house = Self {
            fleet: Fleet::new(policy(false)),
            now: Moment::ZERO,
            disk: BTreeMap::new(),
            bad: BTreeSet::new(),
            not_asked: Cell::new(0),
            held: BTreeSet::new(),
            told: Vec::new(),
            reloads: 0,
        };
        house.happen(Event::Linked);
        house
    }

    /// A house with `index` in version `one`, served by generation 1.
    pub(super) fn serving_one() -> Self {
        let mut house = Self::new();
        house.put("index", "one");
        house.reload(&[]);
        house.told.clear();
        house
    }

    pub(super) fn put(&mut self, worker: &str, version: &'static str) {
        self.disk.insert(name(worker), spec(worker, version));
    }

    pub(super) fn put_assets(&mut self, version: &str) {
        let index = self.disk.get_mut(&name("index")).unwrap();
        index.fingerprint.assets = version.to_owned();
    }

    pub(super) fn reload(&mut self, only: &[&str]) {
        self.reloads += 1;
        let only = only.iter().map(|worker| name(worker)).collect();
        let (id, force) = (self.reloads, false);
        self.look(Look::Reload { id, only, force });
    }

    /// The machine was booted, and these accepted generations are kept.
    pub(super) fn start<const N: usize>(&mut self, kept: [(&str, u64, &'static str); N]) {
        self.happen(Event::Adopted(Vec::new()));
        self.told.clear();
        self.start_beside(kept);
    }

    /// The manager was started, and these accepted generations are kept.
    pub(super) fn start_beside<const N: usize>(&mut self, kept: [(&str, u64, &'static str); N]) {
        let snapshots = kept.map(|(worker, generation, version)| {
            let mut kept = spec(worker, version);
            if let Some(disk) = self.disk.get(&name(worker)) {
                kept.settings = disk.settings.clone();
            }
            (name(worker), (Generation(generation), kept))
        });
        let workers = self.disk.clone().into_iter();
        self.happen(Event::Looked {
            look: Look::Start { untried: N == 0 },
            workers: workers.map(|(name, spec)| (name, Ok(spec))).collect(),
            snapshots: snapshots.into_iter().collect(),
        });
    }

    /// Somebody wants this generation back, which was of this version, and not what lies on disk.
    pub(super) fn roll_back(&mut self, worker: &str, generation: u64, version: &str) {
        self.reloads += 1;
        let mut spec = spec(worker, version);
        let disk = self.disk.get(&name(worker));
        spec.passed_over = disk.map(|disk| disk.fingerprint.clone());
        self.happen(Event::Rollback {
            id: self.reloads,
            instance: instance(&name(worker), Generation(generation)),
            spec: Box::new(spec),
        });
    }

    pub(super) fn look(&mut self, look: Look) {
        let workers = self.disk.clone().into_iter();
        self.happen(Event::Looked {
            look,
            workers: workers.map(|(name, spec)| (name, Ok(spec))).collect(),
            snapshots: BTreeMap::new(),
        });
    }

    pub(super) fn happen(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.fleet.step(self.now, event) {
                let (word, line) = told(&action);
                self.told.extend(line);
                if !self.held.contains(word) {
                    events.extend(self.answers(action));
                }
            }
        }
    }

    pub(super) fn answers(&self, action: Action) -> Vec<Event> {
        match action {
            Action::Build(instance, _) => vec![Event::Built(instance, Ok(true))],
            Action::Launch { instance, .. } => vec![Event::Launched(instance, Ok(None))],
            Action::Probe { id, pair, .. } => {
                let Instance { worker, generation } = &pair.instance;
                let run = &self.fleet.workers[worker].runs[generation];
                let bad = self.bad.contains(run.spec.fingerprint.program.as_str());
                let status = if bad { 500 } else { 200 };
                let outcome = match self.not_asked.get().checked_sub(1) {
                    Some(left) => {
                        self.not_asked.set(left);
                        ProbeOutcome::NotAsked("no descriptors".to_owned())
                    }
                    None => ProbeOutcome::Status(status),
                };
                vec![Event::Probed(id, outcome)]
            }
            Action::Accept(instance, _) => vec![Event::Accepted(instance, Ok(()))],
            Action::Assets(instance, _) => {
                vec![Event::AssetsReady(instance, Ok(PathBuf::from("/new")))]
            }
            Action::Publish(table) if self.held.contains("drained") => {
                vec![Event::Applied(table.serial)]
            }
            Action::Publish(table) => {
                let drained = table.draining.into_iter().map(Event::Drained);
                [Event::Applied(table.serial)]
                    .into_iter()
                    .chain(drained)
                    .collect()
            }
            Action::Stop { instance, .. } => vec![Event::Stopped(instance, Vec::new())],
            Action::Look(worker) => {
                let look = Look::Retry(worker);
                let workers = self.disk.clone().into_iter();
                vec![Event::Looked {
                    look,
                    workers: workers.map(|(name, spec)| (name, Ok(spec))).collect(),
                    snapshots: BTreeMap::new(),
                }]
            }
            Action::Abandon(_)
            | Action::Limit(..)
            | Action::Prune { .. }
            | Action::Progress { .. }
            | Action::Unwatch(..)
            | Action::Finish { .. }
            | Action::End => Vec::new(),
        }
    }

    /// Lets time pass until something is due.
    pub(super) fn wait(&mut self) -> Duration {
        let before = self.now;
        self.now = self.fleet.deadline().expect("something is due");
        self.happen(Event::Tick);
        self.now - before
    }

    /// How far generation 1 is.
    pub(super) fn stage(&self) -> Option<Stage> {
        let worker = self.fleet.workers.get(&name("index"))?;
        Some(worker.runs.get(&Generation(1))?.stage)
    }

    #[track_caller]
    pub(super) fn was(&mut self, lines: &[&str]) {
        assert_eq!(std::mem::take(&mut self.told), lines);
    }

    pub(super) fn adopt(found: Vec<Found>) -> Self {
        let mut house = Self::new();
        house.held.insert("drained");
        house.happen(Event::Adopted(found));
        // The first look finds nothing to bring back.
        house.fleet.opening = None;
        house.happen(Event::Tick);
        house
    }
}

fn told(action: &Action) -> (&'static str, Option<String>) {
    let of = |word: &str, instance: &Instance| {
        Some(format!(
            "{word} {}@{}",
            instance.worker, instance.generation
        ))
    };
    match action {
        Action::Build(instance, _) => ("build", of("build", instance)),
        Action::Abandon(instance) => ("abandon", of("abandon", instance)),
        Action::Launch {
            instance, accepted, ..
        } => {
            let again = if *accepted { " again" } else { "" };
            let line = of("launch", instance).map(|line| line + again);
            ("launch", line)
        }
        Action::Probe { .. } => ("probe", None),
        Action::Accept(instance, _) => ("accept", of("accept", instance)),
        Action::Assets(instance, _) => ("assets", of("assets", instance)),
        Action::Publish(table) => {
            let serving = table.routes.iter().map(|route| match &route.target {
                Target::Serving(upstream) => format!(" {}@{}", route.worker, upstream.generation),
                _ => format!(" no {}", route.worker),
            });
            (
                "publish",
                Some(format!("publish{}", serving.collect::<String>())),
            )
        }
        Action::Stop { instance, .. } => ("stop", of("stop", instance)),
        Action::Finish { id, outcomes } => {
            let outcomes = outcomes.values().map(|outcome| match outcome {
                Outcome::Unchanged(_) => " unchanged".to_owned(),
                Outcome::PassedOver(_) => " passed over".to_owned(),
                Outcome::Replaced { to, .. } => format!(" replaced by {to}"),
                Outcome::Assets => " assets".to_owned(),
                Outcome::Removed => " removed".to_owned(),
                Outcome::Failed(failure) => format!(" failed: {}", failure.reason),
            });
            (
                "finish",
                Some(format!("finish {id}:{}", outcomes.collect::<String>())),
            )
        }
        Action::Limit(instance, spec) => {
            let tasks = spec.settings.limits.tasks_max.unwrap_or(0);
            let line = of("limit", instance).map(|line| format!("{line} {tasks}"));
            ("limit", line)
        }
        Action::Unwatch(worker, file) => ("unwatch", Some(format!("unwatch {worker} {file}"))),
        Action::Look(worker) => ("look", Some(format!("look {worker}"))),
        Action::End => ("end", Some("end".to_owned())),
        Action::Prune { .. } | Action::Progress { .. } => ("", None),
    }
}

pub(super) fn name(worker: &str) -> WorkerName {
    WorkerName::parse(worker).unwrap()
}

pub(super) fn index(generation: u64) -> Instance {
    instance(&name("index"), Generation(generation))
}

pub(super) fn spec(worker: &str, version: &str) -> Spec {
    Spec {
        settings: settings(&name(worker)),
        fingerprint: Fingerprint {
            program: version.to_owned(),
            ..Fingerprint::default()
        },
        passed_over: None,
        directory: PathBuf::from("/workers").join(worker),
        public: Some(PathBuf::from("/workers/public")),
    }
}

pub(super) fn found(generation: u64, accepted: bool) -> Found {
    Found {
        instance: index(generation),
        spec: spec("index", "one"),
        pairs: BTreeMap::from([(1, found_pair())]),
        public: None,
        accepted,
    }
}

/// A pair of units that is well.
pub(super) fn found_pair() -> FoundPair {
    FoundPair {
        address: Address::Unix(PathBuf::from("/run/index.sock")),
        listening: true,
        service: ServiceState {
            activity: Activity::Active,
            ..ServiceState::default()
        },
    }
}
