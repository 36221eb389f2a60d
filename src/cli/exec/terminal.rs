//! A terminal for a command, shown in ours: what is typed goes to it as it is, Ctrl-C too, and what it shows comes back.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use tokio::sync::oneshot;

/// How long it may take to show the last of what a command that has ended wrote.
const LAST: Duration = Duration::from_secs(2);

/// The end of the command's terminal that is ours.
pub(super) struct Terminal {
    ours: Arc<File>,
    /// Everything that it wrote was shown.
    shown: oneshot::Receiver<()>,
    _raw: Raw,
}

impl Terminal {
    /// One of the size of ours, and its other end.
    pub(super) fn open() -> io::Result<(Self, OwnedFd)> {
        // It is not to become ours.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags)?;
        unlockpt(&ours)?;
        let its = ioctl_tiocgptpeer(&ours, flags)?;
        let ours = Arc::new(File::from(ours));
        let raw = Raw::begin()?;
        let (done, shown) = oneshot::channel();
        let (from, to) = (Arc::clone(&ours), Arc::clone(&ours));
        // Neither ends by itself: they end with this process.
        std::thread::spawn(move || {
            copy(&*from, io::stdout());
            let _ = done.send(());
        });
        std::thread::spawn(move || copy(io::stdin(), &*to));
        let terminal = Self {
            ours,
            shown,
            _raw: raw,
        };
        terminal.resize();
        Ok((terminal, its))
    }

    /// Gives it the size that ours has now.
    pub(super) fn resize(&self) {
        if let Ok(size) = tcgetwinsize(io::stdin()) {
            let _ = tcsetwinsize(self.ours.as_fd(), size);
        }
    }

    /// Waits until all was shown that the command wrote; ours is as it was then.
    pub(super) async fn close(self) {
        let _ = tokio::time::timeout(LAST, self.shown).await;
    }
}

/// Copies until one of them has no more or takes no more.
fn copy(mut from: impl Read, mut to: impl Write) {
    let mut chunk = [0; 8192];
    // At its end a terminal's other side fails to read.
    while let Ok(read @ 1..) = from.read(&mut chunk) {
        let written = to.write_all(&chunk[..read]).and_then(|()| to.flush());
        if written.is_err() {
            return;
        }
    }
}

/// Our terminal, for as long as keys mean nothing to it.
struct Raw(Termios);

impl Raw {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.0);
    }
}
