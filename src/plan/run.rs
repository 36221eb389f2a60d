//! One generation and its stages.
//!
//! | stage      | what                           | leads to                                                |
//! |------------|--------------------------------|---------------------------------------------------------|
//! | Building   | its build runs                 | Launching; gone (build failed, removed, saved again)    |
//! | Launching  | files and units are made       | Activating, or Accepting without a process, or Serving  |
//! |            |                                | if it was accepted before the last boot; Stopping       |
//! |            |                                | (refused, died, removed meanwhile)                      |
//! | Activating | its first health request runs  | Accepting; Stopping (unhealthy, died, too late)         |
//! | Accepting  | the mark "accepted" is written | Serving; Stopping (refused, died)                       |
//! | Serving    | gets the requests              | Draining (replaced, removed); Stopping (all stop)       |
//! | Draining   | ends what it has begun         | Stopping (drained, or its grace is over)                |
//! | Stopping   | its units are being stopped    | gone                                                    |

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::{Cause, Moment, Policy, Reason, Source, Spec};
use crate::config::{Listen, WorkerType};
use crate::route::{Address, Protocol};
use crate::systemd::{Activity, Ending, ServiceState};
use crate::wire::ProbeOutcome;

/// Failed first answers that are put down to a worker which is not yet ready to listen.
const BROKEN_ANSWERS: u32 = 5;

/// How far a generation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Its build runs.
    Building,
    /// Its files and units are made.
    Launching,
    /// It was started and is asked for its health.
    Activating,
    /// It passed; that is being written down.
    Accepting,
    /// It gets the requests.
    Serving,
    /// It gets no new requests and ends those it has.
    Draining,
    /// Its units are being stopped.
    Stopping,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Building => "building",
            Self::Launching => "launching",
            Self::Activating => "activating",
            Self::Accepting => "accepting",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
        })
    }
}

/// New assets for a generation that serves, and the reloads that wait for them.
#[derive(Clone, Debug)]
pub(super) struct Assets {
    pub(super) spec: Spec,
    pub(super) reloads: Vec<u64>,
}

/// One generation of a worker.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) spec: Spec,
    pub(super) source: Source,
    pub(super) cause: Cause,
    /// It has passed its check, now or before.
    pub(super) accepted: bool,
    pub(super) address: Address,
    pub(super) protocol: Protocol,
    pub(super) public: Option<PathBuf>,
    pub(super) stage: Stage,
    pub(super) since: Moment,
    /// Reloads that wait for it.
    pub(super) reloads: Vec<u64>,
    /// When the files were saved that it is made of, if that is why it was made.
    pub(super) saved: Option<Moment>,
    /// How long its build took, if there was something to build.
    pub(super) build_time: Option<Duration>,
    pub(super) service: ServiceState,
    /// The socket is gone: nobody can start it any more.
    pub(super) broken: Option<Reason>,
    /// Why it is being stopped, if it failed.
    pub(super) failed: Option<Reason>,
    /// The health request under way.
    pub(super) probe: Option<u64>,
    /// When the next health request is due.
    pub(super) probe_at: Option<Moment>,
    /// Health requests in a row that failed.
    pub(super) unhealthy: u32,
    /// How the last one failed.
    pub(super) last_answer: Option<Reason>,
    /// When it must have become ready.
    pub(super) ready_by: Option<Moment>,
    /// Its assets changed and are being copied.
    pub(super) assets: Option<Assets>,
    /// They changed again meanwhile: these are next.
    pub(super) next_assets: Option<Assets>,
    /// The first table that lists it as draining.
    pub(super) drain_serial: Option<u64>,
    /// When the proxy applied that table.
    pub(super) drain_began: Option<Moment>,
    /// The proxy has no request of it in flight.
    pub(super) drained: bool,
}

impl Run {
    pub(super) fn new(
        spec: Spec,
        source: Source,
        cause: Cause,
        address: Address,
        stage: Stage,
        now: Moment,
    ) -> Self {
        let public = spec.public.clone();
        Self {
            spec,
            accepted: matches!(source, Source::Own(_)),
            source,
            cause,
            address,
            protocol: Protocol::Http,
            public,
            stage,
            since: now,
            reloads: Vec::new(),
            saved: None,
            build_time: None,
            service: ServiceState::default(),
            broken: None,
            failed: None,
            probe: None,
            probe_at: None,
            unhealthy: 0,
            last_answer: None,
            ready_by: None,
            assets: None,
            next_assets: None,
            drain_serial: None,
            drain_began: None,
            drained: false,
        }
    }

    pub(super) fn enter(&mut self, stage: Stage, now: Moment) {
        self.stage = stage;
        self.since = now;
        self.probe = None;
        self.probe_at = None;
    }

    /// On its way to serving.
    pub(super) fn is_candidate(&self) -> bool {
        self.stage <= Stage::Accepting && self.failed.is_none()
    }

    /// Has a process, or may get one. What is broken has none and gets none.
    pub(super) fn is_live(&self) -> bool {
        self.stage < Stage::Stopping && self.broken.is_none()
    }

