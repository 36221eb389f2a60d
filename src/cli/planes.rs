//! `tqserver manager` and `tqserver proxy`: the two planes as two processes.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::arguments::Common;
use crate::ansi;
use crate::config::{Instead, Mode, Problems, Settings};
use crate::dev::{self, Asked, Signals};
use crate::manager::{self, Door, Ending, Nudge, Options, Progress};
use crate::messages;
use crate::proxy;
use crate::route::Place;
use crate::systemd::fd_store::FdStore;
use crate::systemd::notify::Watchdog;
use crate::systemd::{Kind, Systemd, is_going_down, netlink, notify, own_job, stop_unit};
use crate::wire::FrontState;

/// The socket between the planes, in the runtime directory.
const LINK: &str = "link.sock";
/// The data plane's unit, which a stopped manager takes along.
const PROXY: &str = "tqserver-proxy.service";
/// What it may take to stop beyond twice its grace: once for the requests in flight, once for those that came meanwhile.
const PROXY_STOP_EXTRA: Duration = Duration::from_secs(15);

/// How long a start waits for the proxy to listen: who starts the server wants to use it. One without a proxy is told in the status.
const PROXY_START: Duration = Duration::from_secs(5);
/// How often systemd is told that something goes on.
const TICK: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(super) struct Manager {
    /// Where snapshots of accepted workers are kept (production).
    #[arg(long, value_name = "DIRECTORY")]
    state_directory: Option<PathBuf>,
    /// The proxy's group: it may connect to the workers and to this manager.
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
}

impl Manager {
    pub(super) async fn run(self, common: &Common) -> anyhow::Result<u8> {
        let mode = common.mode(Mode::Production)?;
        let kind = common.kind();
        let state_directory = match (mode, self.state_directory) {
            (Mode::Development, _) => None,
            (Mode::Production, Some(directory)) => Some(std::path::absolute(directory)?),
            (Mode::Production, None) => Some(kind.state_directory(&common.config)),
        };
        let settings = settings(common, state_directory.as_deref())?;
        let file = settings.file.clone();
        let runtime_directory = kind.runtime_directory(&file);
        dev::make(&runtime_directory)?;
        dev::warn_of(kind, mode);
        let gid = self.group.as_deref().map(group_id).transpose()?;
        let door = Door::Path {
            path: runtime_directory.join(LINK),
            group: gid,
        };
        let options = Options {
            settings,
            instead: Instead::default(),
            mode,
            kind,
            bus: kind.bus(&file),
            door,
            journal: dev::journal(kind, &runtime_directory)?,
            runtime_directory,
            state_directory,
            group: self.group,
            owning: None,
        };
        supervise(options, kind, &file).await?;
        Ok(0)
    }
}

/// The configuration; when it has become wrong, the one that was taken over last: what was live comes back, and every reload says what
/// is wrong.
fn settings(common: &Common, state: Option<&Path>) -> Result<Settings, Problems> {
    common.settings().or_else(|problems| {
        let kept =
            state.and_then(|state| Settings::kept(&common.config, &state.join(manager::KEPT)));
        let kept = kept.ok_or_else(|| problems.clone())?;
        tracing::error!(
            "{} is wrong; going on with what was taken over last:\n{problems}",
            common.config.display()
        );
        Ok(kept)
    })
}

/// What systemd is told of the manager (sd_notify(3)).
struct Told {
    ready: bool,
    reloading: bool,
    ending: bool,
    status: String,
}

impl Told {
    /// The start is over: whoever asked for it can go on.
    fn be_ready(&mut self, progress: &Progress) {
        if !self.ready && !self.ending {
            self.ready = true;
            notify::ready(&ansi::one_line(&progress.status()));
            self.tell(progress);
        }
    }

    /// A reload shows in the unit's status line, and not by RELOADING=1: systemd 257 then waits for the READY=1 of a manager that has
    /// died within `systemctl reload`, until the watchdog ends that.
    fn tell(&mut self, progress: &Progress) {
        if self.ending {
            return;
        }
        self.reloading = progress.reloading > 0;
        let status = match (progress.settled, self.reloading) {
            (false, _) => format!("starting; {}", progress.status()),
            (true, true) => match progress.reloaded {
                Some((over, all)) => format!("reloading, {over} of {all}; {}", progress.status()),
                None => format!("reloading; {}", progress.status()),
            },
            (true, false) => progress.status(),
        };
        if self.ready && status != self.status {
            notify::status(&ansi::one_line(&status));
            self.status = status;
        }
    }

    /// Regularly: that more time is needed than the unit's timeouts give, as long as something is on its way that ends by itself.
    fn tick(&self) {
        if self.reloading || self.ending {
            notify::extend_timeout(3 * TICK);
        }
    }
}

