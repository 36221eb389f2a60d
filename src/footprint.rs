//! How much room a directory takes on the disk.
//!
//! What is in it belongs to somebody else, who may change it at any moment: no link is followed, no other file system is looked into, no
//! file is opened, and there is an end to it however much there is.

use std::ffi::OsStr;
use std::fs::DirEntry;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, open, openat, statat};

/// Most levels of directories: each costs a file descriptor while it is looked into.
const LEVELS: usize = 64;
/// Unit of `st_blocks` (stat(2)).
const BLOCK: u64 = 512;

/// How much is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most files, links and directories.
    pub entries: u64,
    /// Longest time.
    pub time: Duration,
}

impl Bounds {
    /// Most that one of `directories` may cost that are measured one after the other, so that all of them end in about a minute.
    pub fn one_of(directories: usize) -> Self {
        const ALL: Duration = Duration::from_secs(60);
        let share = ALL / u32::try_from(directories.max(1)).unwrap_or(u32::MAX);
        Self {
            entries: 1_000_000,
            time: share.clamp(Duration::from_millis(20), Duration::from_secs(5)),
        }
    }
}

/// What a directory takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes of disk blocks, its own included.
    pub bytes: u64,
    /// Whether all of it was counted; `false`: it is more than that.
    pub is_all: bool,
}

impl Default for Footprint {
    /// Nothing, and that is all.
    fn default() -> Self {
        Self {
            bytes: 0,
            is_all: true,
        }
    }
}

/// Measures `directory`, which is no link. `go_on` is asked at each entry, and `false` ends it. A file with several links counts with each:
/// to know them would take memory that the directory's owner decides on.
///
/// # Errors
/// When the directory cannot be opened or read. What goes away meanwhile is no error.
pub fn measure(
    directory: &Path,
    bounds: Bounds,
    mut go_on: impl FnMut() -> bool,
) -> io::Result<Footprint> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = open(directory, flags, Mode::empty())?;
    let own = fstat(&top)?;
    let mut found = Footprint {
        bytes: blocks(&own),
        is_all: true,
    };
    let (until, mut left) = (Instant::now() + bounds.time, bounds.entries);
    let mut levels = vec![Level::open(top)?];
    loop {
        let depth = levels.len();
        let Some(level) = levels.last_mut() else {
            break;
        };
        let entry = match level.entries.next() {
            Some(Ok(entry)) => entry,
            Some(Err(error)) if depth == 1 => return Err(error.into()),
            Some(Err(_)) | None => {
                levels.pop();
                continue;
            }
        };
        let name = entry.file_name();
        if [c".", c".."].contains(&name) {
            continue;
        }
        if left == 0 || Instant::now() >= until || !go_on() {
            found.is_all = false;
            break;
        }
        left -= 1;
        let Ok(stat) = statat(&level.directory, name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        if stat.st_dev != own.st_dev {
            continue;
        }
        found.bytes = found.bytes.saturating_add(blocks(&stat));
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            continue;
        }
        if depth == LEVELS {
            found.is_all = false;
            continue;
        }
        let below = openat(&level.directory, name, flags, Mode::empty());
        match below.map_err(io::Error::from).and_then(Level::open) {
            Ok(below) => levels.push(below),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => found.is_all = false,
        }
    }
    Ok(found)
}

/// A directory that is being looked into.
struct Level {
    directory: OwnedFd,
    entries: Dir,
}

impl Footprint {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            is_all: self.is_all && other.is_all,
        }
    }
}

impl Level {
    fn open(directory: OwnedFd) -> io::Result<Self> {
        let entries = Dir::read_from(directory.as_fd())?;
        Ok(Self { directory, entries })
    }
}

fn blocks(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks)
        .unwrap_or(0)
        .saturating_mul(BLOCK)
}

