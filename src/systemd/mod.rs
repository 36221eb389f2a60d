//! The one door to systemd: its bus, its units, its notifications, and a private one where none was booted.

mod bus;
mod cgroup;
pub mod keeper;
mod private;
mod state;
mod units;

pub use bus::{BusError, Loaded, Systemd, UnitChange, Usage};
pub use private::{Place, Private, PrivateError};
pub use state::{Activity, Ending, ServiceState};
pub use units::UnitPair;
