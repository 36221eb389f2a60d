//! A worker's `public/`, below which files are opened.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fd::OwnedFd;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::file::File;
use super::kept::{Kept, Room};

/// The directory of a route.
#[derive(Debug)]
pub(crate) struct Public {
    path: PathBuf,
    /// Of a directory that a worker writes to: its path below `path`. No link is followed on the way to what is in it.
    inside: Option<String>,
    stays: bool,
    /// Open for as long as the route is: what was deployed stays where it is. `None` where people work in it, and may put another in its
    /// place at any time.
    held: Option<OwnedFd>,
    /// What was asked for before, if it stays.
    kept: Option<RefCell<Kept>>,
}

impl Public {
    /// The directory at `path`; one that `stays` is opened now, and what is asked for is kept where there is `room`.
    pub(crate) fn new(path: &Path, stays: bool, room: &Rc<Room>) -> Self {
        Self {
            path: path.to_owned(),
            inside: None,
            stays,
            // Where that fails, each use tries again.
            held: stays.then(|| directory(path).ok()).flatten(),
            kept: stays.then(|| RefCell::new(Kept::new(room.clone()))),
        }
    }

    /// The directory called `directory` in a worker's state, which the worker may make, fill and remove at any time.
    pub(crate) fn stored(state: &Path, directory: &str) -> Self {
        Self {
            path: state.to_owned(),
            inside: Some(directory.to_owned()),
            stays: false,
            held: None,
            kept: None,
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
            || self.inside.is_some()
            || rustix::fs::stat(self.path.join(name)).is_ok_and(|stat| {
                matches!(
                    FileType::from_raw_mode(stat.st_mode),
                    FileType::RegularFile | FileType::Directory
                )
            })
    }

    /// The file called `name`. One that was deployed is never written again, so small ones stay in memory, and so does what is missing.
    ///
    /// # Errors
    /// When there is no such file, it may not be read, or its name leads elsewhere; [`io::ErrorKind::IsADirectory`] when the name is that of
    /// a directory.
    pub(crate) fn file(&self, name: &str) -> io::Result<Rc<File>> {
        let kept = || self.kept.as_ref().map(RefCell::borrow_mut);
        match kept().and_then(|kept| kept.get(name)) {
            Some(Some(file)) => return Ok(file),
            Some(None) => return Err(io::ErrorKind::NotFound.into()),
            None => {}
        }
        let opened = self
            .open(name)
            .and_then(|file| File::new(file.into(), name, self.is_edited()));
        match (opened, kept()) {
            (Ok(file), Some(mut kept)) => Ok(kept.add(name, file)),
            (Ok(file), None) => Ok(Rc::new(file)),
            (Err(error), kept) => {
                if let Some(mut kept) = kept
                    && error.kind() == io::ErrorKind::NotFound
                {
                    kept.add_missing(name);
                }
                Err(error)
            }
        }
    }

    /// Opens `name` below it, in one step that cannot leave it.
    fn open(&self, name: &str) -> io::Result<OwnedFd> {
        // Without O_NONBLOCK a fifo put in the file's place would hold up the thread.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let links = self.inside.is_none();
        match (&self.held, &self.inside) {
            (Some(held), _) => open_beneath((held, &self.path), name, flags, links),
            (None, None) => open_beneath((&directory(&self.path)?, &self.path), name, flags, links),
            (None, Some(inside)) => {
                let state = directory(&self.path)?;
                let flags_inside = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let opened = open_beneath((&state, &self.path), inside, flags_inside, links)?;
                open_beneath((&opened, &self.path.join(inside)), name, flags, links)
            }
        }
    }
}

/// Opens `name` below a directory, which is open and has this path, in one step that cannot leave it (openat2(2) with `RESOLVE_BENEATH`);
/// `links`: whether symbolic links are followed.
fn open_beneath(
    (directory, path): (&OwnedFd, &Path),
    name: &str,
    flags: OFlags,
    links: bool,
) -> io::Result<OwnedFd> {
    let mut beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    beneath.set(ResolveFlags::NO_SYMLINKS, !links);
    match rustix::fs::openat2(directory, name, flags, Mode::empty(), beneath) {
        // Some sandboxes do not know the call.
        Err(Errno::NOSYS | Errno::PERM) => {
            let (real, top) = (path.join(name).canonicalize()?, path.canonicalize()?);
            if !real.starts_with(&top) || !links && real != top.join(name) {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            let flags = flags | OFlags::NOFOLLOW;
            Ok(rustix::fs::openat(CWD, real, flags, Mode::empty())?)
        }
        outcome => Ok(outcome?),
    }
}

fn directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::super::file::Content;
    use super::*;

    fn public(stays: bool, room: &Rc<Room>) -> (tempfile::TempDir, Public) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a.css"), "body {}").unwrap();
        let public = Public::new(directory.path(), stays, room);
        (directory, public)
    }

