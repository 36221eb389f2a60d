//! Single questions to a systemd, and single calls, of those who are not its manager.

use std::time::Duration;

use futures_util::StreamExt;
use zbus::{Connection, OwnedObjectPath, connection};

use super::interface::{CALL, ManagerProxy, ROOT, is_gone, property};

/// The kind of job (`stop`, `restart`...) that systemd has under way for the unit this process is the main process of; `None`: it
/// is in no unit, or has no job.
pub async fn own_job(bus: &str) -> Option<String> {
    let ask = async {
        let connection = connection::Builder::address(bus)
            .method_timeout(CALL)
            .build()
            .await?;
        let manager = ManagerProxy::new(&connection).await?;
        let unit = manager.get_unit_by_pid(std::process::id()).await?;
        let job: (u32, OwnedObjectPath) =
            property(&connection, &unit, "org.freedesktop.systemd1.Unit", "Job").await?;
        if job.0 == 0 {
            return Ok(None);
        }
        let kind: String = property(
            &connection,
            &job.1,
            "org.freedesktop.systemd1.Job",
            "JobType",
        )
        .await?;
        Ok::<_, zbus::Error>(Some(kind))
    };
    ask.await.ok().flatten()
}

/// Whether this systemd is going down with all of its units: the machine is, or the user's session.
pub async fn is_going_down(bus: &str) -> bool {
    let ask = async {
        let connection = connection::Builder::address(bus)
            .method_timeout(CALL)
            .build()
            .await?;
        let root = OwnedObjectPath::try_from(ROOT)?;
        let interface = "org.freedesktop.systemd1.Manager";
        property::<String>(&connection, &root, interface, "SystemState").await
    };
    let state: zbus::Result<String> = ask.await;
    state.is_ok_and(|state| state == "stopping")
}

/// Stops a unit, which may be gone or on its way down already, and returns when it is down or `deadline` is over.
pub async fn stop_unit(bus: &str, unit: &str, deadline: Duration) {
    let stop = async {
        let connection = connection::Builder::address(bus)
            .method_timeout(CALL)
            .build()
            .await?;
        let manager = ManagerProxy::new(&connection).await?;
        let mut jobs = manager.receive_job_removed().await?;
        manager.subscribe().await?;
        let job = manager.stop_unit(unit, "replace").await?;
        while let Some(ended) = jobs.next().await {
            if ended.args()?.job() == &job.as_ref() {
                break;
            }
        }
        Ok::<_, zbus::Error>(())
    };
    match tokio::time::timeout(deadline, stop).await {
        Ok(Err(error)) if is_gone(&error) => {}
        Ok(Err(error)) => tracing::warn!("stop unit '{unit}': {error}; going on without"),
        Err(_) => tracing::warn!("unit '{unit}' did not stop in time; going on without"),
        Ok(Ok(())) => {}
    }
}

/// `ActiveState=` of a unit; `None`: it is not loaded, or there is no systemd on this bus.
pub async fn unit_state(connection: &Connection, unit: &str) -> Option<String> {
    let manager = ManagerProxy::new(connection).await.ok()?;
    let path = manager.get_unit(unit).await.ok()?;
    property(
        connection,
        &path,
        "org.freedesktop.systemd1.Unit",
        "ActiveState",
    )
    .await
    .ok()
}
