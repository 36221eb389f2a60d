//! A build's process: started in a group of its own, heard to the end, and never left behind.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe;
use tokio::process::Command;

/// How much of a build's output is kept: the end, where the errors are.
pub(super) const OUTPUT_MAX: usize = 64 * 1024;

/// How long the output of a build that has ended may stay open.
const LEFTOVERS: Duration = Duration::from_secs(1);

/// What systemd tells this process about itself, and a build would take for its own.
const OURS: [&str; 7] = [
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// A build's process.
pub(super) struct Run<'a> {
    /// Program and arguments.
    pub(super) words: &'a [String],
    /// Where it runs.
    pub(super) directory: &'a Path,
    /// Cargo's target directory, if this is Cargo. Its standard output then is messages for us, not for people.
    pub(super) cargo_target: Option<&'a Path>,
}

impl Run<'_> {
    /// Runs it until it ends, and kills what it leaves. Dropped, it kills all of it.
    pub(super) async fn to_end(
        &self,
        output: &mut Tail,
        messages: &mut Tail,
    ) -> io::Result<ExitStatus> {
        let (stderr, stderr_end) = pipe_pair()?;
        let (stdout, stdout_end) = match self.cargo_target {
            Some(_) => pipe_pair().map(|(ours, theirs)| (Some(ours), theirs))?,
            // One pipe for both, so that the lines stay in the order they were written.
            None => (None, stderr_end.try_clone()?),
        };
        let mut command = Command::new(&self.words[0]);
        command
            .args(&self.words[1..])
            .current_dir(self.directory)
            .stdin(Stdio::null())
            .stdout(stdout_end)
            .stderr(stderr_end)
            .process_group(0)
            .kill_on_drop(true);
        for name in OURS {
            command.env_remove(name);
        }
        if let Some(target) = self.cargo_target {
            command.env("CARGO_TARGET_DIR", target);
        }
        let mut child = command.spawn()?;
        // Our copies of the pipes' other ends: with them open, the output would never end.
        drop(command);
        let mut group = Group::of(&child);

        let read_stdout = async {
            match stdout {
                Some(stdout) => messages.fill(stdout).await,
                None => Ok(()),
            }
        };
        // The output may stay open longer than the build, in the hands of something it left running. The build's end counts.
        let reading = async { tokio::try_join!(output.fill(stderr), read_stdout) };
        tokio::pin!(reading);
        let (status, read) = tokio::select! {
            status = child.wait() => (status?, false),
            read = &mut reading => {
                read?;
                (child.wait().await?, true)
            }
        };
        group.kill();
        if !read {
            // What wrote is dead, and what is left in the pipe is read; for something that left the group we do not wait.
            let _ = tokio::time::timeout(LEFTOVERS, reading).await;
        }
        Ok(status)
    }
}

/// The process group of a build. Killed when dropped, so that a build that is given up takes its children with it.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &tokio::process::Child) -> Self {
        let leader = child.id().and_then(|id| i32::try_from(id).ok());
        Self(leader.and_then(Pid::from_raw))
    }

    fn kill(&mut self) {
        if let Some(group) = self.0.take() {
            // No such process: it is over, which is what we want.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last [`OUTPUT_MAX`] bytes of an output.
#[derive(Default)]
pub(super) struct Tail {
    bytes: VecDeque<u8>,
    cut: bool,
}

impl Tail {
    async fn fill(&mut self, mut from: impl AsyncRead + Unpin) -> io::Result<()> {
        let mut chunk = [0; 8192];
        loop {
            match from.read(&mut chunk).await? {
                0 => return Ok(()),
                read => self.push(&chunk[..read]),
            }
        }
    }

    fn push(&mut self, chunk: &[u8]) {
        self.bytes.extend(chunk);
        let over = self.bytes.len().saturating_sub(OUTPUT_MAX);
        self.cut |= over > 0;
        self.bytes.drain(..over);
    }

    /// As text, from the start of a line.
    pub(super) fn text(&self) -> String {
        let bytes: Vec<u8> = self.bytes.iter().copied().collect();
        let whole = match bytes.iter().position(|&byte| byte == b'\n') {
            Some(end) if self.cut => &bytes[end + 1..],
            _ => &bytes[..],
        };
        String::from_utf8_lossy(whole).into_owned()
    }
}

fn pipe_pair() -> io::Result<(pipe::Receiver, io::PipeWriter)> {
    let (ours, theirs) = io::pipe()?;
    Ok((pipe::Receiver::from_owned_fd(ours.into())?, theirs))
}