    fn is_read(file: &File) -> bool {
        matches!(file.content, Content::Read(_))
    }

    #[test]
    fn a_small_file_that_was_deployed_is_opened_once() {
        let (directory, public) = public(true, &Rc::default());
        let first = public.file("a.css").unwrap();
        assert!(is_read(&first));
        // Nobody does that; it shows that nobody looks.
        std::fs::remove_file(directory.path().join("a.css")).unwrap();
        assert!(Rc::ptr_eq(&first, &public.file("a.css").unwrap()));
    }

    #[test]
    fn what_was_not_deployed_is_looked_for_once() {
        let (directory, public) = public(true, &Rc::default());
        assert!(public.file("b.css").is_err());
        std::fs::write(directory.path().join("b.css"), "").unwrap();
        let error = public.file("b.css").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_people_work_on_is_read_each_time() {
        let (directory, public) = public(false, &Rc::default());
        let first = public.file("a.css").unwrap();
        assert!(!is_read(&first));
        std::fs::write(directory.path().join("a.css"), "body { margin: 0 }").unwrap();
        let second = public.file("a.css").unwrap();
        assert_ne!((first.size, &first.etag), (second.size, &second.etag));
        assert!(public.file("b.css").is_err());
        std::fs::write(directory.path().join("b.css"), "").unwrap();
        assert!(public.file("b.css").is_ok());
    }

    #[test]
    fn a_large_file_is_read_as_it_is_sent() {
        let (directory, public) = public(true, &Rc::default());
        std::fs::write(directory.path().join("film"), vec![0; 100 << 10]).unwrap();
        assert!(!is_read(&public.file("film").unwrap()));
    }

    #[test]
    fn what_a_worker_stores_is_served_and_nothing_that_it_links_to() {
        let state = tempfile::tempdir().unwrap();
        let media = state.path().join("media");
        let public = Public::stored(state.path(), "media");
        assert!(public.file("a.css").is_err(), "it is not there yet");
        std::fs::create_dir_all(media.join("sub")).unwrap();
        std::fs::write(state.path().join("db"), "secret").unwrap();
        std::fs::write(media.join("sub/a.css"), "body {}").unwrap();
        assert!(public.file("sub/a.css").is_ok());
        std::os::unix::fs::symlink("sub/a.css", media.join("inside")).unwrap();
        std::os::unix::fs::symlink("../db", media.join("db")).unwrap();
        std::os::unix::fs::symlink("sub", media.join("link")).unwrap();
        rustix::fs::mknodat(
            CWD,
            media.join("fifo"),
            FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        for name in ["inside", "db", "link/a.css", "../db", "fifo", "sub"] {
            assert!(public.file(name).is_err(), "{name}");
        }
        // The directory itself becomes a link.
        std::fs::remove_dir_all(&media).unwrap();
        std::os::unix::fs::symlink(".", &media).unwrap();
        assert!(public.file("db").is_err());
    }
}
