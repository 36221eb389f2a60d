//! What somebody wants, and the look at the disk that comes before it is done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Nudge;
use super::control::{Refused, Reply, Request, Which, WorkerOutcome};
use super::core::Core;
use super::disk::DiskError;
use super::look::{self, LookError, Sight, Snapshots};
use super::report::told;
use crate::config::Mode;
use crate::deploy::Store;
use crate::messages;
use crate::names::{Generation, Instance, WorkerName};
use crate::plan::{Event, Look, Reason, Spec, Stage, WorkerView};
use crate::route::Claim;

/// Wait before the workers' directory is looked for again that was not there at the start (a file system that is mounted late).
const START_AGAIN: Duration = Duration::from_secs(2);
/// Longest time for one look at the disk.
const LOOK: Duration = Duration::from_secs(120);
/// Looks at the disk that may be waited for; further requests wait on the bus.
const LOOKS: usize = 64;

/// The look at the disk under way.
pub(super) type Looking = Option<(Wanted, JoinHandle<Result<Sight, LookError>>)>;

/// The end of the look under way; never, if there is none.
pub(super) async fn finished(
    looking: &mut Looking,
) -> Result<Result<Sight, LookError>, tokio::task::JoinError> {
    match looking {
        Some((_, task)) => task.await,
        None => std::future::pending().await,
    }
}

/// Why it is looked at the disk.
pub(super) enum Wanted {
    Start,
    Retry(WorkerName),
    /// Workers may be gone for long enough for their snapshots to go.
    Sweep,
    /// Files were saved, and more may come.
    Saving,
    /// Files were saved, the first of them then.
    Saved(Instant),
    Reload {
        only: Vec<Which>,
        force: bool,
        dry_run: bool,
        caller: Caller,
    },
    Rollback {
        worker: WorkerName,
        generation: Option<Generation>,
        caller: Caller,
    },
}

/// Who waits for the end of something.
#[derive(Default)]
pub(super) struct Caller {
    pub(super) name: Option<String>,
    pub(super) reply: Option<Reply>,
    /// When it was told last how far its reload is.
    pub(super) told_at: Option<Instant>,
}

impl Caller {
    pub(super) fn answer(self, answer: Result<Vec<WorkerOutcome>, Refused>) {
        if let Some(reply) = self.reply {
            let _ = reply.send(answer);
        }
    }
}

impl Core {
    /// Whether another request can be taken.
    pub(super) fn has_room(&self) -> bool {
        self.looks.len() < LOOKS
    }

    /// The routes that are served, and by whom.
    fn held(&self) -> BTreeMap<Claim, WorkerName> {
        let serves = |worker: &WorkerView| {
            let mut stages = worker.generations.iter().map(|run| run.stage);
            stages.any(|stage| stage == Stage::Serving)
        };
        let view = self.fleet.view().into_iter();
        view.filter(serves)
            .flat_map(|worker| {
                let name = worker.name;
                let claims = worker.claims.into_iter();
                claims.map(move |claim| (claim, name.clone()))
            })
            .collect()
    }

    pub(super) fn look_if_idle(&mut self) {
        if self.looking.is_none()
            && let Some(wanted) = self.looks.pop_front()
        {
            let held = self.held();
            let (settings, mode) = (self.settings.clone(), self.performer.mode);
            let instead = self.instead;
            let files = Arc::clone(&self.files);
            let strict = matches!(wanted, Wanted::Reload { .. } | Wanted::Rollback { .. });
            let store = self.performer.store.clone();
            let recall = look::Recall {
                all: !self.first_look_done,
                of: match &wanted {
                    Wanted::Rollback { worker, .. } => Some(worker.clone()),
                    _ => None,
                },
            };
            let (disk, turn) = (self.performer.disk.clone(), Arc::clone(&self.look_turn));
            let look = async move {
                let what = || "read the directories of workers".to_owned();
                // One that hangs keeps its turn, so that it has one thread and no more.
                let turn = disk.turn(LOOK, what, turn.lock_owned()).await?;
                let seen = disk.run(LOOK, what, move |_| {
                    let _turn = turn;
                    let mut sight = look::look(&settings, mode, instead, &held, &files, strict)?;
                    if let Some(store) = store {
                        sight.recall(&store, &recall);
                    }
                    Ok(sight)
                });
                seen.await
            };
            let look = async {
                let seen: Result<_, DiskError> = look.await;
                seen.unwrap_or_else(|error| Err(LookError::Workers(error.to_string())))
            };
            self.looking = Some((wanted, tokio::spawn(look)));
        }
    }

