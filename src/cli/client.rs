//! The command line as a client of a running manager.

use std::time::Duration;

use futures_util::StreamExt;
use zbus::fdo::{self, DBusProxy};
use zbus::{Connection, connection};

use super::arguments::Common;
use super::exit::{self, refused};
use crate::config::printable;
use crate::manager::control::{ControlError, Manager1Proxy, NAME};
use crate::systemd::{Kind, unit_state};

/// Longest wait for the manager's report.
pub(super) const ANSWER: Duration = Duration::from_secs(30);
/// Longest wait for a bus.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest wait for a manager that is being restarted.
const BACK: Duration = Duration::from_secs(30);

/// Where a manager is looked for. The private one belongs to this very configuration, so it is the first to be meant.
const KINDS: [Kind; 3] = [Kind::Private, Kind::User, Kind::System];

/// A connection to the bus a manager is on.
pub(super) struct Client {
    connection: Connection,
    kind: Kind,
}

impl Client {
    /// Finds the manager: by `--manager`, else wherever there is one.
    pub(super) async fn find(common: &Common) -> anyhow::Result<Self> {
        let kinds = match common.manager {
            Some(kind) => vec![kind],
            None => KINDS.to_vec(),
        };
        let mut denied = None;
        for kind in kinds {
            match Self::connect(kind, common).await {
                Ok(Some(client)) => {
                    if client.is_there().await? {
                        return Ok(client);
                    }
                    if client.is_on_its_way().await {
                        client.until_back(None).await?;
                        return Ok(client);
                    }
                }
                Ok(None) => {}
                Err(error) => denied = denied.or(Some(error).filter(is_denied)),
            }
        }
        if let Some(error) = denied {
            return Err(refused(
                exit::NOT_PERMITTED,
                format!("the bus cannot be used: {error}"),
                "run it as root".to_owned(),
            ));
        }
        let hint = "start one with `tqserver dev`, or `systemctl start tqserver`".to_owned();
        Err(refused(exit::UNAVAILABLE, "no TQServer runs here", hint))
    }

    /// Which systemd has a manager, or is about to have one; for who wants to know no more than that.
    pub(super) async fn kind_that_runs(common: &Common) -> Option<Kind> {
        for kind in KINDS {
            let client = Self::connect(kind, common).await;
            if let Ok(Some(client)) = client
                && (client.is_there().await.unwrap_or(false) || client.is_on_its_way().await)
            {
                return Some(kind);
            }
        }
        None
    }

    /// The bus of this systemd; `None`: it does not answer.
    async fn connect(kind: Kind, common: &Common) -> zbus::Result<Option<Self>> {
        let address = kind.bus(&common.config);
        let built = connection::Builder::address(address.as_str()).build();
        match tokio::time::timeout(CONNECT, built).await {
            Ok(connection) => Ok(Some(Self {
                connection: connection?,
                kind,
            })),
            Err(_) => Ok(None),
        }
    }

    /// Which systemd the manager is one of.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Where to look when the manager does not do as it should.
    pub(super) fn hint(&self) -> String {
        match self.kind {
            Kind::System => "see `systemctl status tqserver`".to_owned(),
            Kind::User => "see `systemctl --user status tqserver`".to_owned(),
            Kind::Private => "see what `tqserver dev` said in its terminal".to_owned(),
        }
    }

    async fn is_there(&self) -> anyhow::Result<bool> {
        Ok(DBusProxy::new(&self.connection)
            .await?
            .name_has_owner(NAME.try_into()?)
            .await?)
    }

    /// Whether systemd is about to start a manager, or to start it again.
    async fn is_on_its_way(&self) -> bool {
        let state = unit_state(&self.connection, "tqserver.service").await;
        state
            .is_some_and(|state| matches!(state.as_str(), "activating" | "active" | "deactivating"))
    }

