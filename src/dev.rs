//! Development: both planes in one process, joined by a socket pair. The same code as in production, not a second one.

mod output;
mod progress;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::{Instead, Mode, Settings};
use crate::limits::cores;
use crate::manager::{self, Door, Ending, Journal, ManagerError, Nudge, Options, Progress};
use crate::names::WorkerName;
use crate::proxy::{self, ProxyError};
use crate::route::{Claim, Listen};
use crate::systemd::{Cleaner, Kind, Place, Private};
use crate::watcher::{Burst, Watched, Watcher};
use output::{Output, Said};
use progress::Builds;

/// Longest wait for the workers to be stopped at the end, beyond their own grace.
const STOP_EXTRA: Duration = Duration::from_secs(10);

/// What may wait for the manager. Of two bursts of which each has begun and ended, the last end covers whatever comes while they wait.
const NUDGES: usize = 4;

/// What `tqserver dev` is started with.
#[derive(Debug)]
pub struct Start {
    /// The configuration.
    pub settings: Settings,
    /// What goes over the file's word on where to listen.
    pub instead: Instead,
    /// Which systemd.
    pub kind: Kind,
    /// Development, unless production is tried at home.
    pub mode: Mode,
    /// Whether to say only what went wrong.
    pub quiet: bool,
}

/// Runs both planes until Ctrl-C or SIGTERM; a second one does not wait for requests in flight.
///
/// # Errors
/// When systemd can not be had, or one of the planes ends by itself.
pub async fn run(start: Start) -> anyhow::Result<()> {
    let mut signals = Signals::open()?;
    let host = host(start.kind, start.mode, &start.settings.file);
    let mut private = tokio::select! {
        private = host => private?,
        // What has begun to come up is taken down by its keeper.
        () = signals.end() => return Ok(()),
    };
    let mut planes = Planes::start(&start)?;
    let result = tokio::select! {
        result = planes.until_told(&mut signals) => result,
        () = ended(private.as_mut()) => Err(anyhow::anyhow!("the private systemd ended")),
    };
    let stopped = planes.stop(result.is_ok(), &mut signals).await;
    if let Some(private) = private {
        // That ends whatever is left.
        private.stop().await;
        return result;
    }
    result.and(stopped)
}

/// Both planes, as tasks of this process.
struct Planes {
    manager: JoinHandle<Result<(), ManagerError>>,
    proxy: JoinHandle<Result<(), ProxyError>>,
    progress: watch::Receiver<Progress>,
    nudge: mpsc::Sender<Nudge>,
    /// Development: tells when files were saved, once it is known which.
    watcher: Option<Watcher>,
    /// What it watches.
    watched: Option<Arc<Watched>>,
    /// What workers write, if it is to be shown.
    output: Option<Output>,
    builds: Builds,
    /// Nobody has said at which addresses to listen.
    private: bool,
    end: watch::Sender<Option<Ending>>,
    stop_proxy: CancellationToken,
    grace: Duration,
    /// Who stops our units if we are killed. It goes last.
    _cleaner: Arc<Mutex<Option<Cleaner>>>,
}

impl Planes {
    fn start(start: &Start) -> anyhow::Result<Self> {
        let grace = start.settings.shutdown_grace;
        let runtime_directory = start.kind.runtime_directory(&start.settings.file);
        make(&runtime_directory)?;
        let (ours, theirs) = UnixStream::pair().context("make a socket pair")?;
        ours.set_nonblocking(true)?;
        let door = Door::Stream(tokio::net::UnixStream::from_std(ours)?);
        let cleaner = Arc::default();
        let mut options = options(start, runtime_directory.clone(), door)?;
        let journal = options.journal.clone();
        if start.kind != Kind::Private {
            options.owning = Some(cleaning(start.kind, &runtime_directory, &cleaner));
        }
        let (end, ending) = watch::channel(None);
        let (tell, progress) = watch::channel(Progress::default());
        let (nudge, mut nudges) = mpsc::channel(NUDGES);
        let manager = async move { manager::run(options, ending, tell, &mut nudges).await };
        let output = if start.quiet {
            None
        } else {
            Some(Output::follow(&journal).context("follow what workers write")?)
        };
        let stop_proxy = CancellationToken::new();
        let proxy = proxy::Options {
            link: proxy::Link::Stream(theirs),
            inherited: Vec::new(),
            tickets: None,
            remembered: None,
            store: None,
            serving: None,
            threads: threads(),
            heart: None,
        };
        Ok(Self {
            manager: tokio::spawn(manager),
            proxy: tokio::spawn(proxy::run(proxy, stop_proxy.clone())),
            progress,
            nudge,
            watcher: None,
            watched: None,
            output,
            builds: Builds::new(start.quiet),
            private: start.instead.address.is_none() && !start.settings.addressed,
            end,
            stop_proxy,
            grace,
            _cleaner: cleaner,
        })
    }

