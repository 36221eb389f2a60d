//! How much room the state of each worker takes on the disk: measured after each reload and every ten minutes, and told of before it is
//! too much.
//!
//! Without a sandbox the directories are the manager's user's, and it looks itself. With one each belongs to a user that the manager,
//! which has no capabilities, cannot look behind: there [`STATE_UNIT`] does, which sees nothing else, and leaves what it found in a file.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::disk::{Disk, SMALL};
use super::explain::explain;
use super::pair::Ground;
use crate::config::WorkerType;
use crate::footprint::{Bounds, Footprint, measure, rest_after};
use crate::limits::ByteSize;
use crate::messages;
use crate::names::{Generation, Instance, WorkerName};
use crate::plan::{Fleet, Spec};
use crate::systemd::{STATE_UNIT, Systemd};

/// How often it is measured.
const EVERY: Duration = Duration::from_secs(600);
/// How long after the end of one measurement the next begins at the earliest, however often somebody reloads.
const PAUSE: Duration = Duration::from_secs(5);
/// In the runtime directory: what it has found.
const FOUND: &str = ".state";
/// Most of that that is read.
const LONGEST: u64 = 1 << 20;
/// How long the unit is waited for: somewhat longer than its own deadline.
const UNIT_DEADLINE: Duration = Duration::from_secs(660);

/// What was found, and what hindered it.
pub(super) type Measured = (Vec<(WorkerName, Footprint)>, Option<String>);

/// What is known of the state of all workers.
pub(super) struct States {
    found: BTreeMap<WorkerName, (Footprint, Level)>,
    /// When it is measured next.
    at: Instant,
    /// And not before.
    rests_until: Instant,
    under_way: bool,
    context: MeasureContext,
    measuring: JoinSet<Measured>,
    /// What was reported to have hindered it.
    reported: Option<String>,
}

/// What is known of one worker's state.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KnownState {
    /// `None`: not measured yet.
    pub(super) found: Option<Footprint>,
    /// `state_max`, if it has one.
    pub(super) limit: Option<ByteSize>,
}

/// What measuring needs.
#[derive(Clone)]
struct MeasureContext {
    systemd: Arc<Systemd>,
    disk: Disk,
    runtime_directory: PathBuf,
    /// Of files: a measurement that hangs keeps it.
    turn: Arc<Mutex<()>>,
}

/// How near its limit a worker's state is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    #[default]
    Below,
    /// From 90 % on.
    Near,
    /// From 100 % on.
    Full,
}

impl Level {
    /// What was not counted to its end is no less than it was.
    fn after(self, found: Footprint, most: Option<ByteSize>) -> Self {
        let level = match most {
            Some(most) if found.bytes >= most.0 => Self::Full,
            Some(most) if found.bytes >= most.0 / 10 * 9 => Self::Near,
            Some(_) if !found.is_all => self,
            _ => Self::Below,
        };
        if found.is_all { level } else { level.max(self) }
    }
}

/// `1.2GiB`, or `more than 1.2GiB`.
pub fn words(found: Footprint) -> String {
    let size = ByteSize(found.bytes).rough();
    match found.is_all {
        true => size,
        false => format!("more than {size}"),
    }
}

impl States {
    pub(super) fn new(systemd: Arc<Systemd>, disk: Disk, runtime_directory: PathBuf) -> Self {
        let context = MeasureContext {
            systemd,
            disk,
            runtime_directory,
            turn: Arc::default(),
        };
        Self {
            found: BTreeMap::new(),
            at: Instant::now() + PAUSE,
            rests_until: Instant::now(),
            under_way: false,
            context,
            measuring: JoinSet::new(),
            reported: None,
        }
    }

    /// Soon, because something has changed.
    pub(super) fn hurry(&mut self) {
        self.at = self.at.min(self.rests_until.max(Instant::now()));
    }

