//! A worker's `public/`, below which files are opened.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// The directory of a route.
#[derive(Debug)]
pub(crate) struct Public {
    path: PathBuf,
    stays: bool,
    /// Open for as long as the route is: what was deployed stays where it is. `None` where people work in it, and may put another in its
    /// place at any time.
    held: Option<OwnedFd>,
}

impl Public {
    /// The directory at `path`; one that `stays` is opened now.
    pub(crate) fn new(path: &Path, stays: bool) -> Self {
        Self {
            path: path.to_owned(),
            stays,
            // Where that fails, each use tries again.
            held: stays.then(|| directory(path).ok()).flatten(),
        }
    }

    /// Whether people work in it.
    pub(crate) fn is_edited(&self) -> bool {
        !self.stays
    }

    /// Whether there seems to be a file called `name`: the one question that is paid where there is none.
    pub(crate) fn may_have(&self, name: &str) -> bool {
        // To open it tells as much, if the directory is at hand.
        self.held.is_some()
            || rustix::fs::stat(self.path.join(name)).is_ok_and(|stat| {
                matches!(
                    FileType::from_raw_mode(stat.st_mode),
                    FileType::RegularFile | FileType::Directory
                )
            })
    }

    /// Opens `name` below it, in one step that can not leave it (openat2(2) with `RESOLVE_BENEATH`).
    ///
    /// # Errors
    /// When there is no such file, it may not be read, or its name leads elsewhere.
    pub(crate) fn open(&self, name: &str) -> io::Result<OwnedFd> {
        match &self.held {
            Some(held) => self.open_in(held, name),
            None => self.open_in(&directory(&self.path)?, name),
        }
    }

    fn open_in(&self, directory: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
        // Without O_NONBLOCK a fifo put in the file's place would hold up the thread.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(directory, name, flags, Mode::empty(), beneath) {
            // Some sandboxes do not know the call.
            Err(Errno::NOSYS | Errno::PERM) => {
                let real = self.path.join(name).canonicalize()?;
                if !real.starts_with(self.path.canonicalize()?) {
                    return Err(io::ErrorKind::PermissionDenied.into());
                }
                let flags = flags | OFlags::NOFOLLOW;
                Ok(rustix::fs::openat(CWD, real, flags, Mode::empty())?)
            }
            outcome => Ok(outcome?),
        }
    }
}

fn directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}
