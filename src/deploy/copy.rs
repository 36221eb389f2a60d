//! Copies a directory tree that belongs to someone who is trusted less than we are.
//!
//! The copier is root; the owner of the tree may change it while it is read. So nothing is named by a path twice: each directory is
//! opened below the one before, without following links, and what was opened is asked what it is before it is read. The worst a
//! swapped file can do is make the copy fail. It does not decide where copies lie or when they are made.

mod contents;
mod links;
mod scripts;

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps, fchmod, fstat, futimens,
    linkat, mkdirat, openat, readlinkat, symlinkat,
};
use rustix::io::Errno;

use super::allowance::{Exceeded, Spent};
use super::modes::{DIRECTORY_MODE, FILE_MODE, PROGRAM_MODE};
use super::room::Full;
use crate::ansi::shown;
use crate::types;
use contents::{contents, text};
use links::{is_interpreter, stays_inside};

/// How deep directories may nest; each level holds two file descriptors.
const DEPTH_MAX: usize = 64;

/// Longest path below the top, in bytes. A program could not open a longer one by its whole path (PATH_MAX is 4096, and the snapshot has
/// a path of its own).
const PATH_BYTES: usize = 3072;

/// Why a tree can not be copied. Paths are relative to the tree.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A link whose target is not in the tree.
    #[error(
        "{} is a link to {}, which is outside of the worker; copy the file in, or make the link relative",
        shown(path),
        shown(target)
    )]
    LinkLeaves {
        /// The link.
        path: PathBuf,
        /// Where it points.
        target: PathBuf,
    },
    /// A socket, fifo or device.
    #[error(
        "{} is a {kind}, which can not be deployed; remove it, or create it in data/ at run time",
        shown(path)
    )]
    Special {
        /// What was found.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A hard link to the file of another user.
    #[error(
        "{} is a hard link to a file of another user; copy the file in",
        shown(path)
    )]
    Foreign {
        /// What was found.
        path: PathBuf,
    },
    /// What was listed is not what could be opened.
    #[error("{} changed while it was copied; deploy again", shown(path))]
    Changed {
        /// What changed.
        path: PathBuf,
    },
    /// Too many directories within each other.
    #[error("{} is nested deeper than {DEPTH_MAX} directories", shown(path))]
    Deep {
        /// The first that is too deep.
        path: PathBuf,
    },
    /// A path that is too long.
    #[error(
        "a path of {length} bytes is in there, longer than {PATH_BYTES}: it starts with {}; remove it",
        shown(start)
    )]
    Long {
        /// Its length in bytes.
        length: usize,
        /// Its first directory.
        start: PathBuf,
    },
    /// More than a snapshot may have.
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    /// Whoever wanted it does not wait for it any more.
    #[error("the copy took too long and was given up")]
    GivenUp,
    /// We may not read it. The manager of a machine is root without root's privileges: another user's file has to be everybody's.
    #[error(
        "{} can not be read by {}; type `chmod o+{rights} {0}`, or for a secret `chown {1} {0}`",
        shown(path),
        our_name()
    )]
    Unreadable {
        /// What can not be read.
        path: PathBuf,
        /// The rights that are missing.
        rights: &'static str,
    },
    /// The file system is full.
    #[error(transparent)]
    Full(#[from] Box<Full>),
    /// Another failure.
    #[error("{what} {}", shown(path))]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which object.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// How a regular file gets into the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Its content is copied, shared on file systems that can (FICLONE).
    Copy,
    /// It is the same file, which nobody changes any more; a copy on another file system.
    Link,
}

/// What is left out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Omit<'a> {
    /// At the top, by name.
    pub(super) top: &'a [&'static str],
    /// On any level, what no snapshot has.
    pub(super) anywhere: bool,
}

impl Omit<'_> {
    fn leaves_out(&self, directory: &OwnedFd, name: &OsStr, depth: usize) -> bool {
        let beside = |path: &str| {
            let found = rustix::fs::statat(directory, path, AtFlags::SYMLINK_NOFOLLOW);
            found.is_ok()
        };
        self.anywhere && types::is_omitted(name, beside)
            || depth == 0 && self.top.iter().any(|omitted| name == *omitted)
    }
}

