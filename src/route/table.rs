//! The table itself and its routes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::claim::Claim;
use super::flow::{Flow, Timeouts};
use super::front::Front;
use super::halt::Halt;
use super::host::HostPattern;
use super::path::RoutePath;
use super::settings::RouteSettings;
use super::target::Target;
use crate::names::{Instance, WorkerName};

/// Everything the proxy serves by. A new table replaces the old one whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteTable {
    /// Grows with each table a manager publishes; the proxy answers "applied" with it.
    pub serial: u64,
    /// How the proxy meets its clients.
    pub front: Front,
    /// One entry for each route, in no particular order. Of those for a request's host the longest covering one answers: first those
    /// that name the host, then those that name all below a name of it, the longest first, then those without hosts.
    pub routes: Vec<Route>,
    /// Generations that get no new requests any more and of which the manager wants to hear "drained". One that the proxy has
    /// never heard of is drained.
    pub draining: Vec<Instance>,
    /// What developers are shown besides; `None` in production.
    #[serde(default)]
    pub development: Option<Development>,
}

/// A developer's server: pages that reload themselves, wait for what is on its way, and show what went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Development {
    /// Names this run of the server: generations of another one begin to count anew.
    pub server: String,
    /// Longest time a page waits for a generation that is on its way; zero: none waits.
    pub hold: Duration,
}

/// One place in the URL space and who answers there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The place.
    pub path: RoutePath,
    /// What its worker says of it.
    #[serde(flatten)]
    pub settings: RouteSettings,
    /// The worker it belongs to.
    pub worker: WorkerName,
    /// Directory whose files are served below `path` without asking the worker.
    pub public: Option<PathBuf>,
    /// Directory of the worker's state, below which are those of [`RouteSettings::files`]; `None` where there are none of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<PathBuf>,
    /// Who answers what is not a file.
    pub target: Target,
    /// The proxy's patience with the worker.
    pub timeouts: Timeouts,
    /// How much the worker is asked at a time.
    #[serde(default)]
    pub flow: Flow,
    /// What keeps requests from the worker although it may well be able to answer.
    #[serde(default)]
    pub halt: Halt,
    /// Whether each request is written to the journal.
    pub access_log: bool,
    /// Whether there may be PHP scripts among the files of `public`: no such file is sent as it is.
    #[serde(default)]
    pub scripts: bool,
    /// Whether the proxy compresses answers that came as they are, for clients that take it.
    #[serde(default)]
    pub compression: bool,
    /// The name of the cookie by which a client stays with one of several instances, if it is to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<String>,
    /// How far the worker is with what its developer has saved; `None` in production.
    #[serde(default)]
    pub work: Option<Work>,
}

impl Route {
    /// The route `path` of `worker`, whose requests go to `target`, with all else as where nothing was set: no files, and no patience
    /// shorter than that of [`Front`].
    pub fn new(path: RoutePath, worker: WorkerName, target: Target) -> Self {
        let front = Front::default();
        Self {
            path,
            settings: RouteSettings::default(),
            worker,
            public: None,
            state: None,
            target,
            timeouts: Timeouts {
                read: front.read_timeout,
                write: front.write_timeout,
                idle: front.idle_timeout,
            },
            flow: Flow::default(),
            halt: Halt::default(),
            access_log: false,
            scripts: false,
            compression: true,
            sticky: None,
            work: None,
        }
    }

    /// Gives up what is claimed in `taken` and claims the rest there; whether anything is left.
    pub fn claim(&mut self, taken: &mut BTreeSet<Claim>) -> bool {
        let path = &self.path;
        let mut is_free = |host: Option<&HostPattern>| {
            taken.insert(Claim {
                host: host.cloned(),
                path: path.clone(),
            })
        };
        if self.settings.hosts.is_empty() {
            return is_free(None);
        }
        self.settings.hosts.retain(|host| is_free(Some(host)));
        !self.settings.hosts.is_empty()
    }
}

/// How far a worker is with what its developer has saved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// A newer generation is on its way: a page would be stale.
    pub pending: bool,
    /// Differs when a stylesheet in `public` does.
    pub styles: String,
    /// Differs when any other file in `public` does.
    pub files: String,
    /// What keeps the files that lie there from being what serves.
    pub trouble: Option<Trouble>,
}

/// Why what was saved does not serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// A sentence: "`cargo build`: exit code 101".
    pub reason: String,
    /// What compiler or worker wrote last, lines with their colours (SGR escape sequences) and any other bytes they pleased.
    pub log: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_routes_with_a_common_host_the_later_keeps_what_the_first_leaves() {
        let route = |hosts: &[&str]| {
            // As an older manager writes one, but for the hosts.
            let route: Route = serde_json::from_value(serde_json::json!({
                "path": "/", "worker": "w", "public": null, "target": "files", "access_log": false,
                "timeouts": {"read": {"secs": 1, "nanos": 0}, "write": {"secs": 1, "nanos": 0}, "idle": {"secs": 1, "nanos": 0}},
            }))
            .unwrap();
            assert!(route.settings == RouteSettings::default());
            let hosts = hosts.iter().map(|host| HostPattern::parse(host).unwrap());
            Route {
                settings: RouteSettings {
                    hosts: hosts.collect(),
                    ..RouteSettings::default()
                },
                ..route
            }
        };
        let mut taken = BTreeSet::new();
        let mut claim = |hosts: &[&str]| {
            let mut route = route(hosts);
            let left = route.claim(&mut taken);
            (
                left,
                route
                    .settings
                    .hosts
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>(),
            )
        };
        assert!(claim(&["a", "b"]).0);
        assert_eq!(claim(&["b", "c"]), (true, vec!["c".to_owned()]));
        assert!(!claim(&["a", "c"]).0);
        assert!(claim(&[]).0, "a route for all hosts is another place");
        assert!(!claim(&[]).0);
    }
}
