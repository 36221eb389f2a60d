//! What the start verb does about a worker's state, as the worker's user: directories that lie elsewhere, and such as are filled at the first
//! start with what was deployed.

use std::fs::{self, DirEntry};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// In a directory that has all that it was to get. What the program removes from it later stays away.
const MARK: &str = ".tqserver-filled";
/// The start of the name of a file that is not whole yet.
const NEW: &str = ".tqserver-new-";
/// The owner writes: what was deployed may be read-only, and this is there to be changed.
const OWNER_WRITES: u32 = 0o600;
/// Everybody reads: what was written before the proxy was to serve it was closed to others by the umask of then.
const ALL_READ: u32 = 0o644;
/// Most levels of directories.
const LEVELS: usize = 64;

/// Makes `to` a link to the directory `from`; a directory that is in its place is moved into that. A start that was killed on the way is gone
/// on with.
///
/// # Errors
/// When something cannot be read or written, or a file is in its place.
pub(super) fn link(from: &Path, to: &Path) -> io::Result<()> {
    match fs::symlink_metadata(to) {
        Ok(found) if found.is_symlink() && fs::read_link(to)? == from => return Ok(()),
        Ok(found) if found.is_dir() => {
            copy_all(to, from, ALL_READ, LEVELS)?;
            fs::remove_dir_all(to)?;
        }
        Ok(found) if found.is_symlink() => fs::remove_file(to)?,
        Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            to.parent().map_or(Ok(()), fs::create_dir_all)?;
        }
        Err(error) => return Err(error),
    }
    match symlink(from, to) {
        // Another instance that starts at the same time.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    }
}

/// Gives the directory `to` what `from` has and it has not, once.
///
/// # Errors
/// When something cannot be read or written.
pub(super) fn fill(from: &Path, to: &Path) -> io::Result<()> {
    let mark = to.join(MARK);
    if mark.exists() {
        return Ok(());
    }
    fs::create_dir_all(to)?;
    copy_all(from, to, OWNER_WRITES, LEVELS)?;
    fs::write(mark, "")
}

/// Copies what is not there yet; `mode` is added to the modes of files.
fn copy_all(from: &Path, to: &Path, mode: u32, levels: usize) -> io::Result<()> {
    if levels == 0 {
        return Err(io::Error::other("directories are nested too deeply"));
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            match fs::create_dir(&target) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => copy_all(&entry.path(), &target, mode, levels - 1)?,
            }
        } else if target.symlink_metadata().is_err() {
            copy(&entry, &target, mode)?;
        }
    }
    Ok(())
}

/// Copies one file or link, which is there whole or not at all.
fn copy(entry: &DirEntry, target: &Path, mode: u32) -> io::Result<()> {
    if entry.file_type()?.is_symlink() {
        return symlink(fs::read_link(entry.path())?, target);
    }
    let new = target.with_file_name(format!("{NEW}{}", std::process::id()));
    fs::copy(entry.path(), &new)?;
    let mode = fs::metadata(&new)?.permissions().mode() | mode;
    fs::set_permissions(&new, fs::Permissions::from_mode(mode))?;
    fs::rename(&new, target)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn two() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::create_dir(&from).unwrap();
        (directory, from, to)
    }

    #[test]
    fn what_was_deployed_is_copied_once_and_what_the_program_did_with_it_stays() {
        let (_directory, from, to) = two();
        fs::create_dir_all(from.join("akismet/views")).unwrap();
        fs::write(from.join("akismet/views/a.php"), "shipped").unwrap();
        fs::write(from.join("hello.php"), "shipped").unwrap();
        fs::set_permissions(from.join("hello.php"), fs::Permissions::from_mode(0o444)).unwrap();
        symlink("hello.php", from.join("link.php")).unwrap();
        // As after a start that was killed.
        fs::create_dir_all(to.join("akismet")).unwrap();
        fs::write(to.join(".tqserver-new-1"), "half").unwrap();
        fs::write(to.join("akismet/own.php"), "its own").unwrap();
        fill(&from, &to).unwrap();
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
        fill(&from, &to).unwrap();
        assert_eq!(read("hello.php").unwrap(), "updated");
        assert_eq!(read("akismet/views/a.php"), None);
        assert_eq!(read("new.php"), None);
    }

    #[test]
    fn a_directory_that_is_to_lie_elsewhere_takes_what_it_has_with_it() {
        let (directory, from, _) = two();
        let to = directory.path().join("site/media");
        link(&from, &to).unwrap();
        assert_eq!(fs::read_link(&to).unwrap(), from);
        fs::write(to.join("a"), "new").unwrap();
        // As before it was to.
        fs::remove_file(&to).unwrap();
        fs::create_dir_all(to.join("sub")).unwrap();
        fs::write(to.join("sub/b"), "old").unwrap();
        fs::write(to.join("a"), "old").unwrap();
        fs::set_permissions(to.join("sub/b"), fs::Permissions::from_mode(0o600)).unwrap();
        for _ in 0..2 {
            link(&from, &to).unwrap();
            let read = |name: &str| fs::read_to_string(from.join(name)).unwrap();
            assert_eq!((&*read("a"), &*read("sub/b")), ("new", "old"));
            let mode = fs::metadata(from.join("sub/b")).unwrap().permissions();
            assert_eq!(mode.mode() & 0o777, 0o644);
            assert!(to.symlink_metadata().unwrap().is_symlink());
        }
        // Another link there is none of ours any more; a file is somebody's.
        fs::remove_file(&to).unwrap();
        symlink("/nowhere", &to).unwrap();
        link(&from, &to).unwrap();
        assert_eq!(fs::read_link(&to).unwrap(), from);
        fs::remove_file(&to).unwrap();
        fs::write(&to, "file").unwrap();
        assert!(link(&from, &to).is_err());
        assert_eq!(fs::read_to_string(&to).unwrap(), "file");
    }
}
