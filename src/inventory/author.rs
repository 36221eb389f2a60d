//! Whose words a worker's are: the administrator's, if nobody else can write them.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::config::Mode;

/// Files of these modes can be written by others than their owner.
const OTHERS_WRITE: u32 = 0o022;
/// In a directory with this bit nobody can replace what is another's.
const STICKY: u32 = 0o1000;

/// Whether nobody but the administrator, or whoever runs the server, can have put the worker in `directory` there or said in its file where it is to
/// be. In development the developer is both.
pub(super) fn is_administrators(directory: &Path, mode: Mode) -> bool {
    if mode == Mode::Development {
        return true;
    }
    let ours = rustix::process::geteuid().as_raw();
    let is_safe = |path: &Path| match path.symlink_metadata() {
        Ok(found) if found.is_symlink() => false,
        Ok(found) => {
            let is_ours = found.uid() == 0 || found.uid() == ours;
            let is_closed = found.mode() & OTHERS_WRITE == 0;
            is_ours && (is_closed || found.is_dir() && found.mode() & STICKY != 0)
        }
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    let config = directory.join("config");
    is_safe(&config)
        && is_safe(&config.join("worker.yaml"))
        && directory
            .ancestors()
            .all(|above| above.as_os_str().is_empty() || is_safe(above))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_others_can_write_is_not_the_administrators() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().canonicalize().unwrap();
        let worker = directory.join("workers/shop");
        std::fs::create_dir_all(worker.join("config")).unwrap();
        let file = worker.join("config/worker.yaml");
        std::fs::write(&file, "").unwrap();
        let of = |mode| is_administrators(&worker, mode);
        assert!(of(Mode::Production));
        for path in [
            &file,
            &worker,
            &worker.join("config"),
            &directory.join("workers"),
        ] {
            let before = path.metadata().unwrap().permissions();
            let open = std::fs::Permissions::from_mode(before.mode() | 0o020);
            std::fs::set_permissions(path, open).unwrap();
            assert!(!of(Mode::Production), "{}", path.display());
            assert!(of(Mode::Development));
            std::fs::set_permissions(path, before).unwrap();
        }
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&worker, Some(65_534), None).unwrap();
            assert!(!of(Mode::Production));
        }
    }
}
