//! What the manager's loop holds between two events, and what each event means for its parts.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::confirmations::{APPLY_TIMEOUT, Confirmation};
use super::deployments::Deployments;
use super::disk::SMALL;
use super::driver::{Driver, Pending};
use super::exec;
use super::link::LinkEvent;
use super::pauses::{Pauses, Written};
use super::progress::Reporter;
use super::report::{answering, statuses, summary};
use super::requests::{Caller, Nudge, Refused, ReloadRequest, Request};
use super::scan::{Scan, ScanError};
use super::scans::{Scans, Trigger};
use super::state::{Measured, States};
use super::status::{Rollbacks, WorkerStatus};
use super::strays::{Sweeps, Swept};
use crate::names::{Generation, Instance, Pair, WorkerName};
use crate::plan::{Event, Found, Outcome, WorkerView};
use crate::wire::{Count, FrontState, ToManager};

/// How long changes are gathered before they are reported in a line.
const REPORT_AFTER: Duration = Duration::from_millis(200);
/// How often files that stand in for a journal are looked after.
const TRIM_EVERY: Duration = Duration::from_secs(30);
/// Longest wait for the proxy's counters.
const COUNTS: Duration = Duration::from_secs(2);

/// The fleet and what happens beside it, each part with a state of its own.
pub(super) struct Core {
    pub(super) driver: Driver,
    pub(super) scans: Scans,
    pub(super) pauses: Pauses,
    pub(super) sweeps: Sweeps,
    pub(super) states: States,
    deployments: Deployments,
    reporter: Reporter,
    /// Commands in the surroundings of workers.
    running: Arc<exec::Running>,
    trim_at: Instant,
    /// When the changes since the last time are reported in a line.
    report_at: Option<Instant>,
    /// The workers are being stopped.
    ending: bool,
    /// Everything is stopped: the loop can end.
    ended: bool,
}

impl Core {
    pub(super) fn new(
        driver: Driver,
        scans: Scans,
        pauses: Pauses,
        sweeps: Sweeps,
        states: States,
        deployments: Deployments,
        reporter: Reporter,
    ) -> Self {
        Self {
            driver,
            scans,
            pauses,
            sweeps,
            states,
            deployments,
            reporter,
            running: Arc::default(),
            trim_at: Instant::now() + TRIM_EVERY,
            report_at: None,
            ending: false,
            ended: false,
        }
    }

    // ---- the loop -------------------------------------------------------------------------------------------------------------

    /// Takes over what runs, and has what lies on disk scanned. `strangers` are generations of another version of this program.
    pub(super) fn begin(&mut self, found: Vec<Found>, strangers: Vec<Pair>) {
        let specs = found.iter();
        let specs = specs.map(|found| (found.instance.clone(), found.spec.clone()));
        self.driver.adopt(specs.collect());
        self.driver.step(Event::Halted(self.pauses.all()));
        self.driver.step(Event::Adopted(found));
        let settings = self.driver.settings.clone();
        self.deployments
            .settings_taken_over(&mut self.driver, &settings);
        let taken = strangers.iter().map(|pair| pair.instance.clone());
        self.driver.step(Event::Strangers(taken.collect()));
        self.sweeps.leave(strangers);
        self.sweep(true);
        self.settle();
        self.scans.push(Trigger::Start);
    }

