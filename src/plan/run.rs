//! One generation and its stages.
//!
//! | stage      | what                           | leads to                                                |
//! |------------|--------------------------------|---------------------------------------------------------|
//! | Building   | its build runs                 | Launching; gone (build failed, removed, saved again)    |
//! | Launching  | files and units are made       | Activating, or Switching without a process, or Serving  |
//! |            |                                | if it was accepted before the last boot; Stopping       |
//! |            |                                | (refused, died, removed meanwhile)                      |
//! | Activating | first health requests run      | Switching; Stopping (unhealthy, died, too late)         |
//! | Switching  | the proxy is handed the table  | Accepting (applied); Draining (died, removed)           |
//! |            | in which it gets the requests  |                                                         |
//! | Accepting  | the mark "accepted" is written | Serving; Draining (refused, died, removed)              |
//! | Serving    | gets the requests              | Draining (replaced, removed); Stopping (all stop)       |
//! | Draining   | ends what it has begun         | Stopping (drained, or its grace is over)                |
//! | Stopping   | its units are being stopped    | gone                                                    |

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::member::Member;
use super::moment::Moment;
use super::policy::Policy;
use super::reason::Reason;
use super::spec::{Cause, Source, Spec};
use crate::config::WorkerType;
use crate::route::{Address, Protocol};
use crate::systemd::{Activity, ServiceState};
use crate::wire::ProbeOutcome;

