//! Development: both planes in one process, joined by a socket pair. The same code as in production, not a second one.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::config::{Mode, Settings};
use crate::manager::{self, Door, Ending, Journal, Options, Progress};
use crate::proxy;
use crate::systemd::{Cleaner, Kind, Place, Private};

/// Longest wait for the workers to be stopped at the end, beyond their own grace.
const STOP_EXTRA: Duration = Duration::from_secs(10);

/// What `tqserver dev` is started with.
#[derive(Debug)]
pub struct Start {
    /// The configuration.
    pub settings: Settings,
    /// The port to listen on instead of the configured one.
    pub port: Option<u16>,
    /// Which systemd.
    pub kind: Kind,
    /// Development, unless production is tried at home.
    pub mode: Mode,
}

/// Runs both planes until Ctrl-C or SIGTERM; a second one does not wait for requests in flight.
///
/// # Errors
/// When systemd can not be had, or one of the planes ends by itself.
pub async fn run(start: Start) -> anyhow::Result<()> {
    let file = start.settings.file.clone();
    let grace = start.settings.shutdown_grace;
    let mut private = host(start.kind, &file).await?;
    let runtime_directory = start.kind.runtime_directory(&file);
    make(&runtime_directory)?;
    let (ours, theirs) = UnixStream::pair().context("make a socket pair")?;
    ours.set_nonblocking(true)?;
    let stop_proxy = CancellationToken::new();
    let proxy = tokio::spawn(proxy::run(
        proxy::Options {
            link: proxy::Link::Stream(theirs),
            inherited: Vec::new(),
            keep: None,
            serving: None,
            threads: threads(),
            grace,
        },
        stop_proxy.clone(),
    ));
    let (end, ending) = watch::channel(None);
    let (progress, mut settled) = watch::channel(Progress::default());
    let (reload, mut reloads) = mpsc::channel(1);
    let cleaner = Arc::default();
    let mut options = options(
        &start,
        runtime_directory.clone(),
        Door::Stream(tokio::net::UnixStream::from_std(ours)?),
    )?;
    if start.kind != Kind::Private {
        options.owning = Some(cleaning(start.kind, &runtime_directory, &cleaner));
    }
    let mut manager =
        tokio::spawn(async move { manager::run(options, ending, progress, &mut reloads).await });
    let mut proxy = proxy;
    let mut signals = Signals::open()?;
    let mut announced = false;
    let result = loop {
        tokio::select! {
            ended = &mut manager => break Err(ended?.err().map_or_else(|| anyhow::anyhow!("the manager ended"), Into::into)),
            ended = &mut proxy => break Err(ended?.err().map_or_else(|| anyhow::anyhow!("the proxy ended"), Into::into)),
            () = ended(private.as_mut()) => break Err(anyhow::anyhow!("the private systemd ended")),
            Ok(()) = settled.changed() => {
                let now = settled.borrow_and_update().clone();
                if let Some(problem) = now.problem.filter(|_| now.listening.is_empty()) {
                    break Err(anyhow::anyhow!(problem));
                }
                if now.settled && !announced {
                    announced = true;
                    announce(&now.listening);
                }
            }
            asked = signals.next() => match asked {
                Asked::Reload => { let _ = reload.try_send(()); }
                Asked::End => break Ok(()),
            }
        }
    };
    stop_proxy.cancel();
    if result.is_ok() && !proxy.is_finished() {
        tokio::select! {
            _ = &mut proxy => {}
            () = signals.end() => {}
        }
    }
    let _ = end.send(Some(Ending::StopWorkers));
    if !manager.is_finished() {
        let _ = tokio::time::timeout(grace + STOP_EXTRA, &mut manager).await;
    }
    if let Some(private) = private {
        private.stop().await;
    }
    result
}

async fn ended(private: Option<&mut Private>) {
    match private {
        Some(private) => private.ended().await,
        None => std::future::pending().await,
    }
}

/// A private systemd where one is wanted.
async fn host(kind: Kind, file: &Path) -> anyhow::Result<Option<Private>> {
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
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn options(start: &Start, runtime_directory: PathBuf, door: Door) -> anyhow::Result<Options> {
    let file = &start.settings.file;
    let state_directory = match start.mode {
        Mode::Production => Some(start.kind.state_directory(file)),
        Mode::Development => None,
    };
    Ok(Options {
        settings: start.settings.clone(),
        port: start.port,
        mode: start.mode,
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

fn announce(listening: &[std::net::SocketAddr]) {
    for address in listening {
        let host = if address.ip().is_unspecified() {
            "localhost".to_owned()
        } else {
            address.ip().to_string()
        };
        tracing::info!(
            "TQServer listens on http://{host}:{}/ (Ctrl-C ends it)",
            address.port()
        );
    }
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
        })
    }

    /// The next signal.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.interrupt.recv() => Asked::End,
            _ = self.terminate.recv() => Asked::End,
        }
    }

    async fn end(&mut self) {
        while self.next().await != Asked::End {}
    }
}
