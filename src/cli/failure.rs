//! An error on its way out of the process: printed once, with a hint; the exit code that follows from it.

use super::client;
use super::exit::{self, Refused};
use crate::config::Problems;

/// Prints an error with its causes once, then the next command to type; returns the exit code.
pub(super) fn explain(error: &anyhow::Error) -> u8 {
    if let Some(problems) = error.downcast_ref::<Problems>() {
        eprintln!("{problems}");
        return exit::CONFIG;
    }
    let refused = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Refused>());
    eprintln!("error: {}", crate::manager::explain(error.as_ref()));
    let (code, hint) = match refused {
        Some(refused) => (refused.code, refused.hint.clone()),
        None => guess(error),
    };
    if let Some(hint) = hint {
        eprintln!("hint: {hint}");
    }
    code
}

/// The exit code and hint that follow from what failed.
fn guess(error: &anyhow::Error) -> (u8, Option<String>) {
    use crate::manager::control::ControlError;
    use crate::manager::{LeftError, ManagerError};
    use crate::systemd::{BusError, PrivateError};
    // What the bus refuses is no I/O error, and wrapped in the error of who asked.
    let bus = match (
        error.downcast_ref::<ManagerError>(),
        error.downcast_ref::<ControlError>(),
    ) {
        (Some(ManagerError::Name(error)), _) | (_, Some(ControlError::ZBus(error))) => Some(error),
        (Some(ManagerError::Bus(BusError::Connect { source, .. })), _) => Some(&**source),
        _ => error.downcast_ref(),
    };
    let file = error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied)
    });
    if file || bus.is_some_and(client::is_denied) {
        return (
            exit::NOT_PERMITTED,
            Some("run it as root, or as the user who owns the files".to_owned()),
        );
    }
    let no_systemd = error.chain().any(|cause| {
        cause.is::<PrivateError>()
            || matches!(cause.downcast_ref(), Some(LeftError::Bus(_)))
            || matches!(
                cause.downcast_ref::<ManagerError>(),
                Some(
                    ManagerError::Bus(_)
                        | ManagerError::BusLost
                        | ManagerError::Left(LeftError::Bus(_))
                )
            )
    });
    (
        if no_systemd {
            exit::UNAVAILABLE
        } else {
            exit::FAILED
        },
        None,
    )
}
