//! What a scan has found on the disk is taken to the fleet: at the start, with a reload, a rollback, or as files are saved.

use std::collections::{BTreeMap, BTreeSet};

use super::driver::Driver;
use super::kept::Kept;
use super::progress::Reporter;
use super::report::worker_outcome;
use super::requests::{Caller, Refused, ReloadRequest, RollbackRequest, Which};
use super::rollback::to_roll_back_to;
use super::scan::{AcceptedGenerations, Recalled, Scan, ScanError};
use super::scans::Trigger;
use crate::config::{Mode, Settings};
use crate::messages;
use crate::names::{Generation, Instance, WorkerName};
use crate::plan::{Event, Fleet, Look, Reason, Spec};

/// What was deployed so far.
pub(super) struct Deployments {
    kept: Kept,
    reporter: Reporter,
    /// The first scan is done: what was accepted comes back, whatever is deployed by now.
    is_started: bool,
    /// What was reported of a server.yaml that is wrong, so that it is not repeated with each file that is saved.
    reported_wrong: Option<String>,
    /// What lies among workers and is none, as of the last scan.
    left_out: Vec<String>,
}

impl Deployments {
    pub(super) fn new(kept: Kept, reporter: Reporter) -> Self {
        Self {
            kept,
            reporter,
            is_started: false,
            reported_wrong: None,
            left_out: Vec::new(),
        }
    }

    /// What lies among workers and is none, as of the last scan: each in a sentence with what to do.
    pub(super) fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Whether the first scan is done.
    pub(super) fn is_started(&self) -> bool {
        self.is_started
    }

    /// These settings were taken over: they are what the next manager starts with should server.yaml be wrong by then.
    pub(super) fn settings_taken_over(&self, driver: &mut Driver, settings: &Settings) {
        self.reporter.report_grace(settings.shutdown_grace);
        driver.aside.spawn(self.kept.keep(settings));
    }

    /// Takes what a scan has found to the fleet, as what triggered it wants.
    pub(super) fn scanned(&mut self, driver: &mut Driver, trigger: Trigger, mut scan: Scan) {
        let known = driver.specs().iter();
        let known = known.map(|(instance, spec)| (&instance.worker, &*spec.directory));
        scan.add_out_of_reach(known);
        // Whoever watches files is told which.
        if driver.performer.mode == Mode::Development {
            self.reporter.report_watched(scan.watched());
        }
        self.report_left_out(std::mem::take(&mut scan.left_out));
        follow_removed(driver, &mut scan);
        match trigger {
            Trigger::Start => self.start(driver, scan),
            Trigger::Retry(name) => looked(driver, Look::Retry(name), scan.workers),
            Trigger::Cleanup => {}
            Trigger::Saving => begin_builds(driver, &scan),
            Trigger::Saved(at) => self.saved(driver, scan, at),
            Trigger::Reload(request) => self.reload(driver, scan, request),
            Trigger::Rollback(request) => self.roll_back(driver, &scan, request),
        }
    }

    /// What lies on disk could not be scanned.
    pub(super) fn scan_failed(&mut self, driver: &mut Driver, trigger: Trigger, error: ScanError) {
        match trigger {
            Trigger::Reload(ReloadRequest { caller, .. })
            | Trigger::Rollback(RollbackRequest { caller, .. }) => {
                tracing::error!(
                    message_id = messages::RELOAD_REFUSED,
                    "reload refused, the running configuration stays:\n{error}"
                );
                caller.answer(Err(Refused::Scan(error)));
            }
            Trigger::Saving | Trigger::Cleanup => {}
            Trigger::Saved(_) => self.report_wrong(Some(error.to_string())),
            Trigger::Start => {
                tracing::error!(
                    "the workers can not be read; tried again until they can:\n{error}"
                );
            }
            Trigger::Retry(name) => {
                // It stays to be tried, as if it alone were wrong.
                let reason = Reason::Refused(error.to_string());
                let workers = BTreeMap::from([(name.clone(), Err(reason))]);
                looked(driver, Look::Retry(name), workers);
            }
        }
    }

