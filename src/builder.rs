//! How each type of worker is built and run: the only place that calls Cargo, Go, Node.js, Python, PHP and their like. What is data about
//! them, as where programs start, is in `types`.
//!
//! It names programs and runs builds. It starts no worker (systemd does) and decides nothing about when to build.

mod dependencies;
mod json;
mod output;
pub mod php;
mod program;
mod purpose;
mod recipe;
mod run;
mod runner;
mod stamp;
mod work;

pub use output::Listener;
pub use program::{Unavailable, is_installed, own_environment, own_programs};
pub use purpose::Purpose;
pub use run::run_command;
pub use runner::{Runner, UnitRunner};
pub use work::{BuildError, BuildFailure, Built, Order, build, build_commands, shared_target};

#[cfg(test)]
mod tests;
