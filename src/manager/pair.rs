//! A worker's specification becomes the pairs of units of a generation: what it is handed, and what stands around it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use super::journal::Journal;
use crate::builder::{own_environment, php};
use crate::config::{Listen, Mode, Network, Variable, WorkerSettings, expand};
use crate::deploy::{PUBLIC, SNAPSHOTS};
use crate::names::{Pair, WorkerName, worker_user};
use crate::plan::{Reason, Spec};
use crate::route::Address;
use crate::systemd::{Credential, Kind, Sandbox, StopSignal, UnitPair, Written, filters_addresses};

/// Below the state directory: what workers can make again, where systemd does not make them a directory of their own.
const CACHE: &str = ".cache";
/// Where systemd makes it (`CacheDirectory=`).
const SYSTEMS_CACHE: &str = "/var/cache/tqserver";
/// Where the proxy's unix sockets are: what comes by them may be trusted.
const LISTENERS: &str = "/run/tqserver-proxy";
/// Beside server.yaml: the secrets, in one directory for each worker.
const CREDENTIALS: &str = "credentials";

/// What is the same for all workers of a manager.
#[derive(Clone, Copy, Debug)]
pub struct Ground<'a> {
    /// Which systemd is to run them.
    pub kind: Kind,
    /// Development or production.
    pub mode: Mode,
    /// server.yaml.
    pub file: &'a Path,
    /// Where relative paths of server.yaml start.
    pub project: &'a Path,
    /// Production: where snapshots and workers' own files are kept.
    pub state: Option<&'a Path>,
    /// Group that may connect to workers' sockets; `None`: the manager's user alone.
    pub group: Option<&'a str>,
    /// Where the output of workers goes.
    pub journal: &'a Journal,
    /// This program: what starts a worker.
    pub starter: &'a Path,
}

/// What one instance of a generation has of its own.
#[derive(Clone, Debug)]
pub struct Run {
    /// Which.
    pub pair: Pair,
    /// Where it listens.
    pub address: Address,
    /// Where its files are: a snapshot, or the worker's directory itself.
    pub files: PathBuf,
    /// Program and arguments.
    pub command: Vec<String>,
    /// The directories of its own programs, which it finds before the system's.
    pub programs: Vec<PathBuf>,
    /// The directories of workers.
    pub workers: Vec<PathBuf>,
    /// The ports of workers.
    pub ports: RangeInclusive<u16>,
    /// Whether it was accepted before.
    pub accepted: bool,
    /// How long it may take to exit on SIGTERM.
    pub stop_timeout: Duration,
    /// The user it runs as, if it gets one of its own and that is not the one for its name.
    pub user: Option<String>,
    /// The variables of the files that `env_file` names, as they are.
    pub from_files: BTreeMap<String, String>,
    /// The unit of a command that runs in its surroundings, if it is not itself that runs.
    pub one_off: Option<String>,
    /// What the next manager needs to know of it.
    pub record: String,
}

impl Run {
    /// The name of the service.
    fn unit(&self) -> String {
        let service = || self.pair.service_unit();
        self.one_off.clone().unwrap_or_else(service)
    }
}