    /// When it is to be looked after; `None`: what is under way ends first.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.under_way).then_some(self.at)
    }

    /// Begins to measure if it is time. Nobody waits for it.
    pub(super) fn measure_if_due(
        &mut self,
        specs: &HashMap<Instance, Spec>,
        fleet: &Fleet,
        ground: &Ground<'_>,
    ) {
        if self.deadline().is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.under_way = true;
        self.at = Instant::now() + EVERY;
        let having = having_state(specs, fleet).into_iter();
        let places = having.map(|(name, spec)| (name.clone(), place(ground, name, spec)));
        let places: Vec<_> = places.collect();
        let (context, has_sandbox) = (self.context.clone(), ground.has_sandbox());
        self.measuring.spawn(async move {
            match has_sandbox {
                true if places.is_empty() => (Vec::new(), None),
                true => context.measured_by_unit().await,
                false => context.measure(places).await,
            }
        });
    }

    /// What was found by the measurement under way; `None`: none is.
    pub(super) async fn next(&mut self) -> Option<Result<Measured, JoinError>> {
        self.measuring.join_next().await
    }

    /// Takes what was found, and tells what is crossed.
    pub(super) fn measured(
        &mut self,
        (found, problem): Measured,
        specs: &HashMap<Instance, Spec>,
        fleet: &Fleet,
        ground: &Ground<'_>,
    ) {
        self.under_way = false;
        self.rests_until = Instant::now() + PAUSE;
        self.at = self.at.max(self.rests_until);
        if let Some(problem) = problem.as_ref().filter(|_| problem != self.reported) {
            tracing::warn!("the state of workers is not known: {problem}");
        }
        self.reported = problem;
        let mut before = std::mem::take(&mut self.found);
        let specs = having_state(specs, fleet);
        let mut kept = BTreeMap::new();
        for (name, footprint) in found {
            // Of a worker that is gone its directory may still be there.
            let Some(spec) = specs.get(&name) else {
                continue;
            };
            let most = spec.settings.limits.state_max;
            let level = before.remove(&name).map(|(_, level)| level);
            let level = level.unwrap_or_default();
            let now = level.after(footprint, most);
            if let Some(most) = most.filter(|_| now > level) {
                let beyond = match (now, self.context.systemd.has_state_quota()) {
                    (Level::Full, true) => {
                        "; where its file system has project quotas it cannot write more"
                    }
                    (Level::Full, false) => "; nothing stops it from writing more",
                    _ => "",
                };
                tracing::warn!(
                    message_id = messages::STATE_LARGE,
                    tq.worker = %name,
                    "the state of worker '{name}' in {} takes {} of {most} ('state_max'){beyond}; remove what it can do without, or raise \
                     'state_max' in its worker.yaml or in {}",
                    place(ground, &name, spec).display(),
                    words(footprint),
                    ground.file.display()
                );
            }
            kept.insert(name, (footprint, now));
        }
        // What could not be measured this time is as it was.
        before.retain(|name, _| specs.contains_key(name));
        kept.extend(before);
        self.found = kept;
    }

    /// What is known of each worker's state.
    pub(super) fn known(
        &self,
        specs: &HashMap<Instance, Spec>,
        fleet: &Fleet,
    ) -> BTreeMap<WorkerName, KnownState> {
        let having = having_state(specs, fleet).into_iter();
        let known = having.map(|(name, spec)| {
            let found = self.found.get(name).map(|(found, _)| *found);
            let limit = spec.settings.limits.state_max;
            (name.clone(), KnownState { found, limit })
        });
        known.collect()
    }
}

/// Each worker that has a state, as the generation that serves is made, or else the newest.
fn having_state<'a>(
    specs: &'a HashMap<Instance, Spec>,
    fleet: &Fleet,
) -> BTreeMap<&'a WorkerName, &'a Spec> {
    let mut chosen: BTreeMap<&WorkerName, (bool, Generation, &Spec)> = BTreeMap::new();
    for (Instance { worker, generation }, spec) in specs {
        if spec.settings.kind == WorkerType::Static {
            continue;
        }
        let serves = fleet.serving(worker) == Some(*generation);
        let this = (serves, *generation, spec);
        let best = chosen.entry(worker).or_insert(this);
        if (this.0, this.1) > (best.0, best.1) {
            *best = this;
        }
    }
    let chosen = chosen.into_iter();
    chosen.map(|(name, (.., spec))| (name, spec)).collect()
}

fn place(ground: &Ground<'_>, worker: &WorkerName, spec: &Spec) -> PathBuf {
    ground.data_directory(worker, &spec.directory)
}

