//! `tqserver new`: a small worker that runs at once, in a directory of its own.
//!
//! It is written beside its place, under a name that nobody looks at, and takes its place when it is whole.

mod templates;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::builder::PossibleValuesParser;

use super::arguments::Common;
use super::exit::{self, refused};
use super::say;
use crate::builder;
use crate::config::{Mode, Problems, Settings};
use crate::inventory::{self, Status};
use crate::names::{WorkerName, WorkerNameError};
use crate::route::{Listen, RoutePath};
use crate::types::Template;
use templates::{Words, templates};

#[derive(Debug, clap::Args)]
pub(super) struct New {
    /// Its name, which is its directory and its place in the URL space: hello, or api.users, also written api/users.
    #[arg(value_name = "NAME", value_parser = worker_name)]
    name: WorkerName,
    /// What it is written in.
    #[arg(long = "type", value_name = "TYPE", value_parser = PossibleValuesParser::new(templates().map(|(kind, _)| kind)))]
    kind: Option<String>,
}

/// A worker's name, or its directory below the directory of workers.
fn worker_name(text: &str) -> Result<WorkerName, WorkerNameError> {
    if text.contains('/') {
        WorkerName::from_directory(Path::new(text.strip_suffix('/').unwrap_or(text)))
    } else {
        WorkerName::parse(text)
    }
}

impl New {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<u8> {
        let template = self.template()?;
        let settings = common.settings()?;
        let workers = settings.workers_directories.first();
        let workers = workers.context("the configuration names a directory of workers")?;
        let written = write(template, &self.name, workers)?;
        let (url, problems) = self.place_in(&settings);
        let mut text = format!("{}, a worker in {}:\n", self.name, template.language);
        for file in &written {
            text += &format!("    {}\n", shown(file));
        }
        text += &format!("next: tqserver dev\nthen: {url}\n");
        if !common.quiet {
            say::print(text.as_bytes())?;
        }
        if let Some((tool, install)) = template.tool
            && !builder::is_installed(tool)
        {
            eprintln!("warning: it needs {tool}, which is not installed; {install}");
        }
        for directory in &settings.workers_directories[1..] {
            let hidden = directory.join(self.name.directory());
            if hidden.exists() {
                eprintln!("warning: {} is hidden by it from now on", hidden.display());
            }
        }
        if let Some(problems) = problems {
            eprintln!("warning: it can not run yet\n{problems}");
        }
        Ok(0)
    }

    fn template(&self) -> anyhow::Result<&'static Template> {
        let Some(kind) = &self.kind else {
            let kinds: Vec<&str> = templates().map(|(kind, _)| kind).collect();
            let kinds = kinds.join(", ");
            return Err(refused(
                exit::USAGE,
                format!("what type of worker '{}' is to be is not said", self.name),
                format!(
                    "name one, as in `tqserver new {} --type python`; there are: {kinds}",
                    self.name
                ),
            ));
        };
        let template = templates().find(|(name, _)| name == kind);
        let template = template.map(|(_, template)| template);
        template.with_context(|| format!("there is no template for the type '{kind}'"))
    }

    /// Where the server will have it, and what is against that.
    fn place_in(&self, settings: &Settings) -> (String, Option<Problems>) {
        let inventory = inventory::scan(settings, Mode::Development).unwrap_or_default();
        let (route, problems) = match inventory.workers.get(&self.name).map(|found| &found.status) {
            Some(Status::Enabled(worker)) => (worker.route.clone(), None),
            Some(Status::Refused(problems)) => {
                (RoutePath::of_worker(&self.name), Some(problems.clone()))
            }
            Some(Status::Disabled) | None => (RoutePath::of_worker(&self.name), None),
        };
        let port = match settings
            .front
            .listen
            .iter()
            .find_map(Listen::address)
            .map(|a| a.port())
        {
            // Any free one, which `tqserver dev` will tell.
            None | Some(0) => "PORT".to_owned(),
            Some(port) => port.to_string(),
        };
        (format!("http://localhost:{port}{route}"), problems)
    }
}

