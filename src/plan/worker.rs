//! One worker: which of its generations serves, which is on its way, when the next try is due.

use crate::route::RouteSettings;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::budget;
use super::event::Forbidden;
use super::moment::Moment;
use super::reason::{Failure, Reason};
use super::run::{Run, Stage};
use super::spec::{Cause, Source, Spec};
use crate::config::{WorkerSettings, WorkerType};
use crate::inventory::Latest;
use crate::names::{Generation, WorkerName};
use crate::route::{
    Flow, Halt, Redirect, Route, RoutePath, Target, Timeouts, Trouble, Upstream, Work,
};

/// First and longest wait before a worker that could not start is tried again.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(60);
/// Why there is no answer yet.
const STARTING: &str = "it is starting";
/// A generation that has served this long has recovered from what came before it.
const RECOVERED: Duration = Duration::from_secs(60);

/// Most characters of a reason that clients are told.
const LONGEST_REASON: usize = 2000;

/// So many generations in a row are replaced as soon as they have answered their `max_requests`; those after them less and less often.
const SPENT_AT_ONCE: u32 = 3;

/// Most generations of a worker that live at the same time: one that gets the requests, and one that comes or goes.
pub(super) const LIVE: usize = 2;

/// A generation to be made as soon as no other is on its way.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) spec: Spec,
    pub(super) source: Source,
    pub(super) cause: Cause,
    pub(super) build: bool,
    pub(super) reloads: Vec<u64>,
    /// When its files were saved, if that is why it is to be made.
    pub(super) saved: Option<Moment>,
    /// Since when it waits, or what it took the place of.
    pub(super) since: Moment,
}

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) name: WorkerName,
    pub(super) runs: BTreeMap<Generation, Run>,
    /// The highest number given out.
    pub(super) newest: Generation,
    pub(super) waiting: Option<Candidate>,
    /// The accepted snapshot it was started from, until a generation is accepted: what is tried again while nothing serves.
    pub(super) snapshot: Option<(Generation, Spec)>,
    /// What of its directory was tried last: in production only a reload tries anything else.
    pub(super) tried: Option<Spec>,
    /// Why nothing of it serves, while nothing does.
    pub(super) trouble: Option<Reason>,
    pub(super) last_failure: Option<(Failure, Moment)>,
    /// Why its serving generation should be replaced although its files are the same.
    pub(super) replace: Option<String>,
    pub(super) tries: u32,
    pub(super) retry_at: Option<Moment>,
    /// What `retry_at` was set to, from then: told to clients as Retry-After.
    pub(super) retry_after: Option<Duration>,
    /// Its directory is gone: what is left of it drains.
    pub(super) removed: bool,
    pub(super) restless: Restless,
    /// Where it may not be any more, whichever of its generations wants it.
    pub(super) forbidden: Vec<Forbidden>,
}

/// Development: whether the worker's own build command, or its program, changes files that are watched, so that each build or start would
/// begin the next one.
#[derive(Debug, Default)]
pub(super) struct Restless {
    /// When its last build ended, however.
    pub(super) ended: Option<Moment>,
    /// How many builds in a row were begun by a change that came while the one before ran.
    pub(super) in_a_row: u32,
    /// What is built when a pause is over.
    pub(super) waits: Option<(Moment, Spec)>,
    /// The file whose change began the last generation as the one before started, and how many in a row.
    pub(super) written: Option<(String, u32)>,
    /// The file that seems to be the program's, and until when it must not change any more.
    pub(super) suspect: Option<(Moment, Latest)>,
    /// The files of which it was said that the program writes them.
    pub(super) told: BTreeSet<String>,
}

/// Whether what holds a route while nothing serves there has no more than each worker's own share of the table. Without names of hosts and
/// redirects it has.
fn is_short(settings: &WorkerSettings) -> bool {
    let hosts = settings
        .on_route
        .hosts
        .iter()
        .map(|host| host.as_str().len() + 8);
    let redirects = settings.on_route.redirects.iter().map(Redirect::longest);
    hosts.chain(redirects).sum::<usize>() < budget::OWN / 2
}

