//! Workers on disk: versions that behave in different ways, and the snapshots kept of them.

use crate::route::RouteSettings;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::{GRACE, START, World};
use crate::config::{Health, Limits, Listen, WorkerSettings, WorkerType};
use crate::inventory::Fingerprint;
use crate::names::{Generation, WorkerName};
use crate::plan::{Policy, Reason, Spec};
use crate::route::{Front, RoutePath, Timeouts};

/// How a version of a worker behaves. Its first letter stands in the fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    Good,
    /// Answers 503 a few times first.
    Slow,
    ExitsAtOnce,
    NeverReady,
    Answers500,
    /// Does not work until the trouble is over: a database is away.
    Waits,
    /// Can not be read at all.
    BadConfig,
    /// Can not be built.
    BadBuild,
}

impl Behaviour {
    pub(super) fn works(self) -> bool {
        matches!(self, Self::Good | Self::Slow)
    }

    pub(super) fn of(spec: &Spec) -> Self {
        let known = [
            Self::Good,
            Self::Slow,
            Self::ExitsAtOnce,
            Self::NeverReady,
            Self::Answers500,
            Self::Waits,
            Self::BadConfig,
        ];
        let named = |behaviour: &Self| {
            spec.fingerprint
                .program
                .starts_with(&format!("{behaviour:?}"))
        };
        known.into_iter().find(named).unwrap_or(Self::BadBuild)
    }
}

/// What lies in a worker's directory.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) behaviour: Behaviour,
    pub(super) spec: Spec,
}

/// The newest accepted snapshot of each worker.
pub(super) type Newest = BTreeMap<WorkerName, (Generation, Spec)>;

/// Snapshots, and which of them were accepted.
pub(super) type Snapshots = BTreeMap<WorkerName, BTreeMap<Generation, (Spec, bool)>>;

impl World {
    /// Somebody adds, removes or changes a worker.
    pub(super) fn change_disk(&mut self) {
        self.version += 1;
        let names = ["index", "docs", "trio", "port", "ports", "files"];
        let name = WorkerName::parse(names[self.random.usize(..names.len())]).unwrap();
        if self.disk.contains_key(&name) && self.chance(6) {
            self.disk.remove(&name);
            return self.trace(|| format!("DISK {name} removed"));
        }
        let version = self.version;
        if let Some(found) = self.disk.get_mut(&name)
            && self.random.u8(..3) == 0
        {
            found.spec.fingerprint.assets = format!("assets{version}");
            return self.trace(|| format!("DISK {name}: assets {version}"));
        }
        use Behaviour::*;
        let behaviour = match self.random.u8(..20) {
            0..9 => Good,
            9 | 10 => Slow,
            11 | 12 => ExitsAtOnce,
            13 => NeverReady,
            14 => Answers500,
            15 | 16 => Waits,
            17 | 18 => BadConfig,
            _ if self.policy.build => BadBuild,
            _ => NeverReady,
        };
        // Files alone can be wrong in no other way than this.
        let behaviour = match behaviour {
            BadConfig | Good => behaviour,
            _ if name.as_str() == "files" => Good,
            _ => behaviour,
        };
        let spec = self.spec(&name, &format!("{behaviour:?} {version}"));
        self.disk.insert(name.clone(), Disk { behaviour, spec });
        self.trace(|| format!("DISK {name}: {behaviour:?} {version}"));
    }

    /// Each worker gets a new version that is like the one before.
    pub(super) fn change_all(&mut self) {
        self.version += 1;
        let version = self.version;
        for found in self.disk.values_mut() {
            found.spec.fingerprint.program = format!("{:?} {version}", found.behaviour);
        }
        self.trace(|| format!("DISK all: {version}"));
    }

