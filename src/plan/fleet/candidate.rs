//! A candidate's way: from the queue to its acceptance, or to its end.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::{Fleet, News, instance};
use crate::ansi;
use crate::config::{Listen, WorkerType};
use crate::names::{Generation, Instance, WorkerName};
use crate::plan::budget;
use crate::plan::hint::hint;
use crate::plan::member::Member;
use crate::plan::run::{Run, Stage};
use crate::plan::worker::Candidate;
use crate::plan::{Action, Cause, Failure, Kind, Outcome, Reason, Severity, Source, Spec};
use crate::route::{Address, Protocol, RoutePath, Scripts};

impl Fleet {
    pub(super) fn begin(&mut self, name: &WorkerName) {
        let Some(candidate) = self.worker(name).waiting.take() else {
            return;
        };
        let generation = match candidate.source {
            Source::Own(generation) => generation,
            _ => self.worker(name).newest.next(),
        };
        let name_of = instance(name, generation);
        let pairs = candidate.spec.settings.instances();
        let addresses = match candidate.spec.settings.listen {
            Listen::Socket => {
                let files = (1..=pairs).map(|number| name_of.pair(number).file_name("sock"));
                let paths = files.map(|file| Address::Unix(self.policy.sockets.join(file)));
                Some(paths.collect())
            }
            Listen::Port => self.free_ports(pairs),
        };
        let Some(addresses) = addresses else {
            let (first, last) = (self.policy.ports.start(), self.policy.ports.end());
            let wanted = match pairs {
                1 => "no port".to_owned(),
                pairs => format!("fewer than {pairs} ports"),
            };
            let is = if pairs == 1 { "is" } else { "are" };
            let reason = Reason::Refused(format!(
                "{wanted} from {first} to {last} {is} free; widen workers.port_range_start/_end"
            ));
            let cause = Some(candidate.cause);
            return self.failed_without_units(name, None, cause, reason, candidate.reloads);
        };
        self.make(name_of, candidate, addresses);
    }

    fn make(&mut self, instance: Instance, candidate: Candidate, addresses: Vec<Address>) {
        let settings = &candidate.spec.settings;
        let is_built = settings.kind != WorkerType::Static || settings.is_static_and_built();
        let build = candidate.build && is_built;
        let stage = match build {
            true => Stage::Building,
            false => Stage::Launching,
        };
        if candidate.source == Source::Directory {
            self.worker(&instance.worker).tried = Some(candidate.spec.clone());
        }
        let (source, cause) = (candidate.source, candidate.cause);
        let members = (1..).zip(addresses.into_iter().map(Member::new)).collect();
        let mut run = Run::new(candidate.spec, source, cause, members, stage, self.now);
        run.protocol = self.protocol(&instance, &run.spec);
        (run.reloads, run.saved) = (candidate.reloads, candidate.saved);
        if let Err(reason) = self.make_room_in_table(&instance, &mut run) {
            let reloads = run.reloads;
            return self.failed_without_units(&instance.worker, None, Some(cause), reason, reloads);
        }
        self.actions.push(match build {
            true => Action::Build(instance.clone(), run.spec.clone()),
            false => launch(&instance, &run),
        });
        let worker = self.worker(&instance.worker);
        worker.newest = instance.generation;
        (worker.retry_at, worker.retry_after) = (None, None);
        worker.runs.insert(instance.generation, run);
    }

    /// Measures a generation's part of the route table, and says why there is no room for it.
    pub(super) fn make_room_in_table(
        &mut self,
        instance: &Instance,
        run: &mut Run,
    ) -> Result<(), Reason> {
        let own_users = self.policy.own_users;
        let worker = self.worker(&instance.worker);
        run.part = budget::part(&worker.route_of(instance.generation, run, own_users));
        let others = self.workers.values();
        let others = others.filter(|other| other.name != instance.worker);
        let others = others.filter_map(|other| {
            let runs = other.runs.values();
            let in_table = runs.filter(|run| run.stage <= Stage::Serving && !run.withheld);
            in_table.map(|run| run.part).max()
        });
        budget::admit(run.part, others)
    }

