//! What a build writes: its end is kept, its lines are passed on while it runs.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// How much of a build's output is kept: the end, where the errors are.
pub(super) const OUTPUT_MAX: usize = 64 * 1024;
/// Longest line that is passed on; of a longer one, its end.
const LINE_MAX: usize = 1024;

/// Who hears the lines of a build.
pub type Listener<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// What one command of a build writes.
pub(super) struct Output<'a> {
    /// For people.
    pub(super) said: Tail,
    /// For programs, where a command tells the two apart.
    pub(super) messages: Tail,
    pub(super) listener: Listener<'a>,
}

/// The ends of a command's output that it writes to.
pub(super) struct Ends {
    pub(super) stdout: io::PipeWriter,
    pub(super) stderr: io::PipeWriter,
}

/// The ends we read.
pub(super) struct Pipes {
    said: pipe::Receiver,
    messages: Option<pipe::Receiver>,
}

impl Pipes {
    /// Pipes for a command; one for both of its outputs, so that the lines stay in the order they were written, unless standard output has
    /// `messages` for programs.
    pub(super) fn open(messages: bool) -> io::Result<(Self, Ends)> {
        let (said, stderr) = pair()?;
        let (messages, stdout) = match messages {
            true => pair().map(|(ours, theirs)| (Some(ours), theirs))?,
            false => (None, stderr.try_clone()?),
        };
        Ok((Self { said, messages }, Ends { stdout, stderr }))
    }
}

impl Output<'_> {
    /// Reads while `command` runs, and then what is left: all that it and what it has started have written by then. The pipes may be held
    /// open longer, by something that got away; nobody waits for that.
    pub(super) async fn of<T>(
        &mut self,
        mut pipes: Pipes,
        command: impl Future<Output = T>,
    ) -> io::Result<T> {
        let Self {
            said,
            messages,
            listener,
        } = self;
        let mut line = Line::default();
        let ended = {
            let read_messages = async {
                match &mut pipes.messages {
                    Some(pipe) => messages.fill(pipe, |_| {}).await,
                    None => Ok(()),
                }
            };
            let read_said = said.fill(&mut pipes.said, |chunk| line.pass_on(chunk, listener));
            let reading = async { tokio::try_join!(read_said, read_messages) };
            tokio::pin!(reading, command);
            tokio::select! {
                ended = &mut command => ended,
                read = &mut reading => {
                    read?;
                    command.await
                }
            }
        };
        said.drain(&pipes.said)?;
        if let Some(pipe) = &pipes.messages {
            messages.drain(pipe)?;
        }
        Ok(ended)
    }
}

/// The line that is being written.
#[derive(Default)]
struct Line(Vec<u8>);

impl Line {
    /// Passes on the last line in `chunk` that is whole and says something.
    fn pass_on(&mut self, chunk: &[u8], listener: &Listener<'_>) {
        let mut last = None;
        for &byte in chunk {
            if byte == b'\n' || byte == b'\r' {
                let line = std::mem::take(&mut self.0);
                last = Some(line)
                    .filter(|line| !line.trim_ascii().is_empty())
                    .or(last);
            } else if self.0.len() < LINE_MAX {
                self.0.push(byte);
            }
        }
        if let Some(line) = last {
            listener(String::from_utf8_lossy(&line).trim());
        }
    }
}

/// The last [`OUTPUT_MAX`] bytes of an output.
#[derive(Default)]
pub(super) struct Tail {
    bytes: VecDeque<u8>,
    cut: bool,
}

impl Tail {
    async fn fill(
        &mut self,
        from: &mut pipe::Receiver,
        mut heard: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let mut chunk = [0; 8192];
        loop {
            match from.read(&mut chunk).await? {
                0 => return Ok(()),
                read => {
                    heard(&chunk[..read]);
                    self.push(&chunk[..read]);
                }
            }
        }
    }

    /// Takes what is in the pipe now, asked of the kernel: tokio may not have heard of it yet.
    fn drain(&mut self, from: &pipe::Receiver) -> io::Result<()> {
        let mut chunk = [0; 8192];
        // Something that got away may write faster than we read.
        for _ in 0..64 {
            match rustix::io::read(from.as_fd(), &mut chunk) {
                Ok(0) | Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Ok(read) => self.push(&chunk[..read]),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
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

fn pair() -> io::Result<(pipe::Receiver, io::PipeWriter)> {
    let (ours, theirs) = io::pipe()?;
    Ok((pipe::Receiver::from_owned_fd(ours.into())?, theirs))
}
