//! Where a private systemd lives. One configuration file has one place, so that `tqserver reload` in a second terminal finds the systemd
//! that `tqserver dev` started in the first.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// Where a private systemd lives: sockets, unit files, logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(PathBuf);

impl Place {
    /// The place that belongs to the configuration in `file`. Nothing is made there yet.
    pub fn of(file: &Path) -> Self {
        // A file that is not there, everything has a default, has a place all the same: one for each project.
        let file = fs::canonicalize(file)
            .or_else(|_| std::path::absolute(file))
            .unwrap_or_else(|_| file.to_owned());
        let mut hash = DefaultHasher::new();
        file.hash(&mut hash);
        Self(parent().join(format!("{:016x}", hash.finish())))
    }

    /// Where its bus listens, in D-Bus address syntax.
    pub fn bus_address(&self) -> String {
        format!("unix:path={}", self.0.join("bus").display())
    }

    /// Whether a bus is there.
    pub fn is_up(&self) -> bool {
        self.0.join("bus").exists()
    }

    /// Where the manager may put its sockets and logs.
    pub fn runtime_directory(&self) -> PathBuf {
        self.0.join("tqserver")
    }

    /// Its directory.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

/// What the places of a user are in.
const PLACES: &str = "tqserver-private";

/// `/run` for root, the user's runtime directory otherwise; a directory of the user's in /tmp where there is neither. It is short:
/// the path of a socket has 107 bytes.
fn parent() -> PathBuf {
    let user = rustix::process::geteuid();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|path| path.is_dir());
    match runtime {
        _ if user.is_root() => Path::new("/run").join(PLACES),
        // A unit of a private systemd has its place as runtime directory: the place of the same configuration is that very one.
        Some(place)
            if place
                .parent()
                .is_some_and(|parent| parent.ends_with(PLACES)) =>
        {
            place.parent().map(Path::to_owned).unwrap_or_default()
        }
        Some(runtime) => runtime.join(PLACES),
        None => PathBuf::from(format!("/tmp/{PLACES}-{}", user.as_raw())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_has_one_place_however_it_is_written() {
        let relative = Path::new("no-such-config/server.yaml");
        let absolute = std::env::current_dir().unwrap().join(relative);
        assert_eq!(Place::of(relative), Place::of(&absolute));
    }
}
