//! `tqserver package`: a worker as a Debian package. Installed, it lies where the server finds it. A script in it has the server take
//! it, and fails where the worker does; what is removed or arrives in other ways is noticed by the server's dpkg trigger.
//!
//! It has the files a snapshot in production would have, by the very code that makes those: what is refused there is refused here.

mod control;
mod tools;
mod tree;

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::arguments::Common;
use super::exit::{self, refused};
use crate::builder;
use crate::config::{Mode, WorkerSettings, WorkerType};
use crate::deploy::{CopyError, SnapshotError, Store};
use crate::inventory::{self, Found, Inventory, Status};
use crate::names::{Generation, Instance, WorkerName};
use crate::route::{Claim, places};
use crate::types;
use control::Control;
use tree::Tree;

/// Where the server finds the workers that packages bring.
const WORKERS: &str = "usr/lib/tqserver/workers";

#[derive(Debug, clap::Args)]
pub(super) struct Package {
    /// Which worker.
    #[arg(value_name = "WORKER", value_parser = WorkerName::parse)]
    worker: WorkerName,
    /// Its version. Default: that in Cargo.toml, package.json or pyproject.toml, else made of the date of its newest file.
    #[arg(long, value_name = "VERSION", value_parser = control::version)]
    version: Option<String>,
    /// The package's name. Default: tqserver-worker-NAME, with the worker's name in small letters and with dashes.
    #[arg(long, value_name = "PACKAGE", value_parser = control::package_name)]
    name: Option<String>,
    /// The directory to put it in.
    #[arg(long, short, value_name = "DIRECTORY", default_value = ".")]
    output: PathBuf,
    /// Who is to be asked about it, as in "Jo Doe <jo@example.org>". Default: DEBFULLNAME and DEBEMAIL, else what git knows.
    #[arg(long, value_name = "MAINTAINER", value_parser = control::line)]
    maintainer: Option<String>,
    /// Packages it needs besides the server and what its type and its programs need, as in "imagemagick, libpq5 (>= 15)".
    #[arg(long, value_name = "PACKAGES", value_parser = control::line)]
    depends: Vec<String>,
}

impl Package {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<u8> {
        let settings = common.settings()?;
        let inventory = inventory::scan(&settings, Mode::Production)?;
        let found = self.found(&inventory)?;
        let worker = checked(found)?;
        if !self.output.is_dir() {
            let sentence = format!("{} is not a directory", self.output.display());
            let hint = format!("make it with `mkdir -p {}`", self.output.display());
            return Err(refused(exit::USAGE, sentence, hint));
        }
        let stage = Stage::make()?;
        let root = stage.0.join("tree");
        let files = fill(&stage, &root, found, worker)?;
        let tree = Tree::settle(&root, &files, &found.directory)?;
        if !common.quiet {
            tree.warn_of_secrets();
        }
        let control = self.control(&stage, &tree, worker, &files, common)?;
        control.write(&tree)?;
        let path = self.output.join(control.file_name());
        tools::dpkg_deb(&root, &path, tree.newest)?;
        println!("{}", path.display());
        Ok(0)
    }

    fn found<'a>(&self, inventory: &'a Inventory) -> anyhow::Result<&'a Found> {
        inventory.workers.get(&self.worker).ok_or_else(|| {
            let known: Vec<&str> = inventory.workers.keys().map(WorkerName::as_str).collect();
            refused(
                exit::USAGE,
                format!("there is no worker '{}'", self.worker),
                format!("there are: {}", known.join(", ")),
            )
        })
    }

    fn control(
        &self,
        stage: &Stage,
        tree: &Tree,
        worker: &WorkerSettings,
        files: &Path,
        common: &Common,
    ) -> anyhow::Result<Control> {
        let package = self.name.clone();
        let package = package.unwrap_or_else(|| control::name_of(&self.worker));
        let version = match &self.version {
            Some(version) => version.clone(),
            None => control::version_of(files, tree.newest)?,
        };
        let mut depends = vec!["tqserver".to_owned()];
        depends.extend(types::of(worker.kind).package.map(str::to_owned));
        let architecture = if tree.programs.is_empty() {
            "all".to_owned()
        } else {
            depends.extend(tools::shlibdeps(&stage.0, tree, common.quiet)?);
            tools::architecture()?
        };
        depends.extend(self.depends.iter().cloned());
        let maintainer = self.maintainer.clone();
        Ok(Control {
            package,
            version,
            architecture,
            maintainer: maintainer.unwrap_or_else(control::maintainer),
            depends,
            worker: self.worker.clone(),
            route: places(&Claim::all(&worker.on_route.hosts, &worker.route)),
        })
    }
}

/// The worker's settings, if it would run as it lies there.
fn checked(found: &Found) -> anyhow::Result<&WorkerSettings> {
    let name = &found.name;
    match &found.status {
        Status::Enabled(worker) => {
            if worker.kind != WorkerType::Static {
                runs(worker, &found.directory)?;
            }
            Ok(worker)
        }
        Status::Refused(problems) => Err(problems.clone().into()),
        Status::Disabled => Err(refused(
            exit::CONFIG,
            format!("{name}: it is disabled in production"),
            "change 'enabled' in its config/worker.yaml".to_owned(),
        )),
    }
}

fn runs(worker: &WorkerSettings, directory: &Path) -> anyhow::Result<()> {
    match builder::run_command(worker, directory, Mode::Production) {
        Ok(_) => Ok(()),
        Err(error) => Err(refused(
            exit::CONFIG,
            format!("{}: {error}", worker.name),
            None,
        )),
    }
}

/// Puts the worker's files below `root`, where the package has them; returns the directory.
fn fill(
    stage: &Stage,
    root: &Path,
    found: &Found,
    worker: &WorkerSettings,
) -> anyhow::Result<PathBuf> {
    let store = Store::open(&stage.0.join("store"), None)?;
    let instance = Instance::new(found.name.clone(), Generation(1));
    let made = store.create(&instance, &found.directory, worker.kind);
    let snapshot = made.map_err(|error| match &error {
        SnapshotError::Copy { reason, .. }
            if !matches!(reason, CopyError::Io { .. } | CopyError::Full(_)) =>
        {
            refused(exit::CONFIG, format!("{}: {reason}", found.name), None)
        }
        _ => error.into(),
    })?;
    let files = root.join(WORKERS).join(found.name.directory());
    let parent = files.parent().context("it is below the root")?;
    fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    fs::rename(&snapshot, &files).with_context(|| format!("make {}", files.display()))?;
    if let Some(assets) = store.latest_assets(&instance) {
        let public = files.join("public");
        // A program has its own with it.
        if public.symlink_metadata().is_err() {
            fs::rename(assets, &public).with_context(|| format!("make {}", public.display()))?;
        }
    }
    if worker.kind != WorkerType::Static {
        // What it starts from could be among what a snapshot leaves out.
        runs(worker, &files)?;
    }
    Ok(files)
}

/// A directory to build in, which nobody else can look into; gone when this is.
struct Stage(PathBuf);

impl Stage {
    fn make() -> anyhow::Result<Self> {
        let name = format!("tqserver-package-{}", uuid::Uuid::now_v7());
        let directory = std::env::temp_dir().join(name);
        let made = fs::DirBuilder::new().mode(0o700).create(&directory);
        made.with_context(|| format!("make the directory {}", directory.display()))?;
        Ok(Self(directory))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What stays is removed with the rest of the temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}
