//! A full disk, in words: what could not be written, to which file system, and how much of that is left.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::ansi::shown;

/// Something that could not be written because there is no room for it.
#[derive(Debug, thiserror::Error)]
#[error("{what} {}: {reason}{}; {room}", shown(path), after(*written))]
pub struct Full {
    /// What was being done.
    pub what: &'static str,
    /// To which object.
    pub path: PathBuf,
    /// Why it failed: no space, or no more than a quota allows. Said by the message itself, for what to do comes last.
    pub reason: io::Error,
    /// Bytes of the snapshot that had been written by then, and are removed again.
    pub written: u64,
    /// What there was at that moment.
    pub room: Room,
}

fn after(written: u64) -> String {
    match written {
        0 => String::new(),
        written => format!(
            " after {} of the snapshot, which are removed again",
            Size(written)
        ),
    }
}

/// How full the file system is that the store is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    mounted: PathBuf,
    /// Bytes that are free and bytes in all, if that could be found out.
    bytes: Option<(u64, u64)>,
    /// Whether another file can be made.
    files: bool,
}

/// Whether an error is the one an operator can do something about by making room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOSPC | Errno::DQUOT)
    )
}

impl Room {
    /// The room there is for what is written below `path`.
    pub(super) fn of(path: &Path) -> Self {
        let found = rustix::fs::statvfs(path).ok();
        Self {
            mounted: mount_point(path),
            bytes: found.as_ref().map(|found| {
                let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
                (bytes(found.f_bavail), bytes(found.f_blocks))
            }),
            // Some file systems do not count files.
            files: found.is_none_or(|found| found.f_files == 0 || found.f_favail > 0),
        }
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mounted = shown(&self.mounted);
        write!(
            f,
            "the file system of the snapshots, mounted at {mounted}, "
        )?;
        match self.bytes {
            Some((free, all)) => write!(f, "had {} of {} free", Size(free), Size(all))?,
            None => f.write_str("does not tell how much is free")?,
        }
        if !self.files {
            f.write_str(", but no file more can be made on it (see `df -i`)")?;
        }
        f.write_str("; make room, then reload")
    }
}

/// Bytes, rounded down to three digits or so, as `df -h` has them.
pub(super) struct Size(pub(super) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
        let mut size = self.0;
        let mut unit = 0;
        while size >= 10 << 10 && unit + 1 < units.len() {
            (size, unit) = (size >> 10, unit + 1);
        }
        write!(f, "{size} {}", units[unit])
    }
}

/// The highest directory above `path` that is on the same device.
fn mount_point(path: &Path) -> PathBuf {
    let device = |path: &Path| path.metadata().map(|found| found.dev()).ok();
    let here = device(path);
    let same = path
        .ancestors()
        .take_while(|above| device(above) == here && here.is_some());
    same.last().unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_how_much_is_free_and_whether_it_is_files_that_are_missing() {
        let room = Room {
            mounted: PathBuf::from("/var"),
            bytes: Some((4 << 10, 200 << 30)),
            files: true,
        };
        let all = "the file system of the snapshots, mounted at /var, had 4096 bytes of 200 GiB free; make room, then reload";
        assert_eq!(room.to_string(), all);
        let room = Room {
            files: false,
            ..room
        };
        assert!(room.to_string().contains("no file more can be made on it"));
    }

    #[test]
    fn a_mount_point_is_where_the_device_changes() {
        assert_eq!(mount_point(Path::new("/proc/self")), Path::new("/proc"));
        assert_eq!(mount_point(Path::new("/nowhere")), Path::new("/nowhere"));
    }
}