    /// The manager's object.
    pub(super) async fn manager(&self) -> anyhow::Result<Manager1Proxy<'static>> {
        Ok(Manager1Proxy::new(&self.connection).await?)
    }

    /// Waits until there is a manager other than `before`.
    pub(super) async fn until_back(&self, before: Option<&str>) -> anyhow::Result<()> {
        let bus = DBusProxy::new(&self.connection).await?;
        let mut changes = bus
            .receive_name_owner_changed_with_args(&[(0, NAME)])
            .await?;
        let back = async {
            while self
                .owner()
                .await
                .is_none_or(|owner| Some(owner.as_str()) == before)
            {
                changes.next().await?;
            }
            Some(())
        };
        match tokio::time::timeout(BACK, back).await {
            Ok(Some(())) => Ok(()),
            _ => Err(refused(
                exit::UNAVAILABLE,
                "the manager went away and did not come back",
                self.hint(),
            )),
        }
    }

    /// Whether this is the ExecReload= of the manager's own unit: such a process is told the unit's main process (systemd.exec(5)).
    /// Until it ends, systemd does not start the unit again.
    pub(super) async fn holds_up_the_unit(&self) -> bool {
        let Some(main) = std::env::var("MAINPID")
            .ok()
            .and_then(|pid| pid.parse::<u32>().ok())
        else {
            return false;
        };
        let manager = async {
            let bus = DBusProxy::new(&self.connection).await.ok()?;
            let name = NAME.try_into().ok()?;
            bus.get_connection_unix_process_id(name).await.ok()
        };
        manager.await == Some(main)
    }

    /// The connection of the manager that is there now.
    pub(super) async fn owner(&self) -> Option<String> {
        let bus = DBusProxy::new(&self.connection).await.ok()?;
        let owner = bus.get_name_owner(NAME.try_into().ok()?).await.ok()?;
        Some(owner.to_string())
    }
}

/// What lies among the workers and is none, each in a sentence. A manager of a version before this call has nothing to say.
pub(super) async fn left_out(manager: &Manager1Proxy<'_>) -> Vec<String> {
    let answer = tokio::time::timeout(ANSWER, manager.list_left_out()).await;
    let sentences = answer.into_iter().flatten().flatten();
    sentences.map(|sentence| printable(&sentence)).collect()
}

/// Whether the bus's socket can not be opened, or its policy does not let us say what we want.
pub(super) fn is_denied(error: &zbus::Error) -> bool {
    use std::io::ErrorKind::PermissionDenied;
    match error {
        zbus::Error::InputOutput(error) | zbus::Error::Connection(error, _) => {
            error.kind() == PermissionDenied
        }
        zbus::Error::FDO(error) => matches!(**error, fdo::Error::AccessDenied(_)),
        _ => false,
    }
}

/// Whether a call failed because the manager ended before it answered.
pub(super) fn is_gone(error: &ControlError) -> bool {
    let error = match error {
        ControlError::Ending(_) => return true,
        ControlError::ZBus(error) => error,
        _ => return false,
    };
    // What the bus answers in its place, and what a manager answers whose object is not there yet.
    let zbus::Error::FDO(error) = error else {
        return false;
    };
    matches!(
        **error,
        fdo::Error::NoReply(_)
            | fdo::Error::ServiceUnknown(_)
            | fdo::Error::NameHasNoOwner(_)
            | fdo::Error::UnknownObject(_)
    )
}

/// The error without the wrapping that would say no more than that it came from the bus. A refusal by the bus names whom its policy
/// (`packaging/dbus-1/`) lets see what runs; what changes something everybody may ask for, and the manager refuses it.
pub(super) fn plain(error: ControlError) -> anyhow::Error {
    match error {
        ControlError::ZBus(error) if is_denied(&error) => refused(
            exit::NOT_PERMITTED,
            "permission denied: only root and members of the group tqserver-admin may see what runs",
            "run it with sudo; or run `sudo adduser $USER tqserver-admin`, and log in again"
                .to_owned(),
        ),
        ControlError::ZBus(error) => error.into(),
        error => error.into(),
    }
}