    fn spec(&mut self, name: &WorkerName, program: &str) -> Spec {
        let mut settings = settings(name);
        settings.health.interval = Duration::from_secs(self.random.u64(..3) * 2);
        Spec {
            settings,
            fingerprint: Fingerprint {
                program: program.to_owned(),
                assets: "assets".to_owned(),
                config: String::new(),
                file: String::new(),
                ..Fingerprint::default()
            },
            passed_over: None,
            directory: PathBuf::from("/workers").join(name.as_str()),
            public: Some(PathBuf::from("/workers").join(name.as_str()).join("public")),
        }
    }

    /// What the manager sees there.
    pub(super) fn seen(&self) -> BTreeMap<WorkerName, Result<Spec, Reason>> {
        let seen = self.disk.iter().map(|(name, found)| {
            let spec = match found.behaviour {
                Behaviour::BadConfig => Err(Reason::Unusable("a bad key".to_owned())),
                _ => Ok(found.spec.clone()),
            };
            (name.clone(), spec)
        });
        seen.collect()
    }

    /// The newest accepted snapshot of each worker.
    pub(super) fn accepted_snapshots(&self) -> Newest {
        let newest = self.snapshots.iter().filter_map(|(name, kept)| {
            let accepted = kept.iter().rev().find(|(_, (_, accepted))| *accepted);
            accepted.map(|(number, (spec, _))| (name.clone(), (*number, spec.clone())))
        });
        newest.collect()
    }

    /// Keeps of a worker what is live and the two newest accepted.
    pub(super) fn prune(&mut self, name: &WorkerName, live: &[Generation]) {
        let Some(kept) = self.snapshots.get_mut(name) else {
            return;
        };
        let accepted = kept.iter().rev().filter(|(_, (_, accepted))| *accepted);
        let newest: Vec<_> = accepted.take(2).map(|(number, _)| *number).collect();
        kept.retain(|number, _| newest.contains(number) || live.contains(number));
    }
}

/// Settings of a worker: its name says whether it has a socket, a port or no process, and of how many instances it consists.
pub(in crate::plan) fn settings(name: &WorkerName) -> WorkerSettings {
    let patience = Duration::from_secs(30);
    WorkerSettings {
        name: name.clone(),
        route: RoutePath::of_worker(name),
        on_route: RouteSettings::default(),
        kind: match name.as_str() {
            "files" => WorkerType::Static,
            _ => WorkerType::Exec,
        },
        command: None,
        build: None,
        listen: match name.as_str() {
            "port" | "ports" => Listen::Port,
            _ => Listen::Socket,
        },
        health: Health {
            path: None,
            timeout: Duration::from_secs(1),
            interval: Duration::ZERO,
            start_timeout: START,
            failures: 2,
        },
        env: BTreeMap::new(),
        env_files: Vec::new(),
        env_from_credentials: BTreeMap::new(),
        network: crate::config::Network::Full,
        h2c: false,
        jit: false,
        kernel: Vec::new(),
        cache: false,
        credentials: Vec::new(),
        persisted: Vec::new(),
        autostart: false,
        document_root: None,
        front_controller: None,
        indexes: crate::route::Indexes::default(),
        sticky: None,
        limits: Limits {
            gomaxprocs: None,
            gomemlimit: None,
            tasks_max: None,
            memory_high: None,
            state_max: None,
            cpu_weight: None,
            io_weight: None,
            instances: match name.as_str() {
                "docs" => 2,
                "trio" => 3,
                "ports" => 2,
                _ => 1,
            },
            access_log: false,
            compression: true,
            max_requests: 1000,
            timeouts: Timeouts {
                read: patience,
                write: patience,
                idle: patience,
            },
            flow: crate::route::Flow::default(),
            log_file: String::new(),
        },
    }
}

/// What the fleet goes by; `build`: development.
pub(in crate::plan) fn policy(build: bool) -> Policy {
    Policy {
        front: Front {
            grace: GRACE,
            ..Front::default()
        },
        grace: GRACE,
        startup_delay: Duration::ZERO,
        restart_delay: Duration::ZERO,
        ports: 9000..=9019,
        own_users: false,
        concurrent_starts: 8,
        snapshots: None,
        state: None,
        build,
        development: None,
        sockets: PathBuf::from("/run"),
    }
}
