//! The manager's life: its start, the one loop that waits for whatever comes first (a unit changed, the proxy said something, an action
//! ended, somebody asked, a deadline), and its end.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::adoption;
use super::builds::{BuildContext, Builds};
use super::certificates;
use super::control;
use super::core::Core;
use super::deployments::Deployments;
use super::disk::{Disk, DiskError, STALLED};
use super::driver::Driver;
use super::journal::Journal;
use super::kept::Kept;
use super::link::{self, Door, LinkEvent};
use super::pauses::Pauses;
use super::perform::Performer;
use super::progress::{Progress, Reporter};
use super::reloads::Reloads;
use super::requests::{Nudge, Request};
use super::scans::Scans;
use super::snapshots::Snapshots;
use super::state::States;
use super::strays::{self, LeftError, Sweeps};
use crate::config::{Instead, Mode, Settings, project_directory};
use crate::deploy::{SnapshotError, Store};
use crate::plan::Event;
use crate::systemd::{BusError, Kind, Systemd, UnitChange};

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

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("mode", &self.mode)
            .field("bus", &self.bus)
            .finish_non_exhaustive()
    }
}

/// Why a manager ended.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// systemd cannot be reached.
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
    /// The proxy cannot be listened for.
    #[error("listen for the proxy in {}", .0.display())]
    Door(PathBuf, #[source] std::io::Error),
    /// What the start needs cannot be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The store of snapshots cannot be used.
    #[error(transparent)]
    Store(#[from] SnapshotError),
    /// A defect: an action did not end. What runs is adopted by the next manager.
    #[error("an action ended with a panic")]
    Panicked(#[source] tokio::task::JoinError),
    /// Workers are started by this program.
    #[error("this program does not know where it lies")]
    Program(#[source] std::io::Error),
    /// Not everything is known to be stopped.
    #[error(transparent)]
    Left(#[from] LeftError),
    /// The bus went away while the manager ran.
    #[error("the connection to systemd broke")]
    BusLost,
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
/// When it cannot start, or loses systemd.
pub async fn run(
    mut options: Options,
    mut ending: watch::Receiver<Option<Ending>>,
    progress: watch::Sender<Progress>,
    nudges: &mut mpsc::Receiver<Nudge>,
) -> Result<(), ManagerError> {
    let (systemd, units) = Systemd::connect(&options.bus).await?;
    let systemd = Arc::new(systemd);
    let connection = systemd.connection().clone();
    let requests = control::publish(&connection, options.mode.to_string()).await;
    let requests = requests.map_err(|error| match error {
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
    let (mut settings, its) = (options.settings.clone(), disk.clone());
    let reading = disk.run(
        STALLED,
        || "read the state of the server".to_owned(),
        move |_| {
            let open = |state: &PathBuf| Store::open(state, group);
            let store = state.as_ref().map(open).transpose()?;
            let adopted = adoption::adopted(loaded, store.as_ref());
            let pauses = Pauses::load(&runtime, state.as_deref(), its);
            // The first table has them already: with one that has none, a proxy that serves would have nothing to meet clients with.
            let certificates = certificates::load(&mut settings);
            Ok::<_, ManagerError>((store, adopted, pauses, certificates.map(|()| settings)))
        },
    );
    let (store, (found, strangers, users), pauses, with_certificates) = tokio::select! {
        read = reading => read??,
        // Nothing was changed yet.
        Ok(()) = ending.changed() => return Ok(()),
    };
    // With both planes in one process everything in our slice is stopped at the end, whatever the mode.
    let is_developers =
        options.mode == Mode::Development || matches!(options.door, Door::Stream(_));
    if let (true, Some(foreign)) = (is_developers, adoption::foreign(&found, &options.settings)) {
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
    match with_certificates {
        Ok(settings) => options.settings = settings,
        Err(problems) => tracing::error!(
            "the certificates can not be used, going on with those that the proxy has:\n{problems}"
        ),
    }
    let snapshots = store
        .clone()
        .zip(state_directory.clone())
        .map(|(store, state)| Snapshots::new(store, state, disk.clone()));
    let project = project_directory(&options.settings.file);
    let reporter = Reporter::new(progress);
    let builds = Builds::new(BuildContext {
        systemd: Arc::clone(&systemd),
        project: project.clone(),
        runtime_directory: options.runtime_directory.clone(),
        turns: Arc::default(),
        reporter: reporter.clone(),
    });
    let sweeps = Sweeps::new(Arc::clone(&systemd), own_units, options.mode);
    let runtime_directory = options.runtime_directory.clone();
    let states = States::new(Arc::clone(&systemd), disk.clone(), runtime_directory);
    let scans = Scans::new(disk.clone(), store, options.mode, options.instead);
    let kept = Kept::new(state_directory.as_ref(), disk.clone());
    let deployments = Deployments::new(kept, reporter.clone());
    let performer = Arc::new(Performer {
        systemd: Arc::clone(&systemd),
        snapshots,
        state_directory,
        journal: options.journal,
        disk,
        mode: options.mode,
        runtime_directory: options.runtime_directory,
        server,
        kind: options.kind,
        file: options.settings.file.clone(),
        project,
        group: options.group,
        starter: std::env::current_exe().map_err(ManagerError::Program)?,
        users: Mutex::new(users),
    });
    let (link_sender, link_events) = mpsc::channel(LINK_EVENTS);
    let stop_link = CancellationToken::new();
    let _stop_link = stop_link.clone().drop_guard();
    let link = tokio::spawn(async move {
        tokio::select! {
            () = link::serve(door, link_sender) => {}
            () = stop_link.cancelled() => {}
        }
    });
    if options.mode == Mode::Development {
        performer.stop_builds().await;
    }
    let reloads = Reloads::new(connection);
    let driver = Driver::new(Arc::clone(&performer), options.settings, builds, reloads);
    let mut core = Core::new(driver, scans, pauses, sweeps, states, deployments, reporter);
    core.begin(found, strangers);
    let mut sources = Sources {
        units,
        link: link_events,
        requests,
        nudges,
        ending,
    };
    serve(&mut core, &mut sources).await?;
    link.abort();
    let last = async {
        if options.mode == Mode::Development {
            performer.stop_builds().await;
        }
        if core.is_ended() {
            let grace = core.driver.settings.shutdown_grace;
            strays::stop_what_is_left(&systemd, &stays, grace).await?;
        }
        Ok(())
    };
    let mut last = std::pin::pin!(last);
    loop {
        tokio::select! {
            ended = &mut last => return ended,
            // Unread, they would keep back the signals that jobs have ended.
            change = sources.units.recv() => if change.is_none() { return Err(ManagerError::BusLost) },
        }
    }
}

/// What the loop waits for, beside the end of what the core has begun.
struct Sources<'a> {
    units: mpsc::Receiver<UnitChange>,
    link: mpsc::Receiver<LinkEvent>,
    requests: mpsc::Receiver<Request>,
    nudges: &'a mut mpsc::Receiver<Nudge>,
    ending: watch::Receiver<Option<Ending>>,
}

/// The loop. Returns when everything is stopped, or the workers are to stay.
async fn serve(core: &mut Core, sources: &mut Sources<'_>) -> Result<(), ManagerError> {
    loop {
        core.scan_if_idle();
        let deadline = core.deadline();
        tokio::select! {
            change = sources.units.recv() => match change {
                Some(UnitChange::Service(instance, state)) => core.driver.step(Event::Unit(instance, state)),
                Some(UnitChange::SocketDown(instance)) => core.driver.step(Event::SocketFailed(instance)),
                None => return Err(ManagerError::BusLost),
            },
            Some(event) = sources.link.recv() => core.hear(event),
            Some(done) = core.driver.tasks.join_next() => core.driver.step(done.map_err(ManagerError::Panicked)?),
            Some(_) = core.driver.aside.join_next() => {}
            Some(swept) = core.sweeps.next() => core.swept(swept.map_err(ManagerError::Panicked)?),
            Some(measured) = core.states.next() => {
                core.measured(measured.map_err(ManagerError::Panicked)?);
            }
            Some(written) = core.pauses.next_written() => {
                core.written(written.map_err(ManagerError::Panicked)?);
            }
            scanned = core.scans.finished() => {
                let (trigger, found) = scanned.map_err(ManagerError::Panicked)?;
                core.scanned(trigger, found);
            }
            Some(request) = sources.requests.recv(), if core.scans.has_room() => core.asked(request),
            Some(nudge) = sources.nudges.recv(), if core.scans.has_room() => core.nudged(nudge),
            Ok(()) = sources.ending.changed() => {
                let end = *sources.ending.borrow_and_update();
                match end {
                    Some(Ending::StopWorkers) => core.stop_all(),
                    Some(Ending::Leave) => return Ok(()),
                    None => {}
                }
            }
            () = tokio::time::sleep_until(deadline) => core.tick(),
        }
        core.settle();
        if core.is_ended() {
            return Ok(());
        }
    }
}