    /// Begins the next scan, if one is wanted and none is under way.
    pub(super) fn scan_if_idle(&mut self) {
        let recall = !self.deployments.is_started();
        self.scans
            .begin_if_idle(&self.driver.settings, &self.driver.fleet, recall);
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Instant {
        let due = self.driver.deadline().into_iter();
        let due = due.chain(self.scans.deadline()).chain(self.report_at);
        let due = due.chain(self.pauses.deadline());
        let due = due.chain(self.states.deadline().filter(|_| !self.ending));
        due.fold(self.trim_at, Instant::min)
    }

    /// Time has passed.
    pub(super) fn tick(&mut self) {
        let now = Instant::now();
        if self.trim_at <= now {
            self.trim();
            self.trim_at = now + TRIM_EVERY;
        }
        self.scans.tick();
        if self.report_at.take_if(|at| *at <= now).is_some() {
            self.report_summary();
        }
        if !self.ending {
            let driver = &self.driver;
            let ground = driver.performer.ground();
            self.states
                .measure_if_due(driver.specs(), &driver.fleet, &ground);
        }
        if self.pauses.expire() {
            self.driver.step(Event::Halted(self.pauses.all()));
        }
        self.settle_pauses();
        self.driver.step(Event::Tick);
    }

    /// The workers are to be stopped; then the loop ends.
    pub(super) fn stop_all(&mut self) {
        self.ending = true;
        self.driver.performer.disk.end();
        self.driver.builds.give_up_early();
        self.driver.step(Event::StopAll);
    }

    /// Whether everything is stopped: the loop can end.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// What may follow from any event.
    pub(super) fn settle(&mut self) {
        let effects = self.driver.take_effects();
        for worker in effects.rescans {
            self.scans.push(Trigger::Retry(worker));
        }
        for (worker, file) in effects.unwatched {
            self.scans.unwatch(worker, file);
        }
        if effects.has_news {
            self.report_at.get_or_insert(Instant::now() + REPORT_AFTER);
        }
        self.ended |= effects.ended;
        self.confirm();
        if effects.is_any {
            self.report_settled();
        }
    }

    /// Nobody waits for it.
    fn trim(&mut self) {
        let performer = Arc::clone(&self.driver.performer);
        if !performer.journal.is_trimmed() {
            return;
        }
        self.driver.aside.spawn(async move {
            let (disk, journal) = (&performer.disk, performer.journal.clone());
            let what = || "look after the output of workers".to_owned();
            if let Err(error) = disk.run(SMALL, what, move |_| journal.trim()).await {
                tracing::warn!("{error}");
            }
        });
    }

    // ---- requests -------------------------------------------------------------------------------------------------------------

    pub(super) fn asked(&mut self, request: Request) {
        match request {
            Request::Status { only, reply } => self.report(only, reply),
            Request::Front { reply } => {
                let _ = reply.send(self.reporter.front());
            }
            Request::LeftOut { reply } => {
                let _ = reply.send(self.deployments.left_out().to_vec());
            }
            Request::Rollbacks { only, reply } => self.report_rollbacks(only, reply),
            // Without an answer the caller is told that the manager is about to end.
            _ if self.ending => {}
            Request::Pause {
                worker,
                what,
                reply,
            } => {
                let known: Vec<&WorkerName> = self.driver.fleet.names().collect();
                self.pauses.begin(worker, what, reply, &known);
            }
            Request::Exec(request) => exec::begin(&mut self.driver, &self.running, request),
            Request::ExecSignal { sender, signal } => {
                exec::signal(&mut self.driver, &self.running, &sender, signal);
            }
            Request::Reload(request) => self.scans.push(Trigger::Reload(request)),
            Request::Rollback(request) => self.scans.push(Trigger::Rollback(request)),
        }
    }

    /// A signal, or a file that was saved.
    pub(super) fn nudged(&mut self, nudge: Nudge) {
        match nudge {
            Nudge::Hangup => {
                tracing::info!("reload asked for by SIGHUP");
                self.scans.push(Trigger::Reload(ReloadRequest {
                    only: Vec::new(),
                    force: false,
                    dry_run: false,
                    caller: Caller::default(),
                }));
            }
            Nudge::Saving | Nudge::Saved(_) if self.ending => {}
            // Only what is built gains by it.
            Nudge::Saving if self.driver.fleet.builds_programs() => {
                self.scans.push(Trigger::Saving);
            }
            Nudge::Saving => {}
            Nudge::Saved(at) => self.scans.push(Trigger::Saved(at)),
        }
    }

    /// A scan is over.
    pub(super) fn scanned(&mut self, trigger: Trigger, found: Result<Scan, ScanError>) {
        let is_start = matches!(trigger, Trigger::Start);
        match found {
            Ok(scan) => self.deployments.scanned(&mut self.driver, trigger, scan),
            Err(error) => {
                self.deployments
                    .scan_failed(&mut self.driver, trigger, error);
                if is_start {
                    self.scans.start_later();
                }
            }
        }
        if self.deployments.is_started() {
            self.scans.started();
        }
    }

    /// A pause, or maintenance, is written down: it is in force once the proxy has taken it over.
    pub(super) fn written(&mut self, written: Written) {
        if let Some(waiting) = self.pauses.written(written) {
            self.driver.step(Event::Halted(self.pauses.all()));
            let serial = self.driver.fleet.up_to_date();
            let pause = Pending::Pause(waiting);
            self.driver.confirmations.wait(Some(serial), pause);
        }
    }

    // ---- the proxy ------------------------------------------------------------------------------------------------------------

    pub(super) fn hear(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up(outbox) => {
                self.driver.proxy.up(outbox);
                self.driver.step(Event::Linked);
            }
            LinkEvent::Down => {
                self.driver.proxy.down();
                self.settle_pauses();
                self.driver.step(Event::Unlinked);
            }
            LinkEvent::Said(message) => match message {
                ToManager::Hello { .. } => {}
                ToManager::Applied { serial, front } => self.applied(serial, front),
                ToManager::Front(front) => self.reporter.report_front(front),
                ToManager::Drained(instance) => self.driver.step(Event::Drained(instance)),
                ToManager::Probed { id, outcome } => self.driver.step(Event::Probed(id, outcome)),
                ToManager::Exposed { id } => self.driver.step(Event::Exposed(id)),
                ToManager::Quiet(worker) => self.pauses.quiet(&worker),
                ToManager::Spent(instance) => self.driver.step(Event::Spent(instance)),
                ToManager::Counted { id, counts } => self.driver.proxy.counted(id, counts),
            },
        }
    }

