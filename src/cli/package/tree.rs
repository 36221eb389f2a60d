//! The files of a package as they will lie on the machine.

use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use walkdir::WalkDir;

use super::super::exit::{self, refused};
use crate::config::printable;

/// How an executable or a library begins (elf(5)).
const ELF: &[u8] = b"\x7fELF";

/// The files of a package.
pub(super) struct Tree {
    /// Where they are now.
    pub(super) root: PathBuf,
    /// The regular files, relative to the root, in order.
    pub(super) files: Vec<PathBuf>,
    /// Those that are programs or libraries for one kind of machine.
    pub(super) programs: Vec<PathBuf>,
    /// When the newest of them was written, in seconds after 1970.
    pub(super) newest: u64,
    /// What they take on the disk, in KiB.
    pub(super) size: u64,
    /// Those not everybody could read, relative to the worker.
    secrets: Vec<PathBuf>,
}

impl Tree {
    /// Looks at what is below `root` and gives it the modes that files of packages have; `worker`: the worker's directory in it, whose
    /// files come from `origin`.
    pub(super) fn settle(root: &Path, worker: &Path, origin: &Path) -> anyhow::Result<Self> {
        let mut tree = Self {
            root: root.to_owned(),
            files: Vec::new(),
            programs: Vec::new(),
            newest: 0,
            size: 0,
            secrets: Vec::new(),
        };
        for entry in WalkDir::new(root).sort_by_file_name() {
            let entry = entry.context("look at the files of the package")?;
            let path = entry.path();
            let relative = path.strip_prefix(root).unwrap_or(path);
            if path.as_os_str().as_bytes().contains(&b'\n') {
                let name = printable(&relative.to_string_lossy());
                return Err(refused(
                    exit::CONFIG,
                    format!("a package can not have a file with a line break in its name: {name}"),
                    "give it another name".to_owned(),
                ));
            }
            let kind = entry.file_type();
            let found = entry.metadata()?;
            let mut mode = 0o755;
            if kind.is_file() {
                if found.mode() & 0o111 == 0 {
                    mode = 0o644;
                }
                tree.add(path, relative, &found)?;
                let name = path.strip_prefix(worker).unwrap_or(relative);
                let before = fs::symlink_metadata(origin.join(name));
                if before.is_ok_and(|before| before.mode() & 0o004 == 0) {
                    tree.secrets.push(name.to_owned());
                }
            } else {
                tree.size += 1;
            }
            if !kind.is_symlink() {
                fs::set_permissions(path, fs::Permissions::from_mode(mode))
                    .with_context(|| format!("change the mode of {}", path.display()))?;
            }
        }
        Ok(tree)
    }

    fn add(&mut self, path: &Path, relative: &Path, found: &fs::Metadata) -> anyhow::Result<()> {
        self.size += found.len().div_ceil(1024);
        self.newest = self.newest.max(u64::try_from(found.mtime()).unwrap_or(0));
        if is_elf(path).with_context(|| format!("read {}", path.display()))? {
            self.programs.push(relative.to_owned());
        }
        self.files.push(relative.to_owned());
        Ok(())
    }

    /// Says what everybody can read as soon as the package is there.
    pub(super) fn warn_of_secrets(&self) {
        for name in &self.secrets {
            eprintln!(
                "note: {} was not for everybody to read, and is in the package; for a secret use 'credentials' in config/worker.yaml",
                printable(&name.to_string_lossy())
            );
        }
    }
}

fn is_elf(path: &Path) -> std::io::Result<bool> {
    let mut start = Vec::new();
    let length = u64::try_from(ELF.len()).unwrap_or(0);
    fs::File::open(path)?.take(length).read_to_end(&mut start)?;
    Ok(start == ELF)
}