    pub(super) fn seen(&mut self, seen: Result<Sight, LookError>) {
        let Some((wanted, _)) = self.looking.take() else {
            return;
        };
        let sight = match seen {
            Ok(mut sight) => {
                let known = self.specs.iter();
                let known = known.map(|(instance, spec)| (&instance.worker, &*spec.directory));
                sight.add_out_of_reach(known);
                self.tell_watched(&sight);
                self.follow_removed(&mut sight);
                sight
            }
            Err(error) => return self.blind(wanted, error),
        };
        match wanted {
            Wanted::Start => self.start(sight),
            Wanted::Retry(name) => self.looked(Look::Retry(name), sight.workers),
            Wanted::Sweep => {}
            Wanted::Saving => self.begin_builds(&sight),
            Wanted::Saved(at) => self.saved(sight, at),
            Wanted::Reload {
                only,
                force,
                dry_run: true,
                caller,
            } => {
                let only = self.expand(only, &sight);
                let preview = match &only {
                    Some(only) => self.fleet.preview(&sight.workers, only, force),
                    None => BTreeMap::new(),
                };
                let outcomes = preview.iter();
                caller.answer(Ok(outcomes
                    .map(|(worker, outcome)| told(worker, outcome, true))
                    .collect()));
            }
            Wanted::Reload {
                only,
                force,
                caller,
                ..
            } => self.reload(sight, only, force, caller),
            Wanted::Rollback {
                worker,
                generation,
                caller,
            } => self.roll_back(sight, worker, generation, caller),
        }
    }

    /// What lies on disk could not be looked at.
    fn blind(&mut self, wanted: Wanted, error: LookError) {
        match wanted {
            Wanted::Reload { caller, .. } | Wanted::Rollback { caller, .. } => {
                tracing::error!(
                    message_id = messages::RELOAD_REFUSED,
                    "reload refused, the running configuration stays:\n{error}"
                );
                caller.answer(Err(Refused::Look(error)));
            }
            Wanted::Saving | Wanted::Sweep => {}
            Wanted::Saved(_) => self.tell_wrong(Some(error.to_string())),
            Wanted::Start => {
                tracing::error!(
                    "the workers can not be read; tried again until they can:\n{error}"
                );
                self.start_at = Some(Instant::now() + START_AGAIN);
            }
            Wanted::Retry(name) => {
                // It stays to be tried, as if it alone were wrong.
                let reason = Reason::Refused(error.to_string());
                let workers = BTreeMap::from([(name.clone(), Err(reason))]);
                self.looked(Look::Retry(name), workers);
            }
        }
    }

    /// Notes which workers are gone and which are back, and lets go of what is kept of those gone for long. Nobody waits for it; it is
    /// before anything that this look leads to.
    fn follow_removed(&mut self, sight: &mut Sight) {
        let keep = sight.settings.keep_removed;
        for worker in std::mem::take(&mut sight.back) {
            let performer = Arc::clone(&self.performer);
            self.aside
                .spawn(async move { performer.came_back(worker).await });
        }
        let gone = std::mem::take(&mut sight.gone);
        if gone.is_empty() {
            return;
        }
        let view = self.fleet.view();
        let live = view.iter().filter(|worker| !worker.generations.is_empty());
        let live: BTreeSet<&WorkerName> = live.map(|worker| &worker.name).collect();
        for newest in gone {
            if !live.contains(&newest.worker) {
                let performer = Arc::clone(&self.performer);
                self.aside
                    .spawn(async move { performer.expire(newest, keep).await });
            }
        }
    }

    fn looked(&mut self, look: Look, workers: BTreeMap<WorkerName, Result<Spec, Reason>>) {
        self.step(Event::Looked {
            look,
            workers,
            snapshots: BTreeMap::new(),
        });
    }

