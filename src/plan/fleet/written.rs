//! Development: files that the running program changes itself, each of which would replace it.
//!
//! A change of one file that comes while a generation starts, again and again, and no more once that serves, is the program's own: the
//! file does not count any more. What may be a person's all the same, the source of a program, is only waited for: nobody can tell who
//! wrote it.

use std::path::Path;
use std::time::Duration;

use super::save::{AFTERMATH, PAUSE};
use super::{Fleet, instance};
use crate::inventory::Latest;
use crate::names::WorkerName;
use crate::plan::reconcile::{is_same_config, is_same_program};
use crate::plan::run::Stage;
use crate::plan::worker::Worker;
use crate::plan::{Action, Kind, Moment, Severity, Spec};

/// So many generations in a row may be begun by a change of one file that comes with the start of the one before.
const IN_A_ROW: u32 = 3;
/// As many, if a person may well have saved it.
const SOURCES_IN_A_ROW: u32 = 6;
/// How long a file must not have changed after a start, if that is to have changed it.
const QUIET: Duration = Duration::from_secs(1);
/// How the names of files end that people write, and programs seldom.
const SOURCES: [&str; 46] = [
    "astro", "bash", "c", "cc", "cjs", "clj", "cpp", "cs", "css", "cts", "ejs", "erb", "ex", "exs",
    "go", "h", "haml", "hbs", "hs", "html", "ini", "j2", "java", "jinja", "js", "jsx", "kt",
    "less", "lua", "md", "mjs", "mts", "php", "pl", "py", "rb", "rs", "scss", "sh", "sql",
    "svelte", "toml", "ts", "tsx", "vue", "yaml",
];

impl Fleet {
    /// Whether `spec`, which was saved at `at`, seems to be what the program has made of its own files. Then it begins no generation now.
    pub(super) fn seems_self_written(
        &mut self,
        name: &WorkerName,
        spec: &Spec,
        at: Moment,
    ) -> bool {
        // What its own build changes is the build's guard to slow down: a page that stays old would be worse than a build too many.
        if spec.settings.build.is_some() {
            return false;
        }
        let now = self.now;
        let worker = self.worker(name);
        let Some(latest) = changed_alone(worker, spec) else {
            return false;
        };
        let held = worker.restless.suspect.as_ref();
        if held.is_some_and(|(_, held)| *held == latest) {
            // Another worker's files were saved.
            return true;
        }
        let file = latest.path.clone();
        let when = when(worker, at);
        let restless = &mut worker.restless;
        let suspect = restless.suspect.take();
        if when != When::Starting {
            // Nothing has been started that would have changed it.
            if when == When::Later || suspect.is_some() {
                restless.written = None;
            }
            return false;
        }
        let in_a_row = match restless.written.take() {
            Some((same, in_a_row)) if same == file => in_a_row + 1,
            _ => 1,
        };
        let may_be_saved = is_source(&file) || restless.told.contains(&file);
        let most = match may_be_saved {
            true => SOURCES_IN_A_ROW,
            false => IN_A_ROW,
        };
        restless.written = Some((file.clone(), in_a_row));
        if in_a_row <= most {
            return false;
        }
        if !may_be_saved {
            restless.suspect = Some((now + QUIET, latest));
            return true;
        }
        let until = restless.waits.as_ref().map_or(now + PAUSE, |(at, _)| *at);
        restless.waits = Some((until, spec.clone()));
        if restless.told.insert(file.clone()) {
            let text = format!(
                "'{name}' seems to write {file} itself: {most} generations in a row were begun by a change of it while the one before started; if so, \
                 add it to config/worker.yaml, as in {}. Until then there are {} s between two generations",
                pattern(&file),
                PAUSE.as_secs()
            );
            self.warn(name, text);
        }
        true
    }

    /// Gives up the files that have not changed since a generation has started: it was the start that changed them.
    pub(super) fn give_up_written(&mut self) {
        let now = self.now;
        let is_due = |worker: &Worker| {
            let suspect = worker.restless.suspect.as_ref();
            suspect.is_some_and(|(at, _)| *at <= now)
        };
        let due = self.workers.select(is_due).filter_map(|worker| {
            if worker.candidate().is_some() || worker.waiting.is_some() {
                // It still starts.
                let suspect = worker.restless.suspect.as_mut()?;
                suspect.0 = now + QUIET;
                return None;
            }
            let file = worker.restless.suspect.take()?.1.path;
            worker.restless.written = None;
            worker.restless.told.insert(file.clone());
            Some((worker.name.clone(), file))
        });
        for (name, file) in due.collect::<Vec<_>>() {
            let text = format!(
                "{file} is written by the program of '{name}' itself: {IN_A_ROW} generations in a row were begun by a change of it while the one \
                 before started. It does not count any more; add it to config/worker.yaml, as in {}. If you change it yourself, save another \
                 file too",
                pattern(&file)
            );
            self.warn(&name, text);
            self.actions.push(Action::Unwatch(name, file));
        }
    }

    fn warn(&mut self, name: &WorkerName, text: String) {
        let instance = instance(name, self.worker(name).newest);
        self.note(
            &instance,
            Severity::Warning,
            Kind::Progress,
            Vec::new(),
            text,
        );
    }
}

fn pattern(file: &str) -> String {
    format!("`watch: {{ignore: [\"/{file}\"]}}`")
}

/// The file by which `spec` differs from what is newest of the worker, if it may be the only one.
fn changed_alone(worker: &Worker, spec: &Spec) -> Option<Latest> {
    let before = worker.latest()?;
    if is_same_program(before, spec) || !is_same_config(before, spec) {
        return None;
    }
    let latest = spec.fingerprint.latest.as_ref()?;
    let earlier = before.fingerprint.latest.as_ref();
    let is_newer = earlier.is_none_or(|earlier| earlier.changed < latest.changed);
    is_newer.then(|| latest.clone())
}

/// When a file was changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// While a generation started, its first health request included.
    Starting,
    /// Just after one: nothing is certain.
    After,
    /// At another time.
    Later,
}

/// When it was at `at`. Whoever waits until what was saved is live, and then saves the next, does so after the start.
fn when(worker: &Worker, at: Moment) -> When {
    let live = worker
        .runs
        .values()
        .filter(|run| run.stage <= Stage::Serving);
    let mut live = live.filter(|run| run.stage >= Stage::Launching).peekable();
    let failed = worker.last_failure.as_ref().map(|(_, since)| *since);
    let ended = live.clone().filter_map(|run| run.ready).chain(failed).max();
    let starts = live.any(|run| run.ready.is_none() && run.stage < Stage::Switching);
    match ended {
        _ if starts => When::Starting,
        Some(ended) if at <= ended => When::Starting,
        Some(ended) if at <= ended + AFTERMATH => When::After,
        _ => When::Later,
    }
}

fn is_source(file: &str) -> bool {
    let end = Path::new(file).extension().and_then(|end| end.to_str());
    end.is_some_and(|end| SOURCES.contains(&end))
}
