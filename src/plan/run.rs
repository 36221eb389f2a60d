//! One generation and its stages.
//!
//! | stage      | what                           | leads to                                                |
//! |------------|--------------------------------|---------------------------------------------------------|
//! | Building   | its build runs                 | Launching; gone (build failed)                          |
//! | Launching  | files and units are made       | Activating; Stopping (refused)                          |
//! | Activating | its first health request runs  | Accepting; Stopping (unhealthy, died, too late)         |
//! | Accepting  | the mark "accepted" is written | Serving; Stopping (refused)                             |
//! | Serving    | gets the requests              | Draining (replaced, removed); Stopping (all stop)       |
//! | Draining   | ends what it has begun         | Stopping (drained, or its grace is over)                |
//! | Stopping   | its units are being stopped    | gone                                                    |

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::{Moment, Reason, Source, Spec};
use crate::route::Address;
use crate::systemd::{Activity, Ending, ServiceState};

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

/// One generation of a worker.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) spec: Spec,
    pub(super) source: Source,
    pub(super) address: Address,
    pub(super) public: Option<PathBuf>,
    pub(super) stage: Stage,
    pub(super) since: Moment,
    /// Reloads that wait for it.
    pub(super) reloads: Vec<u64>,
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
    pub(super) assets: Option<Spec>,
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
        address: Address,
        stage: Stage,
        now: Moment,
    ) -> Self {
        let public = spec.public.clone();
        Self {
            spec,
            source,
            address,
            public,
            stage,
            since: now,
            reloads: Vec::new(),
            service: ServiceState::default(),
            broken: None,
            failed: None,
            probe: None,
            probe_at: None,
            unhealthy: 0,
            last_answer: None,
            ready_by: None,
            assets: None,
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
        self.stage <= Stage::Accepting
    }

    /// Takes a new state of its service and tells whether, during activation, that is the end of it.
    pub(super) fn observe(&mut self, state: ServiceState) -> Option<Reason> {
        let ran = !matches!(self.service.activity, Activity::Inactive);
        self.service = state;
        if self.stage != Stage::Activating {
            return None;
        }
        match self.service.activity {
            Activity::Restarting | Activity::Failed => {
                Some(self.service.failure.clone().map_or_else(
                    || Reason::Ended(Ending::Other("it ended".to_owned())),
                    Reason::Ended,
                ))
            }
            Activity::Inactive if ran => Some(Reason::Ended(Ending::ExitCode(
                self.service.exit_code.unwrap_or(0),
            ))),
            _ => None,
        }
    }

    /// Takes the answer to a first health request; `Err` when it has failed its check.
    pub(super) fn judge(
        &mut self,
        outcome: &crate::wire::ProbeOutcome,
        now: Moment,
    ) -> Result<bool, Reason> {
        use crate::wire::ProbeOutcome;
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
                if matches!(self.address, Address::Unix(_)) && self.unhealthy > BROKEN_ANSWERS {
                    return Err(Reason::Broken(how.clone()));
                }
                again(self, Duration::from_millis(50), Reason::Broken(how.clone()))
            }
        }
    }

    /// When something about it is due without anything happening.
    pub(super) fn due(&self, policy: &super::Policy) -> Option<Moment> {
        match self.stage {
            Stage::Activating => self.ready_by.into_iter().chain(self.probe_at).min(),
            Stage::Serving => self.probe_at,
            Stage::Draining => self.drain_over(policy),
            _ => None,
        }
    }

    /// When a draining generation is stopped, as far as that is known.
    pub(super) fn drain_over(&self, policy: &super::Policy) -> Option<Moment> {
        let wait = if self.drained {
            policy.restart_delay
        } else {
            policy.grace.max(policy.restart_delay)
        };
        self.drain_began.map(|began| began + wait)
    }

    /// The path its health is asked at.
    pub(super) fn health_path(&self) -> String {
        let settings = &self.spec.settings;
        settings
            .health
            .path
            .clone()
            .unwrap_or_else(|| settings.route.as_str().to_owned())
    }
}
