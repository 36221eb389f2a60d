//! The programs that know Debian's packages: dpkg-deb, dpkg-shlibdeps, dpkg, md5sum.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::Context;

use super::super::exit::{self, refused};
use super::tree::Tree;

/// Files that are named in one command.
const FILES: usize = 500;

/// Builds the package of the files below `root`.
pub(super) fn dpkg_deb(root: &Path, path: &Path, newest: u64) -> anyhow::Result<()> {
    let mut command = Command::new("dpkg-deb");
    command
        .args(["--root-owner-group", "--build"])
        .args([root, path]);
    // The same files make the same package, whenever that is.
    if std::env::var_os("SOURCE_DATE_EPOCH").is_none() {
        command.env("SOURCE_DATE_EPOCH", newest.to_string());
    }
    run(&mut command, "dpkg").map(drop)
}

/// What this machine is, in Debian's words.
pub(super) fn architecture() -> anyhow::Result<String> {
    let output = run(Command::new("dpkg").arg("--print-architecture"), "dpkg")?;
    Ok(text(&output))
}

/// The checksums of all files, as a package lists them.
pub(super) fn md5sums(tree: &Tree) -> anyhow::Result<Vec<u8>> {
    let mut sums = Vec::new();
    for files in tree.files.chunks(FILES) {
        let mut command = Command::new("md5sum");
        command.args(["--zero", "--"]).args(files);
        command.current_dir(&tree.root);
        let output = run(&mut command, "coreutils")?;
        sums.extend(output.stdout);
    }
    for byte in &mut sums {
        if *byte == 0 {
            *byte = b'\n';
        }
    }
    Ok(sums)
}

/// The packages that have the libraries the programs of the tree are linked with. Where that can not be found out the package is
/// built all the same, and it is said.
pub(super) fn shlibdeps(stage: &Path, tree: &Tree, quiet: bool) -> anyhow::Result<Option<String>> {
    // It works in a source package only.
    let debian = stage.join("debian");
    fs::create_dir_all(&debian).context("make a directory for dpkg-shlibdeps")?;
    fs::write(
        debian.join("control"),
        "Source: worker\n\nPackage: worker\nArchitecture: any\n",
    )
    .context("write a control file for dpkg-shlibdeps")?;
    // It looks for the root of a package by this directory.
    fs::create_dir_all(tree.root.join("DEBIAN")).context("make the directory DEBIAN")?;
    let mut command = Command::new("dpkg-shlibdeps");
    command.args(["-O", "--ignore-missing-info"]);
    let own: BTreeSet<PathBuf> = tree
        .programs
        .iter()
        .filter_map(|path| Some(tree.root.join(path.parent()?)))
        .collect();
    command.args(own.iter().map(|directory| joined("-l", directory)));
    let programs = tree.programs.iter().map(|path| tree.root.join(path));
    command.args(programs.map(|path| joined("-e", &path)));
    command.current_dir(stage);
    let note = match output(&mut command) {
        Ok(output) if output.status.success() => {
            let found = text(&output);
            let found = found.strip_prefix("shlibs:Depends=").unwrap_or_default();
            return Ok(Some(found.to_owned()).filter(|found| !found.is_empty()));
        }
        Ok(output) => {
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            let last = complaint.trim_end().lines().last().unwrap_or_default();
            last.to_owned()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            "dpkg-shlibdeps is not installed (apt install dpkg-dev)".to_owned()
        }
        Err(error) => format!("dpkg-shlibdeps: {error}"),
    };
    if !quiet {
        eprintln!("note: {note}; name the packages of the libraries it needs with --depends");
    }
    Ok(None)
}

fn joined(option: &str, path: &Path) -> std::ffi::OsString {
    let bytes = [option.as_bytes(), path.as_os_str().as_bytes()].concat();
    OsStr::from_bytes(&bytes).to_owned()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn output(command: &mut Command) -> io::Result<Output> {
    // What they say is read by this program.
    command.stdin(Stdio::null()).env("LC_ALL", "C.UTF-8");
    command.output()
}

fn run(command: &mut Command, package: &str) -> anyhow::Result<Output> {
    let program = command.get_program().display().to_string();
    match output(command) {
        Ok(output) if output.status.success() => Ok(output),
        Ok(output) => {
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            let complaint = complaint.trim_end();
            anyhow::bail!("{program} failed ({}): {complaint}", output.status)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(refused(
            exit::FAILED,
            format!("{program} is not installed"),
            format!("install it with `apt install {package}`"),
        )),
        Err(error) => Err(error).with_context(|| format!("run {program}")),
    }
}