    /// From now on it gets no new requests. Hands over the reloads that waited for its assets.
    pub(super) fn retire(&mut self, now: Moment) -> Vec<u64> {
        self.enter(Stage::Draining, now);
        let assets = self
            .assets
            .take()
            .into_iter()
            .chain(self.next_assets.take());
        assets.flat_map(|assets| assets.reloads).collect()
    }

    /// What it is made of once all that is under way has ended.
    pub(super) fn latest(&self) -> &Spec {
        let assets = self.next_assets.as_ref().or(self.assets.as_ref());
        assets.map_or(&self.spec, |assets| &assets.spec)
    }

    /// Takes a new state of its service and tells whether, before it serves, that is the end of it.
    pub(super) fn observe(&mut self, state: ServiceState) -> Option<Reason> {
        let ran = self.service.activity != Activity::Inactive;
        self.service = state;
        let ended = match (self.stage, self.service.activity) {
            (Stage::Activating | Stage::Accepting, Activity::Restarting | Activity::Failed) => true,
            (Stage::Activating, Activity::Inactive) => ran,
            // Behind a socket it may have gone to sleep; without one nothing would wake it.
            (Stage::Accepting, Activity::Inactive) => ran && !self.has_socket(),
            _ => false,
        };
        ended.then(|| self.end())
    }

    /// Whether it was accepted before, and comes back as it was.
    pub(super) fn comes_back(&self) -> bool {
        matches!(self.source, Source::Own(_))
    }

    /// Whether it is started without being asked for: nothing would start one on a port later.
    pub(super) fn starts_at_once(&self) -> bool {
        let settings = &self.spec.settings;
        settings.kind != WorkerType::Static
            && (settings.autostart || settings.listen == Listen::Port)
    }

    /// Whether systemd listens for it and starts it when somebody connects.
    pub(super) fn has_socket(&self) -> bool {
        matches!(self.address, Address::Unix(_))
    }

    /// How its last process ended.
    pub(super) fn end(&self) -> Reason {
        Reason::Ended(match (&self.service.failure, self.service.activity) {
            (Some(failure), _) => failure.clone(),
            (None, Activity::Inactive) => Ending::ExitCode(self.service.exit_code.unwrap_or(0)),
            (None, _) => Ending::Other("it ended".to_owned()),
        })
    }

    /// Takes the answer to a first health request; `Err` when it has failed its check.
    pub(super) fn judge(&mut self, outcome: &ProbeOutcome, now: Moment) -> Result<bool, Reason> {
        self.probe = None;
        let again = |run: &mut Self, wait: Duration, answer: Reason| {
            run.last_answer = Some(answer);
            run.probe_at = Some(now + wait);
            Ok(false)
        };
        match outcome {
            outcome if outcome.is_healthy() => Ok(true),
            // "Not yet", in HTTP's own words.
            ProbeOutcome::Status(503) => {
                again(self, Duration::from_millis(200), Reason::HttpStatus(503))
            }
            ProbeOutcome::Status(status) => Err(Reason::HttpStatus(*status)),
            ProbeOutcome::TimedOut => {
                again(self, Duration::ZERO, Reason::NotReady(now - self.since))
            }
            // A worker on a port refuses connections until it listens; one on a socket breaks them only when it dies, of which
            // systemd tells in a moment and with a better reason.
            ProbeOutcome::Broken(how) => {
                self.unhealthy += 1;
                if self.has_socket() && self.unhealthy > BROKEN_ANSWERS {
                    return Err(Reason::Broken(how.clone()));
                }
                again(self, Duration::from_millis(50), Reason::Broken(how.clone()))
            }
        }
    }

    /// When something about it is due without anything happening; `linked`: whether health can be asked for.
    pub(super) fn due(&self, policy: &Policy, linked: bool) -> Option<Moment> {
        // What can not be sent, or was not answered yet, is not due: the answer, or the proxy's return, is an event of its own.
        let probe = self.probe_at.filter(|_| linked && self.probe.is_none());
        match self.stage {
            Stage::Activating => self.ready_by.into_iter().chain(probe).min(),
            Stage::Serving => probe,
            Stage::Draining => self.drain_over(policy),
            _ => None,
        }
    }

    /// When a draining generation is stopped, as far as that is known.
    pub(super) fn drain_over(&self, policy: &Policy) -> Option<Moment> {
        let wait = if self.drained {
            policy.restart_delay
        } else {
            policy.grace.max(policy.restart_delay)
        };
        self.drain_began.map(|began| began + wait)
    }

    /// When its health is asked for next.
    pub(super) fn health_due(&self, now: Moment) -> Option<Moment> {
        let interval = self.spec.settings.health.interval;
        let asked = self.spec.settings.kind != WorkerType::Static
            && self.broken.is_none()
            && !interval.is_zero();
        asked.then(|| now + interval)
    }

    /// The path its health is asked at.
    pub(super) fn health_path(&self) -> String {
        let settings = &self.spec.settings;
        // It is asked itself, and not by its route.
        settings.health.path.clone().unwrap_or_else(|| {
            let seen = if settings.strip_prefix {
                "/"
            } else {
                settings.route.as_str()
            };
            seen.to_owned()
        })
    }
}
