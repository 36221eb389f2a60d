//! What is known by its name: files that no worker is made of, wherever they lie.

use std::ffi::OsStr;
use std::path::Path;

/// Of version control, of file managers, and what editors and file systems leave for a moment: "4913" is vim's question whether it may
/// write here, `___jb_` of the JetBrains editors' safe write.
const LITTER: [&str; 14] = [
    ".git",
    ".gitattributes",
    ".gitignore",
    ".gitmodules",
    ".hg",
    ".hgignore",
    ".jj",
    ".svn",
    "CVS",
    "_darcs",
    ".DS_Store",
    "Thumbs.db",
    "desktop.ini",
    "4913",
];
/// How names of such files begin: emacs' locks, LibreOffice's locks, GLib's and FUSE's and NFS's files that are to vanish.
const LITTER_BEGINS: [&str; 5] = [".#", ".~lock.", ".goutputstream-", ".fuse_hidden", ".nfs0"];
/// How they end: copies of what was there before, and of what is not saved yet.
const LITTER_ENDS: [&str; 4] = ["~", "___jb_tmp___", "___jb_old___", ".kate-swp"];
/// Directories that are made from what lies elsewhere. `vendor` is not among them: it is often committed; nor `dist` and `build`: they
/// may be what runs.
const OUTPUTS: [&str; 2] = ["node_modules", "__pycache__"];
/// Names of a Python environment, if it is one.
const ENVIRONMENTS: [&str; 3] = ["venv", "env", "virtualenv"];

/// Whether a file or directory of this name is never a part of a worker. `*.tmp` is: what is written there and renamed lies there for
/// less than events are gathered, and a file that a program reads must not be overlooked.
pub(super) fn is_litter(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    LITTER.contains(&&*name)
        || LITTER_BEGINS.iter().any(|begin| name.starts_with(begin))
        || LITTER_ENDS.iter().any(|end| name.ends_with(end))
        || (name.len() > 1 && name.starts_with('#') && name.ends_with('#'))
        || is_swap_file(&name)
}

/// vim's `.NAME.swp`, `.swo` and so on down to `.swa`.
fn is_swap_file(name: &str) -> bool {
    let stem = name
        .strip_suffix(|last: char| last.is_ascii_lowercase())
        .and_then(|name| name.strip_suffix(".sw"));
    stem.is_some_and(|stem| stem.is_empty() || stem.starts_with('.'))
}

/// How names of databases in a file end, as SQLite's; and what SQLite puts behind that while one is open.
const DATABASES: [&str; 4] = [".sqlite3", ".sqlite", ".db3", ".db"];
const BESIDE_DATABASES: [&str; 3] = ["-journal", "-wal", "-shm"];

/// Whether programs write files of this name while they run.
pub(super) fn is_written(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let mut beside = BESIDE_DATABASES.iter();
    let database = beside.find_map(|end| name.strip_suffix(end));
    let database = database.unwrap_or(&name);
    // `app.log.1` is one that was put aside.
    let digits = |c: char| c.is_ascii_digit();
    let log = name.trim_end_matches(digits);
    let log = log
        .strip_suffix('.')
        .filter(|log| log.len() + 1 < name.len());
    DATABASES.iter().any(|end| database.ends_with(end))
        || log.unwrap_or(&name).ends_with(".log")
        || name.ends_with(".pid")
}

/// Whether what is at `path` is made from other files.
pub(super) fn is_output(path: &Path, is_directory: bool) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if !is_directory {
        return name.ends_with(".pyc") || name.ends_with(".pyo");
    }
    // A module may be called "target" or "env" as well: what lies there tells.
    let beside = |file| path.with_file_name(file).is_file();
    OUTPUTS.contains(&&*name)
        || (name == "target" && beside("Cargo.toml"))
        || (ENVIRONMENTS.contains(&&*name) && path.join("pyvenv.cfg").is_file())
}

/// Whether what has this name is of no importance in a directory of workers, outside of each: no worker is looked for in it.
pub fn is_left_out_between_workers(name: &OsStr, is_directory: bool) -> bool {
    let text = name.to_string_lossy();
    let closed = || text.starts_with('.') || text == "target" || OUTPUTS.contains(&&*text);
    is_litter(name) || (is_directory && closed())
}
