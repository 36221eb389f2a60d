//! Development: the builds of workers, those begun before anybody is sure to want them, and how they end.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::progress::Reporter;
use super::turns::Turns;
use crate::ansi;
use crate::builder::{self, BuildFailure, Built, Purpose, Runner, UnitRunner};
use crate::config::BuildLimits;
use crate::names::{Instance, WorkerName};
use crate::plan::{Event, Reason, Spec};
use crate::systemd::Systemd;

/// The builds under way.
pub(super) struct Builds {
    context: BuildContext,
    /// How to end those that are wanted.
    running: HashMap<Instance, CancellationToken>,
    /// Those that nobody has asked for yet.
    early: HashMap<WorkerName, Early>,
}

/// What a build needs.
#[derive(Clone)]
pub(super) struct BuildContext {
    pub(super) systemd: Arc<Systemd>,
    /// Where relative paths of server.yaml start.
    pub(super) project: PathBuf,
    /// For what is there for a moment.
    pub(super) runtime_directory: PathBuf,
    /// One build of a worker at a time, so that two never write to the same file.
    pub(super) turns: Arc<Turns>,
    /// Where its progress is reported.
    pub(super) reporter: Reporter,
}

/// A generation that is to be built.
struct Build {
    instance: Instance,
    spec: Spec,
    limits: BuildLimits,
    /// Cancelled when nobody wants it any more: then all of its processes are killed.
    abandoned: CancellationToken,
}

impl Build {
    fn new(instance: Instance, spec: Spec, limits: BuildLimits) -> Self {
        Self {
            instance,
            spec,
            limits,
            abandoned: CancellationToken::new(),
        }
    }
}

/// A build that was begun while files were still being saved: the one that is wanted, if they stay as they are. Dropped, it is given up.
struct Early {
    spec: Spec,
    since: Instant,
    built: oneshot::Receiver<Result<bool, Reason>>,
    _abandoned: DropGuard,
}

impl Early {
    async fn result(self, abandoned: &CancellationToken) -> Result<bool, Reason> {
        match abandoned.run_until_cancelled(self.built).await {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(Reason::Refused("its build broke off".to_owned())),
            None => Err(Reason::Superseded),
        }
    }
}

impl Builds {
    pub(super) fn new(context: BuildContext) -> Self {
        Self {
            context,
            running: HashMap::new(),
            early: HashMap::new(),
        }
    }

    /// Builds a worker, or takes what was begun early; returns when that was.
    pub(super) fn begin(
        &mut self,
        tasks: &mut JoinSet<Event>,
        instance: Instance,
        spec: Spec,
        limits: BuildLimits,
    ) -> Option<Instant> {
        let build = Build::new(instance, spec, limits);
        let abandoned = build.abandoned.clone();
        self.running.insert(build.instance.clone(), abandoned);
        let early = self.early.remove(&build.instance.worker);
        let early = early.filter(|early| early.spec == build.spec);
        let since = early.as_ref().map(|early| early.since);
        let context = self.context.clone();
        tasks.spawn(async move {
            let result = match early {
                Some(early) => early.result(&build.abandoned).await,
                None => context.run(&build).await,
            };
            Event::Built(build.instance, result)
        });
        since
    }

    /// Builds a worker before anybody asks for it, if that is not under way. If its files stay as they are, that is so much time won;
    /// if not, the build is given up.
    pub(super) fn begin_early(
        &mut self,
        aside: &mut JoinSet<()>,
        instance: Instance,
        spec: &Spec,
        limits: BuildLimits,
    ) {
        let worker = instance.worker.clone();
        if self
            .early
            .get(&worker)
            .is_some_and(|early| early.spec == *spec)
        {
            return;
        }
        let build = Build::new(instance, spec.clone(), limits);
        let (sender, built) = oneshot::channel();
        let early = Early {
            spec: spec.clone(),
            since: Instant::now(),
            built,
            _abandoned: build.abandoned.clone().drop_guard(),
        };
        let context = self.context.clone();
        aside.spawn(async move {
            let _ = sender.send(context.run(&build).await);
        });
        self.early.insert(worker, early);
    }

    /// Gives up what was begun early and nobody has asked for.
    pub(super) fn give_up_early(&mut self) {
        self.early.clear();
    }

    /// Ends a build that nobody wants any more.
    pub(super) fn abandon(&mut self, instance: &Instance) {
        if let Some(build) = self.running.remove(instance) {
            build.cancel();
        }
    }

    /// A build has ended.
    pub(super) fn ended(&mut self, instance: &Instance) {
        self.running.remove(instance);
    }
}

impl BuildContext {
    /// Whether there was anything to build.
    async fn run(&self, build: &Build) -> Result<bool, Reason> {
        let result = self.run_in_turn(build).await;
        self.reporter.end_build(&build.instance);
        result
    }

    async fn run_in_turn(&self, build: &Build) -> Result<bool, Reason> {
        let Build {
            instance,
            spec,
            limits,
            abandoned,
        } = build;
        let Some(_turn) = abandoned
            .run_until_cancelled(self.turns.of(&instance.worker))
            .await
        else {
            return Err(Reason::Superseded);
        };
        self.reporter.begin_build(instance);
        let target = builder::shared_target(&self.project);
        let listener = |line: &str| self.reporter.report_build(instance, &ansi::strip(line));
        let order = builder::Order {
            shared_target: &target,
            deadline: limits.timeout,
            purpose: Purpose::Development,
            runner: Runner::Unit(UnitRunner {
                systemd: &self.systemd,
                instance,
                memory_max: limits.memory_max,
                directory: &self.runtime_directory,
            }),
            listener: &listener,
            abandoned,
        };
        let built = builder::build(&spec.settings, &spec.directory, order).await;
        let built = built.map(|built| built != Built::Nothing);
        built.map_err(|error| match &error.failure {
            BuildFailure::Abandoned => Reason::Superseded,
            BuildFailure::Unavailable(unavailable) => Reason::Unusable(unavailable.to_string()),
            failure => {
                let output = error.output.lines().map(ansi::keep_colours).collect();
                Reason::Build(format!("`{}`: {failure}", error.command), output)
            }
        })
    }
}