/// Writes the worker `name` into the directory of workers; returns its files.
fn write(template: &Template, name: &WorkerName, workers: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let relative = name.directory();
    let directory = workers.join(&relative);
    if let Some(closed) = inventory::closed(workers, &relative) {
        let sentence = format!(
            "no worker is looked for in {}: it belongs to a build or to the worker around it, or is a symbolic link",
            shown(&closed)
        );
        let hint = "choose another name".to_owned();
        return Err(refused(exit::USAGE, sentence, hint));
    }
    if !is_free(&directory).with_context(|| format!("look at {}", directory.display()))? {
        return Err(taken(&directory));
    }
    let called = workers.file_name().unwrap_or_default().to_string_lossy();
    let words = Words::of(name, &called);
    let stage = Stage::beside(&directory)?;
    let mut written = Vec::new();
    for file in template.files {
        let place = words.put_into(file.place);
        let path = stage.directory.join(&place);
        write_file(&path, &words.put_into(file.text), place.starts_with("bin/"))
            .with_context(|| format!("write {}", path.display()))?;
        written.push(directory.join(place));
    }
    stage.take(&directory)?;
    Ok(written)
}

/// Whether nothing is at `directory`, or an empty directory.
fn is_free(directory: &Path) -> io::Result<bool> {
    match directory.read_dir() {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
        Err(error) => Err(error),
    }
}

fn taken(directory: &Path) -> anyhow::Error {
    let shown = shown(directory);
    let (what, hint) = if directory.is_dir() {
        (
            "is there already, and not empty",
            format!("choose another name, or move it away: mv {shown} {shown}.old"),
        )
    } else {
        (
            "can not be a directory: a file is in its place",
            "choose another name".to_owned(),
        )
    };
    refused(exit::USAGE, format!("{shown} {what}"), hint)
}

/// With the modes that the umask leaves.
fn write_file(path: &Path, text: &str, executable: bool) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    options.mode(if executable { 0o777 } else { 0o666 });
    options.open(path)?.write_all(text.as_bytes())
}

/// A directory in which a worker becomes whole; gone, with the directories made for it, unless it took its place.
#[derive(Debug)]
struct Stage {
    directory: PathBuf,
    /// Directories that were not there before, the outermost first.
    made: Vec<PathBuf>,
}

impl Stage {
    fn beside(place: &Path) -> anyhow::Result<Self> {
        let parent = place.parent().context("a worker is in a directory")?;
        let mut missing: Vec<PathBuf> = parent
            .ancestors()
            .take_while(|directory| directory.symlink_metadata().is_err())
            .map(Path::to_owned)
            .collect();
        missing.reverse();
        // No worker is looked for in a directory with such a name.
        let directory = parent.join(format!(".tqserver-new-{}", uuid::Uuid::now_v7()));
        missing.push(directory.clone());
        let mut stage = Self {
            directory,
            made: Vec::new(),
        };
        for directory in missing {
            fs::create_dir(&directory)
                .with_context(|| format!("make the directory {}", directory.display()))?;
            stage.made.push(directory);
        }
        Ok(stage)
    }

    /// Gives the worker its place. An empty directory there is replaced, anything else is not.
    fn take(mut self, place: &Path) -> anyhow::Result<()> {
        match fs::rename(&self.directory, place) {
            Ok(()) => {
                self.made.clear();
                Ok(())
            }
            // Somebody was quicker.
            Err(_) if !is_free(place).unwrap_or(true) => Err(taken(place)),
            Err(error) => Err(error).with_context(|| format!("make {}", place.display())),
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.made.is_empty() {
            return;
        }
        // What can not be removed is in nobody's way. Others may have put something beside it by now, so that only it is emptied.
        let _ = fs::remove_dir_all(&self.directory);
        for directory in self.made.iter().rev() {
            let _ = fs::remove_dir(directory);
        }
    }
}

/// A path as somebody in the current directory would type it.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let short = path.strip_prefix(&here).unwrap_or(path);
    crate::config::printable(&short.to_string_lossy())
}