/// How far a generation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Its build runs.
    Building,
    /// Its files and units are made.
    Launching,
    /// It was started and is asked for its health.
    Activating,
    /// It passed; the proxy is to send it the requests.
    Switching,
    /// It gets the requests; that it passed is being written down.
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
            Self::Switching => "switching",
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
    /// Its instances, by number: all that were made, and of one that was adopted those that were there.
    pub(super) members: BTreeMap<u8, Member>,
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
    /// No instance of it can be started any more.
    pub(super) broken: Option<Reason>,
    /// Why it is being stopped, if it failed.
    pub(super) failed: Option<Reason>,
    /// The first table that has it before it is accepted.
    pub(super) switch_serial: Option<u64>,
    /// The proxy may send it requests, or have sent it some, although it is not accepted.
    pub(super) exposed: bool,
    /// It has answered its `max_requests` before it was accepted.
    pub(super) spent: bool,
    /// Bytes of its part of the route table.
    pub(super) part: usize,
    /// There is no room for that part: it was accepted when there was.
    pub(super) withheld: bool,
    /// When it passed its check.
    pub(super) ready: Option<Moment>,
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
        members: BTreeMap<u8, Member>,
        stage: Stage,
        now: Moment,
    ) -> Self {
        let public = spec.public.clone();
        Self {
            spec,
            accepted: matches!(source, Source::Own(_)),
            source,
            cause,
            members,
            protocol: Protocol::Http,
            public,
            stage,
            since: now,
            reloads: Vec::new(),
            saved: None,
            build_time: None,
            broken: None,
            failed: None,
            switch_serial: None,
            exposed: false,
            spent: false,
            part: 0,
            withheld: false,
            ready: None,
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
        if stage == Stage::Switching {
            self.ready = Some(now);
        }
        self.ask_at(None);
    }

    /// Forgets the health requests under way and sets when the next are due.
    pub(super) fn ask_at(&mut self, at: Option<Moment>) {
        for member in self.members.values_mut() {
            member.probe = None;
            member.probe_at = at.filter(|_| !member.broken);
        }
    }

    /// On its way to serving.
    pub(super) fn is_candidate(&self) -> bool {
        self.stage <= Stage::Accepting && self.failed.is_none()
    }

    /// Gets the requests, or will with the next table.
    pub(super) fn is_fronting(&self) -> bool {
        matches!(
            self.stage,
            Stage::Switching | Stage::Accepting | Stage::Serving
        )
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

    /// Takes a new state of one of its services and tells whether, before it serves, that is the end of it.
    pub(super) fn observe(&mut self, number: u8, state: ServiceState) -> Option<Reason> {
        let stage = self.stage;
        let member = self.members.get_mut(&number)?;
        let ran = member.service.activity != Activity::Inactive;
        member.observe(state);
        let ended = match (stage, member.service.activity) {
            (
                Stage::Activating | Stage::Switching | Stage::Accepting,
                Activity::Restarting | Activity::Failed,
            ) => true,
            // What has answered may have gone to sleep behind its socket; without one nothing would wake it.
            (Stage::Activating | Stage::Switching | Stage::Accepting, Activity::Inactive) => {
                ran && !(member.ready && member.has_socket())
            }
            _ => false,
        };
        ended.then(|| self.end(number))
    }

    /// Whether it was accepted before, and comes back as it was.
    pub(super) fn comes_back(&self) -> bool {
        matches!(self.source, Source::Own(_))
    }

    /// How the last process of one of its instances ended.
    pub(super) fn end(&self, number: u8) -> Reason {
        let member = self.members.get(&number);
        let gone = || Reason::Refused("its units are not there".to_owned());
        self.of(number, member.map_or_else(gone, Member::end))
    }

    /// What happened to one of its instances, which is named where there are several.
    pub(super) fn of(&self, number: u8, reason: Reason) -> Reason {
        match self.pairs() {
            1 => reason,
            _ => Reason::Instance(number, Box::new(reason)),
        }
    }

    /// How many pairs of units it consists of when nothing is missing.
    pub(super) fn pairs(&self) -> u8 {
        self.spec.settings.instances()
    }

    /// The first of its pairs that can not be started.
    pub(super) fn lacks(&self) -> Option<u8> {
        let stands = |member: &Member| !member.broken;
        (1..=self.pairs()).find(|number| !self.members.get(number).is_some_and(stands))
    }

    /// Where requests can go, by the instances' numbers.
    pub(super) fn addresses(&self) -> BTreeMap<u8, Address> {
        let stands = self.members.iter().filter(|(_, member)| !member.broken);
        stands
            .map(|(number, member)| (*number, member.address.clone()))
            .collect()
    }

    /// The same, as the proxy is told of them.
    pub(super) fn targets(&self, own_users: bool) -> BTreeMap<u8, Address> {
        let stands = self.members.iter().filter(|(_, member)| !member.broken);
        stands
            .map(|(number, member)| (*number, member.target(own_users)))
            .collect()
    }

    /// Whether no process of it runs, and a request would start one.
    pub(super) fn sleeps(&self) -> bool {
        let inactive = |member: &Member| member.service.activity == Activity::Inactive;
        self.members.values().all(inactive)
    }

    /// Takes the answer to a first health request; whether all of its instances are ready, or `Err` when it has failed its check.
    pub(super) fn judge(
        &mut self,
        number: u8,
        outcome: &ProbeOutcome,
        now: Moment,
    ) -> Result<bool, Reason> {
        let since = self.since;
        let Some(member) = self.members.get_mut(&number) else {
            return Ok(false);
        };
        let judged = member.judge(outcome, since, now);
        judged.map_err(|reason| self.of(number, reason))?;
        Ok(self.members.values().all(|member| member.ready))
    }

    /// How long a process of it that is on its way up may still take, if one is.
    pub(super) fn start_left(&self, number: u8, now: Moment) -> Option<Duration> {
        let until = self.members.get(&number)?.starting?;
        Some(until.saturating_sub(now)).filter(|left| !left.is_zero())
    }

    /// Whether a process of it is on its way up, and how long a request may wait for that.
    pub(super) fn starting(&self) -> Option<Duration> {
        let starts = self
            .members
            .values()
            .any(|member| member.starting.is_some());
        starts.then_some(self.spec.settings.health.start_timeout)
    }

    /// The instances whose health is to be asked for now; `linked`: whether it can be.
    pub(super) fn probes_due(&self, now: Moment, linked: bool) -> Vec<u8> {
        let is_due = |member: &Member| member.probe_due(linked).is_some_and(|at| at <= now);
        let due = self.members.iter().filter(|(_, member)| is_due(member));
        due.map(|(number, _)| *number).collect()
    }

    /// When something about it is due without anything happening; `linked`: whether health can be asked for.
    pub(super) fn due(&self, policy: &Policy, linked: bool) -> Option<Moment> {
        let members = self.members.values();
        let probe = members.filter_map(|member| member.probe_due(linked)).min();
        let gone = self.members.values().filter_map(|member| member.gone_at);
        match self.stage {
            Stage::Activating => self.ready_by.into_iter().chain(probe).min(),
            Stage::Serving => gone.chain(probe).min(),
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

    /// When the health of its instances is asked for next.
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
            let seen = if settings.on_route.strip_prefix {
                "/"
            } else {
                settings.route.as_str()
            };
            seen.to_owned()
        })
    }
}
