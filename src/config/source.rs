//! Opens configuration files: what is too large, no file, or no text ends here.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode as Permissions, OFlags, openat};
use rustix::io::Errno;

use super::problem::{Place, Problem};

/// Largest configuration file in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// Largest file of a deployer: it is read beside everybody else's.
const DEPLOYERS_MAX_BYTES: u64 = 256 << 10;
/// A file that was changed so recently may change again without showing it: clocks of file systems are coarse.
const SETTLED: Duration = Duration::from_secs(1);

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The administrator's; symbolic links are theirs to make.
    Root,
    /// The deployer's. Problems show lines of the file: a link to a file that only root can read would show that one.
    Deployer,
}

impl Owner {
    fn most(self) -> (u64, &'static str) {
        match self {
            Self::Root => (MAX_BYTES, "1MiB"),
            Self::Deployer => (DEPLOYERS_MAX_BYTES, "256KiB"),
        }
    }
}

/// What a file is known by: the same means that nothing of it has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    file: (u64, u64),
    pub(super) size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    /// Of a deployer's file, if it is there.
    pub(super) fn of(file: &Path) -> Option<Self> {
        let metadata = File::from(open_without_links(file).ok()?).metadata().ok()?;
        metadata.is_file().then(|| Self {
            file: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// Whether the file did not change just now, so that a further change will show.
    pub(super) fn is_settled(&self) -> bool {
        let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH) else {
            return false;
        };
        let changed = u64::try_from(self.changed.0).ok();
        let settled = changed.and_then(|changed| changed.checked_add(SETTLED.as_secs()));
        settled.is_some_and(|at| at < now.as_secs())
    }
}

/// Reads `file`; `None` if there is none.
pub(super) fn read(file: &Path, owner: Owner) -> Result<Option<String>, Problem> {
    let (most, shown) = owner.most();
    let refused = |message: String| Problem::new(Place::file(file), message);
    let opened = match owner {
        Owner::Root => open(rustix::fs::CWD, file, OFlags::empty()),
        Owner::Deployer => open_without_links(file),
    };
    let opened = match opened {
        Ok(opened) => File::from(opened),
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP | Errno::NOTDIR) if owner == Owner::Deployer => {
            return Err(refused(
                "the file or its directory is a symbolic link, or no directory".into(),
            )
            .help("put a real file into a real directory 'config'"));
        }
        Err(error) => {
            return Err(refused(format!(
                "can not be opened: {}",
                io::Error::from(error)
            )));
        }
    };
    let mut bytes = Vec::new();
    let read = opened.metadata().and_then(|metadata| {
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        opened.take(most + 1).read_to_end(&mut bytes)
    });
    if let Err(error) = read {
        return Err(refused(format!("can not be read: {error}")));
    }
    if bytes.len() as u64 > most {
        let help =
            format!("a configuration file is at most {shown}; this is probably another file");
        return Err(refused(format!("is larger than {shown}")).help(help));
    }
    text(file, bytes).map(Some)
}

/// Why a file of a worker was not read.
#[derive(Debug)]
pub(super) enum Unread {
    /// It is not there.
    Missing,
    /// It is a symbolic link, or what is said to be a directory around it is none.
    Link,
    /// It is a directory, a FIFO or the like.
    NoFile,
    /// It has more bytes than it may have.
    Large,
    /// Another failure.
    Failed(io::Error),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// Reads the file `name` of at most `most` bytes below `directory`, following no link below that.
pub(super) fn read_below(directory: &Path, name: &Path, most: u64) -> Result<Vec<u8>, Unread> {
    let failed = |errno| match errno {
        Errno::NOENT => Unread::Missing,
        Errno::LOOP | Errno::NOTDIR => Unread::Link,
        // As opening a socket says.
        Errno::NXIO => Unread::NoFile,
        other => Unread::Failed(other.into()),
    };
    let mut at = open(rustix::fs::CWD, directory, OFlags::DIRECTORY).map_err(failed)?;
    for around in name.parent().into_iter().flat_map(Path::components) {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
        at = open(&at, Path::new(&around), flags).map_err(failed)?;
    }
    let name = name.file_name().ok_or(Unread::NoFile)?;
    let file = File::from(open(&at, Path::new(name), OFlags::NOFOLLOW).map_err(failed)?);
    if !file.metadata()?.is_file() {
        return Err(Unread::NoFile);
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(Unread::Large);
    }
    Ok(bytes)
}

/// Opens without waiting: a FIFO put in place of the file would hold the manager up for ever.
fn open(
    at: impl std::os::fd::AsFd,
    file: &Path,
    more: OFlags,
) -> Result<std::os::fd::OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | more;
    openat(at, file, flags, Permissions::empty())
}

