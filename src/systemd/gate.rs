//! How many calls to systemd are under way at the same time, and what becomes of those that the bus has no room for.
//!
//! dbus-daemon lets a connection of the system bus wait for 128 replies (`max_replies_per_connection`, dbus-daemon(1)) and refuses
//! every further call. systemd answers one call after another anyway, so waiting here costs nothing.

use std::io;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use zbus::fdo;

/// Most calls of the manager's connection that wait for a reply. The rest of the 128 is for the calls of the control object, which anybody
/// may cause, and for zbus's own.
const IN_FLIGHT: usize = 32;
/// Longest wait for a turn: what a thousand workers ask for takes a busy systemd some ten seconds.
const TURN: Duration = Duration::from_secs(120);
/// How long a call is repeated that the bus had no room for.
const RETRIED: Duration = Duration::from_secs(25);
/// First and longest wait before that.
const AGAIN_FIRST: Duration = Duration::from_millis(20);
const AGAIN_MOST: Duration = Duration::from_secs(1);

/// What every call to systemd passes.
pub(super) struct Gate(Semaphore);

impl Gate {
    pub(super) fn new() -> Self {
        Self(Semaphore::new(IN_FLIGHT))
    }

    /// Makes a call when it is its turn, and again while the bus refuses it for want of room: then it has reached nobody.
    pub(super) async fn pass<T, E, F>(&self, call: impl Fn() -> F) -> zbus::Result<T>
    where
        F: Future<Output = Result<T, E>>,
        E: Into<zbus::Error>,
    {
        let Ok(Ok(_turn)) = tokio::time::timeout(TURN, self.0.acquire()).await else {
            let text = format!("systemd was busy with other calls for {} s", TURN.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text).into());
        };
        let (deadline, mut wait) = (Instant::now() + RETRIED, AGAIN_FIRST);
        loop {
            match call().await.map_err(Into::into) {
                Err(error) if has_no_room(&error) && Instant::now() + wait < deadline => {
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(AGAIN_MOST);
                }
                result => return result,
            }
        }
    }
}

/// Whether the bus, or systemd, has a limit that is reached.
fn has_no_room(error: &zbus::Error) -> bool {
    match error {
        zbus::Error::MethodError(name, ..) => {
            name.as_str() == "org.freedesktop.DBus.Error.LimitsExceeded"
        }
        zbus::Error::FDO(error) => matches!(**error, fdo::Error::LimitsExceeded(_)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;

    use super::*;

    fn refused() -> zbus::Error {
        fdo::Error::LimitsExceeded("too many replies".to_owned()).into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_for_which_there_was_no_room_is_made_again() {
        let (gate, calls) = (Gate::new(), AtomicUsize::new(0));
        let answer = gate.pass(async || match calls.fetch_add(1, Ordering::Relaxed) {
            0..3 => Err(refused()),
            call => Ok(call),
        });
        assert_eq!(answer.await.unwrap(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_for_which_there_never_is_room_fails_in_time() {
        let (gate, began) = (Gate::new(), Instant::now());
        let answer: zbus::Result<()> = gate.pass(async || Err(refused())).await;
        assert!(has_no_room(&answer.unwrap_err()));
        assert!(began.elapsed() <= RETRIED);
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_calls_at_once_are_never_more_than_the_bus_takes() {
        let (gate, (now, most)) = (Gate::new(), (AtomicUsize::new(0), AtomicUsize::new(0)));
        let call = async || {
            let under_way = now.fetch_add(1, Ordering::Relaxed) + 1;
            most.fetch_max(under_way, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(3)).await;
            now.fetch_sub(1, Ordering::Relaxed);
            Ok::<_, zbus::Error>(())
        };
        let calls = (0..1000).map(|_| gate.pass(call));
        assert!(
            join_all(calls)
                .await
                .into_iter()
                .all(|answer| answer.is_ok())
        );
        assert_eq!(most.into_inner(), IN_FLIGHT);
    }
}