impl Worker {
    pub(super) fn new(name: WorkerName) -> Self {
        Self {
            name,
            runs: BTreeMap::new(),
            newest: Generation(0),
            waiting: None,
            snapshot: None,
            tried: None,
            trouble: None,
            last_failure: None,
            replace: None,
            tries: 0,
            retry_at: None,
            retry_after: None,
            removed: false,
            restless: Restless::default(),
            forbidden: Vec::new(),
        }
    }

    pub(super) fn serving(&self) -> Option<(Generation, &Run)> {
        self.runs
            .iter()
            .rev()
            .find(|(_, run)| run.stage == Stage::Serving)
            .map(|(number, run)| (*number, run))
    }

    /// The generation that gets the requests: one that is about to be accepted, or else the one that serves.
    pub(super) fn fronting(&self) -> Option<(Generation, &Run)> {
        let mut newest_first = self.runs.iter().rev();
        let found = newest_first.find(|(_, run)| run.is_fronting());
        found.map(|(number, run)| (*number, run))
    }

    pub(super) fn candidate(&self) -> Option<Generation> {
        self.runs
            .iter()
            .find(|(_, run)| run.is_candidate())
            .map(|(number, _)| *number)
    }

    /// What it is made of once all that is on its way serves.
    pub(super) fn latest(&self) -> Option<&Spec> {
        let waiting = self.waiting.as_ref().map(|waiting| &waiting.spec);
        let candidate = self.candidate().map(|number| &self.runs[&number].spec);
        let serving = || self.serving().map(|(_, run)| run.latest());
        waiting.or(candidate).or_else(serving)
    }

    /// Whether what lies there does not serve because its build failed.
    pub(super) fn has_failed_to_build(&self) -> bool {
        let failure = self.failure_of_what_lies_there();
        failure.is_some_and(|failure| matches!(failure.reason, Reason::Build(..)))
    }

