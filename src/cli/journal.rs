//! Which entries of the journal are ours: matches for journalctl(1).
//!
//! A worker can put any field into its entries, so what an entry says of itself proves nothing. Only fields that journald sets,
//! those with an underscore, tell who wrote it (systemd.journal-fields(7)): a worker is its slice, the server its two units.

use super::arguments::Common;
use super::client::Client;
use crate::names::{WorkerName, worker_slice};
use crate::systemd::Kind;

/// The manager's unit.
const MANAGER: &str = "tqserver.service";
/// The proxy's.
const PROXY: &str = "tqserver-proxy.service";
/// The configuration of a machine's own server is in here.
const MACHINES: &str = "/etc/tqserver";

/// Which systemd's workers are meant. No manager needs to run: what a stopped one wrote is there to be read.
pub(super) async fn kind(common: &Common) -> Kind {
    if let Some(kind) = common.manager {
        return kind;
    }
    match Client::kind_that_runs(common).await {
        Some(kind) => kind,
        // Reading takes less than starting a server does, so what could be started is the wrong question on such a machine.
        None if common.config.starts_with(MACHINES) => Kind::System,
        None => Kind::detect(),
    }
}

/// The journal's entries of the server and its workers, of the machine's or of the user's systemd.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entries {
    /// The machine's.
    System,
    /// This user's. The journal has those of all users, unless only one's can be read.
    User {
        /// Who.
        uid: u32,
    },
}

impl Entries {
    /// Those by this systemd; `None`: a private one has no journal.
    pub(super) fn of(kind: Kind) -> Option<Self> {
        match kind {
            Kind::System => Some(Self::System),
            Kind::User => Some(Self::User {
                uid: rustix::process::geteuid().as_raw(),
            }),
            Kind::Private => None,
        }
    }

    /// What a worker wrote, and what the manager and the proxy said of it.
    pub(super) fn of_worker(self, worker: &WorkerName) -> Vec<String> {
        let named = format!("TQ_WORKER={worker}");
        any([
            self.slice(&worker_slice(worker)),
            self.unit(MANAGER, [&*named]),
            self.unit(PROXY, [&*named]),
        ])
    }

    /// What the manager said of a worker, or of any, in messages of these kinds.
    pub(super) fn told_of<'a>(
        self,
        worker: Option<&WorkerName>,
        ids: impl IntoIterator<Item = &'a str>,
    ) -> Vec<String> {
        let named = worker.map(|worker| format!("TQ_WORKER={worker}"));
        let mut matches = self.unit(MANAGER, named.as_deref());
        matches.extend(ids.into_iter().map(|id| format!("MESSAGE_ID={id}")));
        matches
    }

    /// All that the manager, the proxy and the workers in these slices wrote, and what systemd said of the first two.
    pub(super) fn of_all<'a>(self, slices: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let server = [MANAGER, PROXY]
            .into_iter()
            .flat_map(|unit| [self.unit(unit, []), self.about(unit)]);
        any(server.chain(slices.into_iter().map(|slice| self.slice(slice))))
    }

    /// The field that has a worker's slice.
    pub(super) fn slice_field(self) -> &'static str {
        match self {
            Self::System => "_SYSTEMD_SLICE",
            Self::User { .. } => "_SYSTEMD_USER_SLICE",
        }
    }

    fn slice(self, slice: &str) -> Vec<String> {
        let mut matches = vec![format!("{}={slice}", self.slice_field())];
        matches.extend(self.user());
        matches
    }

    fn unit<'a>(self, unit: &str, fields: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let mut matches = match self {
            Self::System => vec![format!("_SYSTEMD_UNIT={unit}")],
            Self::User { .. } => vec![format!("_SYSTEMD_USER_UNIT={unit}")],
        };
        matches.extend(self.user());
        matches.extend(fields.into_iter().map(str::to_owned));
        matches
    }

    /// What systemd itself says of a unit.
    fn about(self, unit: &str) -> Vec<String> {
        match self {
            Self::System => vec!["_PID=1".to_owned(), format!("UNIT={unit}")],
            Self::User { .. } => {
                let mut matches = vec![format!("USER_UNIT={unit}")];
                matches.push("_SYSTEMD_USER_UNIT=init.scope".to_owned());
                matches.extend(self.user());
                matches
            }
        }
    }

    fn user(self) -> Option<String> {
        match self {
            Self::System => None,
            Self::User { uid } => Some(format!("_UID={uid}")),
        }
    }
}

/// Entries that any of these describes: within one description different fields must all match, and of one field any value.
fn any(descriptions: impl IntoIterator<Item = Vec<String>>) -> Vec<String> {
    let mut matches = Vec::new();
    for description in descriptions {
        if !matches.is_empty() {
            matches.push("+".to_owned());
        }
        matches.extend(description);
    }
    matches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fields_that_journald_sets_tell_who_wrote_an_entry() {
        let worker = WorkerName::parse("api.a-b").unwrap();
        assert_eq!(
            Entries::System.of_worker(&worker).join(" "),
            r"_SYSTEMD_SLICE=tqserver-api.a\x2db.slice + _SYSTEMD_UNIT=tqserver.service TQ_WORKER=api.a-b + _SYSTEMD_UNIT=tqserver-proxy.service TQ_WORKER=api.a-b"
        );
        let user = Entries::User { uid: 7 };
        for matches in [
            Entries::System.of_worker(&worker),
            Entries::System.told_of(Some(&worker), ["1", "2"]),
            Entries::System.told_of(None, ["1"]),
            Entries::System.of_all(["a.slice"]),
            user.of_worker(&worker),
            user.told_of(Some(&worker), ["1"]),
            user.told_of(None, ["1"]),
            user.of_all(["a.slice"]),
        ] {
            for description in matches.split(|word| word == "+") {
                assert!(description[0].starts_with('_') || description[1].starts_with('_'));
                let of_one_user = description.iter().any(|word| word == "_UID=7");
                let users = description.iter().any(|word| word.contains("USER_"));
                assert_eq!(users, of_one_user, "{description:?}");
            }
        }
    }
}
