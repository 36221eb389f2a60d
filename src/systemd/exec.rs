//! Runs a command in the surroundings of a worker, to its end.

use std::os::fd::OwnedFd;
use std::time::Duration;

use super::bus::{BusError, Systemd};
use super::interface::is_gone;
use super::state::Ending;
use super::units::OneOff;

/// It may take as long as whoever runs it likes: longer than anybody waits.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

impl Systemd {
    /// Runs a command to its end: `None` if that was a good one. `ends` are its standard input, output and error.
    ///
    /// # Errors
    /// When systemd can not be reached or refuses the unit, or somebody else has stopped it.
    pub async fn run_one_off(
        &self,
        command: &OneOff,
        ends: [OwnedFd; 3],
    ) -> Result<Option<Ending>, BusError> {
        let name = command.unit.as_str();
        let version = self.version();
        // With this end our copies of the descriptors, too.
        let asked = async move {
            let properties = command.properties(version, ends);
            let start = || {
                let manager = &self.manager;
                manager.start_transient_unit(name, "replace", &properties, &[])
            };
            self.gate.pass(start).await
        };
        match self.job("run", name, asked, LONGEST).await {
            Ok(()) => Ok(None),
            Err(BusError::Job { call, unit, result }) => {
                let ending = self.ending_of(name).await;
                let reset = || self.manager.reset_failed_unit(name);
                let _ = self.gate.pass(reset).await;
                ending.map(Some).ok_or(BusError::Job { call, unit, result })
            }
            Err(error) => Err(error),
        }
    }

    /// Sends a signal to all processes of a unit; one that is gone is no error.
    ///
    /// # Errors
    /// When systemd can not be reached, or refuses.
    pub async fn signal(&self, unit: &str, signal: i32) -> Result<(), BusError> {
        let send = || self.manager.kill_unit(unit, "all", signal);
        match self.gate.pass(send).await {
            Err(source) if !is_gone(&source) => Err(BusError::Call {
                call: "send a signal to",
                unit: unit.to_owned(),
                source: Box::new(source),
            }),
            _ => Ok(()),
        }
    }
}
