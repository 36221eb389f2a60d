//! Commands in the surroundings of workers (`tqserver exec`): who runs which, in what unit, and how they end.
//!
//! They are no generations: the plan does not know them. Each is a unit in its worker's slice, which the sweep for strays leaves alone and
//! a stop of the server ends. A manager that goes while one runs leaves it running, and tells nobody how it ends.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::disk::SMALL;
use super::driver::Driver;
use super::explain::explain;
use super::pair;
use super::perform::Performer;
use super::requests::{Ended, ExecRequest, Refused, Who};
use crate::builder::{self, php};
use crate::config::{WorkerType, printable, read_env_files};
use crate::names::{Instance, WorkerName, exec_unit};
use crate::plan::Spec;
use crate::route::Address;
use crate::systemd::{Ending, OneOff};

/// Most commands at the same time, of all users together.
const MOST: usize = 32;
/// Most of a command that the log has, in characters.
const SHOWN: usize = 300;
/// What runs where nothing is named: the first that is there.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];

/// What runs, by who runs it: each connection one.
#[derive(Debug, Default)]
pub(super) struct Running {
    units: Mutex<BTreeMap<String, String>>,
}

/// Where a command runs.
struct Surroundings {
    instance: Instance,
    spec: Spec,
    /// Of the first of its instances.
    address: Address,
    /// The directories of workers, their ports, and their time to end.
    workers: Vec<PathBuf>,
    ports: RangeInclusive<u16>,
    stop_timeout: Duration,
}

impl Surroundings {
    /// Those of the generation of `worker` that serves.
    fn of(driver: &Driver, worker: &WorkerName) -> Result<Self, Refused> {
        let fleet = &driver.fleet;
        if !fleet.names().any(|name| name == worker) {
            let names: Vec<&str> = fleet.names().map(WorkerName::as_str).collect();
            let sentence = format!(
                "there is no worker '{worker}'; there are: {}",
                names.join(", ")
            );
            return Err(Refused::Argument(sentence));
        }
        let Some((instance, spec, address)) = fleet.serving_spec(worker) else {
            let sentence =
                format!("no generation of '{worker}' serves; `tqserver status {worker}` says why");
            return Err(Refused::Failed(sentence));
        };
        if spec.settings.kind == WorkerType::Static {
            let sentence =
                format!("'{worker}' has files and no program: it has no user to run something as");
            return Err(Refused::Argument(sentence));
        }
        let settings = &driver.settings;
        Ok(Self {
            instance,
            spec: spec.clone(),
            address: address.clone(),
            workers: settings.workers_directories.clone(),
            ports: settings.ports.clone(),
            stop_timeout: settings.shutdown_grace,
        })
    }
}

impl Running {
    /// The unit of whoever has this name on the bus, if they run something.
    pub(super) fn unit_of(&self, sender: &str) -> Option<String> {
        self.units().get(sender).cloned()
    }

    /// A name for the unit of one more, which is taken until it is given back.
    fn begin(&self, who: &Who, worker: &WorkerName) -> Result<String, Refused> {
        let mut units = self.units();
        if units.len() >= MOST {
            let sentence = format!("{MOST} commands run already; end one of them first");
            return Err(Refused::Failed(sentence));
        }
        if units.contains_key(&who.sender) {
            let sentence = "this connection runs a command already".to_owned();
            return Err(Refused::Argument(sentence));
        }
        // A manager before this one may have left one running.
        let unit = exec_unit(worker, &uuid::Uuid::now_v7().simple().to_string());
        units.insert(who.sender.clone(), unit.clone());
        Ok(unit)
    }

    fn end(&self, who: &Who) {
        self.units().remove(&who.sender);
    }

