//! TQServer: put a directory under `workers/`, get a URL.

pub mod builder;
pub mod cli;
pub mod config;
pub mod deploy;
pub mod dev;
pub mod inventory;
pub mod limits;
pub mod logging;
pub mod manager;
pub mod names;
pub mod plan;
pub mod proxy;
pub mod route;
pub mod systemd;
pub mod wire;