    /// Until a signal says so; anything else that ends it is an error.
    async fn until_told(&mut self, signals: &mut Signals) -> anyhow::Result<()> {
        let mut announced: Option<BTreeMap<WorkerName, Vec<Claim>>> = None;
        loop {
            tokio::select! {
                ended = &mut self.manager => {
                    ended??;
                    anyhow::bail!("the manager ended");
                }
                ended = &mut self.proxy => {
                    ended??;
                    anyhow::bail!("the proxy ended");
                }
                Ok(()) = self.progress.changed() => {
                    let now = self.progress.borrow_and_update().clone();
                    if let Some(problem) = now.front.problem.filter(|_| now.front.listening.is_empty()) {
                        anyhow::bail!(problem);
                    }
                    // Each line of a compiler is news, and most of it is none of the watcher's.
                    if let Some(watched) = now.watched
                        && !self.watched.as_ref().is_some_and(|known| Arc::ptr_eq(known, &watched))
                    {
                        self.watch(&watched)?;
                        self.watched = Some(watched);
                    }
                    self.builds.are(now.builds);
                    if now.settled {
                        announce(&now.front.listening, &now.routes, announced.as_ref(), self.private);
                        announced = Some(now.routes);
                    }
                }
                said = next_said(&mut self.output) => {
                    if let Some(output) = &mut self.output {
                        output.print(&said);
                    }
                }
                () = self.builds.tell() => {}
                () = resting_burst(self.watcher.as_ref()) => {
                    let _ = self.nudge.try_send(Nudge::Saving);
                }
                // One that waits already covers this one, whichever it is.
                burst = next_burst(self.watcher.as_ref()) => {
                    let _ = self.nudge.try_send(Nudge::Saved(burst.first));
                }
                asked = signals.next() => match asked {
                    Asked::Reload => { let _ = self.nudge.try_send(Nudge::Hangup); }
                    Asked::End => return Ok(()),
                }
            }
        }
    }

    fn watch(&mut self, watched: &Watched) -> anyhow::Result<()> {
        let watched = watched.clone();
        match &self.watcher {
            Some(watcher) => watcher.watch(watched),
            None => {
                let watcher = Watcher::start(watched).context("start to watch files")?;
                self.watcher = Some(watcher);
            }
        }
        Ok(())
    }

    /// First the proxy ends its requests (if it may: `gently`), then the manager stops the workers.
    async fn stop(&mut self, gently: bool, signals: &mut Signals) -> anyhow::Result<()> {
        self.stop_proxy.cancel();
        if gently && !self.proxy.is_finished() {
            tokio::select! {
                _ = &mut self.proxy => {}
                () = signals.end() => {}
            }
        }
        let _ = self.end.send(Some(Ending::StopWorkers));
        if self.manager.is_finished() {
            return Ok(());
        }
        match tokio::time::timeout(self.grace + STOP_EXTRA, &mut self.manager).await {
            Ok(ended) => Ok(ended??),
            // The cleaner ends what is left.
            Err(_) => anyhow::bail!("the workers were not stopped in time"),
        }
    }
}

/// The next time that files may have been saved; never, while none are watched.
async fn resting_burst(watcher: Option<&Watcher>) {
    match watcher {
        Some(watcher) => watcher.rests().await,
        None => std::future::pending().await,
    }
}

/// The next time that files were saved; never, while none are watched.
async fn next_burst(watcher: Option<&Watcher>) -> Burst {
    match watcher {
        Some(watcher) => watcher.burst().await,
        None => std::future::pending().await,
    }
}

/// The next line of a worker; never, if none is to be shown.
async fn next_said(output: &mut Option<Output>) -> Said {
    match output {
        Some(output) => output.next().await,
        None => std::future::pending().await,
    }
}

async fn ended(private: Option<&mut Private>) {
    match private {
        Some(private) => private.ended().await,
        None => std::future::pending().await,
    }
}

/// A private systemd where one is wanted.
async fn host(kind: Kind, mode: Mode, file: &Path) -> anyhow::Result<Option<Private>> {
    warn_of(kind, mode);
    if kind != Kind::Private {
        return Ok(None);
    }
    let private = Private::start(Place::of(file), None).await?;
    if let Some(warning) = private.warning() {
        tracing::warn!("{warning}");
    }
    Ok(Some(private))
}

/// In a session that is not ours to end: starts who stops our units if we are killed, as soon as they are ours.
fn cleaning(
    kind: Kind,
    runtime_directory: &Path,
    cleaner: &Arc<Mutex<Option<Cleaner>>>,
) -> Box<dyn FnOnce() + Send> {
    let (directory, cleaner) = (runtime_directory.to_owned(), Arc::clone(cleaner));
    Box::new(move || match Cleaner::start(kind, &directory) {
        Ok(started) => *cleaner.lock().unwrap_or_else(PoisonError::into_inner) = Some(started),
        Err(error) => {
            tracing::warn!("nobody will stop the workers if this process is killed: {error}")
        }
    })
}

