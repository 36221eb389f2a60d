//! The manager around the fleet: performs actions, looks at the disk, dies at any instant.

use std::time::Duration;

use super::check::Asked;
use super::disk::Behaviour;
use super::systemd::Unit;
use super::{Happening, Moment, World, disk};
use crate::config::{Listen, WorkerType};
use crate::names::{Generation, Instance, Pair, WorkerName};
use crate::plan::{Action, Event, Fleet, Look, Reason, Ruling, Source, Spec};
use crate::route::Address;

/// What an action does to the world once it gets there.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    Build(Instance, Spec),
    Launch(Instance, Spec, Vec<Address>, bool),
    Accept(Instance),
    Assets(Instance),
    Stop(Instance),
}

impl World {
    pub(super) fn start_manager(&mut self) {
        self.fleet = Fleet::new(self.policy.clone());
        let found = self.found();
        self.tell(Event::Adopted(found));
        let untried = self.policy.build || self.accepted_snapshots().is_empty();
        self.want_look(Look::Start { untried });
    }

    /// All it had begun is lost, or has just been done; nobody hears of it.
    pub(super) fn kill_manager(&mut self) {
        self.trace(|| "MANAGER killed".to_owned());
        let dead = self.incarnation;
        self.incarnation += 1;
        let effect = |happening: &Happening| match happening {
            Happening::Effect(incarnation, effect) if *incarnation == dead => {
                Some((**effect).clone())
            }
            _ => None,
        };
        let begun: Vec<Effect> = self.agenda.values().filter_map(effect).collect();
        self.agenda
            .retain(|_, happening| effect(happening).is_none());
        for effect in begun {
            match effect {
                // Between the manifest and the mark.
                Effect::Accept(instance) if self.chance(3) => self.keep_snapshot(&instance),
                effect if self.chance(3) => self.take_half(effect),
                effect if self.chance(2) => self.take_effect(dead, effect),
                _ => {}
            }
        }
        self.asked.clear();
        self.begun.clear();
        self.abandoned.clear();
        self.stopped.clear();
        self.proxy.link = None;
        self.start_manager();
        self.reconnect_later();
    }

    /// What concerns several pairs of units was done with some of them.
    fn take_half(&mut self, effect: Effect) {
        match effect {
            Effect::Launch(instance, spec, addresses, accepted)
                if spec.settings.kind != WorkerType::Static =>
            {
                let some = (1..).zip(addresses);
                for (number, address) in some {
                    if self.random.bool() {
                        self.start_pair(&instance.pair(number), &spec, address, accepted);
                    }
                }
            }
            Effect::Accept(instance) => {
                self.keep_snapshot(&instance);
                for pair in self.pairs_of(&instance).into_iter().skip(1) {
                    if let Some(unit) = self.units.get_mut(&pair) {
                        unit.accepted = true;
                    }
                }
            }
            Effect::Stop(instance) => {
                for pair in self.pairs_of(&instance) {
                    if self.random.bool() {
                        self.stop_pair(&pair);
                    }
                }
            }
            _ => {}
        }
    }

    /// All units and processes are gone; what is on disk is there as before.
    pub(super) fn reboot(&mut self) {
        self.trace(|| "REBOOT".to_owned());
        self.incarnation += 1;
        self.agenda.retain(|_, happening| {
            let of_the_world = [Happening::Requests, Happening::Trouble, Happening::Ask];
            let of_the_world = of_the_world
                .iter()
                .any(|kind| std::mem::discriminant(kind) == std::mem::discriminant(happening));
            of_the_world || matches!(happening, Happening::Calm)
        });
        self.units.clear();
        self.broken.clear();
        self.asked.clear();
        self.begun.clear();
        self.abandoned.clear();
        self.stopped.clear();
        self.forget_proxy();
        self.start_manager();
        self.reconnect_later();
    }