    fn applied(&mut self, serial: u64, front: FrontState) {
        self.driver.confirmations.applied(serial);
        self.driver.step(Event::Applied(serial));
        self.reporter.report_front(front);
        self.settle_pauses();
    }

    /// Answers those of whose reload or pause the proxy serves by the table it led to, or is not there to say so.
    fn confirm(&mut self) {
        let ending = self.ending;
        let is_away = ending || !self.driver.proxy.is_connected();
        let is_given_up = |what: &Pending| match what {
            Pending::Reload { .. } => is_away,
            Pending::Pause(_) => ending,
        };
        for (what, confirmation) in self.driver.confirmations.over(is_given_up) {
            match what {
                Pending::Reload { id, outcomes } => self.finish(id, &outcomes, confirmation),
                Pending::Pause(waiting) => {
                    self.pauses.confirmed(waiting, confirmation);
                    self.settle_pauses();
                }
            }
        }
    }

    /// A reload is over, and the proxy has said this of the table it led to.
    fn finish(
        &mut self,
        id: u64,
        outcomes: &BTreeMap<WorkerName, Outcome>,
        confirmation: Confirmation,
    ) {
        let late = (confirmation == Confirmation::Late).then(|| {
            let waited = APPLY_TIMEOUT.as_secs();
            format!("the proxy did not take over the route table within {waited} s and goes on as before")
        });
        let refused = late.or_else(|| self.reporter.front().problem);
        let reloads = &mut self.driver.reloads;
        reloads.finish(id, outcomes, refused);
        self.reporter.report_reloading(reloads.count());
        self.sweep(false);
        self.states.hurry();
    }

    /// Answers those who wait for a worker to be quiet, if it has no route any more or they have waited long enough.
    fn settle_pauses(&mut self) {
        let fleet = &self.driver.fleet;
        let has_route = |name: &WorkerName| {
            let view = fleet.view_of(name);
            view.is_some_and(|worker| !worker.claims.is_empty())
        };
        for waiting in self.pauses.settle(has_route) {
            let counts = self.driver.proxy.count();
            self.driver.aside.spawn(waiting.answer(counts));
        }
    }

    // ---- strays and the state of workers --------------------------------------------------------------------------------------

    /// Looks for strays; `everywhere`: also in the slices of workers that are known.
    fn sweep(&mut self, everywhere: bool) {
        if !self.ending {
            self.sweeps.begin(&self.driver.fleet, everywhere);
        }
    }

    pub(super) fn swept(&mut self, swept: Swept) {
        let grace = self.driver.settings.shutdown_grace;
        let grace = (!self.ending).then_some(grace);
        self.sweeps.swept(swept, &self.driver.fleet, grace);
    }

