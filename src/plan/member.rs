//! One instance of a generation: a pair of units and what is known of its health.

use std::time::Duration;

use super::moment::Moment;
use super::reason::Reason;
use crate::route::Address;
use crate::systemd::{Activity, Ending, ServiceState};
use crate::wire::ProbeOutcome;

/// Failed first answers that are put down to a worker which is not yet ready to listen.
const BROKEN_ANSWERS: u32 = 5;

/// How soon systemd shows that it starts a service again. Version 252 calls it "failed" before, and then "inactive", each for a moment.
const RESTART_SEEN: Duration = Duration::from_secs(1);

/// Pause between two health requests to a process that is on its way up.
pub(super) const START_PAUSE: Duration = Duration::from_millis(50);

/// One instance of a generation.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) address: Address,
    pub(super) service: ServiceState,
    /// It has answered its first health request.
    pub(super) ready: bool,
    /// The socket is gone: nobody can start it any more.
    pub(super) broken: bool,
    /// The health request under way.
    pub(super) probe: Option<u64>,
    /// When the next health request is due.
    pub(super) probe_at: Option<Moment>,
    /// Health requests in a row that failed.
    pub(super) unhealthy: u32,
    /// How the last one failed.
    pub(super) last_answer: Option<Reason>,
    /// The user that holds its port, as of its last process.
    user: Option<u32>,
    /// Its port is open to whoever reaches the machine.
    pub(super) open_to_all: bool,
    /// It serves, and its process was started again and has not responded yet: until when that may take.
    pub(super) starting: Option<Moment>,
    /// Its process has ended and nothing was seen of another one: when that is taken for the end.
    pub(super) gone_at: Option<Moment>,
}

impl Member {
    pub(super) fn new(address: Address) -> Self {
        Self {
            address,
            service: ServiceState::default(),
            ready: false,
            broken: false,
            probe: None,
            probe_at: None,
            unhealthy: 0,
            last_answer: None,
            user: None,
            open_to_all: false,
            starting: None,
            gone_at: None,
        }
    }

    /// Takes a new state of its service.
    pub(super) fn observe(&mut self, state: ServiceState) {
        // systemd forgets the user with the process; who takes the port meanwhile is another.
        self.user = state.user.or(self.user);
        self.service = state;
    }

    /// Takes note, while it serves, of how its process comes and goes; `start_timeout`: how long one may take to come up.
    pub(super) fn follow(&mut self, before: Activity, start_timeout: Duration, now: Moment) {
        let activity = self.service.activity;
        let is_down = matches!(activity, Activity::Failed | Activity::Inactive);
        // Without a socket nothing wakes it.
        self.gone_at = match is_down && !self.has_socket() {
            true => self.gone_at.or(Some(now + RESTART_SEEN)),
            false => None,
        };
        match activity {
            Activity::Restarting => self.starting = Some(now + start_timeout),
            Activity::Activating | Activity::Active if before != Activity::Active => {
                self.starting.get_or_insert(now + start_timeout);
                if activity == Activity::Active && self.probe.is_none() {
                    self.probe_at = Some(now);
                }
            }
            // On the way from one process to the next it is both.
            _ if is_down && !self.has_socket() => {}
            Activity::Inactive | Activity::Failed | Activity::Deactivating => self.starting = None,
            Activity::Activating | Activity::Active => {}
        }
    }

    /// Where the proxy finds it. A port is its own user's alone, where workers have one (`own_users`).
    pub(super) fn target(&self, own_users: bool) -> Address {
        match &self.address {
            Address::Tcp(at) if own_users => Address::Held {
                at: *at,
                by: self.user.unwrap_or(u32::MAX),
            },
            address => address.clone(),
        }
    }

    /// Whether systemd listens for it and starts it when somebody connects.
    pub(super) fn has_socket(&self) -> bool {
        matches!(self.address, Address::Unix(_))
    }

    /// When its health is to be asked for; `linked`: whether it can be.
    pub(super) fn probe_due(&self, linked: bool) -> Option<Moment> {
        // What can not be sent, or was not answered yet, is not due: the answer, or the proxy's return, is an event of its own.
        self.probe_at.filter(|_| linked && self.probe.is_none())
    }

    /// How its last process ended.
    pub(super) fn end(&self) -> Reason {
        let ending = match (&self.service.failure, self.service.activity) {
            (Some(failure), _) => failure.clone(),
            (None, Activity::Inactive) => Ending::ExitCode(self.service.exit_code.unwrap_or(0)),
            (None, _) => Ending::Other("it ended".to_owned()),
        };
        match &self.last_answer {
            // It ended because of that, as likely as not.
            Some(Reason::Taken(how)) => Reason::Taken(format!("{how}; its own process: {ending}")),
            _ => Reason::Ended(ending),
        }
    }

    /// Takes the answer to a first health request, which tells whether it is ready; `Err` when it has failed its check.
    pub(super) fn judge(
        &mut self,
        outcome: &ProbeOutcome,
        since: Moment,
        now: Moment,
    ) -> Result<(), Reason> {
        self.probe = None;
        let again = |member: &mut Self, wait: Duration, answer: Reason| {
            member.last_answer = Some(answer);
            member.probe_at = Some(now + wait);
            Ok(())
        };
        match outcome {
            outcome if outcome.is_healthy() => {
                (self.ready, self.last_answer) = (true, None);
                Ok(())
            }
            // "Not yet", in HTTP's own words.
            ProbeOutcome::Status(503) => {
                again(self, Duration::from_millis(200), Reason::HttpStatus(503))
            }
            ProbeOutcome::Status(status) => Err(Reason::HttpStatus(*status)),
            ProbeOutcome::TimedOut => again(self, Duration::ZERO, Reason::NotReady(now - since)),
            ProbeOutcome::Taken(how) => again(self, START_PAUSE, Reason::Taken(how.clone())),
            // A worker on a port refuses connections until it listens; one on a socket breaks them only when it dies, of which
            // systemd tells in a moment and with a better reason.
            // Until `start_timeout` is over the proxy may have what it lacks.
            ProbeOutcome::NotAsked(why) => again(
                self,
                Duration::from_millis(200),
                Reason::Broken(why.clone()),
            ),
            ProbeOutcome::Broken(how) => {
                self.unhealthy += 1;
                if self.has_socket() && self.unhealthy > BROKEN_ANSWERS {
                    return Err(Reason::Broken(how.clone()));
                }
                again(self, START_PAUSE, Reason::Broken(how.clone()))
            }
        }
    }

    /// How it is, in a word.
    pub(super) fn state(&self) -> &'static str {
        match self.service.activity {
            _ if self.broken => "failed",
            Activity::Active => "running",
            Activity::Activating => "starting",
            Activity::Restarting => "restarting",
            Activity::Failed => "failed",
            Activity::Deactivating => "stopping",
            Activity::Inactive => "sleeping",
        }
    }
}
