//! The one door to systemd: its bus, its units, its notifications, and a private one where none was booted.

mod authority;
mod build;
mod bus;
mod cgroup;
mod choice;
pub mod cleaner;
mod exec;
pub mod fd_store;
mod gate;
mod interface;
mod jobs;
pub mod keeper;
mod loaded;
pub mod netlink;
pub mod notify;
mod object_path;
mod oneshot;
mod place;
mod private;
mod properties;
pub mod security;
mod signals;
mod slice;
pub mod start;
mod state;
mod units;
mod usage;

pub use authority::{authorise, user_of};
pub use build::BuildUnit;
pub use bus::{BusError, STATE_UNIT, Systemd};
pub use cgroup::filters_addresses;
pub use choice::Kind;
pub use cleaner::Cleaner;
pub use loaded::Loaded;
pub use oneshot::{is_going_down, own_job, stop_unit, unit_state};
pub use place::Place;
pub use private::{Private, PrivateError};
pub use signals::UnitChange;
pub use slice::Known;
pub use state::{Activity, Ending, ServiceState};
pub use units::{Credential, OneOff, SHIPPED, STORED, Sandbox, StopSignal, UnitPair, Written};
pub use usage::{Group, Usage, available_memory};

/// Whether this machine was booted with systemd (sd_booted(3)).
pub fn is_booted() -> bool {
    sd_notify::booted().unwrap_or(false)
}