/// Opens the directory `below` under `base`, following no link below `base`.
pub(super) fn open_below(base: &Path, below: &Path) -> Result<OwnedFd, CopyError> {
    let failed = |path: &Path, errno| match errno {
        Errno::LOOP | Errno::NOTDIR => CopyError::Io {
            what: "open as a directory, which a link is not,",
            path: path.to_owned(),
            source: io::Error::from(errno),
        },
        Errno::ACCESS => unreadable(path, FileType::Directory),
        _ => io_error("open", path, errno),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut directory = openat(CWD, base, flags, Mode::empty()).map_err(|e| failed(base, e))?;
    let mut path = base.to_owned();
    for name in below.components() {
        path.push(name);
        directory = openat(
            &directory,
            Path::new(&name),
            flags | OFlags::NOFOLLOW,
            Mode::empty(),
        )
        .map_err(|errno| failed(&path, errno))?;
    }
    Ok(directory)
}

/// Copies what is in the directory `source` into the directory `target`, which has nothing of these names.
pub(super) fn tree(
    source: OwnedFd,
    target: &Path,
    how: How,
    omit: Omit<'_>,
    spent: &mut Spent,
) -> Result<(), CopyError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(CWD, target, flags, Mode::empty());
    let opened = opened.map_err(|errno| io_error("open", target, errno))?;
    let found = fstat(&source).map_err(|errno| io_error("examine", Path::new("."), errno))?;
    let mut copy = Copy {
        how,
        omit,
        owner: found.st_uid,
        spent,
    };
    copy.directory(&source, &opened, Path::new(""), 0)?;
    take_over(&found, &opened).map_err(|errno| io_error("set the mode of", target, errno))
}

struct Copy<'a> {
    how: How,
    omit: Omit<'a>,
    /// To whom the tree belongs.
    owner: u32,
    /// What the snapshot has by now.
    spent: &'a mut Spent,
}

impl Copy<'_> {
    fn directory(
        &mut self,
        source: &OwnedFd,
        target: &OwnedFd,
        path: &Path,
        depth: usize,
    ) -> Result<(), CopyError> {
        if depth > DEPTH_MAX {
            return Err(CopyError::Deep {
                path: path.to_owned(),
            });
        }
        let entries = Dir::read_from(source).map_err(|errno| match errno {
            // It may be listed, but not entered.
            Errno::ACCESS => unreadable(path, FileType::Directory),
            _ => io_error("list", path, errno),
        })?;
        let is_environment = path.ends_with(scripts::PROGRAMS)
            && rustix::fs::statat(source, scripts::MARK, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        for entry in entries {
            let entry = entry.map_err(|errno| io_error("list", path, errno))?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let found = rustix::fs::statat(source, name, AtFlags::SYMLINK_NOFOLLOW);
            let found = match found {
                // A build or an editor took it away between the list and now.
                Err(Errno::NOENT) => continue,
                found => found.map_err(|errno| io_error("examine", &path.join(name), errno))?,
            };
            let kind = FileType::from_raw_mode(found.st_mode);
            if self.omit.leaves_out(source, name, depth) {
                continue;
            }
            self.spent.go_on().map_err(|_| CopyError::GivenUp)?;
            // What is linked was counted when it was copied.
            if self.how == How::Copy {
                self.spent.one_more()?;
            }
            let inner = path.join(name);
            let length = inner.as_os_str().len();
            if length > PATH_BYTES {
                let start = inner.components().next();
                let start = start.map(|start| PathBuf::from(start.as_os_str()));
                return Err(CopyError::Long {
                    length,
                    start: start.unwrap_or_default(),
                });
            }
            let at = At {
                source: source.as_fd(),
                target: target.as_fd(),
                name: entry.file_name(),
                path: &inner,
                is_environment,
            };
            match kind {
                FileType::Directory => self.subdirectory(&at, depth)?,
                FileType::RegularFile => self.file(&at)?,
                FileType::Symlink => self.link(&at, depth)?,
                special => {
                    return Err(CopyError::Special {
                        path: at.path.to_owned(),
                        kind: kind_name(special),
                    });
                }
            }
        }
        Ok(())
    }

    fn subdirectory(&mut self, at: &At<'_>, depth: usize) -> Result<(), CopyError> {
        let source = at.open(FileType::Directory)?;
        let found = at.examine(&source)?;
        mkdirat(at.target, at.name, Mode::RWXU).map_err(|errno| at.failed("create", errno))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = openat(at.target, at.name, flags, Mode::empty());
        let target = target.map_err(|errno| at.failed("open the copy of", errno))?;
        self.directory(&source, &target, at.path, depth + 1)?;
        // Last: the times change with each file put in, and the mode may forbid to put any in.
        take_over(&found, &target).map_err(|errno| at.failed("set the mode of", errno))
    }

    fn file(&mut self, at: &At<'_>) -> Result<(), CopyError> {
        if self.how == How::Link {
            match linkat(at.source, at.name, at.target, at.name, AtFlags::empty()) {
                // Assets may have a file system of their own.
                Err(Errno::XDEV) => {}
                linked => return linked.map_err(|errno| at.failed("link", errno)),
            }
        }
        let source = at.open(FileType::RegularFile)?;
        let found = at.examine(&source)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Err(CopyError::Changed {
                path: at.path.to_owned(),
            });
        }
        // fs.protected_hardlinks keeps users from linking what they can not write; not every kernel has it on.
        if found.st_nlink > 1 && self.owner != 0 && found.st_uid != self.owner {
            return Err(CopyError::Foreign {
                path: at.path.to_owned(),
            });
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let target = openat(at.target, at.name, flags, Mode::RUSR | Mode::WUSR);
        let target = target.map_err(|errno| at.failed("create", errno))?;
        // What a hole hides counts too: a program that reads it would find all of it.
        let size = u64::try_from(found.st_size).unwrap_or(0);
        let script = match at.is_environment {
            true => scripts::relocated(&source, size, |name| at.has_beside(name)),
            false => Ok(None),
        };
        let script = script.map_err(|errno| at.failed("read", errno))?;
        let size = script.as_ref().map_or(size, |script| script.len() as u64);
        self.spent.more(size, at.path)?;
        let copied = match script {
            Some(script) => text(&target, &script, self.spent),
            None => contents(&source, &target, size, self.spent),
        };
        match copied {
            Ok(()) => {}
            Err(_) if self.spent.is_given_up() => return Err(CopyError::GivenUp),
            Err(errno) => return Err(at.failed("copy", errno)),
        }
        take_over(&found, &target).map_err(|errno| at.failed("set the mode of", errno))
    }

    fn link(&self, at: &At<'_>, depth: usize) -> Result<(), CopyError> {
        let target = match readlinkat(at.source, at.name, Vec::new()) {
            Err(Errno::INVAL) => {
                return Err(CopyError::Changed {
                    path: at.path.to_owned(),
                });
            }
            target => target.map_err(|errno| at.failed("read the link", errno))?,
        };
        let leads = Path::new(OsStr::from_bytes(target.as_bytes()));
        // What is linked was looked at when it was copied; what leaves it since is ours, see [`super::persist`].
        if self.how == How::Copy && !stays_inside(leads, depth) && !is_interpreter(at.path, leads) {
            return Err(CopyError::LinkLeaves {
                path: at.path.to_owned(),
                target: leads.to_owned(),
            });
        }
        symlinkat(target.as_c_str(), at.target, at.name).map_err(|errno| at.failed("create", errno))
    }
}