    fn start(&mut self, driver: &mut Driver, mut scan: Scan) {
        // Where nothing was ever accepted there is nothing to protect, and who installs a server wants to see it work.
        let (snapshots, untried) = match scan.recalled.take() {
            Some(recalled) => {
                let Recalled {
                    accepted: mut snapshots,
                    is_fresh,
                    generations,
                } = *recalled;
                for (_, spec) in snapshots.values_mut() {
                    let of = &mut spec.settings;
                    of.limits = scan.settings.lowered(&of.route, &of.limits).0;
                }
                let known = snapshots.iter();
                scan.add_out_of_reach(known.map(|(name, (_, spec))| (name, &*spec.directory)));
                clear_away_unaccepted(driver, generations, &snapshots);
                (snapshots, is_fresh)
            }
            None => (BTreeMap::new(), true),
        };
        self.is_started = true;
        let comes_back: Vec<Spec> = snapshots.values().map(|(_, spec)| spec.clone()).collect();
        let ruling = scan.ruling(driver.specs().iter(), comes_back.iter(), Vec::new());
        driver.step(Event::Looked {
            look: Look::Start { untried },
            workers: scan.workers,
            snapshots,
        });
        driver.step(Event::Ruled(Box::new(ruling)));
    }

    /// What was saved is taken over. A server.yaml that is wrong holds up no worker.
    fn saved(&mut self, driver: &mut Driver, scan: Scan, at: tokio::time::Instant) {
        self.report_wrong(scan.wrong.as_ref().map(ToString::to_string));
        if !self.is_started {
            return self.start(driver, scan);
        }
        if scan.settings != driver.settings {
            self.follow(driver, &scan);
        }
        let at = driver.moment(at);
        looked(driver, Look::Saved(at), scan.workers);
        // What was begun and is not wanted.
        driver.builds.give_up_early();
    }

    /// Says what is left out, once.
    fn report_left_out(&mut self, left_out: Vec<String>) {
        let is_new = |sentence: &&String| !self.left_out.contains(sentence);
        for sentence in left_out.iter().filter(is_new) {
            tracing::warn!("{sentence}");
        }
        self.left_out = left_out;
    }

    /// Says what keeps saved files from being taken over, once.
    fn report_wrong(&mut self, wrong: Option<String>) {
        if let Some(wrong) = wrong.as_ref().filter(|_| wrong != self.reported_wrong) {
            tracing::error!("what was saved is not taken over, all goes on as before:\n{wrong}");
        }
        self.reported_wrong = wrong;
    }

    /// Goes by the server's settings as they are now.
    fn follow(&self, driver: &mut Driver, scan: &Scan) {
        self.settings_taken_over(driver, &scan.settings);
        // What could not be had may be free by now.
        let publish = self.reporter.front().problem.is_some();
        driver.configure(scan.settings.clone(), publish);
    }

    /// Takes what a scan for somebody who asked has brought: a number for the request, and the server's settings as they are now.
    fn take_over(&mut self, driver: &mut Driver, scan: &Scan, caller: Caller) -> u64 {
        if !self.is_started {
            // What was accepted comes first, whatever is deployed by now.
            self.start(driver, scan.clone());
        }
        let id = driver.reloads.begin(caller);
        self.reporter.report_reloading(driver.reloads.count());
        id
    }

    fn reload(&mut self, driver: &mut Driver, scan: Scan, request: ReloadRequest) {
        let ReloadRequest {
            only,
            force,
            dry_run,
            caller,
        } = request;
        let Some(only) = meant(only, &scan, &driver.fleet) else {
            return caller.answer(Ok(Vec::new()));
        };
        if dry_run {
            let preview = driver.fleet.preview(&scan.workers, &only, force);
            let outcomes = preview.iter();
            let outcomes = outcomes.map(|(worker, outcome)| worker_outcome(worker, outcome, true));
            return caller.answer(Ok(outcomes.collect()));
        }
        let id = self.take_over(driver, &scan, caller);
        self.follow(driver, &scan);
        let ruling = scan.ruling(driver.specs().iter(), std::iter::empty(), vec![id]);
        driver.step(Event::Ruled(Box::new(ruling)));
        looked(driver, Look::Reload { id, only, force }, scan.workers);
    }

