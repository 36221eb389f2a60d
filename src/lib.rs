//! TQServer: put a directory under `workers/`, get a URL.

pub mod builder;
pub mod config;
pub mod deploy;
pub mod inventory;
pub mod limits;
pub mod manager;
pub mod names;
pub mod proxy;
pub mod route;
pub mod systemd;
pub mod wire;
