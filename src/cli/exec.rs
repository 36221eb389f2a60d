//! `tqserver exec`: a command in the surroundings of a worker. The manager has systemd run it; its input, output and end are ours.

mod terminal;

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};

use tokio::signal::unix::{Signal, SignalKind, signal};

use self::terminal::Terminal;
use super::arguments::Common;
use super::client::{Client, is_gone};
use super::exit::{self, refused};
use super::outcome::not_carried_out;
use crate::manager::control::{ControlError, Manager1Proxy};

#[derive(Debug, clap::Args)]
pub(super) struct Exec {
    /// In whose surroundings.
    #[arg(value_name = "WORKER")]
    worker: String,
    /// Program and arguments, as in `-- python3 manage.py migrate`. A name is looked up in the worker's PATH, a path in its directory.
    /// Default: a shell.
    #[arg(
        value_name = "COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<String>,
}

/// How it ended.
type Answer = Result<(i32, String), ControlError>;

impl Exec {
    pub(super) async fn run(self, common: &Common) -> anyhow::Result<u8> {
        let client = Client::find(common).await?;
        let manager = client.manager().await?;
        // Before it runs: none of them is to end us and leave it behind.
        let mut passed_on = PassedOn::new()?;
        let answer = match is_interactive() {
            true => self.in_a_terminal(&manager, &mut passed_on).await?,
            false => self.with_our_ends(&manager, &mut passed_on).await?,
        };
        match answer {
            Ok((code, sentence)) => {
                if !sentence.is_empty() {
                    eprintln!("the command ended by {sentence}");
                }
                Ok(u8::try_from(code).unwrap_or(exit::FAILED))
            }
            Err(error) if is_gone(&error) => Err(refused(
                exit::UNAVAILABLE,
                "the manager went away and did not say how the command ended",
                format!(
                    "`systemctl list-units 'tqserver-exec@{}:*'` shows whether it still runs, `systemctl stop UNIT` ends it",
                    self.worker
                ),
            )),
            Err(error) => Err(not_carried_out(error, "nothing was run")),
        }
    }

    /// Hands our own input and output to it.
    async fn with_our_ends(
        &self,
        manager: &Manager1Proxy<'_>,
        passed_on: &mut PassedOn,
    ) -> anyhow::Result<Answer> {
        let ends = [copy(io::stdin())?, copy(io::stdout())?, copy(io::stderr())?];
        let mut asked = std::pin::pin!(self.ask(manager, "", ends));
        loop {
            tokio::select! {
                answer = &mut asked => return Ok(answer),
                signal = passed_on.next() => passed_on.send(manager, signal).await,
            }
        }
    }

    /// Gives it a terminal of its own, and shows that in ours. What it does to its terminal it cannot do to ours.
    async fn in_a_terminal(
        &self,
        manager: &Manager1Proxy<'_>,
        passed_on: &mut PassedOn,
    ) -> anyhow::Result<Answer> {
        let mut resized = signal(SignalKind::window_change())?;
        let (terminal, its) = Terminal::open()?;
        let errors = match io::stderr().is_terminal() {
            true => its.try_clone()?,
            false => copy(io::stderr())?,
        };
        let ends = [its.try_clone()?, its, errors];
        let kind = std::env::var("TERM").unwrap_or_else(|_| "dumb".to_owned());
        let mut asked = Box::pin(self.ask(manager, &kind, ends));
        let answer = loop {
            tokio::select! {
                answer = &mut asked => break answer,
                signal = passed_on.next() => passed_on.send(manager, signal).await,
                _ = resized.recv() => terminal.resize(),
            }
        };
        // With it our copies of the terminal's other end, which would keep it open.
        drop(asked);
        terminal.close().await;
        Ok(answer)
    }

    async fn ask(&self, manager: &Manager1Proxy<'_>, terminal: &str, ends: [OwnedFd; 3]) -> Answer {
        let [input, output, errors] = ends.map(zbus::OwnedFd::from);
        let (worker, words) = (&self.worker, self.command.clone());
        let asked = manager.exec(worker, words, terminal, input, output, errors);
        asked.await
    }
}

/// Whether somebody sits before it.
fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

fn copy(end: impl AsFd) -> io::Result<OwnedFd> {
    end.as_fd().try_clone_to_owned()
}

/// Signals that we get and the command is to have.
struct PassedOn {
    hangup: Signal,
    interrupt: Signal,
    quit: Signal,
    terminate: Signal,
}

impl PassedOn {
    fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The next one.
    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.hangup.recv() => SignalKind::hangup(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.quit.recv() => SignalKind::quit(),
            _ = self.terminate.recv() => SignalKind::terminate(),
        }
    }

    async fn send(&self, manager: &Manager1Proxy<'_>, signal: SignalKind) {
        // If the manager is gone, the answer that is waited for says so.
        let _ = manager.signal_exec(signal.as_raw_value()).await;
    }
}
