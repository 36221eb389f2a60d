//! What the fleet goes by, from the settings.

use std::path::Path;

use super::pair;
use crate::config::{Mode, Settings};
use crate::plan::Policy;
use crate::route::Development;
use crate::systemd::{Kind, STORED};

/// What the fleet goes by, from the settings; `server` names this run.
pub(super) fn policy(
    settings: &Settings,
    (kind, mode): (Kind, Mode),
    runtime_directory: &Path,
    snapshots: Option<&Path>,
    server: &str,
) -> Policy {
    let development = Development {
        server: server.to_owned(),
        hold: settings.hold,
    };
    let sandbox = pair::has_sandbox(kind, mode);
    let state = snapshots.and_then(Path::parent).map(|state| match sandbox {
        true => state.join(STORED),
        false => state.to_owned(),
    });
    Policy {
        front: settings.front.clone(),
        grace: settings.shutdown_grace,
        startup_delay: settings.startup_delay,
        restart_delay: settings.restart_delay,
        ports: settings.ports.clone(),
        own_users: sandbox,
        concurrent_starts: settings.concurrent_starts,
        build: mode == Mode::Development,
        development: (mode == Mode::Development).then_some(development),
        sockets: runtime_directory.to_owned(),
        snapshots: snapshots.map(Path::to_owned),
        state,
    }
}