async fn supervise(mut options: Options, kind: Kind, file: &Path) -> anyhow::Result<()> {
    let bus = options.bus.clone();
    let mut signals = Signals::open()?;
    let (end, ending) = watch::channel(None);
    let (progress, mut seen) = watch::channel(Progress::default());
    let (reload, mut reloads) = mpsc::channel(1);
    let (owning, mut owned) = oneshot::channel();
    options.owning = Some(Box::new(move || {
        let _ = owning.send(());
    }));
    let mut manager =
        tokio::spawn(async move { manager::run(options, ending, progress, &mut reloads).await });
    let mut told = Told {
        ready: false,
        reloading: false,
        ending: false,
        status: String::new(),
    };
    let (mut is_owner, mut ready_by) = (false, Instant::now());
    // On the thread of the manager's loop: a loop that hangs does not let this come round either.
    let mut alive = tokio::time::interval(notify::watchdog_interval().unwrap_or(TICK).min(TICK));
    loop {
        tokio::select! {
            ended = &mut manager => {
                tracing::info!(message_id = messages::SERVER_STOPPED, "the manager ends");
                return Ok(ended??);
            }
            // Not before it is the manager: a start that fails is to be told to who asked for it.
            Ok(()) = &mut owned, if !is_owner => {
                is_owner = true;
                ready_by = Instant::now() + PROXY_START;
                let file = file.display();
                let text = format!("manages the workers of {file} by the {kind} systemd");
                tracing::info!(message_id = messages::SERVER_STARTED, "{text}");
            }
            () = tokio::time::sleep_until(ready_by), if is_owner && !told.ready => {
                told.be_ready(&seen.borrow());
            }
            Ok(()) = seen.changed() => {
                let progress = seen.borrow_and_update();
                if is_owner && progress.is_met() {
                    told.be_ready(&progress);
                }
                told.tell(&progress);
            }
            _ = alive.tick() => {
                notify::watchdog();
                told.tick();
            }
            asked = signals.next() => match asked {
                Asked::Reload => { let _ = reload.try_send(Nudge::Hangup); }
                Asked::End if told.ending => {}
                Asked::End => {
                    told.ending = true;
                    notify::stopping();
                    let (bus, end, grace) = (bus.clone(), end.clone(), seen.borrow().grace);
                    tokio::spawn(async move { let _ = end.send(Some(how_to_end(&bus, grace).await)); });
                }
            }
        }
    }
}

/// Only a `stop` takes the workers along: they outlive a restart, and whatever can not be told apart from one. When all goes down
/// systemd stops them itself, in its own order: some of that waits for this process.
async fn how_to_end(bus: &str, grace: Duration) -> Ending {
    if own_job(bus).await.as_deref() != Some("stop") || is_going_down(bus).await {
        return Ending::Leave;
    }
    // It ends the requests in flight while their workers are still there. Not by PartOf=, which would also restart it whenever systemd
    // restarts a manager that died.
    stop_unit(bus, PROXY, 2 * grace + PROXY_STOP_EXTRA).await;
    Ending::StopWorkers
}

fn group_id(name: &str) -> anyhow::Result<u32> {
    let groups = std::fs::read_to_string("/etc/group").context("read /etc/group")?;
    let line = groups
        .lines()
        .find(|line| line.split(':').next() == Some(name));
    let id = line
        .and_then(|line| line.split(':').nth(2))
        .and_then(|id| id.parse().ok());
    id.with_context(|| format!("there is no group '{name}'"))
}

#[derive(Debug, clap::Args)]
pub(super) struct Proxy {
    /// The manager's socket.
    #[arg(long, value_name = "SOCKET")]
    link: Option<PathBuf>,
    /// Threads that serve. Default: one a core.
    #[arg(long, value_name = "NUMBER")]
    threads: Option<usize>,
}

/// The grace where server.yaml can not be read.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// More time than the grace that a stop of the proxy may need, for which systemd is asked.
const STOP_EXTRA: Duration = Duration::from_secs(5);

impl proxy::Store for FdStore {
    fn keep_listener(&self, place: &Place, listener: BorrowedFd<'_>) {
        self.keep_listener(place, listener);
    }
    fn drop_listener(&self, place: &Place) {
        self.drop_listener(place);
    }
    fn keep_table(&self, table: &[u8]) {
        self.keep_table(table);
    }
    fn keep_tickets(&self, keys: &[u8]) {
        self.keep_tickets(keys);
    }
}

/// Where the proxy listens, as `systemctl status` shows it.
fn shown(front: &FrontState) -> String {
    let places: Vec<String> = front.listening.iter().map(ToString::to_string).collect();
    let listens = match places.is_empty() {
        true => "listens nowhere".to_owned(),
        false => format!("listens on {}", places.join(", ")),
    };
    match front.trouble() {
        trouble if trouble.is_empty() => listens,
        trouble => format!("{trouble}; {listens}"),
    }
}