/// An entry of a directory and the place of its copy.
struct At<'a> {
    source: BorrowedFd<'a>,
    target: BorrowedFd<'a>,
    name: &'a CStr,
    /// For messages.
    path: &'a Path,
    /// It is among the programs of a Python environment.
    is_environment: bool,
}

impl At<'_> {
    fn open(&self, kind: FileType) -> Result<OwnedFd, CopyError> {
        let flags = match kind {
            FileType::Directory => OFlags::DIRECTORY,
            // Should it be a fifo by now, opening it must not wait for a writer.
            _ => OFlags::NONBLOCK,
        };
        let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        openat(self.source, self.name, flags, Mode::empty()).map_err(|errno| match errno {
            // A link, something that is no directory, a socket: not what it was a moment ago.
            Errno::LOOP | Errno::NOTDIR | Errno::NXIO | Errno::NOENT => CopyError::Changed {
                path: self.path.to_owned(),
            },
            Errno::ACCESS => unreadable(self.path, kind),
            _ => self.failed("open", errno),
        })
    }

    fn examine(&self, opened: &OwnedFd) -> Result<Stat, CopyError> {
        fstat(opened).map_err(|errno| self.failed("examine", errno))
    }

    fn has_beside(&self, name: &str) -> bool {
        rustix::fs::statat(self.source, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    fn failed(&self, what: &'static str, errno: Errno) -> CopyError {
        io_error(what, self.path, errno)
    }
}

/// Gives a copy its mode, and the time of change of what it was copied from. Other users, setuid and setgid, capabilities and other
/// extended attributes are not taken over.
fn take_over(found: &Stat, copy: &OwnedFd) -> Result<(), Errno> {
    let own = Mode::from_raw_mode(found.st_mode);
    let mode = match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => DIRECTORY_MODE,
        _ if own.contains(Mode::XUSR) => PROGRAM_MODE,
        _ => FILE_MODE,
    };
    fchmod(copy, Mode::from_raw_mode(mode))?;
    let changed = Timespec {
        tv_sec: found.st_mtime as _,
        tv_nsec: found.st_mtime_nsec as _,
    };
    futimens(
        copy,
        &Timestamps {
            last_access: changed,
            last_modification: changed,
        },
    )
}

fn kind_name(kind: FileType) -> &'static str {
    match kind {
        FileType::Socket => "socket",
        FileType::Fifo => "fifo",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        _ => "special file",
    }
}

pub(super) fn io_error(what: &'static str, path: &Path, errno: Errno) -> CopyError {
    CopyError::Io {
        what,
        path: path.to_owned(),
        source: io::Error::from(errno),
    }
}

fn unreadable(path: &Path, kind: FileType) -> CopyError {
    let rights = match kind {
        FileType::Directory => "rx",
        _ => "r",
    };
    CopyError::Unreadable {
        path: path.to_owned(),
        rights,
    }
}

/// The user we are, as chown(1) takes it.
fn our_name() -> String {
    match rustix::process::geteuid() {
        user if user.is_root() => "root".to_owned(),
        user => user.as_raw().to_string(),
    }
}