    /// What a generation speaks. One that speaks FastCGI is told of its scripts by where it runs from.
    pub(super) fn protocol(&self, instance: &Instance, spec: &Spec) -> Protocol {
        let settings = &spec.settings;
        let Some(root) = &settings.document_root else {
            return match settings.h2c {
                true => Protocol::Http2,
                false => Protocol::Http,
            };
        };
        let files = match &self.policy.snapshots {
            Some(snapshots) => snapshots.join(instance.snapshot()),
            None => spec.directory.clone(),
        };
        Protocol::FastCgi(Scripts {
            root: root.below(&files),
            front_controller: settings.front_controller().to_owned(),
            // With `strip_prefix` its scripts see themselves at the root.
            route: match settings.on_route.strip_prefix {
                true => RoutePath::root(),
                false => settings.route.clone(),
            },
            // A snapshot stays as it was found.
            indexes: self
                .policy
                .snapshots
                .is_some()
                .then(|| settings.indexes.clone()),
        })
    }

    fn free_ports(&self, wanted: u8) -> Option<Vec<Address>> {
        let taken: BTreeSet<u16> = self
            .workers
            .values()
            .flat_map(|worker| worker.runs.values())
            .flat_map(|run| run.members.values())
            .filter_map(|member| match member.address {
                Address::Tcp(address) | Address::Held { at: address, .. } => Some(address.port()),
                Address::Unix(_) => None,
            })
            .collect();
        let free = self.policy.ports.clone();
        let free = free.filter(|port| !taken.contains(port));
        // Whoever holds a port may hold it still. When all are held the next try is to say so.
        let (held, free): (Vec<u16>, Vec<u16>) = free.partition(|port| self.shunned.contains(port));
        let free = free.into_iter().chain(held).map(Address::loopback);
        let ports: Vec<Address> = free.take(usize::from(wanted)).collect();
        (ports.len() == usize::from(wanted)).then_some(ports)
    }

    pub(super) fn built(&mut self, instance: &Instance, result: Result<bool, Reason>) {
        let now = self.now;
        if let Some(worker) = self.workers.get_mut(&instance.worker) {
            worker.restless.ended = Some(now);
        }
        let Some(run) = self
            .run(instance)
            .filter(|run| run.stage == Stage::Building)
        else {
            return;
        };
        match result {
            Ok(built) => {
                run.build_time = built.then(|| now - run.since);
                run.enter(Stage::Launching, now);
                let action = launch(instance, run);
                self.actions.push(action);
            }
            Err(reason) => self.drop_candidate(instance, reason),
        }
    }

    pub(super) fn launched(
        &mut self,
        instance: &Instance,
        result: Result<Option<PathBuf>, Reason>,
    ) {
        let (now, delay) = (self.now, self.policy.startup_delay);
        let in_place = self.policy.build;
        let Some(run) = self
            .run(instance)
            .filter(|run| run.stage == Stage::Launching)
        else {
            return;
        };
        if let Some(unwanted) = run.failed.take() {
            return self.stop(instance, Some(unwanted));
        }
        let public = match result {
            Ok(public) => public,
            Err(reason) => return self.fail(instance, reason),
        };
        run.public = match in_place {
            // Where it lies, and it may have been the build that put it there.
            true => run.spec.public.clone(),
            false => public,
        };
        if run.comes_back() && !run.spec.starts_at_once() {
            // Its socket listens; the first request starts it.
            return self.serve(instance);
        }
        if run.spec.settings.kind == WorkerType::Static {
            return run.enter(Stage::Switching, now);
        }
        run.enter(Stage::Activating, now);
        run.ready_by = Some(now + delay + run.spec.settings.health.start_timeout);
        run.ask_at(Some(now + delay));
        // One may have died before we heard that it was started.
        let known = run.members.iter();
        let known: Vec<_> = known
            .map(|(number, one)| (*number, one.service.clone()))
            .collect();
        let died = known
            .into_iter()
            .find_map(|(number, state)| run.observe(number, state));
        let (reloads, saved) = (run.reloads.clone(), run.saved.is_some());
        // Who saves a file hears of it when it is live.
        if !saved {
            let text = format!(
                "generation {} of '{}' is starting",
                instance.generation, instance.worker
            );
            self.note(instance, Severity::Info, Kind::Progress, reloads, text);
        }
        if let Some(reason) = died {
            self.fail(instance, reason);
        }
    }