/// How systemd hears that the proxy is alive, and that it is not.
fn heart(watchdog: Watchdog) -> proxy::Heart {
    let watchdog = Arc::new(watchdog);
    let hung = watchdog.clone();
    proxy::Heart {
        every: watchdog.interval(),
        beat: Box::new(move || watchdog.beat()),
        hung: Box::new(move |reason| hung.trigger(reason)),
    }
}

/// The grace of the settings in use.
fn grace(common: &Common) -> Duration {
    let state = common.kind().state_directory(&common.config);
    let settings = settings(common, Some(&state));
    settings.map_or(DEFAULT_GRACE, |settings| settings.shutdown_grace)
}

/// Ends the proxy, which is the main process of the unit this runs in (`ExecStop=`). What faces the internet may ask systemd for more and
/// more time (`EXTEND_TIMEOUT_USEC=`) and do as it likes with SIGTERM; here it can not.
#[derive(Debug, clap::Args)]
pub(super) struct EndProxy {}

impl EndProxy {
    pub(super) fn run(common: &Common) -> anyhow::Result<u8> {
        // One that has ended by itself is told of by systemd without this.
        let pid = std::env::var("MAINPID").ok();
        let Some(pid) = pid.and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw) else {
            return Ok(0);
        };
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
            return Ok(0);
        };
        let grace = grace(common);
        let deadline = std::time::Instant::now() + grace * 2 + STOP_EXTRA;
        let _ = pidfd_send_signal(&process, Signal::TERM);
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            let timeout = Timespec::try_from(left).ok();
            let mut waits = [PollFd::new(&process, PollFlags::IN)];
            match poll(&mut waits, timeout.as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(0) if !left.is_zero() => {}
                Ok(0) | Err(_) => break,
                Ok(_) => return Ok(0),
            }
        }
        tracing::error!(
            "the proxy has not ended within twice the grace of {} s and {} s more; it is killed",
            grace.as_secs(),
            STOP_EXTRA.as_secs()
        );
        let _ = pidfd_send_signal(&process, Signal::KILL);
        Ok(0)
    }
}

/// Stops what a manager has left that died while systemd was stopping it (`ExecStopPost=`): nobody else would, and the workers would run
/// on without a server. After any other end this does nothing.
#[derive(Debug, clap::Args)]
pub(super) struct EndWorkers {}

impl EndWorkers {
    pub(super) async fn run(self, common: &Common) -> anyhow::Result<u8> {
        let bus = common.kind().bus(&common.config);
        let grace = grace(common);
        if how_to_end(&bus, grace).await == Ending::Leave {
            return Ok(0);
        }
        let (systemd, mut changes) = Systemd::connect(&bus).await?;
        tokio::spawn(async move { while changes.recv().await.is_some() {} });
        let own = systemd.own_unit().await;
        let stays: Vec<String> = own.into_iter().chain([PROXY.to_owned()]).collect();
        manager::stop_what_is_left(&systemd, &stays, grace).await?;
        Ok(0)
    }
}

impl Proxy {
    pub(super) async fn run(self, common: &Common) -> anyhow::Result<u8> {
        // Netlink tells whose a worker's port is. Whoever takes this process over is to have no more of it than that.
        if let Err(error) = netlink::keep_only(netlink::Protocol::Sockets) {
            tracing::warn!("netlink's other protocols stay open to the proxy: {error}");
        }
        let (store, inherited) = FdStore::open();
        let link = match self.link {
            Some(link) => link,
            None => common.kind().runtime_directory(&common.config).join(LINK),
        };
        let (serving, mut served) = watch::channel(None);
        let shutdown = CancellationToken::new();
        let proxy = proxy::run(
            proxy::Options {
                link: proxy::Link::Path(link),
                inherited: inherited.listeners,
                remembered: inherited.table,
                tickets: inherited.tickets,
                store: Some(Box::new(store)),
                serving: Some(serving),
                threads: self.threads.unwrap_or_else(dev::threads),
                heart: Watchdog::open().map(heart),
            },
            shutdown.clone(),
        );
        let mut signals = Signals::open()?;
        let mut proxy = std::pin::pin!(proxy);
        let mut ready = false;
        let mut grace = Duration::ZERO;
        loop {
            tokio::select! {
                ended = &mut proxy => { ended?; return Ok(0) },
                Ok(()) = served.changed(), if !shutdown.is_cancelled() => {
                    let Some(now) = served.borrow_and_update().clone() else { continue };
                    grace = now.grace;
                    let text = shown(&now.front);
                    if ready { notify::status(&text) } else { notify::ready(&text) }
                    ready = true;
                }
                asked = signals.next() => if asked == Asked::End {
                    notify::stopping();
                    // The unit does not know what server.yaml says. What was accepted late has the same time once more.
                    notify::extend_timeout(grace * 2 + STOP_EXTRA);
                    shutdown.cancel();
                }
            }
        }
    }
}
