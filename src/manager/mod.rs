//! The control plane: talks to systemd, decides, acts. It opens no network socket and never sees a request.
//!
//! One loop waits for whatever comes first (a unit changed, the proxy said something, an action ended, somebody asked, a deadline),
//! hands it to [`Fleet`], and gives each action that comes back to the one place that acts.

pub mod certificates;
pub mod control;
mod core;
mod disk;
mod halts;
mod journal;
mod link;
mod look;
pub mod pair;
mod perform;
mod report;
mod state;
mod strays;
mod users;
mod wishes;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::config::{Instead, Mode, Settings, project_directory};
use crate::deploy::{SnapshotError, Store};
use crate::names::{Instance, WorkerName};
use crate::plan::{Event, Fleet};
use crate::route::Claim;
use crate::systemd::{BusError, Kind, Systemd, UnitChange};
use crate::watcher::Watched;
use crate::wire::FrontState;

use self::core::Core;
use self::disk::{Disk, DiskError, STALLED};
use self::halts::Halts;
use self::wishes::finished;
pub use core::KEPT;
pub use journal::Journal;
pub use link::Door;
pub use look::LookError;
use perform::{Performer, chain};
pub use state::{line as line_of_state, words as size_of_state};
pub use strays::stop_what_is_left;

/// What the proxy said that may wait for the loop; the rest waits in the proxy.
const LINK_EVENTS: usize = 16;

/// What a manager is started with.
pub struct Options {
    /// The server's configuration, checked.
    pub settings: Settings,
    /// What goes over the file's word on where to listen, which every reload reads anew.
    pub instead: Instead,
    /// Development or production.
    pub mode: Mode,
    /// Which systemd.
    pub kind: Kind,
    /// The bus it is on.
    pub bus: String,
    /// Where the proxy comes from.
    pub door: Door,
    /// Where the sockets of workers are made.
    pub runtime_directory: PathBuf,
    /// Production: where snapshots and workers' own files are kept.
    pub state_directory: Option<PathBuf>,
    /// Where the output of workers goes.
    pub journal: Journal,
    /// Group that may connect to workers' sockets; `None`: the manager's user alone.
    pub group: Option<String>,
    /// Called once this is the manager of its systemd, before it makes the first unit.
    pub owning: Option<Box<dyn FnOnce() + Send>>,
}