/// Says once what workers by this systemd can do to the machine. (A worker whose `network` is not enforced is named when it starts.)
pub fn warn_of(kind: Kind, mode: Mode) {
    if kind == Kind::System && mode == Mode::Development {
        tracing::warn!(
            "in development the machine's systemd runs workers as root and without a sandbox: only for workers you trust"
        );
    }
}

/// A directory for sockets and logs. Others may pass through it: each socket has its own permissions, and the proxy may be another
/// user's.
///
/// # Errors
/// When it can not be made.
pub fn make(directory: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory);
    made.with_context(|| format!("make the directory {}", directory.display()))
}

/// Threads that serve: one a core.
pub fn threads() -> usize {
    cores()
}

fn options(start: &Start, runtime_directory: PathBuf, door: Door) -> anyhow::Result<Options> {
    let file = &start.settings.file;
    let state_directory = match start.mode {
        Mode::Production => Some(start.kind.state_directory(file)),
        Mode::Development => None,
    };
    Ok(Options {
        settings: start.settings.clone(),
        instead: start.instead,
        mode: start.mode,
        kind: start.kind,
        bus: start.kind.bus(file),
        door,
        journal: journal(start.kind, &runtime_directory)?,
        runtime_directory,
        state_directory,
        group: None,
        owning: None,
    })
}

/// The journal where there is one; a private systemd has none.
///
/// # Errors
/// When the directory for log files can not be made.
pub fn journal(kind: Kind, runtime_directory: &Path) -> anyhow::Result<Journal> {
    if kind == Kind::Private {
        let directory = runtime_directory.join("log");
        make(&directory)?;
        return Ok(Journal::Files(directory));
    }
    Ok(Journal::Journald {
        user: kind == Kind::User,
    })
}

/// Tells where the workers are found: all of them at first, then those that were not there `before`.
fn announce(
    listening: &[Listen],
    routes: &BTreeMap<WorkerName, Vec<Claim>>,
    before: Option<&BTreeMap<WorkerName, Vec<Claim>>>,
    private: bool,
) {
    let Some(first) = listening.first() else {
        return;
    };
    let local = private.then_some("localhost");
    let new = routes
        .iter()
        .filter(|(worker, route)| before.is_none_or(|known| known.get(worker) != Some(route)));
    let new: Vec<_> = new.collect();
    let widest = new.iter().map(|(worker, _)| worker.as_str().len()).max();
    for (worker, claims) in new {
        let width = widest.unwrap_or(0);
        for claim in claims {
            let host = claim.host.as_ref().map(ToString::to_string);
            let url = url(first, host.as_deref().or(local), claim.path.as_str());
            tracing::info!("{:<width$}  {url}", worker.as_str());
        }
    }
    if before.is_none() {
        for listen in listening {
            let url = url(listen, local, "/");
            tracing::info!("TQServer listens on {url} (Ctrl-C ends it)");
        }
        if private {
            tracing::info!("only this machine can connect; --address 0.0.0.0 lets others in");
        }
    }
}

/// `path` on `host` as a browser on this machine finds it.
fn url(listen: &Listen, host: Option<&str>, path: &str) -> String {
    let Some(address) = listen.address() else {
        return format!("{} {path}", listen.place);
    };
    let host = match (host, address.ip()) {
        (Some(host), _) => host.to_owned(),
        (None, ip) if ip.is_unspecified() => "localhost".to_owned(),
        (None, IpAddr::V6(ip)) => format!("[{ip}]"),
        (None, IpAddr::V4(ip)) => ip.to_string(),
    };
    let scheme = if listen.tls { "https" } else { "http" };
    format!("{scheme}://{host}:{}{path}", address.port())
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// SIGHUP.
    Reload,
    /// SIGINT or SIGTERM.
    End,
}

/// The signals a server listens to.
#[derive(Debug)]
pub struct Signals {
    hangup: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    /// We were started in a terminal.
    terminal: bool,
}

impl Signals {
    /// Begins to listen; from here on the signals do not end the process by themselves.
    ///
    /// # Errors
    /// When the process may not.
    pub fn open() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            terminal: has_terminal(),
        })
    }

    /// The next signal.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            // The terminal we were started in is gone: nobody can end us any more.
            _ = self.hangup.recv() => if self.terminal && !has_terminal() { Asked::End } else { Asked::Reload },
            _ = self.interrupt.recv() => Asked::End,
            _ = self.terminate.recv() => Asked::End,
        }
    }

    async fn end(&mut self) {
        while self.next().await != Asked::End {}
    }
}

/// Whether this process has a controlling terminal (tty(4)).
fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}
