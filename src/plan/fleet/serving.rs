//! What happens to a generation that serves.

use super::Fleet;
use crate::config::Network;
use crate::names::{Instance, Pair};
use crate::plan::member::START_PAUSE;
use crate::plan::run::{Run, Stage};
use crate::plan::{EXPOSED, Failure, Kind, Reason, Severity};
use crate::systemd::{Activity, Ending, ServiceState};
use crate::wire::ProbeOutcome;

impl Fleet {
    pub(super) fn unit_changed(&mut self, pair: &Pair, state: ServiceState) {
        let (now, instance) = (self.now, &pair.instance);
        let Some(run) = self.run(instance) else {
            return;
        };
        let Some(before) = run.members.get(&pair.number) else {
            return;
        };
        let before = before.service.clone();
        if let Some(reason) = run.observe(pair.number, state) {
            return self.fail(instance, reason);
        }
        if run.stage != Stage::Serving {
            return;
        }
        let (again, end) = (run.health_due(now), run.end(pair.number));
        let start_timeout = run.spec.settings.health.start_timeout;
        let read_timeout = run.spec.settings.limits.timeouts.read;
        let Some(member) = run.members.get_mut(&pair.number) else {
            return;
        };
        if member.probe.is_none() && member.probe_at.is_none() && !member.broken {
            member.probe_at = again;
        }
        let activity = member.service.activity;
        if activity == before.activity {
            return;
        }
        // A socket holds connections until its process accepts them, which is enough for most.
        if !member.has_socket() || start_timeout > read_timeout {
            member.follow(before.activity, start_timeout, now);
        }
        // What ended goes through several states until it is started again, or has hit the limit for that.
        let known = before.failure.is_some() && before.activity != Activity::Active;
        let failed = member.service.failure.is_some() && !known;
        if failed {
            let (name, number) = (&instance.worker, instance.generation);
            let text = format!("generation {number} of '{name}' ended: {end}; systemd restarts it");
            let kind = Kind::Ended {
                reason: end.to_string(),
            };
            self.note(instance, Severity::Warning, kind, Vec::new(), text);
            self.remember(instance, end.clone());
        }
    }

    /// The process of a worker on a port has ended, and nothing was seen of another one since.
    pub(super) fn gone(&mut self, pair: &Pair) {
        let Some(run) = self.run(&pair.instance) else {
            return;
        };
        let end = run.end(pair.number);
        if let Some(member) = run.members.get_mut(&pair.number) {
            member.gone_at = None;
        }
        self.socket_broke(pair, Some(end));
    }

    /// Keeps what went wrong with a generation that serves, for `status` and for what comes of it.
    fn remember(&mut self, instance: &Instance, reason: Reason) {
        let (now, is_developed) = (self.now, self.policy.build);
        let worker = self.worker(&instance.worker);
        let others = worker.failure_of_what_lies_there();
        let others = others.filter(|failure| failure.generation != Some(instance.generation));
        // What serves may have read the very file that was saved wrong (PHP), and be ill of it: the developer is to hear of that file.
        if is_developed && others.is_some() {
            return;
        }
        let failure = Failure {
            generation: Some(instance.generation),
            reason,
            log: Vec::new(),
        };
        worker.last_failure = Some((failure, now));
    }

    pub(super) fn socket_failed(&mut self, pair: &Pair) {
        let Some(run) = self.run(&pair.instance) else {
            return;
        };
        let Some(member) = run.members.get(&pair.number) else {
            return;
        };
        let reason = member.service.failure.clone().map(Reason::Ended);
        let reason = reason.map(|reason| run.of(pair.number, reason));
        if run.stage == Stage::Serving {
            return self.socket_broke(pair, reason);
        }
        // While it is launched its socket does not listen yet; that is no failure.
        if matches!(
            run.stage,
            Stage::Activating | Stage::Switching | Stage::Accepting
        ) {
            let socket = || {
                let ending = Ending::Other("its socket failed".to_owned());
                run.of(pair.number, Reason::Ended(ending))
            };
            let reason = reason.unwrap_or_else(socket);
            if let Some(member) = run.members.get_mut(&pair.number) {
                member.broken = true;
            }
            self.fail(&pair.instance, reason);
        }
    }

    /// An instance of the serving generation can not be started by systemd any more: a new generation of the same files is due. Until
    /// then the others get its requests, if there are others.
    fn socket_broke(&mut self, pair: &Pair, reason: Option<Reason>) {
        let (now, instance) = (self.now, &pair.instance);
        let last = self.worker(&instance.worker).last_failure.as_ref();
        let last = last
            .filter(|(failure, _)| failure.generation == Some(instance.generation))
            .map(|(failure, _)| failure.reason.clone());
        let Some(run) = self.run(instance).filter(|run| run.stage == Stage::Serving) else {
            return;
        };
        let Some(member) = run.members.get_mut(&pair.number) else {
            return;
        };
        if std::mem::replace(&mut member.broken, true) {
            return;
        }
        (member.probe, member.probe_at) = (None, None);
        (member.starting, member.gone_at) = (None, None);
        let unknown = || Reason::Ended(Ending::Other("start-limit-hit".to_owned()));
        let reason = reason.or(last).unwrap_or_else(unknown);
        let others = run.addresses().len();
        if others == 0 {
            run.broken = Some(reason.clone());
        }
        let served = now - run.since;
        let (name, generation) = (&instance.worker, instance.generation);
        let (severity, text) = match others {
            0 => (
                Severity::Error,
                format!(
                    "'{name}' does not serve: generation {generation} ended again and again: {reason}; it is tried again"
                ),
            ),
            others => (
                Severity::Warning,
                format!(
                    "generation {generation} of '{name}' has {others} of its instances left: {reason}; it is replaced"
                ),
            ),
        };
        let (why, kind) = match others {
            0 => (
                "it ended again and again".to_owned(),
                Kind::Down {
                    reason: reason.to_string(),
                },
            ),
            _ => (
                format!("its instance {} ended again and again", pair.number),
                Kind::Ended {
                    reason: reason.to_string(),
                },
            ),
        };
        self.remember(instance, reason);
        let worker = self.worker(&instance.worker);
        worker.replace = Some(why);
        worker.schedule_retry(served, now);
        self.note(instance, severity, kind, Vec::new(), text);
    }

