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
        let properties = command.properties(self.version(), ends);
        self.run_to_its_end(&command.unit, properties, LONGEST)
            .await
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