    fn start(&mut self, mut sight: Sight) {
        // Where nothing was ever accepted there is nothing to protect, and who installs a server wants to see it work.
        let (snapshots, untried) = match sight.recalled.take() {
            Some(recalled) => {
                let look::Recalled {
                    accepted: mut snapshots,
                    is_fresh,
                    generations,
                } = *recalled;
                for (_, spec) in snapshots.values_mut() {
                    let of = &mut spec.settings;
                    of.limits = sight.settings.lowered(&of.route, &of.limits).0;
                }
                let known = snapshots.iter();
                sight.add_out_of_reach(known.map(|(name, (_, spec))| (name, &*spec.directory)));
                self.clear_away_unaccepted(generations, &snapshots);
                (snapshots, is_fresh)
            }
            None => (BTreeMap::new(), true),
        };
        self.first_look_done = true;
        let comes_back: Vec<Spec> = snapshots.values().map(|(_, spec)| spec.clone()).collect();
        let ruling = sight.ruling(self.specs.iter(), comes_back.iter(), Vec::new());
        self.step(Event::Looked {
            look: Look::Start { untried },
            workers: sight.workers,
            snapshots,
        });
        self.step(Event::Ruled(Box::new(ruling)));
    }

    /// A manager that was killed may have left snapshots that were not accepted. They are of no use to anybody; until they are gone
    /// their numbers are taken.
    fn clear_away_unaccepted(
        &mut self,
        generations: BTreeMap<WorkerName, Vec<Generation>>,
        accepted: &Snapshots,
    ) {
        let view = self.fleet.view();
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
            self.prune(worker, live, last.unwrap_or(Generation(0)));
        }
        self.step(Event::Strangers(unaccepted));
    }

    /// Nobody waits for it.
    pub(super) fn prune(&mut self, worker: WorkerName, live: Vec<Generation>, last: Generation) {
        let performer = Arc::clone(&self.performer);
        self.aside
            .spawn(async move { performer.prune(worker, live, last).await });
    }

    pub(super) fn asked(&mut self, request: Request) {
        let wanted = match request {
            Request::Status { only, reply } => return self.report(only, reply),
            Request::Front { reply } => {
                let _ = reply.send(self.progress.borrow().front.clone());
                return;
            }
            // Without an answer the caller is told that the manager is about to end.
            _ if self.ending => return,
            Request::Halt {
                worker,
                wish,
                reply,
            } => return self.halt(worker, wish, reply),
            Request::Reload {
                only,
                force,
                dry_run,
                caller: name,
                reply,
            } => Wanted::Reload {
                only,
                force,
                dry_run,
                caller: Caller {
                    name,
                    reply: Some(reply),
                    told_at: None,
                },
            },
            Request::Rollback {
                worker,
                generation,
                caller: name,
                reply,
            } => Wanted::Rollback {
                worker,
                generation,
                caller: Caller {
                    name,
                    reply: Some(reply),
                    told_at: None,
                },
            },
        };
        self.looks.push_back(wanted);
    }

    /// A signal, or a file that was saved. What waits to be looked at for the same reason is looked at once.
    pub(super) fn nudged(&mut self, nudge: Nudge) {
        match nudge {
            Nudge::Hangup => {
                tracing::info!("reload asked for by SIGHUP");
                self.looks.push_back(Wanted::Reload {
                    only: Vec::new(),
                    force: false,
                    dry_run: false,
                    caller: Caller::default(),
                });
            }
            Nudge::Saving | Nudge::Saved(_) if self.ending => {}
            // Only what is built gains by it.
            Nudge::Saving if self.fleet.builds_programs() => self.looks.push_back(Wanted::Saving),
            Nudge::Saving => {}
            Nudge::Saved(at) => {
                if !matches!(self.looks.back(), Some(Wanted::Saved(_))) {
                    self.looks.push_back(Wanted::Saved(at));
                }
            }
        }
    }

    /// Whoever watches files is told which.
    fn tell_watched(&self, sight: &Sight) {
        if self.performer.mode != Mode::Development {
            return;
        }
        let watched = Some(Arc::new(sight.watched()));
        self.progress.send_if_modified(|progress| {
            let changed = progress.watched != watched;
            progress.watched = watched;
            changed
        });
    }

    /// What was saved is taken over. A server.yaml that is wrong holds up no worker.
    fn saved(&mut self, sight: Sight, at: Instant) {
        self.tell_wrong(sight.wrong.as_ref().map(ToString::to_string));
        if !self.first_look_done {
            return self.start(sight);
        }
        if sight.settings != self.settings {
            self.follow(&sight);
        }
        let at = at.saturating_duration_since(self.started);
        self.looked(Look::Saved(at), sight.workers);
        // What was begun and is not wanted.
        self.early.clear();
    }

    /// Begins to build what was saved, though more may come. If it stays as it is, that is so much time won; if not, the build is given up.
    fn begin_builds(&mut self, sight: &Sight) {
        for (name, found) in &sight.workers {
            let Ok(spec) = found else { continue };
            let Some(instance) = self.fleet.would_build(name, spec) else {
                continue;
            };
            if self.early.get(name).is_none_or(|early| early.spec != *spec) {
                let build = self.build(instance, spec.clone());
                let early = self.performer.build_early(&mut self.aside, build);
                self.early.insert(name.clone(), early);
            }
        }
    }

    /// Says what keeps saved files from being taken over, once.
    fn tell_wrong(&mut self, wrong: Option<String>) {
        if let Some(wrong) = wrong.as_ref().filter(|_| wrong != self.told_wrong) {
            tracing::error!("what was saved is not taken over, all goes on as before:\n{wrong}");
        }
        self.told_wrong = wrong;
    }

    /// Goes by the server's settings as they are now.
    fn follow(&mut self, sight: &Sight) {
        self.settings = sight.settings.clone();
        self.keep_settings();
        self.tell_grace();
        let performer = &self.performer;
        let (directory, server) = (&self.runtime_directory, &performer.server);
        let snapshots = performer.store.as_ref().map(Store::programs);
        let mode = (performer.kind, performer.mode);
        let policy = look::policy(&self.settings, mode, directory, snapshots, server);
        if self.progress.borrow().front.problem.is_some() {
            // What could not be had may be free by now.
            self.fleet.publish_again();
        }
        self.step(Event::Configured(Box::new(policy)));
    }

    /// The workers that are meant; `None`: none, and not all.
    fn expand(&self, only: Vec<Which>, sight: &Sight) -> Option<Vec<WorkerName>> {
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
                    let there = sight.workers.iter().filter(|(name, found)| match found {
                        Ok(spec) => lies(spec),
                        Err(_) => sight.lies_below(name, &directory),
                    });
                    names.extend(there.map(|(name, _)| name.clone()));
                    names.extend(self.fleet.made_of(lies));
                }
            }
        }
        (!names.is_empty()).then(|| names.into_iter().collect())
    }

    /// Takes what a look for somebody who asked has brought: a number for the request, and the server's settings as they are now.
    fn take_over(&mut self, sight: &Sight, caller: Caller) -> u64 {
        if !self.first_look_done {
            // What was accepted comes first, whatever is deployed by now.
            self.start_at = None;
            self.start(sight.clone());
        }
        let id = self.next_reload;
        self.next_reload += 1;
        self.callers.insert(id, caller);
        self.tell_reloading();
        id
    }

    fn reload(&mut self, sight: Sight, only: Vec<Which>, force: bool, caller: Caller) {
        let Some(only) = self.expand(only, &sight) else {
            return caller.answer(Ok(Vec::new()));
        };
        let id = self.take_over(&sight, caller);
        self.follow(&sight);
        let ruling = sight.ruling(self.specs.iter(), std::iter::empty(), vec![id]);
        self.step(Event::Ruled(Box::new(ruling)));
        self.looked(Look::Reload { id, only, force }, sight.workers);
    }

    fn roll_back(
        &mut self,
        sight: Sight,
        worker: WorkerName,
        generation: Option<Generation>,
        caller: Caller,
    ) {
        let serving = self.fleet.serving(&worker);
        let found = match &sight.history {
            Some(history) => look::to_roll_back_to(history, &sight, &worker, serving, generation),
            None => Err("in development nothing is kept to go back to".to_owned()),
        };
        let found = found.and_then(|(generation, spec)| match sight.forbidden(&spec) {
            Some((.., why)) => Err(why),
            None => Ok((generation, spec)),
        });
        let (generation, mut spec) = match found {
            Ok(found) => found,
            Err(sentence) => return caller.answer(Err(Refused::Argument(sentence))),
        };
        let of = &mut spec.settings;
        of.limits = sight.settings.lowered(&of.route, &of.limits).0;
        let id = self.take_over(&sight, caller);
        self.step(Event::Rollback {
            id,
            instance: Instance::new(worker, generation),
            spec: Box::new(spec),
        });
    }
}