    pub(super) fn accepted(&mut self, instance: &Instance, result: Result<(), Reason>) {
        let accepting = |run: &&mut Run| run.stage == Stage::Accepting;
        if self.run(instance).filter(accepting).is_none() {
            return;
        }
        match result {
            Ok(()) => self.serve(instance),
            Err(reason) => self.fail(instance, reason),
        }
    }

    /// Gives a generation the requests.
    fn serve(&mut self, instance: &Instance) {
        let now = self.now;
        let Some(run) = self.run(instance) else {
            return;
        };
        run.enter(Stage::Serving, now);
        run.accepted = true;
        for member in run.members.values_mut() {
            (member.unhealthy, member.last_answer) = (0, None);
        }
        run.ask_at(run.health_due(now));
        let cause = run.cause;
        let (saved, build_time, spent) = (run.saved, run.build_time, run.spent);
        let mut reloads = std::mem::take(&mut run.reloads);
        let worker = self.worker(&instance.worker);
        (worker.trouble, worker.replace, worker.snapshot) = (None, None, None);
        (worker.retry_at, worker.retry_after) = (None, None);
        if spent {
            worker.is_spent(Duration::ZERO, now);
        }
        let mut from = None;
        for (number, older) in worker.runs.range_mut(..instance.generation) {
            if older.stage == Stage::Serving {
                reloads.extend(older.retire(now));
                from = Some(*number);
            }
        }
        let (to, name) = (instance.generation, &instance.worker);
        let text = match from {
            Some(from) => format!("generation {to} of '{name}' took over from generation {from}"),
            None => format!("generation {to} of '{name}' serves"),
        };
        let kind = Kind::Accepted { cause, from };
        let Some(saved) = saved else {
            self.note(instance, Severity::Info, kind, reloads.clone(), text);
            return self.switch(name, reloads, Outcome::Replaced { from, to });
        };
        let news = News {
            instance: instance.clone(),
            kind,
            saved,
            build_time,
        };
        self.switch_with(name, reloads, Outcome::Replaced { from, to }, Some(news));
    }

    /// Ends a candidate. Its reloads hear of it when its units are gone and its last words are known.
    pub(super) fn fail(&mut self, instance: &Instance, reason: Reason) {
        let now = self.now;
        let Some(run) = self.run(instance).filter(|run| run.is_candidate()) else {
            return;
        };
        if reason.is_taken() {
            let addresses = run.members.values().map(|member| &member.address);
            let ports = addresses.filter_map(|address| match address {
                Address::Tcp(at) => Some(at.port()),
                _ => None,
            });
            let ports: Vec<u16> = ports.collect();
            self.shunned.extend(ports);
        }
        let Some(run) = self.run(instance) else {
            return;
        };
        match run.stage {
            Stage::Building => self.drop_candidate(instance, reason),
            // The units are being made this moment: they can be stopped when that has ended.
            Stage::Launching if reason.is_unwanted() => run.failed = Some(reason),
            // What the proxy has sent it is to be answered, and goes to the one before from the next table on.
            _ if run.exposed && !run.addresses().is_empty() => {
                run.enter(Stage::Draining, now);
                run.failed = Some(reason);
            }
            _ => self.stop(instance, Some(reason)),
        }
    }

    /// Ends a candidate that has no units yet.
    fn drop_candidate(&mut self, instance: &Instance, reason: Reason) {
        let worker = self.worker(&instance.worker);
        let Some(run) = worker.runs.remove(&instance.generation) else {
            return;
        };
        let (generation, cause) = (Some(instance.generation), Some(run.cause));
        self.failed_without_units(&instance.worker, generation, cause, reason, run.reloads);
    }