    pub(super) fn probed(&mut self, id: u64, outcome: &ProbeOutcome) {
        let now = self.now;
        let Some(pair) = self.probes.remove(&id) else {
            return;
        };
        let instance = pair.instance.clone();
        let asked = |run: &&mut Run| {
            let member = run.members.get(&pair.number);
            member.is_some_and(|member| member.probe == Some(id))
        };
        let Some(run) = self.run(&instance).filter(asked) else {
            return;
        };
        match run.stage {
            Stage::Activating => match run.judge(pair.number, outcome, now) {
                Ok(true) => run.enter(Stage::Switching, now),
                Ok(false) => {}
                Err(reason) => self.fail(&instance, reason),
            },
            Stage::Serving => self.checked(&pair, outcome),
            _ => {}
        }
    }

    /// A worker's port can be reached by whoever reaches the machine. That is said once for each generation.
    pub(super) fn exposed(&mut self, id: u64) {
        let own_users = self.policy.own_users;
        let Some(pair) = self.probes.get(&id).cloned() else {
            return;
        };
        let instance = &pair.instance;
        let Some(run) = self.run(instance) else {
            return;
        };
        // Then systemd lets nobody from outside in.
        if own_users && run.spec.settings.network == Network::Loopback {
            return;
        }
        let known = run.members.values().any(|member| member.open_to_all);
        let reloads = run.reloads.clone();
        if let Some(member) = run.members.get_mut(&pair.number) {
            member.open_to_all = true;
            let text = format!(
                "generation {} of '{}' {EXPOSED}",
                instance.generation, instance.worker
            );
            if !known {
                self.note(instance, Severity::Warning, Kind::Progress, reloads, text);
            }
        }
    }

    /// A periodic health request was answered, or not.
    fn checked(&mut self, pair: &Pair, outcome: &ProbeOutcome) {
        let (now, instance) = (self.now, &pair.instance);
        let Some(run) = self.run(instance) else {
            return;
        };
        let again = run.health_due(now);
        let health = &run.spec.settings.health;
        let (most, timeout) = (health.failures, health.timeout);
        let Some(member) = run.members.get_mut(&pair.number) else {
            return;
        };
        (member.probe, member.probe_at) = (None, again);
        if let Some(until) = member.starting {
            let responds = matches!(outcome, ProbeOutcome::Status(status) if *status != 503);
            if !responds && now < until {
                member.probe_at = Some(now + START_PAUSE);
                return;
            }
            member.starting = None;
        }
        let reason = match outcome {
            outcome if outcome.is_healthy() => {
                member.unhealthy = 0;
                return;
            }
            // The proxy's trouble is no illness of the worker's.
            ProbeOutcome::NotAsked(_) => return,
            ProbeOutcome::Status(status) => Reason::HttpStatus(*status),
            ProbeOutcome::TimedOut => Reason::NotReady(timeout),
            ProbeOutcome::Broken(how) => Reason::Broken(how.clone()),
            ProbeOutcome::Taken(how) => Reason::Taken(how.clone()),
        };
        member.unhealthy += 1;
        let times = member.unhealthy;
        let reason = run.of(pair.number, reason);
        let served = now - run.since;
        let text = format!(
            "generation {} of '{}' failed {times} health requests in a row: {reason}",
            instance.generation, instance.worker
        );
        let kind = Kind::Unhealthy {
            reason: reason.to_string(),
        };
        self.note(instance, Severity::Warning, kind, Vec::new(), text);
        self.remember(instance, reason);
        let worker = self.worker(&instance.worker);
        if times >= most && worker.replace.is_none() {
            worker.replace = Some(format!("it failed {times} health requests in a row"));
            // One that fails soon after each start is replaced less and less often.
            worker.schedule_retry(served, now);
        }
    }

    pub(super) fn spent(&mut self, instance: &Instance) {
        let now = self.now;
        let Some(worker) = self.workers.get_mut(&instance.worker) else {
            return;
        };
        let has_limit = |run: &Run| run.spec.settings.limits.max_requests > 0;
        if worker.candidate() == Some(instance.generation) {
            if let Some(run) = worker.runs.get_mut(&instance.generation) {
                run.spent = has_limit(run);
            }
            return;
        }
        let serving = worker.serving();
        let serving = serving.filter(|(number, _)| *number == instance.generation);
        let spent = serving.filter(|(_, run)| has_limit(run));
        if let Some(served) = spent.map(|(_, run)| now - run.since)
            && worker.replace.is_none()
            && worker.candidate().is_none()
        {
            worker.is_spent(served, now);
        }
    }
}