/// Why a manager ended.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// systemd can not be reached.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// Another manager has the name on the bus.
    #[error(
        "another TQServer manages this systemd already; stop it, or start this one with --manager=private"
    )]
    Taken,
    /// The name on the bus could not be had.
    #[error(
        "take the name {} on the bus (on the machine's bus, packaging/dbus-1/ must be installed in /usr/share/dbus-1/system.d/)",
        control::NAME
    )]
    Name(#[source] zbus::Error),
    /// Generations of other workers run in this systemd; they are not to be mixed up with a developer's.
    #[error("workers in {} run in this systemd, left by another TQServer; stop them with `systemctl --user stop tqserver.slice`, or start this one with --manager=private", .0.display())]
    Foreign(PathBuf),
    /// The proxy can not be listened for.
    #[error("listen for the proxy in {}", .0.display())]
    Door(PathBuf, #[source] std::io::Error),
    /// What the start needs can not be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The store of snapshots can not be used.
    #[error(transparent)]
    Store(#[from] SnapshotError),
    /// A defect: an action did not end. What runs is adopted by the next manager.
    #[error("an action ended with a panic")]
    Panicked(#[source] tokio::task::JoinError),
    /// Workers are started by this program.
    #[error("this program does not know where it lies")]
    Program(#[source] std::io::Error),
    /// These units were to be stopped, and systemd has not confirmed that they are.
    #[error("not stopped in time: {}; `systemctl kill --signal=KILL UNIT` ends one, `systemctl status tqserver.slice` shows them", .0.join(", "))]
    Left(Vec<String>),
    /// The bus went away while the manager ran.
    #[error("the connection to systemd broke")]
    BusLost,
}

/// What a manager tells whoever started it.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Reloads and rollbacks under way.
    pub reloading: usize,
    /// Of a reload of many workers: how many are over, and how many there are.
    pub reloaded: Option<(usize, usize)>,
    /// What runs, in a line.
    pub summary: String,
    /// Every worker has been tried once and the proxy serves what came of it.
    pub settled: bool,
    /// Where the proxy listens, and where it could not.
    pub front: FrontState,
    /// How long the last requests may take at a stop.
    pub grace: Duration,
    /// Development: which files are to be watched, as of the last look at them.
    pub watched: Option<Arc<Watched>>,
    /// The workers that answer, and where.
    pub routes: BTreeMap<WorkerName, Vec<Claim>>,
    /// Development: the builds under way.
    pub builds: BTreeMap<Instance, Building>,
}

/// How far a build is.
#[derive(Clone, Debug)]
pub struct Building {
    /// When it began.
    pub since: tokio::time::Instant,
    /// What it wrote last.
    pub line: String,
}

/// Where a build tells how far it is.
#[derive(Clone)]
struct BuildWatch(watch::Sender<Progress>);

impl BuildWatch {
    fn begin(&self, instance: &Instance) {
        let building = Building {
            since: tokio::time::Instant::now(),
            line: String::new(),
        };
        self.0.send_modify(|progress| {
            progress.builds.insert(instance.clone(), building);
        });
    }

    fn hear(&self, instance: &Instance, line: &str) {
        self.0.send_modify(|progress| {
            if let Some(building) = progress.builds.get_mut(instance) {
                line.clone_into(&mut building.line);
            }
        });
    }

    fn forget(&self, instance: &Instance) {
        self.0
            .send_if_modified(|progress| progress.builds.remove(instance).is_some());
    }
}

/// What makes a manager look at the disk, beside those who ask over the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nudge {
    /// SIGHUP: a reload of everything.
    Hangup,
    /// Development: files were saved, and more may come: nothing is to serve yet.
    Saving,
    /// Development: files were saved, the first of them then.
    Saved(tokio::time::Instant),
}

/// How a manager is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It goes and the workers stay: a restart.
    Leave,
    /// It stops the workers and goes.
    StopWorkers,
}

/// Runs until told to end by `ending`, and looks at the disk at each of `nudges`.
///
/// # Errors
/// When it can not start, or loses systemd.
pub async fn run(
    mut options: Options,
    mut ending: watch::Receiver<Option<Ending>>,
    progress: watch::Sender<Progress>,
    nudges: &mut mpsc::Receiver<Nudge>,
) -> Result<(), ManagerError> {
    let (systemd, mut units) = Systemd::connect(&options.bus).await?;
    let connection = systemd.connection().clone();
    let requests = control::publish(&connection, options.mode.to_string()).await;
    let mut requests = requests.map_err(|error| match error {
        zbus::Error::NameTaken => ManagerError::Taken,
        error => ManagerError::Name(error),
    })?;
    let state_directory = options.state_directory;
    let group = match &options.door {
        Door::Path { group, .. } => *group,
        Door::Stream(_) => None,
    };
    let disk = Disk::default();
    let loaded = systemd.loaded().await?;
    let (state, runtime) = (state_directory.clone(), options.runtime_directory.clone());
    let mut settings = options.settings.clone();
    let reading = disk.run(
        STALLED,
        || "read the state of the server".to_owned(),
        move |_| {
            let open = |state: &PathBuf| Store::open(state, group);
            let store = state.as_ref().map(open).transpose()?;
            let adopted = look::adopted(loaded, store.as_ref());
            let halts = Halts::load(&runtime, state.as_deref());
            // The first table has them already: with one that has none, a proxy that serves would have nothing to meet clients with.
            let certificates = certificates::load(&mut settings);
            Ok::<_, ManagerError>((store, adopted, halts, certificates.map(|()| settings)))
        },
    );
    let (store, (found, strangers, users), halts, with_certificates) = tokio::select! {
        read = reading => read??,
        // Nothing was changed yet.
        Ok(()) = ending.changed() => return Ok(()),
    };
    // With both planes in one process everything in our slice is stopped at the end, whatever the mode.
    let is_developers =
        options.mode == Mode::Development || matches!(options.door, Door::Stream(_));
    if let (true, Some(foreign)) = (is_developers, look::foreign(&found, &options.settings)) {
        return Err(ManagerError::Foreign(foreign));
    }
    // Who stops the manager has stopped it before. With both planes in one process, one that runs is not ours.
    let has_proxy = matches!(options.door, Door::Path { .. });
    // Not before this is the only manager: the door takes the place of another one's.
    let door = options.door.open();
    let door =
        door.map_err(|error| ManagerError::Door(options.runtime_directory.clone(), error))?;
    if let Some(owning) = options.owning {
        owning();
    }
    let own = systemd.own_unit().await;
    let own_units = own.iter().cloned().chain(strays::PLANES.map(str::to_owned));
    let own_units: Vec<String> = own_units.collect();
    let stays = match has_proxy {
        true => own.into_iter().collect(),
        false => own_units.clone(),
    };
    let server = uuid::Uuid::now_v7().to_string();
    let runtime_directory = &options.runtime_directory;
    let snapshots = store.as_ref().map(Store::programs);
    match with_certificates {
        Ok(settings) => options.settings = settings,
        Err(problems) => tracing::error!(
            "the certificates can not be used, going on with those that the proxy has:\n{problems}"
        ),
    }
    let policy = look::policy(
        &options.settings,
        (options.kind, options.mode),
        runtime_directory,
        snapshots,
        &server,
    );
    let performer = Arc::new(Performer {
        systemd,
        store,
        state_directory,
        journal: options.journal,
        disk: disk.clone(),
        mode: options.mode,
        runtime_directory: options.runtime_directory.clone(),
        own_units,
        stays,
        server,
        kind: options.kind,
        file: options.settings.file.clone(),
        project: project_directory(&options.settings.file),
        group: options.group,
        starter: std::env::current_exe().map_err(ManagerError::Program)?,
        turns: Mutex::default(),
        users: Mutex::new(users),
    });
    let (link_sender, mut link_events) = mpsc::channel(LINK_EVENTS);
    let stop_link = CancellationToken::new();
    let _stop_link = stop_link.clone().drop_guard();
    let link = tokio::spawn(async move {
        tokio::select! {
            () = link::serve(door, link_sender) => {}
            () = stop_link.cancelled() => {}
        }
    });
    let mut core = Core::new(
        Fleet::new(policy),
        performer,
        connection,
        options.settings,
        options.instead,
        halts,
        progress,
    );
    if options.mode == Mode::Development {
        core.performer.stop_builds().await;
    }
    core.begin(found, strangers);
    loop {
        core.look_if_idle();
        let deadline = core.deadline();
        tokio::select! {
            change = units.recv() => match change {
                Some(UnitChange::Service(instance, state)) => core.step(Event::Unit(instance, state)),
                Some(UnitChange::SocketDown(instance)) => core.step(Event::SocketFailed(instance)),
                None => return Err(ManagerError::BusLost),
            },
            Some(event) = link_events.recv() => core.hear(event),
            Some(done) = core.tasks.join_next() => core.step(done.map_err(ManagerError::Panicked)?),
            Some(_) = core.aside.join_next() => {}
            Some(swept) = core.swept.join_next() => core.swept(swept.map_err(ManagerError::Panicked)?),
            Some(measured) = core.measuring.join_next() => {
                core.measured(measured.map_err(ManagerError::Panicked)?);
            }
            Some(written) = core.writing.join_next() => {
                core.written(written.map_err(ManagerError::Panicked)?);
            }
            seen = finished(&mut core.looking) => {
                core.seen(seen.map_err(ManagerError::Panicked)?);
            }
            Some(request) = requests.recv(), if core.has_room() => core.asked(request),
            Some(nudge) = nudges.recv(), if core.has_room() => core.nudged(nudge),
            Ok(()) = ending.changed() => {
                let end = *ending.borrow_and_update();
                match end {
                    Some(Ending::StopWorkers) => {
                        core.ending = true;
                        disk.end();
                        core.early.clear();
                        core.step(Event::StopAll);
                    }
                    Some(Ending::Leave) => break,
                    None => {}
                }
            }
            () = tokio::time::sleep_until(deadline) => core.tick(),
        }
        if core.ended {
            break;
        }
    }
    link.abort();
    let last = async {
        if options.mode == Mode::Development {
            core.performer.stop_builds().await;
        }
        match core.ended {
            true => {
                let grace = core.settings.shutdown_grace;
                strays::stop_what_is_left(&core.performer.systemd, &core.performer.stays, grace)
                    .await
            }
            false => Ok(()),
        }
    };
    let mut last = std::pin::pin!(last);
    loop {
        tokio::select! {
            ended = &mut last => return ended,
            // Unread, they would keep back the signals that jobs have ended.
            change = units.recv() => if change.is_none() { return Err(ManagerError::BusLost) },
        }
    }
}

impl Progress {
    /// Whether the proxy has said where it listens.
    pub fn is_met(&self) -> bool {
        !self.front.listening.is_empty() || self.front.problem.is_some()
    }

    /// What runs, in a line, and before that what is not served.
    pub fn status(&self) -> String {
        match self.front.trouble() {
            trouble if trouble.is_empty() => self.summary.clone(),
            trouble => format!("{trouble}; {}", self.summary),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("mode", &self.mode)
            .field("bus", &self.bus)
            .finish_non_exhaustive()
    }
}

/// Errors as sentences, causes included.
pub fn explain(error: &dyn std::error::Error) -> String {
    chain(error)
}
