//! A build's command as a unit of its own: systemd limits it, and kills it with all it has started, however deep.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use zbus::Variant;

use super::bus::{BusError, START, Systemd};
use super::state::Ending;
use super::units::Properties;
use crate::limits::ByteSize;
use crate::names::{Instance, worker_slice};

/// Workers that serve go before a build, when both want the processor or the disk: half of what a unit has otherwise.
const WEIGHT: u64 = 50;
/// Compilers start a process or thread for each core; what goes on starting more than these does not end.
const TASKS_MAX: u64 = 4096;
/// Without a limit of its own a build may have three quarters of the machine's memory (`MemoryMaxScale`: of 2^32 - 1).
const MEMORY_SCALE: u32 = u32::MAX / 4 * 3;
/// SIGKILL: nothing of a build that is given up is worth waiting for.
const KILL: i32 = 9;

/// One command of a build.
#[derive(Debug)]
pub struct BuildUnit<'a> {
    /// The generation that is to be made of it.
    pub instance: &'a Instance,
    /// Program (absolute) and arguments.
    pub words: &'a [String],
    /// Where it runs.
    pub directory: &'a Path,
    /// A file with all of its environment, in the syntax of `EnvironmentFile=` (systemd.exec(5)). Unlike a property of the unit it can be
    /// read by its owner alone.
    pub environment: &'a Path,
    /// Most memory; `None`: three quarters of the machine's.
    pub memory_max: Option<ByteSize>,
    /// How long it may take.
    pub deadline: Duration,
}

impl BuildUnit<'_> {
    fn properties(&self, output: OwnedFd, errors: OwnedFd) -> Properties {
        let usec = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        // systemd reads '$' as the start of a variable's name.
        let words: Vec<String> = self
            .words
            .iter()
            .map(|word| word.replace('$', "$$"))
            .collect();
        let memory = match self.memory_max {
            Some(most) => ("MemoryMax", most.0.into()),
            None => ("MemoryMaxScale", MEMORY_SCALE.into()),
        };
        vec![
            ("Description", description(self.instance).into()),
            ("Type", "oneshot".into()),
            (
                "ExecStart",
                vec![(self.words[0].clone(), words, false)].into(),
            ),
            (
                "WorkingDirectory",
                self.directory.display().to_string().into(),
            ),
            (
                "EnvironmentFiles",
                vec![(self.environment.display().to_string(), false)].into(),
            ),
            ("StandardOutputFileDescriptor", Variant::Fd(output.into())),
            ("StandardErrorFileDescriptor", Variant::Fd(errors.into())),
            ("Slice", worker_slice(&self.instance.worker).into()),
            ("TimeoutStartUSec", usec(self.deadline).into()),
            ("KillSignal", KILL.into()),
            ("CPUWeight", WEIGHT.into()),
            ("IOWeight", WEIGHT.into()),
            ("TasksMax", TASKS_MAX.into()),
            memory,
        ]
    }
}

fn description(instance: &Instance) -> String {
    format!(
        "TQServer build of worker {}, generation {}",
        instance.worker, instance.generation
    )
}

impl Systemd {
    /// Runs a build's command to its end: `None` if that was a good one. What it has started in the background is killed then. Its output
    /// goes into the pipes' ends `output` and `errors`. A caller that does not wait any more calls [`Systemd::stop_build`].
    ///
    /// # Errors
    /// When systemd can not be reached or refuses the unit.
    pub async fn run_build(
        &self,
        unit: &BuildUnit<'_>,
        output: OwnedFd,
        errors: OwnedFd,
    ) -> Result<Option<Ending>, BusError> {
        let name = &unit.instance.build_unit();
        let properties = unit.properties(output, errors);
        // The unit's own deadline comes first.
        let longest = unit.deadline.saturating_add(START);
        self.run_to_its_end(name, properties, longest).await
    }

    /// Runs a unit of one command for `longest` at most: `None` if its end was a good one.
    ///
    /// # Errors
    /// When systemd can not be reached or refuses the unit, or somebody else has stopped it.
    pub(super) async fn run_to_its_end(
        &self,
        name: &str,
        properties: Properties,
        longest: Duration,
    ) -> Result<Option<Ending>, BusError> {
        // With the call our copies of the descriptors that it hands over end, too.
        let asked = async move {
            let start = || {
                let manager = &self.manager;
                manager.start_transient_unit(name, "replace", &properties, &[])
            };
            self.gate.pass(start).await
        };
        match self.job("run", name, asked, longest).await {
            Ok(()) => Ok(None),
            Err(BusError::Job { call, unit, result }) => {
                let ending = self.ending_of(name).await;
                let reset = || self.manager.reset_failed_unit(name);
                let _ = self.gate.pass(reset).await;
                ending.map(Some).ok_or(BusError::Job { call, unit, result })
            }
            Err(error) => Err(error),
        }
    }

    /// Kills the build of a generation with all of its processes; one that has ended is no error.
    ///
    /// # Errors
    /// When systemd can not be reached, or can not end it.
    pub async fn stop_build(&self, instance: &Instance) -> Result<(), BusError> {
        self.stop(&instance.build_unit(), START).await
    }

    /// Kills the builds that are under way, whoever began them.
    ///
    /// # Errors
    /// When systemd can not be reached, or can not end one of them.
    pub async fn stop_builds(&self) -> Result<(), BusError> {
        let listed = self.listed(&Instance::all_builds()).await?;
        let builds = listed.iter().map(|unit| Instance::from_build_unit(&unit.0));
        let stopping = builds
            .flatten()
            .map(async |build| self.stop_build(&build).await);
        let stopped = futures_util::future::join_all(stopping).await;
        stopped.into_iter().collect()
    }
}
