//! Connecting to a socket that may refuse for a moment.

use std::future::Future;
use std::io;
use std::time::Duration;

/// Pauses between attempts to connect. A listening socket whose backlog is full, or that systemd is about to put in place, gives no
/// event to wait for.
const PAUSES: [Duration; 7] = [
    Duration::from_millis(2),
    Duration::from_millis(8),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(120),
    Duration::from_millis(300),
    Duration::from_millis(500),
];

/// Tries `connect`; if it is `patient`, again for about a second while what refuses may be over in a moment.
///
/// # Errors
/// As the last try.
pub(crate) async fn patiently<T, F>(patient: bool, connect: impl Fn() -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let pauses: &[Duration] = if patient { &PAUSES } else { &[] };
    for pause in pauses {
        match connect().await {
            Err(error) if is_passing(&error) => tokio::time::sleep(*pause).await,
            outcome => return outcome,
        }
    }
    connect().await
}

/// Whether a refusal may be over in a moment: the backlog is full, or the socket is just being put in place.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
    )
}