    fn units(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, String>> {
        self.units.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins to run a command.
pub(super) fn begin(driver: &mut Driver, running: &Arc<Running>, request: ExecRequest) {
    let place = match Surroundings::of(driver, &request.worker) {
        Ok(place) => place,
        Err(refused) => return drop(request.reply.send(Err(refused))),
    };
    let (performer, running) = (Arc::clone(&driver.performer), Arc::clone(running));
    driver.aside.spawn(run(performer, running, request, place));
}

/// Sends a signal to what `sender` runs, if they run something.
pub(super) fn signal(driver: &mut Driver, running: &Running, sender: &str, signal: i32) {
    let Some(unit) = running.unit_of(sender) else {
        return;
    };
    let systemd = Arc::clone(&driver.performer.systemd);
    driver.aside.spawn(async move {
        if let Err(error) = systemd.signal(&unit, signal).await {
            tracing::warn!("{}", explain(&error));
        }
    });
}

/// Runs a command to its end, and tells who asked for it.
async fn run(
    performer: Arc<Performer>,
    running: Arc<Running>,
    request: ExecRequest,
    place: Surroundings,
) {
    let ExecRequest {
        words,
        terminal,
        ends,
        who,
        reply,
        worker,
    } = request;
    let unit = match running.begin(&who, &worker) {
        Ok(unit) => unit,
        Err(refused) => return drop(reply.send(Err(refused))),
    };
    let words = match words.is_empty() {
        true => vec![shell().to_owned()],
        false => words,
    };
    let (instance, shown) = (place.instance.clone(), shown(&words));
    let (its, name) = (Arc::clone(&performer), unit.clone());
    let what = || format!("look at the files of worker '{worker}'");
    let made = performer.disk.run(SMALL, what, move |_| {
        one_off(&its, place, words, name, terminal)
    });
    let made = made.await.unwrap_or_else(|error| Err(explain(&error)));
    let ended = match made {
        Ok(command) => {
            tracing::info!(
                tq.worker = %instance.worker, tq.generation = %instance.generation,
                "user {} runs in worker '{}', generation {}: {shown} ({unit})",
                who.uid, instance.worker, instance.generation
            );
            let ended = performer.systemd.run_one_off(&command, ends).await;
            let ended = ended.map(ended_as).map_err(|error| explain(&error));
            let how = match &ended {
                Ok((code, sentence)) if sentence.is_empty() => format!("exit code {code}"),
                Ok((_, sentence)) | Err(sentence) => sentence.clone(),
            };
            tracing::info!(
                tq.worker = %instance.worker, tq.generation = %instance.generation,
                "what user {} ran in worker '{}' has ended: {how} ({unit})", who.uid, instance.worker
            );
            ended
        }
        Err(sentence) => Err(sentence),
    };
    running.end(&who);
    let _ = reply.send(ended.map_err(Refused::Failed));
}

fn one_off(
    performer: &Performer,
    place: Surroundings,
    words: Vec<String>,
    unit: String,
    terminal: Option<String>,
) -> Result<OneOff, String> {
    let Surroundings {
        instance,
        spec,
        address,
        workers,
        ports,
        stop_timeout,
    } = place;
    let files = match &performer.snapshots {
        Some(snapshots) => snapshots.store().files(&instance),
        None => spec.directory.clone(),
    };
    let from_files = read_env_files(&files, &spec.settings.env_files);
    let from_files = from_files.map_err(|error| error.to_string())?;
    let run = pair::Run {
        pair: instance.pair(1),
        // Whoever holds it, the number is the same.
        address: match address {
            Address::Held { at, .. } => Address::Tcp(at),
            other => other,
        },
        programs: builder::own_programs(&files),
        files,
        command: Vec::new(),
        workers,
        ports,
        accepted: true,
        stop_timeout,
        user: performer.user_of(&instance),
        from_files,
        one_off: Some(unit.clone()),
        record: String::new(),
    };
    let ground = performer.ground();
    let pair = ground.pair(&spec, run);
    let mut pair = pair.map_err(|reason| reason.to_string())?;
    // What php-fpm is told is no business of another program.
    pair.written = None;
    pair.env.remove(php::SOCKETS.0);
    pair.command = words;
    Ok(OneOff {
        unit,
        pair,
        terminal,
    })
}

fn shell() -> &'static str {
    let is_there = |shell: &&str| Path::new(shell).exists();
    SHELLS.into_iter().find(is_there).unwrap_or(SHELLS[1])
}

/// As a shell has it: beyond 128 is a signal.
fn ended_as(ending: Option<Ending>) -> Ended {
    match ending {
        None => (0, String::new()),
        Some(Ending::ExitCode(code)) => (code, String::new()),
        Some(Ending::Signal(signal)) => (128 + signal, Ending::Signal(signal).to_string()),
        Some(Ending::OomKill) => (128 + 9, Ending::OomKill.to_string()),
        Some(other) => (1, other.to_string()),
    }
}

/// A command for the log: it comes from who ran it, and may be as long as they like.
fn shown(words: &[String]) -> String {
    let line = printable(&words.join(" "));
    match line.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_as_a_shell_tells_it() {
        assert_eq!(ended_as(None), (0, String::new()));
        assert_eq!(ended_as(Some(Ending::ExitCode(7))), (7, String::new()));
        let (code, said) = ended_as(Some(Ending::Signal(15)));
        assert_eq!(code, 143);
        assert!(said.contains("TERM"), "{said}");
        assert_eq!(ended_as(Some(Ending::OomKill)).0, 137);
    }

    #[test]
    fn a_connection_runs_one_command_and_there_is_an_end_to_how_many() {
        let running = Running::default();
        let who = |number: usize| Who {
            sender: format!(":1.{number}"),
            uid: 0,
        };
        let worker = WorkerName::parse("index").unwrap();
        let unit = running.begin(&who(0), &worker).unwrap();
        assert_eq!(running.unit_of(":1.0"), Some(unit.clone()));
        assert!(running.begin(&who(0), &worker).is_err());
        for number in 1..MOST {
            assert_ne!(running.begin(&who(number), &worker).unwrap(), unit);
        }
        assert!(running.begin(&who(MOST), &worker).is_err());
        running.end(&who(0));
        assert_eq!(running.unit_of(":1.0"), None);
        assert!(running.begin(&who(MOST), &worker).is_ok());
    }

    #[test]
    fn a_command_in_the_log_is_one_line_of_bounded_length() {
        let words = [
            "sh".to_owned(),
            "a\n\u{1b}[31m".to_owned(),
            "x".repeat(9000),
        ];
        let line = shown(&words);
        assert!(line.starts_with("sh a\\n\\u{1b}[31m x"), "{line}");
        assert!(line.chars().count() <= SHOWN + 1);
    }
}