    pub(super) fn measured(&mut self, measured: Measured) {
        let driver = &self.driver;
        let ground = driver.performer.ground();
        self.states
            .measured(measured, driver.specs(), &driver.fleet, &ground);
    }

    // ---- reports --------------------------------------------------------------------------------------------------------------

    /// Answers with the workers as they are: the plan's view, the kernel's accounts and the proxy's counters. `only`: of these alone,
    /// as far as they are there.
    fn report(&mut self, only: Option<Vec<WorkerName>>, reply: oneshot::Sender<Vec<WorkerStatus>>) {
        let driver = &mut self.driver;
        let view = match only {
            None => driver.fleet.view(),
            Some(names) => {
                let views = names.iter().filter_map(|name| driver.fleet.view_of(name));
                views.collect()
            }
        };
        let now = driver.now();
        let states = self.states.known(driver.specs(), &driver.fleet);
        let counts = driver.proxy.count();
        let systemd = Arc::clone(&driver.performer.systemd);
        driver.aside.spawn(async move {
            // A proxy that does not answer costs its numbers, not the report.
            let counts = tokio::time::timeout(COUNTS, counts).await;
            let counts: HashMap<Instance, Count> = counts
                .into_iter()
                .flatten()
                .flatten()
                .map(|count| (count.instance.clone(), count))
                .collect();
            let group = systemd.group().await;
            let made = tokio::task::spawn_blocking(move || {
                statuses(view, &counts, &states, group.as_ref(), now)
            });
            if let Ok(report) = made.await {
                let _ = reply.send(report);
            }
        });
    }

    /// Answers with the generations that can be rolled back to. `only`: of these workers; none: of all.
    fn report_rollbacks(
        &mut self,
        only: Vec<WorkerName>,
        reply: oneshot::Sender<Result<Vec<Rollbacks>, Refused>>,
    ) {
        let driver = &mut self.driver;
        let is_meant = |worker: &WorkerView| {
            worker.state != "removed" && (only.is_empty() || only.contains(&worker.name))
        };
        let known = driver.fleet.view().into_iter().filter(is_meant);
        let workers = known.map(|worker| {
            let serving = driver.fleet.serving(&worker.name);
            (worker.name, serving)
        });
        let workers = workers.collect();
        let snapshots = driver.performer.snapshots.clone();
        let keep = driver.settings.keep_generations;
        driver.aside.spawn(async move {
            let found = match snapshots {
                Some(snapshots) => snapshots.to_roll_back_to(workers, keep).await,
                None => Ok(Vec::new()),
            };
            let numbers = |(worker, kept): (WorkerName, Vec<Generation>)| {
                let numbers = kept.into_iter().map(|generation| generation.0);
                (worker.to_string(), numbers.collect())
            };
            let found = found
                .map(|found| found.into_iter().map(numbers).collect())
                .map_err(|error| Refused::Failed(error.to_string()));
            let _ = reply.send(found);
        });
    }

    /// Tells what runs in a line, and how far reloads are.
    fn report_summary(&mut self) {
        let driver = &mut self.driver;
        let view = driver.fleet.view();
        let reloaded = driver.reloads.largest(&driver.fleet);
        self.reporter
            .report_summary(summary(&view), answering(&view), reloaded);
        driver
            .reloads
            .report_how_far(&driver.fleet, &mut driver.aside);
    }

    /// The start is over when nothing is on its way any more and the proxy serves what came of it.
    fn report_settled(&mut self) {
        if !self.deployments.is_started()
            || !self.reporter.may_settle()
            || !self.driver.confirmations.is_up_to_date()
        {
            return;
        }
        // What failed is reported, with its log, once it has been stopped.
        let is_tried = |worker: &WorkerView| match worker.state {
            "starting" => false,
            "failed" => worker.generations.is_empty() || worker.last_failure.is_some(),
            _ => true,
        };
        let view = self.driver.fleet.view();
        if view.iter().all(is_tried) {
            self.reporter.report_settled(answering(&view));
            for (instance, pairs) in self.sweeps.take_strangers() {
                self.driver.stop_stranger(instance, pairs);
            }
        }
    }
}