impl Ground<'_> {
    /// Whether workers get a user and walls of their own. In development they work on the developer's files.
    pub fn has_sandbox(&self) -> bool {
        has_sandbox(self.kind, self.mode)
    }

    /// The units of one instance of a generation of the worker `spec`.
    ///
    /// # Errors
    /// When it asks for secrets that are not there or not kept secret, or for what does not go together.
    pub fn pair(&self, spec: &Spec, run: Run) -> Result<UnitPair, Reason> {
        let settings = &spec.settings;
        let data = self.data_directory(&settings.name, &spec.directory);
        let cache = settings
            .cache
            .then(|| self.cache_directory(&settings.name, &data));
        let credentials = self.credentials(settings)?;
        let handed = self.kind.credentials_directory(&run.unit());
        let secrets = match &handed {
            _ if credentials.is_empty() => None,
            Some(directory) => Some(directory.clone()),
            None => Some(credentials_of(self.file, &settings.name)),
        };
        let value = |variable| match variable {
            Variable::CacheDirectory => cache.as_deref().map(shown),
            Variable::CredentialsDirectory => secrets.as_deref().map(shown),
            Variable::Port => match &run.address {
                Address::Tcp(at) | Address::Held { at, .. } => Some(at.port().to_string()),
                Address::Unix(_) => None,
            },
            Variable::StateDirectory => Some(shown(&data)),
            Variable::WorkerName => Some(settings.name.to_string()),
            Variable::WorkerRoute => Some(settings.route.to_string()),
        };
        let mut env = run.from_files.clone();
        // The value of a developer, perhaps, to which a server has a secret.
        env.retain(|name, _| !settings.env_from_credentials.contains_key(name));
        let own = settings.env.iter();
        env.extend(own.map(|(name, text)| (name.clone(), expand(text, value))));
        for (name, value) in own_environment(&run.programs, self.mode) {
            env.entry(name.to_owned()).or_insert(value);
        }
        let mut command = run.command.clone();
        // What a type runs has no variables, whatever its files are called, and neither has a program's path.
        if settings.command.is_some() {
            for word in command.iter_mut().skip(1) {
                *word = expand(word, value);
            }
        }
        let written = settings
            .document_root
            .map(|_| self.pool(settings, &run, &data));
        let is_php = written.is_some();
        if let Some(written) = &written {
            let configuration = written.path.display().to_string();
            command.extend(php::arguments(&configuration, self.runs_as_root()));
            let (name, value) = php::SOCKETS;
            env.insert(name.to_owned(), value.to_owned());
        }
        if let (None, Some(secrets)) = (&handed, &secrets) {
            env.insert("CREDENTIALS_DIRECTORY".to_owned(), shown(secrets));
        }
        Ok(UnitPair {
            route: settings.route.clone(),
            mode: self.mode,
            socket_group: self.group.map(str::to_owned),
            data,
            cache,
            stored: stored(settings),
            // In development it works in its own directory anyway.
            persisted: match self.state {
                Some(_) => settings.persisted.clone(),
                None => Vec::new(),
            },
            env,
            limits: settings.limits.clone(),
            sandbox: self.sandbox(spec, &run)?,
            credentials: handed.map(|_| credentials).unwrap_or_default(),
            secret_env: settings.env_from_credentials.clone(),
            written,
            stop_signal: is_php.then_some(StopSignal::Quit),
            accepted: run.accepted,
            output: self.journal.output(&run.pair, settings, self.project),
            instance: run.pair.instance,
            number: run.pair.number,
            address: run.address,
            directory: run.files,
            command,
            starter: self.starter.to_owned(),
            stop_timeout: run.stop_timeout,
            record: run.record,
        })
    }

    /// The configuration of php-fpm. What hinders a private systemd from handing over secrets, see [`Self::credentials`], hinders it here.
    fn pool(&self, settings: &WorkerSettings, run: &Run, data: &Path) -> Written {
        let pool = php::Pool {
            limits: &settings.limits,
            jit: settings.jit,
            state: data,
            patience: run.stop_timeout,
            root: self.runs_as_root(),
        };
        let unit = run.unit();
        let handed = self.kind.credentials_directory(&unit);
        Written {
            text: pool.to_string(),
            credential: handed.is_some().then(|| php::CONFIGURATION.to_owned()),
            path: match handed {
                Some(directory) => directory.join(php::CONFIGURATION),
                None => self.written_for(&run.pair),
            },
        }
    }

    /// Where a configuration lies that no systemd hands over.
    fn written_for(&self, pair: &Pair) -> PathBuf {
        let directory = self.kind.runtime_directory(self.file);
        directory.join(pair.file_name("php-fpm.conf"))
    }

    /// Whether workers are root's: they are the developer's, and root develops.
    fn runs_as_root(&self) -> bool {
        !self.has_sandbox() && rustix::process::geteuid().is_root()
    }

    /// Removes what was written for an instance that is no more.
    pub fn forget(&self, pair: &Pair) {
        if self.kind == Kind::Private {
            // Few have one.
            let _ = std::fs::remove_file(self.written_for(pair));
        }
    }

    /// Makes the directories `pair` writes to, other than those that systemd makes, and writes what it is to read.
    ///
    /// # Errors
    /// When that fails.
    pub fn make_directories(&self, pair: &UnitPair) -> Result<(), Reason> {
        let log = pair.output.as_deref().and_then(Path::parent);
        let own = [Some(pair.data.as_path()), pair.cache.as_deref()];
        let own = own.into_iter().flatten().filter(|_| pair.sandbox.is_none());
        let wanted = log
            .map(|log| ("the directory of its log", log))
            .into_iter()
            .chain(own.map(|own| ("its directory", own)));
        for (what, directory) in wanted {
            std::fs::create_dir_all(directory).map_err(|error| {
                Reason::Refused(format!("make {what} {}: {error}", directory.display()))
            })?;
        }
        if pair.sandbox.is_none() {
            for directory in pair
                .stored
                .iter()
                .map(|directory| pair.data.join(directory))
            {
                std::fs::create_dir_all(&directory).map_err(|error| {
                    Reason::Refused(format!("make {}: {error}", directory.display()))
                })?;
            }
        }
        let lying = pair.written.as_ref();
        if let Some(Written { path, text, .. }) =
            lying.filter(|written| written.credential.is_none())
        {
            std::fs::write(path, text).map_err(|error| {
                Reason::Refused(format!(
                    "write its configuration {}: {error}",
                    path.display()
                ))
            })?;
        }
        Ok(())
    }

    /// Whether the machine can do what the worker's settings promise of the network. It is said once where it can not.
    ///
    /// # Errors
    /// When the promise would be broken without a word.
    pub fn enforce_network(&self, settings: &WorkerSettings) -> Result<(), Reason> {
        static SAID: Once = Once::new();
        let word = match settings.network {
            Network::Full => return Ok(()),
            Network::None => "none",
            Network::Loopback => "loopback",
        };
        if !self.has_sandbox() {
            SAID.call_once(|| {
                tracing::warn!(
                    tq.worker = %settings.name,
                    "`network: {word}` of worker '{}' is not enforced, nor is any other's: that takes the machine's systemd in production; \
                     it runs and reaches all of the network",
                    settings.name
                );
            });
            return Ok(());
        }
        if settings.network == Network::Loopback && !filters_addresses() {
            return Err(Reason::Unusable(
                "`network: loopback` can not be enforced here, it would silently reach everything: systemd filters addresses in a \
                 unified cgroup hierarchy only, and /sys/fs/cgroup is none; boot with systemd.unified_cgroup_hierarchy=1, or set \
                 `network: none`"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    fn sandbox(&self, spec: &Spec, run: &Run) -> Result<Option<Sandbox>, Reason> {
        let settings = &spec.settings;
        let (Some(state), true) = (self.state, self.has_sandbox()) else {
            return Ok(None);
        };
        if settings.network == Network::None && settings.listen == Listen::Port {
            return Err(Reason::Unusable(
                "`network: none` and `listen: port` do not go together: nobody could reach its port; take the socket it is handed \
                 (`listen: socket`), or set `network: loopback`"
                    .to_owned(),
            ));
        }
        let user = run.user.clone();
        Ok(Some(Sandbox {
            user: user.unwrap_or_else(|| worker_user(&settings.name)),
            network: settings.network,
            jit: settings.jit,
            kernel: settings.kernel.clone(),
            cache: settings.cache,
            ports: run.ports.clone(),
            snapshots: state.join(SNAPSHOTS),
            hidden: self.hidden(state, run),
        }))
    }

    /// Configuration, sockets, other workers' files: ours, and no business of a worker.
    fn hidden(&self, state: &Path, run: &Run) -> Vec<PathBuf> {
        let files = &run.files;
        let etc = directory_of(self.file);
        // A server.yaml in the midst of other files hides itself alone.
        let shared = etc.components().count() <= 2 || files.starts_with(&etc);
        let mut hidden = if shared {
            vec![self.file.to_owned(), etc.join(CREDENTIALS)]
        } else {
            vec![etc]
        };
        hidden.push(self.kind.runtime_directory(self.file));
        hidden.push(PathBuf::from(LISTENERS));
        hidden.push(state.join(PUBLIC));
        // It runs what was accepted, not what lies where it was deployed; there are the other workers, too.
        hidden.extend(run.workers.iter().cloned());
        hidden.retain(|path| {
            path.components().count() > 1 && !files.starts_with(path) && !state.starts_with(path)
        });
        hidden.dedup();
        hidden
    }

    /// The directory a worker may write to, which outlives its generations. With a sandbox systemd makes it, as a link to one that
    /// the worker's user owns.
    pub(super) fn data_directory(&self, worker: &WorkerName, directory: &Path) -> PathBuf {
        match self.state {
            Some(state) => state.join(worker.as_str()),
            None => directory.join("data"),
        }
    }

    fn cache_directory(&self, worker: &WorkerName, data: &Path) -> PathBuf {
        match self.state {
            Some(_) if self.has_sandbox() => Path::new(SYSTEMS_CACHE).join(worker.as_str()),
            Some(state) => state.join(CACHE).join(worker.as_str()),
            None => data.join(CACHE),
        }
    }

    /// The worker's secrets.
    ///
    /// A private systemd lives in a mount name space that does not pass on the file system on which systemd hands them over: the
    /// worker would find an empty directory. It is told where they lie instead, which it could read anyway: there it runs as the
    /// user whose files they are.
    fn credentials(&self, settings: &WorkerSettings) -> Result<Vec<Credential>, Reason> {
        let directory = credentials_of(self.file, &settings.name);
        settings
            .credentials
            .iter()
            .map(|name| credential(&directory, name, self.kind))
            .collect()
    }
}

/// The directories of its state that the proxy serves.
fn stored(settings: &WorkerSettings) -> Vec<String> {
    let directories: BTreeSet<_> = settings.on_route.files.values().collect();
    directories.into_iter().cloned().collect()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// See [`Ground::has_sandbox`].
pub(super) fn has_sandbox(kind: Kind, mode: Mode) -> bool {
    kind == Kind::System && mode == Mode::Production
}

/// The files that may hold the worker's secrets: when one of them changes, so does the worker.
pub(super) fn credential_files(file: &Path, settings: &WorkerSettings) -> Vec<PathBuf> {
    let directory = credentials_of(file, &settings.name);
    let both = |name: &String| [directory.join(name), directory.join(format!("{name}.cred"))];
    settings.credentials.iter().flat_map(both).collect()
}

fn credentials_of(file: &Path, worker: &WorkerName) -> PathBuf {
    directory_of(file).join(CREDENTIALS).join(worker.as_str())
}

fn directory_of(file: &Path) -> PathBuf {
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    file.parent().unwrap_or(Path::new("/")).to_owned()
}

/// Finds the secret `name`, plain or encrypted. A user's systemd decrypts what was encrypted for it, in newer versions; one that can not
/// says so when it starts the worker.
fn credential(directory: &Path, name: &str, kind: Kind) -> Result<Credential, Reason> {
    let (plain, sealed) = (directory.join(name), directory.join(format!("{name}.cred")));
    let (plainly, sealedly) = (mode_of(&plain, name)?, mode_of(&sealed, name)?);
    let unusable = |what: String| Err(Reason::Unusable(format!("`credentials: {name}`: {what}")));
    let found = |path: PathBuf, encrypted| {
        Ok(Credential {
            name: name.to_owned(),
            path,
            encrypted,
        })
    };
    match (plainly, sealedly) {
        (Some(_), Some(_)) => unusable(format!(
            "there are both {} and {}; remove one of them",
            plain.display(),
            sealed.display()
        )),
        (None, Some(_)) if kind != Kind::Private => found(sealed, true),
        (None, Some(_)) => unusable(format!(
            "a private systemd can not decrypt {}; write it to {} (mode 0600)",
            sealed.display(),
            plain.display()
        )),
        (Some(mode), None) if mode & 0o077 != 0 => unusable(format!(
            "others can read {} (mode {:04o}); type `chmod 600 {}`",
            plain.display(),
            mode & 0o7777,
            plain.display()
        )),
        (Some(_), None) => found(plain, false),
        (None, None) if kind != Kind::System => unusable(format!(
            "there is no {}; write it there (mode 0600)",
            plain.display()
        )),
        (None, None) => unusable(format!(
            "there is no {}; type `install -d -m 700 {} && systemd-creds encrypt --name={name} - {}`, or write it to {} (mode 0600)",
            sealed.display(),
            directory.display(),
            sealed.display(),
            plain.display()
        )),
    }
}

/// The mode of a file; `None`: it is not there.
fn mode_of(path: &Path, name: &str) -> Result<Option<u32>, Reason> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(Some(metadata.permissions().mode())),
        Ok(_) => Err(Reason::Unusable(format!(
            "`credentials: {name}`: {} is not a file",
            path.display()
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Reason::Refused(format!(
            "look at {} for `credentials: {name}`: {error}",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests;