    /// Whether nothing of it serves or is on its way to serving.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_none() && self.candidate().is_none() && self.serving().is_none()
    }

    /// Whether no other generation may begin yet: one is on its way, or the one before the serving one still drains.
    pub(super) fn is_full(&self) -> bool {
        let live = self.runs.values().filter(|run| run.is_live()).count();
        self.candidate().is_some() || live >= LIVE
    }

    /// Since when reloads wait for a drain that can not begin, or for a generation that is not accepted, because the proxy does not take
    /// the table.
    pub(super) fn held_up(&self) -> Option<Moment> {
        let waiting = self.waiting.as_ref().filter(|_| self.is_full())?;
        let held = |run: &&Run| match run.stage {
            Stage::Draining => run.drain_began.is_none(),
            stage => stage == Stage::Switching,
        };
        let since = self.runs.values().filter(held).map(|run| run.since).max()?;
        (!waiting.reloads.is_empty()).then(|| since.max(waiting.since))
    }

    /// The generations whose files are in use, or will be: those that are there, and those that others are made from.
    pub(super) fn needed(&self) -> Vec<Generation> {
        let waiting = self.waiting.iter().map(|waiting| waiting.source);
        let launching = self.runs.values().filter(|run| run.is_candidate());
        let sources = waiting.chain(launching.map(|run| run.source));
        let sources = sources.filter_map(|source| match source {
            Source::Directory => None,
            Source::SameAs(generation) | Source::Own(generation) => Some(generation),
        });
        self.runs.keys().copied().chain(sources).collect()
    }

    /// Puts a generation in the queue of one. It takes the place, and the reloads, of one that has not begun.
    pub(super) fn enqueue(&mut self, mut candidate: Candidate) {
        if let Some(earlier) = self.waiting.take() {
            candidate.reloads.extend(earlier.reloads);
            candidate.build |= earlier.build;
            candidate.saved = candidate.saved.or(earlier.saved);
            candidate.since = earlier.since;
        }
        self.waiting = Some(candidate);
    }

    /// Sets the next try, further away each time; `since`: how long what failed had served before.
    pub(super) fn schedule_retry(&mut self, served: Duration, now: Moment) {
        if served >= RECOVERED {
            self.tries = 0;
        }
        let wait = RETRY_FIRST
            .saturating_mul(1 << self.tries.min(6))
            .min(RETRY_MOST);
        self.tries += 1;
        self.retry_at = Some(now + wait);
        self.retry_after = Some(wait);
    }

    /// Its serving generation, which has `served` so long, has answered its `max_requests`. We have only the proxy's word for it, which
    /// must not keep us starting and stopping generations.
    pub(super) fn is_spent(&mut self, served: Duration, now: Moment) {
        self.replace = Some("it has answered its max_requests".to_owned());
        let at_once = self.tries < SPENT_AT_ONCE || served >= RECOVERED;
        self.schedule_retry(served, now);
        if at_once {
            (self.retry_at, self.retry_after) = (Some(now), None);
        }
    }

    /// Its entry in the route table; `None` when it has none (any more). `own_users`: each worker is a user of its own.
    pub(super) fn route(&self, own_users: bool) -> Option<Route> {
        // What was never tried has no claim to a place yet.
        if self.removed || self.is_new() {
            return None;
        }
        let unavailable = |mut reason: String| Target::Unavailable {
            reason: {
                let end = reason.char_indices().nth(LONGEST_REASON);
                reason.truncate(end.map_or(reason.len(), |(at, _)| at));
                reason
            },
            retry_after: self.retry_after,
            awaited: None,
        };
        let fronting = self.fronting().filter(|(_, run)| !run.withheld);
        let Some((generation, run)) = fronting else {
            // Nothing serves: the route is held by whatever is known of it, so that the answer can say why.
            let spec = self.runs.values().next_back().map(|run| &run.spec);
            let settings = spec.or(self.tried.as_ref()).map(|spec| &spec.settings);
            let settings = settings.filter(|settings| is_short(settings));
            if settings.is_some_and(|settings| self.is_forbidden(settings)) {
                return None;
            }
            let patience = Duration::from_secs(30);
            return Some(Route {
                path: settings.map_or_else(
                    || RoutePath::of_worker(&self.name),
                    |settings| settings.route.clone(),
                ),
                settings: settings.map_or_else(RouteSettings::default, |of| of.on_route.clone()),
                worker: self.name.clone(),
                public: None,
                state: None,
                target: match (self.awaited(), &self.trouble) {
                    (Some(spec), _) => Target::Unavailable {
                        reason: STARTING.to_owned(),
                        retry_after: self.retry_after.or(Some(RETRY_FIRST)),
                        awaited: Some(spec.settings.health.start_timeout),
                    },
                    (None, Some(reason)) => unavailable(reason.to_string()),
                    (None, None) => unavailable(STARTING.to_owned()),
                },
                timeouts: Timeouts {
                    read: patience,
                    write: patience,
                    idle: patience,
                },
                flow: settings.map_or_else(Flow::default, |settings| settings.limits.flow),
                halt: Halt::default(),
                access_log: settings.is_some_and(|settings| settings.limits.access_log),
                scripts: false,
                compression: false,
                sticky: None,
                work: None,
            });
        };
        if self.is_forbidden(&run.spec.settings) {
            return None;
        }
        Some(self.route_of(generation, run, own_users))
    }

    fn is_forbidden(&self, settings: &WorkerSettings) -> bool {
        let mut places = self.forbidden.iter();
        places.any(|(path, hosts, _)| *path == settings.route && *hosts == settings.on_route.hosts)
    }

    /// Its entry in the route table while this generation gets the requests; `own_users` as for [`Self::route`].
    pub(super) fn route_of(&self, generation: Generation, run: &Run, own_users: bool) -> Route {
        let unavailable = |reason: String| Target::Unavailable {
            reason,
            retry_after: self.retry_after,
            awaited: None,
        };
        let settings = &run.spec.settings;
        let mut instances = run.targets(own_users);
        let first = instances.values().next().cloned();
        if run.pairs() == 1 {
            instances.clear();
        }
        let target = match (&run.broken, first) {
            (Some(reason), _) => unavailable(format!("it ended again and again: {reason}")),
            _ if settings.kind == WorkerType::Static => Target::Files,
            (None, None) => unavailable(STARTING.to_owned()),
            (None, Some(address)) => Target::Serving(Upstream {
                generation,
                address,
                instances,
                protocol: run.protocol.clone(),
                max_requests: settings.limits.max_requests,
                starting: run.starting(),
            }),
        };
        Route {
            path: settings.route.clone(),
            settings: settings.on_route.clone(),
            worker: self.name.clone(),
            public: run.public.clone(),
            state: None,
            target,
            timeouts: settings.limits.timeouts,
            flow: settings.limits.flow,
            halt: Halt::default(),
            access_log: settings.limits.access_log,
            scripts: settings.kind == WorkerType::Php,
            compression: settings.limits.compression,
            sticky: settings.sticky.clone(),
            work: None,
        }
    }

    /// What is on its way while nothing serves, unless it is only tried again after it has failed.
    fn awaited(&self) -> Option<&Spec> {
        // One that has failed is told of when it has been stopped, and until then nothing is known to be wrong.
        let coming = |run: &&Run| run.is_candidate() || run.failed.is_some();
        let candidate = self.runs.values().rev().find(coming);
        let candidate = candidate.map(|run| (&run.spec, run.cause, run.failed.is_some()));
        let waiting = self.waiting.as_ref();
        let waiting = waiting.map(|waiting| (&waiting.spec, waiting.cause, false));
        let (spec, cause, fails) = candidate.or(waiting)?;
        let has_failed = !matches!(self.trouble, None | Some(Reason::Untried));
        let is_again = fails || matches!(cause, Cause::Retry | Cause::Replacement);
        (!has_failed || !is_again).then_some(spec)
    }

    /// How far it is with what its developer has saved.
    pub(super) fn work(&self) -> Work {
        let serving = self.fronting();
        let candidate = self.runs.values().find(|run| run.is_candidate());
        let fingerprint = serving.map(|(_, run)| &run.spec.fingerprint);
        Work {
            // What gets the requests already is not waited for.
            pending: self.waiting.is_some() || candidate.is_some_and(|run| !run.is_fronting()),
            styles: fingerprint.map_or_else(String::new, |of| of.styles.clone()),
            files: fingerprint.map_or_else(String::new, |of| of.other_assets.clone()),
            trouble: self.failure_of_what_lies_there().map(|failure| {
                let reason = failure.reason.to_string();
                let mut lines = reason.lines().map(str::to_owned);
                Trouble {
                    reason: lines.next().unwrap_or_default(),
                    log: lines.chain(failure.log.iter().cloned()).collect(),
                }
            }),
        }
    }

    /// The last failure, unless what came after it serves, or it was one of a process that systemd has started again.
    pub(super) fn failure_of_what_lies_there(&self) -> Option<&Failure> {
        let (failure, at) = self.last_failure.as_ref()?;
        let is_over = self.fronting().is_some_and(|(generation, run)| {
            let restarted = failure.generation == Some(generation) && run.broken.is_none();
            restarted || *at < run.since
        });
        (!is_over).then_some(failure)
    }

    /// Whether its files wait for the first reload.
    fn is_new(&self) -> bool {
        self.runs.is_empty() && self.waiting.is_none() && self.trouble == Some(Reason::Untried)
    }

    /// `serving`, `starting`, `sleeping`, `files`, `new`, `failed`, `forbidden` or `removed`.
    pub(super) fn state(&self) -> &'static str {
        match self.serving() {
            _ if self.removed => "removed",
            Some((_, run)) if run.broken.is_some() => "failed",
            Some((_, run)) if self.is_forbidden(&run.spec.settings) => "forbidden",
            Some((_, run)) if run.spec.settings.kind == WorkerType::Static => "files",
            Some((_, run)) if run.sleeps() => "sleeping",
            Some(_) => "serving",
            None if self.candidate().is_some() || self.waiting.is_some() => "starting",
            None if self.is_new() => "new",
            None => "failed",
        }
    }
}