    pub(super) fn tell(&mut self, event: Event) {
        self.trace(|| brief(&event));
        self.disturb_by(&event);
        let actions = self.fleet.step(self.now, event);
        for action in actions {
            self.trace(|| format!("      -> {}", brief(&action)));
            self.check_action(&action);
            self.perform(action);
        }
        self.check_step();
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Build(instance, spec) => self.begin(1000, Effect::Build(instance, spec)),
            Action::Launch {
                instance,
                spec,
                source,
                addresses,
                accepted,
            } => self.launch(instance, spec, source, addresses, accepted),
            Action::Accept(instance, _) => self.begin(200, Effect::Accept(instance)),
            Action::Assets(instance, _) => self.begin(500, Effect::Assets(instance)),
            Action::Stop { instance, .. } => self.begin(50, Effect::Stop(instance)),
            Action::Probe {
                id, pair, timeout, ..
            } => {
                if let Some(link) = self.proxy.link {
                    let probe = Happening::Probe(link, id, pair, timeout);
                    self.in_order("to proxy", 50, probe);
                }
            }
            Action::Publish(table) => {
                if let Some(link) = self.proxy.link {
                    self.in_order("to proxy", 200, Happening::Table(link, Box::new(table)));
                }
            }
            Action::Prune { worker, live, .. } => self.prune(&worker, &live),
            Action::Look(worker) => self.want_look(Look::Retry(worker)),
            Action::Finish { id, outcomes } => self.check_finish(id, &outcomes),
            Action::End => self.ended = true,
            Action::Abandon(instance) => self.abandon(instance),
            Action::Limit(instance, _) => self.check_limit(&instance),
            Action::Progress { .. } | Action::Unwatch(..) => {}
        }
    }

    fn begin(&mut self, within_ms: u64, effect: Effect) {
        self.soon(
            within_ms,
            Happening::Effect(self.incarnation, Box::new(effect)),
        );
    }

    /// The build is killed, unless it has just ended: then what came of it is on its way.
    fn abandon(&mut self, instance: Instance) {
        let is_build = |happening: &Happening| match happening {
            Happening::Effect(_, effect) => {
                matches!(&**effect, Effect::Build(built, _) if *built == instance)
            }
            _ => false,
        };
        if self.agenda.values().any(is_build) && !self.chance(4) {
            self.agenda.retain(|_, happening| !is_build(happening));
            let event = Event::Built(instance.clone(), Err(Reason::Superseded));
            self.soon(100, Happening::Hear(self.incarnation, event));
        }
        self.abandoned.insert(instance);
    }

    fn launch(
        &mut self,
        instance: Instance,
        spec: Spec,
        source: Source,
        addresses: Vec<Address>,
        accepted: bool,
    ) {
        let pairs = usize::from(spec.settings.instances());
        assert_eq!(addresses.len(), pairs, "{instance}");
        if let Source::Own(generation) = source {
            let kept = self.snapshots.get(&instance.worker);
            let own = kept.and_then(|kept| kept.get(&generation));
            assert!(
                own.is_some_and(|(_, accepted)| *accepted),
                "{instance} comes back unaccepted"
            );
        } else if !self.policy.build {
            let kept = self.snapshots.entry(instance.worker.clone()).or_default();
            if let Source::SameAs(earlier) = source {
                assert!(
                    kept.contains_key(&earlier),
                    "{instance} of a snapshot that is gone"
                );
            }
            let before = kept.insert(instance.generation, (spec.clone(), false));
            assert!(
                before.is_none(),
                "the snapshot of {instance} is there already"
            );
        }
        self.begin(1000, Effect::Launch(instance, spec, addresses, accepted));
    }

    pub(super) fn take_effect(&mut self, incarnation: u64, effect: Effect) {
        let refused = self.chance(25) && !self.quiet;
        let instance = match &effect {
            Effect::Stop(instance) => return self.stop(incarnation, instance),
            Effect::Build(instance, _)
            | Effect::Launch(instance, ..)
            | Effect::Accept(instance)
            | Effect::Assets(instance) => instance.clone(),
        };
        let result = match refused {
            true => Err(Reason::Refused("disk full".to_owned())),
            false => Ok(()),
        };
        let event = match effect {
            Effect::Build(_, spec) => {
                Event::Built(instance, self.build(&spec).and(result).map(|()| true))
            }
            Effect::Launch(_, spec, addresses, accepted) => {
                let public = spec.public.clone();
                if spec.settings.kind != WorkerType::Static {
                    for (number, address) in (1..).zip(addresses) {
                        // What is refused may be some of them.
                        if !refused || number > 1 && self.random.bool() {
                            self.start_pair(&instance.pair(number), &spec, address, accepted);
                        }
                    }
                }
                Event::Launched(instance, result.map(|()| public))
            }
            Effect::Accept(..) => {
                if !refused {
                    self.keep_snapshot(&instance);
                    for pair in self.pairs_of(&instance) {
                        if let Some(unit) = self.units.get_mut(&pair) {
                            unit.accepted = true;
                        }
                    }
                }
                Event::Accepted(instance, result)
            }
            Effect::Assets(_) => {
                let public = match self.policy.build {
                    true => "/workers/public".to_owned(),
                    false => format!("/assets/{}", self.random.u32(..)),
                };
                Event::AssetsReady(instance, result.map(|()| public.into()))
            }
            Effect::Stop(_) => return,
        };
        self.soon(100, Happening::Hear(incarnation, event));
    }

    fn build(&self, spec: &Spec) -> Result<(), Reason> {
        match Behaviour::of(spec) {
            Behaviour::BadBuild => Err(Reason::Build("it does not compile".to_owned(), Vec::new())),
            _ => Ok(()),
        }
    }

    fn start_pair(&mut self, pair: &Pair, spec: &Spec, address: Address, accepted: bool) {
        let mut unit = Unit::new(spec.clone(), address);
        unit.accepted = accepted;
        let before = self.units.insert(pair.clone(), unit);
        assert!(before.is_none(), "{pair} is loaded already");
        let ports = self.units.values().map(|unit| &unit.address);
        let address = &self.units[pair].address;
        let is_port = matches!(address, Address::Tcp(_));
        let same = ports.filter(|other| *other == address).count();
        assert!(!is_port || same == 1, "{pair} has another one's port");
        if spec.settings.listen == Listen::Port {
            self.wake(pair);
        }
    }

    /// Writes the manifest.
    fn keep_snapshot(&mut self, instance: &Instance) {
        let of_worker = self.snapshots.get_mut(&instance.worker);
        if let Some(kept) = of_worker.and_then(|kept| kept.get_mut(&instance.generation)) {
            kept.1 = true;
        }
    }

    fn stop(&mut self, incarnation: u64, instance: &Instance) {
        let pairs = self.pairs_of(instance);
        let gone = pairs.iter().map(|pair| self.stop_pair(pair));
        let gone_at = gone.max().unwrap_or(self.now);
        let event = Event::Stopped(instance.clone(), Vec::new());
        self.at(gone_at, Happening::Hear(incarnation, event));
    }

    /// Stops a pair and tells when it is gone.
    fn stop_pair(&mut self, pair: &Pair) -> Moment {
        let known = self.units.get(pair);
        match known.is_some_and(|unit| !unit.stopping) {
            true => self.begin_stop(pair),
            false => self.now + Duration::from_secs(3) * u32::from(known.is_some()),
        }
    }

    pub(super) fn want_look(&mut self, look: Look) {
        self.in_order("looks", 200, Happening::Look(self.incarnation, look));
    }

    /// Somebody saves a file, and the watcher says so, but for once.
    pub(super) fn save(&mut self, more: u8) {
        if self.quiet {
            return;
        }
        self.change_disk();
        if !self.chance(10) {
            self.want_look(Look::Saved(self.now));
        }
        if more > 0 {
            self.soon(500, Happening::Save(more - 1));
        }
    }

    /// All files are saved, each with a change.
    pub(super) fn save_all(&mut self) {
        self.change_all();
        self.want_look(Look::Saved(self.now));
    }

    /// There is more memory, or less.
    pub(super) fn change_memory(&mut self) {
        let amounts = [None, Some(0), Some(100 << 20), Some(8 << 30)];
        self.memory = amounts[self.random.usize(..amounts.len())];
        self.tell(Event::Memory(self.memory));
    }

    /// server.yaml does not allow any more what a generation was accepted with.
    pub(super) fn lower_limits(&mut self) {
        let workers = self.fleet.workers().values();
        let runs = workers.flat_map(|worker| {
            let of_worker = |number: &Generation| Instance::new(worker.name.clone(), *number);
            worker
                .runs
                .iter()
                .map(move |(number, run)| (of_worker(number), run.spec.settings.limits.clone()))
        });
        let all: Vec<_> = runs.collect();
        let Some((instance, limits)) = self.random.choice(all) else {
            return;
        };
        self.tell(Event::Ruled(Box::new(Ruling {
            limits: vec![(instance, limits, vec!["tasks_max".to_owned()])],
            ..Ruling::default()
        })));
    }

    pub(super) fn ask_for_reload(&mut self) {
        let mut only = Vec::new();
        if self.random.bool() {
            let names: Vec<WorkerName> = self.disk.keys().cloned().collect();
            only.extend(self.random.choice(names));
        }
        let force = self.chance(5);
        self.reload(only, force);
    }

    /// Somebody wants an accepted snapshot back.
    pub(super) fn ask_for_rollback(&mut self) {
        let accepted = self.snapshots.iter().flat_map(|(name, kept)| {
            let accepted = kept.iter().filter(|(_, (_, accepted))| *accepted);
            accepted.map(|(number, (spec, _))| (Instance::new(name.clone(), *number), spec.clone()))
        });
        let all: Vec<_> = accepted.collect();
        let Some((instance, mut spec)) = self.random.choice(all) else {
            return;
        };
        let found = self.disk.get(&instance.worker);
        let unwanted =
            found.filter(|found| found.spec.fingerprint.program != spec.fingerprint.program);
        spec.passed_over = unwanted.map(|found| found.spec.fingerprint.clone());
        self.disturb(Some(&instance.worker));
        let id = self.next_reload;
        self.next_reload += 1;
        self.asked
            .insert(id, Asked::rollback(self, &instance.worker));
        let spec = Box::new(spec);
        self.tell(Event::Rollback { id, instance, spec });
    }

    pub(super) fn reload(&mut self, only: Vec<WorkerName>, force: bool) {
        let id = self.next_reload;
        self.next_reload += 1;
        self.want_look(Look::Reload { id, only, force });
    }

    /// The disk has been looked at.
    pub(super) fn look(&mut self, look: Look) {
        let workers = self.seen();
        let mut snapshots = disk::Newest::new();
        match &look {
            Look::Start { .. } if !self.policy.build => {
                for name in self.snapshots.keys().cloned().collect::<Vec<_>>() {
                    let live = self.fleet.workers().get(&name);
                    let live: Vec<_> = live.iter().flat_map(|w| w.runs.keys().copied()).collect();
                    self.prune(&name, &live);
                }
                snapshots = self.accepted_snapshots();
            }
            Look::Reload { id, only, force } => {
                let asked = Asked::new(self, &workers, only, *force);
                self.asked.insert(*id, asked);
                self.tell(Event::Configured(Box::new(self.policy.clone())));
            }
            // What a reload waits for may be replaced by what was saved since.
            Look::Saved(_) => self.disturb(None),
            _ => {}
        }
        self.tell(Event::Looked {
            look,
            workers,
            snapshots,
        });
    }
}

/// What it is about, and little of what it is made of.
fn brief(what: &impl std::fmt::Debug) -> String {
    let text = format!("{what:?}").replace("worker: WorkerName", "");
    let start = text.find("Spec {").unwrap_or(text.len());
    let mut brief = text[..start].to_owned();
    brief.extend(text.split("program: ").skip(1).map(|rest| {
        let end = rest.find(" config").unwrap_or(rest.len());
        format!(" {}", &rest[..end])
    }));
    brief.truncate(400);
    brief
}