    fn roll_back(&mut self, driver: &mut Driver, scan: &Scan, request: RollbackRequest) {
        let RollbackRequest {
            worker,
            generation,
            caller,
        } = request;
        let serving = driver.fleet.serving(&worker);
        let found = to_roll_back_to(scan, &worker, serving, generation);
        let (generation, spec) = match found {
            Ok(found) => found,
            Err(sentence) => return caller.answer(Err(Refused::Argument(sentence))),
        };
        let id = self.take_over(driver, scan, caller);
        driver.step(Event::Rollback {
            id,
            instance: Instance::new(worker, generation),
            spec: Box::new(spec),
        });
    }
}

fn looked(driver: &mut Driver, look: Look, workers: BTreeMap<WorkerName, Result<Spec, Reason>>) {
    driver.step(Event::Looked {
        look,
        workers,
        snapshots: BTreeMap::new(),
    });
}

/// Notes which workers are gone and which are back, and lets go of what is kept of those gone for long. Nobody waits for it; it is
/// before anything that this scan leads to.
fn follow_removed(driver: &mut Driver, scan: &mut Scan) {
    let Some(snapshots) = driver.performer.snapshots.clone() else {
        return;
    };
    let keep = scan.settings.keep_removed;
    for worker in std::mem::take(&mut scan.back) {
        driver.aside.spawn(snapshots.clone().came_back(worker));
    }
    let gone = std::mem::take(&mut scan.gone);
    if gone.is_empty() {
        return;
    }
    let view = driver.fleet.view();
    let live = view.iter().filter(|worker| !worker.generations.is_empty());
    let live: BTreeSet<&WorkerName> = live.map(|worker| &worker.name).collect();
    for newest in gone {
        if !live.contains(&newest.worker) {
            driver.aside.spawn(snapshots.clone().expire(newest, keep));
        }
    }
}

/// A manager that was killed may have left snapshots that were not accepted. They are of no use to anybody; until they are gone
/// their numbers are taken.
fn clear_away_unaccepted(
    driver: &mut Driver,
    generations: BTreeMap<WorkerName, Vec<Generation>>,
    accepted: &AcceptedGenerations,
) {
    let view = driver.fleet.view();
    let mut unaccepted = Vec::new();
    for (worker, generations) in generations {
        let runs = view.iter().filter(|view| view.name == worker);
        let runs = runs.flat_map(|view| &view.generations);
        let live: Vec<_> = runs.map(|run| run.instance.generation).collect();
        let newest = generations.into_iter().max();
        let accepted = accepted.get(&worker).map(|(generation, _)| *generation);
        if let Some(newest) = newest.filter(|newest| Some(*newest) > accepted) {
            unaccepted.push(Instance::new(worker.clone(), newest));
        }
        let last = newest.into_iter().chain(live.clone()).max();
        driver.prune(worker, live, last.unwrap_or(Generation(0)));
    }
    driver.step(Event::Strangers(unaccepted));
}

/// Begins to build what was saved, though more may come.
fn begin_builds(driver: &mut Driver, scan: &Scan) {
    let limits = driver.settings.build;
    for (name, found) in &scan.workers {
        let Ok(spec) = found else { continue };
        if let Some(instance) = driver.fleet.would_build(name, spec) {
            let aside = &mut driver.aside;
            driver.builds.begin_early(aside, instance, spec, limits);
        }
    }
}

/// The workers that are meant; `None`: none, and not all.
fn meant(only: Vec<Which>, scan: &Scan, fleet: &Fleet) -> Option<Vec<WorkerName>> {
    if only.is_empty() {
        return Some(Vec::new());
    }
    let mut names = BTreeSet::new();
    for which in only {
        match which {
            Which::Worker(name) => {
                names.insert(name);
            }
            Which::Below(directory) => {
                let lies = |spec: &Spec| spec.directory.starts_with(&directory);
                let there = scan.workers.iter().filter(|(name, found)| match found {
                    Ok(spec) => lies(spec),
                    Err(_) => scan.lies_below(name, &directory),
                });
                names.extend(there.map(|(name, _)| name.clone()));
                names.extend(fleet.made_of(lies));
            }
        }
    }
    (!names.is_empty()).then(|| names.into_iter().collect())
}