impl MeasureContext {
    /// Measures one after the other. A directory that a worker has not made yet is left out.
    async fn measure(&self, places: Vec<(WorkerName, PathBuf)>) -> Measured {
        let bounds = Bounds::one_of(places.len());
        let (mut all, mut problem) = (Vec::new(), None);
        for (name, place) in places {
            let began = Instant::now();
            let what = || format!("measure {}", place.display());
            let turn = Arc::clone(&self.turn).lock_owned();
            let turn = self.disk.turn(SMALL, what, turn);
            let turn = match turn.await {
                Ok(turn) => turn,
                Err(error) => return (all, Some(explain(&error))),
            };
            let path = place.clone();
            let measured = self.disk.run(SMALL, what, move |effort| {
                let _turn = turn;
                // Where it lies is not the worker's word: a link there is somebody's wish.
                measure(&std::fs::canonicalize(path)?, bounds, || {
                    effort.step();
                    !effort.is_given_up()
                })
            });
            match measured.await {
                Ok(Ok(found)) => all.push((name, found)),
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
                Ok(Err(error)) => problem = Some(format!("{}: {error}", what())),
                Err(error) => return (all, Some(explain(&error))),
            }
            tokio::time::sleep(rest_after(began.elapsed())).await;
        }
        (all, problem)
    }

    /// Has it measured by the unit that may.
    async fn measured_by_unit(&self) -> Measured {
        if let Err(error) = self.systemd.measure_state(UNIT_DEADLINE).await {
            let cure = format!("`systemctl status {STATE_UNIT}` shows why");
            return (Vec::new(), Some(format!("{}; {cure}", explain(&error))));
        }
        let file = self.runtime_directory.join(FOUND);
        let path = file.clone();
        let what = || format!("read {}", file.display());
        let text = self.disk.run(SMALL, what, move |_| read(&path)).await;
        match text {
            Ok(Ok(text)) => (text.lines().filter_map(parse).collect(), None),
            Ok(Err(error)) => (Vec::new(), Some(format!("{}: {error}", what()))),
            Err(error) => (Vec::new(), Some(explain(&error))),
        }
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

/// A line of what the unit has found: a name, bytes, and `all` or `more`.
fn parse(line: &str) -> Option<(WorkerName, Footprint)> {
    let mut words = line.split(' ');
    let (name, bytes, word) = (words.next()?, words.next()?, words.next()?);
    let found = Footprint {
        bytes: bytes.parse().ok()?,
        is_all: word == "all",
    };
    Some((WorkerName::parse(name).ok()?, found))
}

/// Such a line; `None`: no worker is called so.
pub fn line(name: &std::ffi::OsStr, found: Footprint) -> Option<String> {
    let name = WorkerName::parse(name.to_str()?).ok()?;
    let word = if found.is_all { "all" } else { "more" };
    Some(format!("{name} {} {word}", found.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: u64) -> Footprint {
        Footprint {
            bytes,
            is_all: true,
        }
    }

    fn more_than(bytes: u64) -> Footprint {
        Footprint {
            bytes,
            is_all: false,
        }
    }

    #[test]
    fn a_limit_is_crossed_once_at_90_and_once_at_100_percent_and_again_after_it_was_left() {
        let most = Some(ByteSize(1000));
        let mut level = Level::default();
        let mut crossed = |found| {
            let before = level;
            level = before.after(found, most);
            level > before
        };
        for (bytes, is_crossed) in [
            (0, false),
            (899, false),
            (900, true),
            (950, false),
            (1000, true),
            (5000, false),
            (950, false),
            (1000, true),
            (10, false),
            (1001, true),
        ] {
            assert_eq!(crossed(all(bytes)), is_crossed, "{bytes}");
        }
    }

    #[test]
    fn what_was_not_counted_to_its_end_is_no_less_than_before() {
        let most = Some(ByteSize(1000));
        let full = Level::Full;
        assert_eq!(full.after(more_than(10), most), Level::Full);
        assert_eq!(full.after(all(10), most), Level::Below);
        assert_eq!(Level::Below.after(more_than(10), most), Level::Below);
        assert_eq!(Level::Near.after(more_than(2000), most), Level::Full);
        assert_eq!(full.after(more_than(2000), None), Level::Full);
        assert_eq!(full.after(all(2000), None), Level::Below);
    }

    #[test]
    fn what_the_unit_writes_is_read_and_nothing_else() {
        for found in [all(4096), more_than(1 << 40)] {
            let line = line("api.users".as_ref(), found).unwrap();
            let name = WorkerName::parse("api.users").unwrap();
            assert_eq!(parse(&line), Some((name, found)));
        }
        assert_eq!(line(".snapshots".as_ref(), all(1)), None);
        for odd in ["", "a", "a b all", "../x 1 all", "a -1 all"] {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }
}