/// The directories in `parent` that are not hidden, each with its footprint, one after the other; between two of them it rests for four times as long as the
/// first has taken, so that all of it takes a fifth of a processor at most. One that cannot be read is left out.
///
/// # Errors
/// When `parent` cannot be read.
pub fn measure_each(parent: &Path, mut tell: impl FnMut(&OsStr, Footprint)) -> io::Result<()> {
    let is_hidden = |entry: &DirEntry| entry.file_name().as_bytes().starts_with(b".");
    let entries = std::fs::read_dir(parent)?.flatten();
    let entries: Vec<_> = entries.filter(|entry| !is_hidden(entry)).collect();
    let bounds = Bounds::one_of(entries.len());
    for entry in entries {
        let began = Instant::now();
        if let Ok(found) = measure(&entry.path(), bounds, || true) {
            tell(&entry.file_name(), found);
        }
        std::thread::sleep(rest_after(began.elapsed()));
    }
    Ok(())
}

/// How long to rest after having measured something for so long.
pub fn rest_after(took: Duration) -> Duration {
    took * 4
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const ANY: Bounds = Bounds {
        entries: 1000,
        time: Duration::from_secs(60),
    };

    fn house() -> tempfile::TempDir {
        tempfile::TempDir::new().unwrap()
    }

    #[test]
    fn blocks_are_counted_on_all_levels_and_holes_are_not() {
        let house = house();
        let empty = measure(house.path(), ANY, || true).unwrap();
        fs::create_dir_all(house.path().join("a/b")).unwrap();
        fs::write(house.path().join("a/b/file"), vec![1; 1 << 20]).unwrap();
        let sparse = fs::File::create(house.path().join("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        let found = measure(house.path(), ANY, || true).unwrap();
        assert!(found.is_all);
        let grown = found.bytes - empty.bytes;
        assert!((1 << 20..2 << 20).contains(&grown), "{grown}");
    }

    #[test]
    fn no_link_is_followed() {
        let (house, other) = (house(), house());
        fs::write(other.path().join("file"), vec![1; 1 << 20]).unwrap();
        symlink(other.path(), house.path().join("directory")).unwrap();
        symlink(other.path().join("file"), house.path().join("file")).unwrap();
        assert!(measure(house.path(), ANY, || true).unwrap().bytes < 1 << 20);
        assert!(measure(&house.path().join("directory"), ANY, || true).is_err());
    }

    #[test]
    fn it_ends_however_much_there_is() {
        let house = house();
        for number in 0..20 {
            fs::write(house.path().join(number.to_string()), [1; 4096]).unwrap();
        }
        let few = Bounds { entries: 10, ..ANY };
        let found = measure(house.path(), few, || true).unwrap();
        assert!(!found.is_all);
        assert!(found.bytes < measure(house.path(), ANY, || true).unwrap().bytes);
        let no_time = Bounds {
            time: Duration::ZERO,
            ..ANY
        };
        assert!(!measure(house.path(), no_time, || true).unwrap().is_all);
        assert!(!measure(house.path(), ANY, || false).unwrap().is_all);
        // More levels than it has file descriptors for.
        let mut deep = house.path().to_owned();
        (0..LEVELS + 5).for_each(|_| deep.push("d"));
        fs::create_dir_all(deep).unwrap();
        assert!(!measure(house.path(), ANY, || true).unwrap().is_all);
    }

    #[test]
    fn each_directory_in_one_is_measured_for_itself() {
        let house = house();
        fs::create_dir_all(house.path().join("a")).unwrap();
        fs::write(house.path().join("a/file"), vec![1; 1 << 20]).unwrap();
        fs::create_dir_all(house.path().join("b")).unwrap();
        symlink("/", house.path().join("c")).unwrap();
        let mut found = Vec::new();
        measure_each(house.path(), |name, its| found.push((name.to_owned(), its))).unwrap();
        found.sort_by_key(|(name, _)| name.clone());
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].1.bytes > 1 << 20 && found[1].1.bytes < 1 << 20,
            "{found:?}"
        );
    }

    #[test]
    fn a_thousand_directories_end_in_about_a_minute() {
        assert_eq!(Bounds::one_of(1).time, Duration::from_secs(5));
        assert_eq!(Bounds::one_of(1000).time, Duration::from_millis(60));
        assert_eq!(Bounds::one_of(0).time, Duration::from_secs(5));
    }
}