    pub(super) fn failed_without_units(
        &mut self,
        name: &WorkerName,
        generation: Option<Generation>,
        cause: Option<Cause>,
        reason: Reason,
        reloads: Vec<u64>,
    ) {
        let log = match &reason {
            Reason::Build(_, output) => output.clone(),
            _ => Vec::new(),
        };
        let failure = Failure {
            generation,
            reason,
            log,
        };
        self.failed(name, failure, cause, reloads);
    }

    /// A candidate failed and nothing of it is left.
    fn failed(
        &mut self,
        name: &WorkerName,
        failure: Failure,
        cause: Option<Cause>,
        reloads: Vec<u64>,
    ) {
        if failure.reason.is_unwanted() {
            return self.resolve(name, &reloads, &Outcome::Failed(failure));
        }
        let (now, ending, production) = (self.now, self.ending, !self.policy.build);
        let worker = self.worker(name);
        worker.last_failure = Some((failure.clone(), now));
        let serving = worker.serving();
        let keeps = serving
            .filter(|(_, run)| run.broken.is_none())
            .map(|(number, _)| number);
        // What is tried again is what serves, or has passed before; these are not the files that failed now.
        let again = match serving {
            Some(_) => worker.replace.is_some(),
            None if worker.snapshot.is_some() => true,
            // What lies there can not be run as it is; in production somebody will say when it can.
            None if production && matches!(failure.reason, Reason::Unusable(_)) => false,
            None => failure.reason.may_pass(),
        };
        if keeps.is_none() {
            worker.trouble = Some(failure.reason.clone());
        }
        if again && !worker.removed && !ending {
            worker.schedule_retry(Duration::ZERO, now);
        }
        let what = match failure.generation {
            Some(generation) => format!("generation {generation} of '{name}' failed"),
            None => format!("'{name}' can not be started"),
        };
        let (severity, then) = match keeps {
            Some(number) => (Severity::Warning, format!(", keeping generation {number}")),
            None => (Severity::Error, String::new()),
        };
        let mut text = format!("{what}: {}{then}", failure.reason);
        if cause == Some(Cause::Save) {
            // Nobody else is told what compiler or worker had to say.
            let lines = failure.log.iter().map(|line| ansi::strip(line));
            text.extend(lines.map(|line| format!("\n    {line}")));
        }
        let kind = Kind::Failed {
            cause,
            reason: failure.reason.to_string(),
        };
        self.say(
            name,
            failure.generation,
            severity,
            kind,
            reloads.clone(),
            text,
        );
        self.resolve(name, &reloads, &Outcome::Failed(failure));
    }

    pub(super) fn stopped(&mut self, instance: &Instance, mut log: Vec<String>) {
        let (name, generation) = (&instance.worker, instance.generation);
        let Some(worker) = self.workers.get_mut(name) else {
            return;
        };
        let stopping = |run: &mut Run| run.stage == Stage::Stopping;
        if !worker.runs.get_mut(&generation).is_some_and(stopping) {
            return;
        }
        let Some(run) = worker.runs.remove(&generation) else {
            return;
        };
        let (live, last) = (worker.needed(), worker.newest);
        let worker = name.clone();
        self.actions.push(Action::Prune { worker, live, last });
        if let Some(reason) = run.failed {
            let confined = self.policy.own_users;
            let hint = hint(&run.spec.settings, &reason, &log, confined);
            log.extend(hint);
            let failure = Failure {
                generation: Some(generation),
                reason,
                log,
            };
            return self.failed(name, failure, Some(run.cause), run.reloads);
        }
        let text = format!("generation {generation} of '{name}' is stopped");
        self.note(instance, Severity::Info, Kind::Stopped, Vec::new(), text);
    }
}

fn launch(instance: &Instance, run: &Run) -> Action {
    Action::Launch {
        instance: instance.clone(),
        spec: run.spec.clone(),
        source: run.source,
        addresses: run.addresses().into_values().collect(),
        accepted: run.comes_back(),
    }
}