/// Opens a file whose last directory and last component are no symbolic links.
fn open_without_links(file: &Path) -> Result<std::os::fd::OwnedFd, Errno> {
    let (Some(directory), Some(name)) = (file.parent(), file.file_name()) else {
        return Err(Errno::NOENT);
    };
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let directory = if directory.as_os_str().is_empty() {
        Path::new(".")
    } else {
        directory
    };
    let directory = open(rustix::fs::CWD, directory, flags)?;
    open(directory, Path::new(name), OFlags::NOFOLLOW)
}

/// The bytes as text, without a byte order mark.
fn text(file: &Path, mut bytes: Vec<u8>) -> Result<String, Problem> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()])
            .into_owned();
        let begun = good.rsplit('\n').next().unwrap_or_default();
        let place = Place {
            file: file.to_owned(),
            line: good.matches('\n').count() + 1,
            column: begun.chars().count() + 1,
            width: 1,
            source_line: format!("{begun}\u{fffd}").into(),
        };
        Problem::new(place, "here is a byte that is not UTF-8").help("save the file as UTF-8 text")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_no_problem_here() {
        let directory = tempfile::tempdir().unwrap();
        for owner in [Owner::Root, Owner::Deployer] {
            assert_eq!(read(&directory.path().join("no/such"), owner), Ok(None));
        }
    }

    #[test]
    fn a_deployers_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (config, link) = (
            directory.path().join("config"),
            directory.path().join("link"),
        );
        std::fs::create_dir(&config).unwrap();
        std::fs::write(config.join("real.yaml"), "a: 1").unwrap();
        std::os::unix::fs::symlink("real.yaml", config.join("link.yaml")).unwrap();
        std::os::unix::fs::symlink("config", &link).unwrap();
        assert!(read(&config.join("real.yaml"), Owner::Deployer).is_ok());
        assert!(read(&config.join("link.yaml"), Owner::Deployer).is_err());
        assert!(read(&link.join("real.yaml"), Owner::Deployer).is_err());
        assert!(read(&link.join("link.yaml"), Owner::Root).is_ok());
    }

    #[test]
    fn what_is_no_regular_file_is_refused_without_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            Permissions::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        for file in [fifo.as_path(), directory.path(), Path::new("/dev/zero")] {
            assert!(read(file, Owner::Deployer).is_err(), "{}", file.display());
            assert!(read(file, Owner::Root).is_err(), "{}", file.display());
        }
    }

    #[test]
    fn a_file_too_large_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("large.yaml");
        std::fs::write(&file, vec![b' '; MAX_BYTES as usize + 1]).unwrap();
        assert!(
            read(&file, Owner::Root)
                .unwrap_err()
                .message
                .contains("1MiB")
        );
        std::fs::write(&file, vec![b' '; (256 << 10) + 1]).unwrap();
        assert!(read(&file, Owner::Root).is_ok());
        let refused = read(&file, Owner::Deployer).unwrap_err();
        assert!(refused.message.contains("256KiB"), "{refused}");
    }

    #[test]
    fn the_first_byte_that_is_no_text_is_named() {
        let problem = text(Path::new("x"), b"a: 1\nb: \xff\n".to_vec()).unwrap_err();
        assert_eq!((problem.place.line, problem.place.column), (2, 4));
        assert_eq!(
            text(Path::new("x"), b"\xef\xbb\xbfa".to_vec()).unwrap(),
            "a"
        );
    }
}
