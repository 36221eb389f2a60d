//! What happens to a generation that serves.

use super::Fleet;
use crate::names::Instance;
use crate::plan::run::Stage;
use crate::plan::{Action, Failure, Kind, Reason, Severity};
use crate::systemd::{Activity, Ending, ServiceState};
use crate::wire::ProbeOutcome;

impl Fleet {
    pub(super) fn unit_changed(&mut self, instance: &Instance, state: ServiceState) {
        let now = self.now;
        let Some(run) = self.run(instance) else {
            return;
        };
        let before = run.service.clone();
        if let Some(reason) = run.observe(state) {
            return self.fail(instance, reason);
        }
        if run.stage != Stage::Serving {
            return;
        }
        if run.probe.is_none() && run.probe_at.is_none() {
            run.probe_at = run.health_due(now);
        }
        let activity = run.service.activity;
        if activity == before.activity {
            return;
        }
        // What ended goes through several states until it is started again, or has hit the limit for that.
        let known = before.failure.is_some() && before.activity != Activity::Active;
        let (failed, end) = (run.service.failure.is_some() && !known, run.end());
        // A worker on a port has no socket whose failure would tell that nothing starts it any more.
        let over = matches!(activity, Activity::Failed | Activity::Inactive) && !run.has_socket();
        if failed {
            let (name, number) = (&instance.worker, instance.generation);
            let then = match over {
                true => "",
                false => "; systemd restarts it",
            };
            let text = format!("generation {number} of '{name}' ended: {end}{then}");
            let kind = Kind::Ended {
                reason: end.to_string(),
            };
            self.note(instance, Severity::Warning, kind, Vec::new(), text);
            self.remember(instance, end.clone());
        }
        if over {
            self.socket_broke(instance, Some(end));
        }
    }

    /// Keeps what went wrong with a generation that serves, for `status` and for what comes of it.
    fn remember(&mut self, instance: &Instance, reason: Reason) {
        let failure = Failure {
            generation: Some(instance.generation),
            reason,
            log: Vec::new(),
        };
        self.worker(&instance.worker).last_failure = Some((failure, self.now));
    }

    pub(super) fn socket_failed(&mut self, instance: &Instance) {
        let Some(run) = self.run(instance) else {
            return;
        };
        let reason = run.service.failure.clone().map(Reason::Ended);
        if run.stage == Stage::Serving {
            return self.socket_broke(instance, reason);
        }
        // While it is launched its socket does not listen yet; that is no failure.
        if matches!(run.stage, Stage::Activating | Stage::Accepting) {
            let socket = || Reason::Ended(Ending::Other("its socket failed".to_owned()));
            self.fail(instance, reason.unwrap_or_else(socket));
        }
    }

    /// The serving generation can not be started by systemd any more: a new one of the same files is due.
    pub(super) fn socket_broke(&mut self, instance: &Instance, reason: Option<Reason>) {
        let now = self.now;
        let last = self.worker(&instance.worker).last_failure.as_ref();
        let last = last
            .filter(|(failure, _)| failure.generation == Some(instance.generation))
            .map(|(failure, _)| failure.reason.clone());
        let Some(run) = self
            .run(instance)
            .filter(|run| run.stage == Stage::Serving && run.broken.is_none())
        else {
            return;
        };
        let unknown = || Reason::Ended(Ending::Other("start-limit-hit".to_owned()));
        let reason = reason.or(last).unwrap_or_else(unknown);
        run.broken = Some(reason.clone());
        (run.probe, run.probe_at) = (None, None);
        let served = now - run.since;
        let text = format!(
            "'{}' does not serve: generation {} ended again and again: {reason}; it is tried again",
            instance.worker, instance.generation
        );
        let kind = Kind::Down {
            reason: reason.to_string(),
        };
        self.remember(instance, reason);
        let worker = self.worker(&instance.worker);
        worker.replace = Some("it ended again and again".to_owned());
        worker.schedule_retry(served, now);
        self.note(instance, Severity::Error, kind, Vec::new(), text);
    }

    pub(super) fn probed(&mut self, id: u64, outcome: &ProbeOutcome) {
        let now = self.now;
        let Some(instance) = self.probes.remove(&id) else {
            return;
        };
        let Some(run) = self.run(&instance).filter(|run| run.probe == Some(id)) else {
            return;
        };
        match run.stage {
            Stage::Activating => match run.judge(outcome, now) {
                Ok(true) => {
                    run.enter(Stage::Accepting, now);
                    let spec = run.spec.clone();
                    self.actions.push(Action::Accept(instance, spec));
                }
                Ok(false) => {}
                Err(reason) => self.fail(&instance, reason),
            },
            Stage::Serving => self.checked(&instance, outcome),
            _ => {}
        }
    }

    /// A periodic health request was answered, or not.
    fn checked(&mut self, instance: &Instance, outcome: &ProbeOutcome) {
        let now = self.now;
        let Some(run) = self.run(instance) else {
            return;
        };
        run.probe = None;
        run.probe_at = run.health_due(now);
        if outcome.is_healthy() {
            run.unhealthy = 0;
            return;
        }
        run.unhealthy += 1;
        let (times, most) = (run.unhealthy, run.spec.settings.health.failures);
        let reason = match outcome {
            ProbeOutcome::Status(status) => Reason::HttpStatus(*status),
            ProbeOutcome::TimedOut => Reason::NotReady(run.spec.settings.health.timeout),
            ProbeOutcome::Broken(how) => Reason::Broken(how.clone()),
        };
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
        let serves = worker
            .serving()
            .is_some_and(|(number, _)| number == instance.generation);
        if serves && worker.replace.is_none() && worker.candidate().is_none() {
            worker.replace = Some("it has answered its max_requests".to_owned());
            worker.retry_at = Some(now);
        }
    }
}
