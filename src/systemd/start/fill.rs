//! The first start of a worker whose state takes the place of some of its files: what was deployed there is copied into the state.

use std::fs::{self, DirEntry};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// In a directory that has all that it was to get. What the program removes from it later stays away.
const MARK: &str = ".tqserver-filled";
/// The start of the name of a file that is not whole yet.
const NEW: &str = ".tqserver-new-";
/// The owner writes: what was deployed may be read-only, and this is there to be changed.
const OWNER_WRITES: u32 = 0o600;
/// Most levels of directories.
const LEVELS: usize = 64;

/// A directory, and the one it is filled from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fill {
    pub(super) from: PathBuf,
    pub(super) to: PathBuf,
}

impl Fill {
    /// Copies what is not there yet, once. A start that was killed on the way is gone on with.
    ///
    /// # Errors
    /// When something cannot be read or written.
    pub(super) fn run(&self) -> io::Result<()> {
        let mark = self.to.join(MARK);
        if mark.exists() {
            return Ok(());
        }
        copy_all(&self.from, &self.to, LEVELS)?;
        fs::write(mark, "")
    }
}

fn copy_all(from: &Path, to: &Path, levels: usize) -> io::Result<()> {
    if levels == 0 {
        return Err(io::Error::other("directories are nested too deeply"));
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            match fs::create_dir(&target) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => copy_all(&entry.path(), &target, levels - 1)?,
            }
        } else if target.symlink_metadata().is_err() {
            copy(&entry, &target)?;
        }
    }
    Ok(())
}

/// Copies one file or link, which is there whole or not at all.
fn copy(entry: &DirEntry, target: &Path) -> io::Result<()> {
    if entry.file_type()?.is_symlink() {
        return symlink(fs::read_link(entry.path())?, target);
    }
    let new = target.with_file_name(format!("{NEW}{}", std::process::id()));
    fs::copy(entry.path(), &new)?;
    let mode = fs::metadata(&new)?.permissions().mode() | OWNER_WRITES;
    fs::set_permissions(&new, fs::Permissions::from_mode(mode))?;
    fs::rename(&new, target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_deployed_is_copied_once_and_what_the_program_did_with_it_stays() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::create_dir_all(from.join("akismet/views")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("akismet/views/a.php"), "shipped").unwrap();
        fs::write(from.join("hello.php"), "shipped").unwrap();
        fs::set_permissions(from.join("hello.php"), fs::Permissions::from_mode(0o444)).unwrap();
        symlink("hello.php", from.join("link.php")).unwrap();
        // As after a start that was killed.
        fs::create_dir(to.join("akismet")).unwrap();
        fs::write(to.join(".tqserver-new-1"), "half").unwrap();
        fs::write(to.join("akismet/own.php"), "its own").unwrap();
        let fill = Fill {
            from: from.clone(),
            to: to.clone(),
        };
        fill.run().unwrap();
        let read = |name: &str| fs::read_to_string(to.join(name)).ok();
        assert_eq!(read("akismet/views/a.php").unwrap(), "shipped");
        assert_eq!(read("akismet/own.php").unwrap(), "its own");
        assert_eq!(read("link.php").unwrap(), "shipped");
        let mode = fs::metadata(to.join("hello.php")).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o644);
        // It updates one and removes another; a later release brings a third.
        fs::write(to.join("hello.php"), "updated").unwrap();
        fs::remove_dir_all(to.join("akismet")).unwrap();
        fs::write(from.join("new.php"), "shipped").unwrap();
        fill.run().unwrap();
        assert_eq!(read("hello.php").unwrap(), "updated");
        assert_eq!(read("akismet/views/a.php"), None);
        assert_eq!(read("new.php"), None);
    }
}
